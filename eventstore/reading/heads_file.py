"""All accounts as a frame left them, in a file: written and read piece by piece.

A header of HEADER_BYTES bytes, the accounts' rows (`heads.Rows`), their names; then the SHA-256 of
all before it.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import NamedTuple
from uuid import UUID

import numpy as np

from eventstore.reading.errors import Where
from eventstore.reading.heads import HEAD_WORDS, Heads, Names, Rows
from eventstore.reading.names import heads_name
from eventstore.reading.writing import whole_file
from eventstore.segments.chain import Link
from eventstore.segments.errors import translated
from eventstore.segments.files import Files
from eventstore.segments.frame import Identity

MAGIC = b"TNDHDS\xff\xff"
FORMAT = 1
_HEADER = Struct("<8sQ16s16sQ3q32s2q")
HEADER_BYTES = _HEADER.size
_HASH_BYTES = 32
_ROW_BYTES = HEAD_WORDS * 8
_PIECE_BYTES = 2**22 // _ROW_BYTES * _ROW_BYTES


class Kept(NamedTuple):
    """The accounts after a frame: a copy of their rows, and their names, which do not change."""

    link: Link
    rows: Rows
    names: Names


def copy_of(heads: Heads, link: Link) -> Kept:
    """The accounts as they are now; `link` is that of the last frame."""
    return Kept(link, heads.rows[: len(heads)].copy(), heads.names[: heads.name_bytes])


def write(files: Files, folder: Path, identity: Identity, kept: Kept) -> None:
    """Write the file of these accounts; it has its name when it is whole and durable."""
    cluster, group, branch = identity
    seq, epoch, time_us, hash_ = kept.link
    sizes = len(kept.rows), len(kept.names)
    fields = (MAGIC, FORMAT, cluster.bytes, group.bytes, branch, seq, epoch, time_us, hash_, *sizes)
    digest, offset = sha256(), 0
    with whole_file(files, folder / heads_name(seq)) as output:
        rows = kept.rows.reshape(-1).view(np.uint8).data
        for part in (memoryview(_HEADER.pack(*fields)), rows, kept.names.data):
            for at in range(0, len(part), _PIECE_BYTES):
                piece = part[at : at + _PIECE_BYTES]
                digest.update(piece)
                output.write(offset, piece)
                offset += len(piece)
        output.write(offset, digest.digest())


def read(files: Files, folder: Path, seq: int, identity: Identity, heads: Heads) -> Link:
    """Fill empty `heads` with the accounts after a frame; the link of that. Raises KeptDamaged,
    FileFailed: the heads are of no use then.
    """
    reader = _Reader(files, folder / heads_name(seq))
    magic, version, cluster, group, branch, *rest = _HEADER.unpack(reader.read(HEADER_BYTES))
    link, (rows, names) = Link(*rest[:4]), rest[4:]
    found = Identity(UUID(bytes=cluster), UUID(bytes=group), branch), link.seq
    for what, is_, should_be in (
        ("magic", magic.hex(), MAGIC.hex()),
        ("format", version, FORMAT),
        ("list and frame", found, (identity, seq)),
    ):
        reader.start.demand(what, is_, should_be)
    for data in reader.pieces(rows * _ROW_BYTES):
        heads.load(data, b"")
    for data in reader.pieces(names):
        heads.load(b"", data)
    expected = reader.digest.hexdigest()
    reader.start.demand("hash", reader.read(_HASH_BYTES).hex(), expected)
    return link


class _Reader:
    """A file from its beginning, and the digest of what was read."""

    def __init__(self, files: Files, path: Path) -> None:
        self._files, self._path, self._offset = files, path, 0
        self.start = Where(str(path), 0)
        self.digest = sha256()

    def pieces(self, length: int) -> Iterator[bytes]:
        """The next bytes, piece by piece."""
        for at in range(0, length, _PIECE_BYTES):
            yield self.read(min(_PIECE_BYTES, length - at))

    def read(self, length: int) -> bytes:
        """The next bytes. Raises KeptDamaged if there are fewer."""
        with translated(self._path):
            data = self._files.read(self._path, self._offset, length)
        where = Where(str(self._path), self._offset)
        where.demand("number of bytes that are there", len(data), length)
        self.digest.update(data)
        self._offset += length
        return data
