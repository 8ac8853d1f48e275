"""The sealed segments of a list: those that nothing is appended to any more, and that are durable
whole.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from eventstore.segments.chain import Link, link_of
from eventstore.segments.errors import translated
from eventstore.segments.files import DISK
from eventstore.segments.names import segment_firsts
from eventstore.segments.reader import Reader


class Segment(NamedTuple):
    """Consecutive frames: the seq of the first, and the last one, whose hash stands for all that
    come before it too.
    """

    first: int
    last: Link

    @property
    def file_name(self) -> str:
        """The file of its history; in the order of names they are in that of the list."""
        return f"{self.first:020d}-{self.last.seq:020d}.parquet"


def sealed_segments(folder: Path, reader: Reader, until: int) -> Iterator[Segment]:
    """Those of a list that is durable up to a frame. Raises as `Reader.find` does."""
    with translated(folder):
        firsts = segment_firsts(DISK.names(folder))
    for first, following in pairwise(firsts):
        if following - 1 <= until:
            yield Segment(first, link_of(reader.find(following - 1).header))
