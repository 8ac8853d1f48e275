"""Several runs made into one, with little memory, a piece at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eventstore.reading.names import run_name
from eventstore.reading.run import Run
from eventstore.reading.run_format import Header
from eventstore.reading.run_writer import RunWriter
from eventstore.reading.shapes import ENTRY_WORDS, Words
from eventstore.reading.sorting import merge
from eventstore.reading.writing import whole_file
from eventstore.segments.files import Files

# Entries that are read of each run at once, and written.
_PIECE = 2**13
_WRITTEN = 2**15


class _Sources:
    """Runs, of which a piece each is in memory."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self.pieces = np.empty((len(runs), _PIECE, ENTRY_WORDS), np.uint64)
        self.starts, self.ends, self.are_last = np.zeros((3, len(runs)), np.int64)
        self._read = [0] * len(runs)

    def merge_into(self, into: Words) -> int:
        """Write the next entries, as many as there is room for; gives how many."""
        filled = 0
        while filled < len(into):
            self._fill()
            filled += merge(self.pieces, self.starts, self.ends, self.are_last, into[filled:])
        return filled

    def _fill(self) -> None:
        """Read on where a piece is used up."""
        for index, run in enumerate(self._runs):
            if self.starts[index] == self.ends[index] and not self.are_last[index]:
                start = self._read[index]
                end = min(start + _PIECE, run.header.entries)
                words = run.entries(start, end).view(np.uint64).reshape(-1, ENTRY_WORDS)
                self.pieces[index, : end - start] = words
                self.starts[index], self.ends[index] = 0, end - start
                self._read[index] = end
                self.are_last[index] = end == run.header.entries


def merged(files: Files, folder: Path, runs: Sequence[Run]) -> Iterator[None]:
    """Make one run of these, which follow on each other; when this has ended it is there. Between
    its steps other work can be done. Raises KeptDamaged, FileFailed.
    """
    first, last = runs[0].header, runs[-1].header
    level = max(run.header.level for run in runs) + 1
    entries = sum(run.header.entries for run in runs)
    header = Header(first.identity, first.after, last.until, level, entries, 0)
    with whole_file(files, folder / run_name(first.after, last.until)) as output:
        writer, sources = RunWriter(output, header), _Sources(runs)
        into = np.empty((_WRITTEN, ENTRY_WORDS), np.uint64)
        written = 0
        while written < entries:
            count = sources.merge_into(into[: entries - written])
            writer.add(into[:count])
            written += count
            yield
        writer.finish()


def due(levels: Sequence[int], count: int) -> int | None:
    """Where among runs of these levels, oldest first, so many stand side by side that are of one
    level and to be merged; None if there are none.
    """
    for start in range(len(levels) - count, -1, -1):
        if len(set(levels[start : start + count])) == 1:
            return start
    return None
