"""Writes a run: entries come in the order of their accounts, piece by piece."""

from zlib import crc32

import numpy as np

from eventstore.reading.run_format import (
    HEADER_BYTES,
    PAGE_BYTES,
    SPANS_IN_GROUP,
    Header,
    encode,
)
from eventstore.reading.shapes import SPAN, Spans, Words
from eventstore.reading.sorting import spans_of
from eventstore.reading.writing import Output
from ledger.errors import Bug

# What a span can count.
_COUNT_MAX = 2**32 - 1


class _Pages:
    """Bytes one behind the other, from a place of the file on, with the sum of each page."""

    def __init__(self, output: Output, offset: int) -> None:
        self._output, self._offset = output, offset
        self._rest = bytearray()
        self.sums: list[int] = []

    def add(self, data: memoryview) -> None:
        """The next ones."""
        whole = (len(self._rest) + len(data)) // PAGE_BYTES * PAGE_BYTES
        if not whole:
            self._rest += data
            return
        split = whole - len(self._rest)
        if self._rest:
            self._write(memoryview(self._rest + data[:split]))
        else:
            # As large pieces come, mostly.
            self._write(data[:split])
        self._rest = bytearray(data[split:])

    def end(self) -> None:
        """There are no more."""
        self._rest += bytes(-len(self._rest) % PAGE_BYTES)
        self._write(memoryview(self._rest))

    def _write(self, pages: memoryview) -> None:
        self._output.write(self._offset, pages)
        self._offset += len(pages)
        self.sums += [crc32(pages[at : at + PAGE_BYTES]) for at in range(0, len(pages), PAGE_BYTES)]


class RunWriter:
    """One run. `header.entries` is how many entries will come; how many accounts they have is found
    on the way.
    """

    def __init__(self, output: Output, header: Header) -> None:
        if header.entries > _COUNT_MAX:
            raise Bug(f"a run has at most {_COUNT_MAX:,} entries, and not {header.entries:,}")
        self._output, self._header = output, header
        self._entries = _Pages(output, HEADER_BYTES)
        self._spans = _Pages(output, HEADER_BYTES + header.entry_pages * PAGE_BYTES)
        self._groups: list[int] = []
        # The account that the next entry may have, too.
        self._open: Spans = np.empty(0, SPAN)
        self._added = self._accounts = 0

    def add(self, words: Words) -> None:
        """The next entries."""
        self._entries.add(words.reshape(-1).view(np.uint8).data)
        spans = spans_of(words, self._added)
        self._added += len(words)
        if len(self._open) and len(spans) and self._open["account"][0] == spans["account"][0]:
            spans[0]["first"], spans[0]["number"] = self._open[0]["first"], self._open[0]["number"]
            spans[0]["count"] += self._open[0]["count"]
        else:
            spans = np.concatenate([self._open, spans])
        self._open = spans[-1:].copy()
        self._put(spans[:-1])

    def finish(self) -> Header:
        """All entries have come; the header, as it was written."""
        self._put(self._open)
        if self._added != self._header.entries:
            raise Bug(f"{self._added} entries have come for a run of {self._header}")
        self._entries.end()
        self._spans.end()
        header = self._header._replace(accounts=self._accounts)
        sums = np.array(self._entries.sums + self._spans.sums, "<u4").tobytes()
        groups = np.array(self._groups, "<u4").tobytes()
        self._output.write(HEADER_BYTES + header.pages * PAGE_BYTES, sums + groups)
        self._output.write(0, encode(header, [sums, groups]))
        return header

    def _put(self, spans: Spans) -> None:
        first = -self._accounts % SPANS_IN_GROUP
        self._groups += spans["account"][first::SPANS_IN_GROUP].tolist()
        self._accounts += len(spans)
        self._spans.add(np.ascontiguousarray(spans).view(np.uint8).data)
