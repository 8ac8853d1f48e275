"""Frames of a list that nobody decided: their bytes are all that matters."""

import random
from functools import cache
from pathlib import Path
from uuid import UUID

import numpy as np

from eventstore.rows import COMMAND, DETAIL, Outcomes
from eventstore.segments.chain import GENESIS, Link, Sealed, seal
from eventstore.segments.files import Files
from eventstore.segments.frame import Body, Draft, Identity
from eventstore.segments.writer import List, begin

IDENTITY = Identity(UUID(int=0xC1), UUID(int=0x6B), 1)


@cache
def body(commands: int = 0, salt: int = 0) -> Body:
    """So many commands with texts, and a detail for every third of them."""
    chance = random.Random(f"{commands}-{salt}")
    rows = np.frombuffer(chance.randbytes(commands * COMMAND.itemsize), COMMAND).copy()
    rows["text"] = [chance.randrange(20) for _ in range(commands)]
    details = np.zeros(len(range(0, commands, 3)), DETAIL)
    details["command"] = range(0, commands, 3)
    details["a"] = salt
    codes = np.frombuffer(bytes(chance.randrange(17) for _ in range(commands)), np.uint8)
    return Body(rows, Outcomes(codes, details), chance.randbytes(int(rows["text"].sum())))


def draft(
    before: Link, commands: int = 0, salt: int = 0, *, epoch: int = 1, content: Body | None = None
) -> Draft:
    """What follows on a frame."""
    content = body(commands, salt) if content is None else content
    return Draft(before.seq + 1, before.time_us + 1 + salt, epoch, 7, 99, 1, content)


def drafts(before: Link, sizes: list[int], salt: int = 0) -> list[Draft]:
    """What follows on a frame, one behind the other, with so many commands each."""
    made: list[Draft] = []
    for size in sizes:
        made.append(draft(before, size, salt))
        before = Link(made[-1].seq, 1, made[-1].time_us, b"")
    return made


def sealed(
    sizes: list[int], flushed: list[int], before: Link = GENESIS, salt: int = 0
) -> list[Sealed]:
    """Frames with so many commands each, each made when the list was flushed so far."""
    frames: list[Sealed] = []
    for size, so_far in zip(sizes, flushed, strict=True):
        frames.append(seal(draft(before, size, salt), IDENTITY, before, so_far))
        before = frames[-1].link
    return frames


def add(list_: List, sizes: list[int], salt: int = 0) -> list[Sealed]:
    """Append frames with so many commands each."""
    return list_.append(drafts(list_.last, sizes, salt))


def to_be_added(list_: List, sizes: list[int], salt: int = 0) -> list[bytes]:
    """The hashes of what `add` would append."""
    hashes_, before = [], list_.last
    for made in drafts(before, sizes, salt):
        before = seal(made, IDENTITY, before, list_.flushed).link
        hashes_.append(before.hash)
    return hashes_


def opened(folder: Path, files: Files, *, segment_bytes: int = 2**20) -> List:
    return List.open(
        folder, IDENTITY, files=files, segment_bytes=segment_bytes, room_bytes_min=1000
    )


def begun(folder: Path, files: Files, *, segment_bytes: int = 2**20) -> List:
    """A new list."""
    begin(folder, files=files)
    return opened(folder, files, segment_bytes=segment_bytes)


def hashes(list_: List) -> list[bytes]:
    """What is in a list, flushed or not."""
    return [frame.header.hash for frame in list_.read(until=list_.last.seq)]
