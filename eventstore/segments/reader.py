"""Reading a list, from this or another process: no lock is taken, and nothing is written.

Whoever reads says up to where: what is behind the bound may be half written, or cut again.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from eventstore.segments.chain import GENESIS, check_list, follow, link_of
from eventstore.segments.errors import Damaged, NoList, NotThere, Where, translated
from eventstore.segments.files import DISK, Files
from eventstore.segments.frame import (
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    Frame,
    Identity,
    decode,
    length_of,
)
from eventstore.segments.names import segment_firsts, segment_name
from eventstore.segments.tail import End, decide_end
from ledger.errors import Bug

# What is read at once, and kept while one of its frames is in use. It ends in the middle of a
# frame, which is read again: the larger it is, the less.
_CHUNK_BYTES = 8 * FRAME_BYTES_MAX
# What is read at once to hop from header to header.
_HOP_BYTES = 2**16
# Of so many segments it is kept where their frames begin, 8 bytes a frame.
_INDEXES_MAX = 64


class Tail(NamedTuple):
    """The last segment: the seq that names it, all its bytes, and where the list ends in them."""

    first: int
    data: bytes
    end: End


class Reader:
    """A list as others have written it, for one thread."""

    def __init__(self, folder: Path, identity: Identity, *, files: Files = DISK) -> None:
        self._folder, self._identity, self._files = folder, identity, files
        # The first seqs of the segments, as last looked at.
        self._firsts: list[int] = []
        # Of a segment: where its frames begin, and where the next one would.
        self._indexes: dict[int, array[int]] = {}

    def read(self, start: int = 1, *, until: int) -> Iterator[Frame]:
        """The frames from `start` to `until`, each checked to follow on the one before.

        `until` is no more than what is answerable. Memory is bounded by a few frames. Raises
        Damaged, OtherList, NewerFormat, NotThere, NoList, FileFailed.
        """
        before = link_of(self.find(start - 1).header) if start > 1 else GENESIS
        while before.seq < until:
            first = self._segment_with(before.seq + 1)
            offset = self._indexes[first][before.seq + 1 - first]
            for frame, where in self._frames(first, offset):
                before = follow(before, frame.header, self._identity, where)
                yield frame
                if before.seq == until:
                    return

    def find(self, seq: int) -> Frame:
        """One frame, checked by its own hash. Raises as `read` does."""
        first = self._segment_with(seq)
        index, at = self._indexes[first], seq - first
        where = Where(str(self._path(first)), index[at])
        frame = decode(self._bytes(first, index[at], index[at + 1] - index[at]), where)
        check_list(frame.header, self._identity, where)
        where.demand("seq", frame.header.seq, seq)
        return frame

    def tail(self) -> Tail:
        """The last segment, and where the list ends; all of the segment before is checked too.

        Only who has locked the folder may believe it, and only when it has written the bytes anew
        and flushed them. To others it says what there is to look at.
        """
        self._look()
        first = self._firsts[-1]
        before = GENESIS
        for frame in self.read(self._firsts[-2:][0], until=first - 1):
            before = link_of(frame.header)
        data = b"".join(self._chunks(first))
        return Tail(first, data, decide_end(data, str(self._path(first)), before, self._identity))

    def _chunks(self, first: int) -> Iterator[bytes]:
        offset = 0
        while data := self._bytes(first, offset, _CHUNK_BYTES):
            yield data
            offset += len(data)

    def _frames(self, first: int, offset: int) -> Iterator[tuple[Frame, Where]]:
        """The frames of a segment, from an offset to its end."""
        file = str(self._path(first))
        while data := self._bytes(first, offset, _CHUNK_BYTES):
            view, at = memoryview(data), 0
            # What a chunk ends with may be cut off in it, and not in the file.
            whole = len(data) - FRAME_BYTES_MAX if len(data) == _CHUNK_BYTES else len(data) - 1
            while at <= whole:
                where = Where(file, offset + at)
                frame = decode(view[at:], where)
                yield frame, where
                at += frame.length
            offset += at

    def _segment_with(self, seq: int) -> int:
        """The first seq of the segment that holds a frame; its index goes up to that frame."""
        if seq < 1:
            raise Bug(f"frame {seq} was asked for, and frames are numbered from 1")
        if not self._firsts:
            self._look()
        first = self._segment_of(seq)
        if not self._index_up_to(seq, first):
            # It may be in a segment that was not there before.
            self._look()
            first = self._segment_of(seq)
            if not self._index_up_to(seq, first):
                raise self._missing(seq, first)
        return first

    def _segment_of(self, seq: int) -> int:
        return self._firsts[bisect_right(self._firsts, seq) - 1]

    def _index_up_to(self, seq: int, first: int) -> bool:
        """Hop from header to header, on from where the index of a segment ends, until it goes up to
        a frame; whether it does.
        """
        index, where = self._index(first), str(self._path(first))
        hop, hop_at = b"", index[-1]
        while first + len(index) - 2 < seq:
            if index[-1] + HEADER_BYTES > hop_at + len(hop):
                hop_at = index[-1]
                hop = self._bytes(first, hop_at, _HOP_BYTES)
                if not hop:
                    return False
            header = hop[index[-1] - hop_at :][:HEADER_BYTES]
            index.append(index[-1] + length_of(header, Where(where, index[-1])))
        return True

    def _index(self, first: int) -> "array[int]":
        index = self._indexes.pop(first, None) or array("Q", [0])
        if len(self._indexes) >= _INDEXES_MAX:
            del self._indexes[next(iter(self._indexes))]
        # The one that was asked for last stands last, and goes last.
        self._indexes[first] = index
        return index

    def _missing(self, seq: int, first: int) -> Damaged | NotThere:
        """Why a frame is not in the segment that should hold it."""
        index = self._indexes[first]
        last = first + len(index) - 2
        if first == self._firsts[-1]:
            return NotThere(self._folder, seq, last)
        following = self._firsts[self._firsts.index(first) + 1]
        where = Where(str(self._path(first)), index[-1])
        return Damaged(*where, "seq of the last frame before", last, following - 1)

    def _look(self) -> None:
        """See which segments there are. Raises NoList, and Damaged if the first one is gone."""
        with translated(self._folder):
            self._firsts = segment_firsts(self._files.names(self._folder))
        if not self._firsts:
            raise NoList(self._folder)
        Where(str(self._path(self._firsts[0])), 0).demand("first seq", self._firsts[0], 1)

    def _path(self, first: int) -> Path:
        return self._folder / segment_name(first)

    def _bytes(self, first: int, offset: int, length: int) -> bytes:
        path = self._path(first)
        with translated(path):
            return self._files.read(path, offset, length)
