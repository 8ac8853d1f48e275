"""The names of the files of a list; pure.

00000000000000000001.segment        frames from this seq on; the last one is open
00000000000000000001-400-ab12.cut   what was cut of a segment, from this byte on, and its hash
*.tmp                               one of these that was being written when its writer ended
holder                              the process that appends, or has last done so
"""

import re
from collections.abc import Iterable
from hashlib import sha256

HOLDER = "holder"

_SEGMENT = re.compile(r"(\d{20})\.segment")
_SCRATCH = re.compile(r"\d{20}(\.segment|-\d+-[0-9a-f]{16}\.cut)\.tmp")


def segment_name(first: int) -> str:
    """The file of the segment whose first frame has this seq."""
    return f"{first:020d}.segment"


def segment_firsts(names: Iterable[str]) -> list[int]:
    """The first seqs of those names that are of segments, rising."""
    return sorted(int(found[1]) for name in names if (found := _SEGMENT.fullmatch(name)))


def cut_name(first: int, offset: int, data: bytes) -> str:
    """The file that keeps what was cut of a segment. The same bytes cut again, because a crash came
    in between, go into the same file; others never do.
    """
    return f"{first:020d}-{offset}-{sha256(data).hexdigest()[:16]}.cut"


def scratch_name(name: str) -> str:
    """The file under which another one is written, until it is flushed."""
    return f"{name}.tmp"


def is_scratch(name: str) -> bool:
    """Whether a crash has left this file: it was never believed, and can be removed."""
    return _SCRATCH.fullmatch(name) is not None
