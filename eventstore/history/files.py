"""Makes the files of a list's sealed segments, and holds them against the list.

A file has its name when it is whole and durable, and is never changed: who is interrupted begins
again where no file is.
"""

import os
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
from pyarrow.parquet import ParquetFile, ParquetWriter

from eventstore.history.errors import HistoryDiffers, HistoryMissing
from eventstore.history.rows import COLUMNS, History, Row, booked
from eventstore.history.schema import batch_of, said_by, schema_of
from eventstore.history.sealed import Segment, sealed_segments
from eventstore.look import ListView
from eventstore.segments.files import DISK
from eventstore.segments.frame import Frame

# A row group; so many rows are held in memory.
_ROWS = 20_000
# More than any node has.
_ACCOUNTS_MAX = 2**28
_SUFFIX = ".parquet"


class Made(NamedTuple):
    """How many files were written, and how many were there; and the last frame that is in them."""

    written: int
    left: int
    last_seq: int


class _Walk:
    """A list once through, segment by segment."""

    def __init__(self, view: ListView, folder: Path, report: Callable[[int], None]) -> None:
        self.identity, self._reader, self._report = view.identity, view.reader, report
        self._history = History(view.new_machine(), _ACCOUNTS_MAX)
        self.segments = list(sealed_segments(folder, view.reader, view.until))

    def each(self) -> Iterator[tuple[Segment, Iterator[Frame]]]:
        """Each segment with its frames, which need not be taken to their end."""
        for segment in self.segments:
            frames = self._frames(segment)
            yield segment, frames
            # The next one follows on it.
            for _ in frames:
                pass

    def batches(self, segment: Segment, frames: Iterator[Frame]) -> Iterator[Any]:
        """The rows of a segment, so many at a time."""
        schema, rows = schema_of(self.identity, segment), list[Row]()
        for frame in frames:
            rows += self._history.rows(frame)
            while len(rows) >= _ROWS:
                yield batch_of(rows[:_ROWS], schema)
                del rows[:_ROWS]
        if rows:
            yield batch_of(rows, schema)

    def _frames(self, segment: Segment) -> Iterator[Frame]:
        for frame in self._reader.read(segment.first, until=segment.last.seq):
            self._history.follow(frame)
            yield frame
            self._report(frame.header.seq)


def make_history(
    view: ListView, folder: Path, to: Path, report: Callable[[int], None] = lambda seq: None
) -> Made:
    """Have a file for each sealed segment of the list in `folder`. One that is there and says that
    it is the segment's is left; its rows are counted, and not compared: see `check_history`.

    The list is replayed from its first frame, and every outcome compared. Raises HistoryDiffers,
    ListError, Differs, OSError.
    """
    walk, written = _Walk(view, folder, report), 0
    for segment, frames in walk.each():
        path, schema = to / segment.file_name, schema_of(walk.identity, segment)
        if path.exists():
            with _opened(path, schema) as file:
                rows = sum(int(booked(frame).sum()) for frame in frames)
                _demand(path, "the number of its rows", file.metadata.num_rows, rows)
        else:
            _write(path, schema, walk.batches(segment, frames))
            written += 1
    last = walk.segments[-1].last.seq if walk.segments else 0
    return Made(written, len(walk.segments) - written, last)


def check_history(
    view: ListView, folder: Path, where: Path, report: Callable[[int], None] = lambda seq: None
) -> tuple[int, list[str]]:
    """Compare every row of the files in `where` with the list: how many files are as it says, and
    what is wrong with others. Raises ListError, Differs, OSError.
    """
    walk, right, wrong = _Walk(view, folder, report), 0, list[str]()
    there = {path.name for path in where.glob("*.parquet")}
    expected = [segment.file_name for segment in walk.segments]
    for name in sorted(there - set(expected)):
        wrong.append(str(HistoryDiffers(where / name, "its name", name, "no sealed segment's")))
    last = max(there & set(expected), default="")
    for segment, frames in walk.each():
        path = where / segment.file_name
        if path.name in there:
            try:
                _compare(path, schema_of(walk.identity, segment), walk.batches(segment, frames))
                right += 1
            except HistoryDiffers as error:
                wrong.append(str(error))
        elif path.name < last:
            wrong.append(str(HistoryMissing(path, where / last)))
    return right, wrong


def _write(path: Path, schema: Any, batches: Iterator[Any]) -> None:
    """Write a file aside, and give it its name when it is durable."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        with ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    DISK.flush_folder(path.parent)


def _opened(path: Path, schema: Any) -> ParquetFile:
    """A file that says that it is the segment's; to be closed. Raises HistoryDiffers."""
    try:
        file = ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise HistoryDiffers(path, "what it holds", f"unreadable ({error})", "Parquet") from error
    try:
        said, expected = said_by(file.schema_arrow), said_by(schema)
        for name in sorted(expected.keys() | said.keys()):
            _demand(path, name, said.get(name), expected.get(name))
        _demand(path, "its columns", list(file.schema_arrow), list(schema))
    except HistoryDiffers:
        file.close()
        raise
    return file


def _compare(path: Path, schema: Any, batches: Iterator[Any]) -> None:
    """Raises HistoryDiffers naming the first value that differs."""
    with _opened(path, schema) as file:
        try:
            found = file.iter_batches(_ROWS)
            for number, (own, expected) in enumerate(zip_longest(found, batches)):
                if own is None or expected is None or not own.equals(expected):
                    raise _difference(path, number * _ROWS, own, expected)
        except (pyarrow.ArrowException, OSError) as error:
            raise HistoryDiffers(path, "a page", f"unreadable ({error})", "whole") from error


def _difference(path: Path, before: int, own: Any, expected: Any) -> HistoryDiffers:
    """What differs first between two batches, of which one may not be there."""
    counts = [each.num_rows if each is not None else 0 for each in (own, expected)]
    for index in range(min(counts)):
        for name in COLUMNS:
            found, right = (each.column(name)[index] for each in (own, expected))
            if found != right:
                what = f"{name} of row {before + index}"
                return HistoryDiffers(path, what, _shown(name, found), _shown(name, right))
    return HistoryDiffers(path, "the number of its rows", *(before + count for count in counts))


def _shown(name: str, value: Any) -> Any:
    return value.value if name == "time" else value.as_py()


def _demand(path: Path, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise HistoryDiffers(path, what, found, expected)
