"""A run that is read: whatever is used of it was checked before."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from eventstore.reading.errors import Where
from eventstore.reading.names import run_name
from eventstore.reading.run_format import (
    HEADER_BYTES,
    PAGE_BYTES,
    SPANS_IN_GROUP,
    Header,
    check_tables,
    decode,
)
from eventstore.reading.shapes import ENTRY, SPAN, Entries, Spans
from eventstore.segments.errors import translated
from eventstore.segments.files import Files
from eventstore.segments.frame import Identity

# What `verify` reads at once.
_PAGES_AT_ONCE = 256
# Groups of spans that a run keeps in memory, of some 14 KB: those that were used last.
_GROUPS_KEPT = 256


class Run:
    """Any number of threads may read it. In memory are some 4 bytes of each 16 KiB, and spans."""

    def __init__(self, files: Files, folder: Path, header: Header, tables: bytes) -> None:
        self.path = folder / run_name(header.after, header.until)
        self.header = header
        self._files = files
        self._sums: NDArray[np.uint32] = np.frombuffer(tables, "<u4", header.pages)
        self._spans = lru_cache(_GROUPS_KEPT)(self._read_group)
        self._groups = np.frombuffer(tables, "<u4", header.groups, 4 * header.pages)

    @classmethod
    def open(cls, files: Files, folder: Path, after: int, until: int, identity: Identity) -> "Run":
        """Raises KeptDamaged, FileFailed."""
        path = folder / run_name(after, until)
        with translated(path):
            head = files.read(path, 0, HEADER_BYTES)
            header = decode(head, str(path))
            at = HEADER_BYTES + header.pages * PAGE_BYTES
            # One byte more, so that a longer file is seen.
            tables = files.read(path, at, header.file_bytes - at + 1)
        where = Where(str(path), at)
        where.demand("number of bytes of the tables", len(tables), header.file_bytes - at)
        check_tables(head, [tables], str(path))
        found = header.identity, header.after, header.until
        Where(str(path), 0).demand("list and frames", found, (identity, after, until))
        return cls(files, folder, header, tables)

    def find(self, account: int) -> "InRun | None":
        """The entries of an account that are in here; None if there are none."""
        group = int(np.searchsorted(self._groups, account, side="right")) - 1
        if group < 0:
            return None
        accounts, spans = self._spans(group)
        at = int(np.searchsorted(accounts, account))
        if at == len(accounts) or accounts[at] != account:
            return None
        _, length, first, number = spans[at].tolist()
        offset = self._offset_of(group) + at * SPAN.itemsize
        where = Where(str(self.path), HEADER_BYTES + offset)
        is_inside = length > 0 and 0 <= first <= self.header.entries - length
        where.demand("whether a span is inside of the run", is_inside, True)
        return InRun(self, account, first, number, length)

    def entries(self, start: int, end: int) -> Entries:
        """Those from place `start` on and before `end`."""
        size = (end - start) * ENTRY.itemsize
        return np.frombuffer(self._bytes(start * ENTRY.itemsize, size), ENTRY)

    def verify(self) -> None:
        """Read all of it. Raises KeptDamaged naming the first page that is not as it was."""
        end = self.header.pages * PAGE_BYTES
        for at in range(0, end, _PAGES_AT_ONCE * PAGE_BYTES):
            self._bytes(at, min(_PAGES_AT_ONCE * PAGE_BYTES, end - at))

    def _read_group(self, group: int) -> tuple[NDArray[np.uint32], Spans]:
        """A group of spans, and their accounts by themselves."""
        count = min(SPANS_IN_GROUP, self.header.accounts - group * SPANS_IN_GROUP)
        data = self._bytes(self._offset_of(group), count * SPAN.itemsize)
        spans = np.frombuffer(bytes(data), SPAN)
        return np.ascontiguousarray(spans["account"]), spans

    def _offset_of(self, group: int) -> int:
        """Where a group begins, behind the header."""
        first = group * SPANS_IN_GROUP * SPAN.itemsize
        return self.header.entry_pages * PAGE_BYTES + first

    def _bytes(self, offset: int, length: int) -> memoryview:
        """Some of the pages' bytes; all pages that they lie in were checked."""
        first, last = offset // PAGE_BYTES, -(-(offset + length) // PAGE_BYTES)
        with translated(self.path):
            data = self._files.read(
                self.path, HEADER_BYTES + first * PAGE_BYTES, (last - first) * PAGE_BYTES
            )
        pages = memoryview(data)
        for index, expected in enumerate(self._sums[first:last].tolist()):
            page = pages[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]
            where = Where(str(self.path), HEADER_BYTES + (first + index) * PAGE_BYTES)
            where.demand("CRC-32 of a page", crc32(page), expected)
        start = offset - first * PAGE_BYTES
        return pages[start : start + length]


class InRun(NamedTuple):
    """Entries of one account: from which place on they stand, the number of the first, and how many
    there are.
    """

    run: Run
    account: int
    place: int
    first: int
    length: int

    def read(self, start: int, end: int) -> Entries:
        """Those from `start` on and before `end`, counted from the first."""
        found = self.run.entries(self.place + start, self.place + end)
        offset = HEADER_BYTES + (self.place + start) * ENTRY.itemsize
        where = Where(str(self.run.path), offset)
        are_its = bool((found["account"] == self.account).all())
        numbers = np.arange(self.first + start, self.first + end)
        where.demand("whether entries are the account's", are_its, True)
        where.demand("whether numbers are rising", np.array_equal(found["number"], numbers), True)
        return found
