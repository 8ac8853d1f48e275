"""The names of snapshots' files.

00000000000000000042.snapshot       the state after the frame with this seq
00000000000000000042.snapshot.tmp   one that was being written when its writer ended
"""

import re
from collections.abc import Iterable

# Of the folder, in that of the list.
FOLDER = "snapshots"

_SNAPSHOT = re.compile(r"(\d{20})\.snapshot")
_SCRATCH = re.compile(r"\d{20}\.snapshot\.tmp")


def snapshot_name(seq: int) -> str:
    """The file of the snapshot after the frame with this seq."""
    return f"{seq:020d}.snapshot"


def snapshot_seqs(names: Iterable[str]) -> list[int]:
    """The seqs of those names that are of snapshots, rising."""
    return sorted(int(found[1]) for name in names if (found := _SNAPSHOT.fullmatch(name)))


def scratch_name(seq: int) -> str:
    """The file under which a snapshot is written, until it is flushed."""
    return f"{snapshot_name(seq)}.tmp"


def is_scratch(name: str) -> bool:
    """Whether it is a snapshot that was not flushed."""
    return _SCRATCH.fullmatch(name) is not None
