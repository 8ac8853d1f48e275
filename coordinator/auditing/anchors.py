"""Anchors: how many entries each account has and where its chain ends, noted in a file.

Who can rewrite an account's whole history, its chain and its row cannot rewrite a file that is kept
elsewhere: every later chain must still pass through it. The file is read and written as a stream:

    {"tandem": "anchors 1", "cluster": "tandem", "taken_at": "2026-11-25T02:00:00.000000Z"}
    ["alice", 2, "pXq...="]                          in the order of the accounts' ids
    {"accounts": 1, "sha256": "5f0e..."}             the digest of all lines before this one
"""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

_KIND = "anchors 1"


class Anchor(NamedTuple):
    """An account's number of entries, and its chain after them."""

    account: str
    number: int
    chain: str


class Header(msgspec.Struct, frozen=True):
    tandem: str
    cluster: str
    taken_at: datetime


class Footer(msgspec.Struct, frozen=True):
    accounts: int
    sha256: str


class BrokenAnchors(Exception):
    """A file that holds no anchors, or not those that were written; the text says why."""


_decode_anchor = msgspec.json.Decoder(Anchor).decode
_encode = msgspec.json.Encoder().encode


def write_anchors(
    path: Path, cluster: str, taken_at: datetime, anchors: Iterable[Anchor]
) -> Footer:
    """Write a file of anchors; it has its name once it is whole. Raises OSError."""
    digest, count = hashlib.sha256(), 0
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        header = _encode(Header(_KIND, cluster, taken_at)) + b"\n"
        digest.update(header)
        file.write(header)
        for anchor in anchors:
            line = _encode(anchor) + b"\n"
            digest.update(line)
            file.write(line)
            count += 1
        footer = Footer(count, digest.hexdigest())
        file.write(_encode(footer) + b"\n")
    part.replace(path)
    return footer


def check_anchors(path: Path) -> tuple[Header, Footer]:
    """Read a file once, to see that it is whole and unchanged. Raises BrokenAnchors, OSError."""
    digest, count, last = hashlib.sha256(), -1, b""
    with path.open("rb") as file:
        first = file.readline()
        for line in file:
            digest.update(last or first)
            last = line
            count += 1
    try:
        header = msgspec.json.decode(first, type=Header)
        footer = msgspec.json.decode(last, type=Footer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenAnchors(f"{path} is no whole file of anchors: {error}") from error
    if header.tandem != _KIND:
        raise BrokenAnchors(f"{path} is of the kind {header.tandem!r}, not {_KIND!r}")
    if footer != Footer(count, digest.hexdigest()):
        raise BrokenAnchors(f"{path} is not what was written: it does not fit its own digest")
    return header, footer


def read_anchors(path: Path) -> Iterator[Anchor]:
    """The anchors of a file that was checked."""
    with path.open("rb") as file:
        file.readline()
        for line in file:
            if line.startswith(b"["):
                yield _decode_anchor(line)
