"""The kinds in which a batch of transfers comes; it is answered in the same one."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from flask import Response

from coordinator.engine.column_batches import ColumnBatch
from coordinator.http import json_text, reading
from coordinator.http.problems import Refuse
from coordinator.http.reading import JSON, Malformed, Reader
from coordinator.http.schemas import BATCH_MAX, TransferItem, TransferResult, TransferResults
from ledger.columns import Columns, NumberedColumns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"

_NAME = "transfers"


class Told(NamedTuple):
    """What became of a batch of columns: `slots` and `digests` make the ids, `frames` says in which
    frames they are, see `shard_client.columns`; `others` has, by their index, the results of those
    that were not committed just now.
    """

    slots: "NDArray[np.uint16]"
    digests: "NDArray[np.uint8]"
    frames: list[tuple[int, int | None]]
    others: dict[int, TransferResult]


class Taken(NamedTuple):
    """A batch as columns: those of the items that are right. `rows` says which they are, None if
    all are; `faults` has, by their index, what is wrong with each of the others.
    """

    columns: Columns | NumberedColumns
    rows: "NDArray[np.int64] | None" = None
    faults: Mapping[int, str] = MappingProxyType({})


class ByColumns(NamedTuple):
    """How a body is read as columns (None: not all of it is plain), and how what became of them is
    written: from what `Told` has. Reading raises ValueError, TooLong.
    """

    read: Callable[[bytes], Taken | None]
    write: Callable[..., bytes]


class Kind(NamedTuple):
    """How a batch is read, and how its results are written. `by_columns` gives how both are done
    with columns; what that takes is compiled, and loaded where it is needed alone.
    """

    media: str
    read: Reader
    write: Callable[[list[TransferResult]], bytes]
    by_columns: Callable[[], ByColumns]

    def items(self, body: bytes) -> Iterator[TransferItem | Malformed]:
        """The items of a body. Raises Refuse, perhaps after the last one."""
        return reading.items(body, self.read, _NAME, TransferItem)

    def columns(self, body: bytes) -> Taken | None:
        """The same as columns, if each item is valid, and plain. None: `items` tells. Raises
        Refuse.
        """
        return reading.at_once(body, self.by_columns().read)

    def answer(self, results: list[TransferResult]) -> Response:
        return Response(self.write(results), content_type=self.media)

    def told(self, told: Told) -> Response:
        return Response(self.by_columns().write(*told), content_type=self.media)


def told_of(taken: Taken, batch: ColumnBatch, others: dict[int, TransferResult]) -> Told:
    """What became of a batch; `others` has the results of the items that are no columns, too."""
    decided, packed = batch.decided, batch.packed
    frames: list[tuple[int, int | None]] = [*decided.frames] if decided else []
    if (first := decided.taken if decided else 0) < packed.size:
        # Those that went on by themselves are among the others.
        frames.append((first, None))
    slots, digests = packed.slots, packed.digests
    if taken.rows is None:
        return Told(slots, digests, frames, others)
    # It is there where columns are, and only there.
    import numpy as np

    rows, count = taken.rows, packed.size + len(taken.faults)
    all_slots, all_digests = np.zeros(count, slots.dtype), np.zeros((count, 16), digests.dtype)
    all_slots[rows], all_digests[rows] = slots, digests
    # What is in front of the first is among the others as well.
    placed = [(int(rows[first]) if first else 0, seq) for first, seq in frames]
    return Told(all_slots, all_digests, placed or [(0, None)], others)


def requested() -> Kind:
    """The kind of the request's body. Raises Refuse."""
    media = reading.media(JSON, NDJSON, ARROW)
    return _arrow() if media == ARROW else _TEXT[media]


def prepare() -> None:
    """Load what takes batches as columns, if its packages are there."""
    if find_spec("numba"):
        _json_by_columns()
    if find_spec("numba") and find_spec("pyarrow"):
        _arrow_by_columns()


def _read_json(data: bytes, pause: Callable[[], None]) -> Iterator[json_text.Value]:
    return json_text.read_list(data, _NAME, pause)


def _write_json(results: list[TransferResult]) -> bytes:
    return msgspec.json.encode(TransferResults(results))


def _taken(columns: Columns | None) -> Taken | None:
    # Without items it may be no batch.
    return Taken(columns) if columns and columns.size else None


def _json_by_columns() -> ByColumns:
    from coordinator.http.batches import scan, told

    return ByColumns(lambda body: _taken(scan.json_columns(body, BATCH_MAX)), told.json)


def _lines_by_columns() -> ByColumns:
    from coordinator.http.batches import scan, told

    return ByColumns(lambda body: _taken(scan.line_columns(body, BATCH_MAX)), told.lines)


def _arrow_by_columns() -> ByColumns:
    from coordinator.http.batches import arrow_columns, arrow_numbers, arrow_told

    def read(body: bytes) -> Taken | None:
        most = reading.batch_bytes_max()
        if not arrow_numbers.is_numbered(body, most):
            return _taken(arrow_columns.arrow_columns(body, BATCH_MAX, most))
        rows, columns, faults = arrow_numbers.read(body, BATCH_MAX, most)
        return Taken(columns, rows if faults else None, faults)

    return ByColumns(read, arrow_told.arrow)


_TEXT = {
    JSON: Kind(JSON, _read_json, _write_json, _json_by_columns),
    NDJSON: Kind(
        NDJSON, json_text.read_lines, msgspec.json.Encoder().encode_lines, _lines_by_columns
    ),
}


def _arrow() -> Kind:
    """Raises Refuse if there is nothing to read Arrow with."""
    if not (find_spec("pyarrow") and find_spec("numpy")):
        detail = (
            "Arrow streams need the packages pyarrow and numpy, which this coordinator has not: "
            "`pip install 'tandem[arrow]'`; nothing has happened"
        )
        raise Refuse(415, "content-type", detail)
    # It takes half a second, and most coordinators never need it.
    from coordinator.http.batches import arrow_stream

    read = partial(arrow_stream.read, bytes_max=reading.batch_bytes_max())
    return Kind(ARROW, read, arrow_stream.write, _arrow_by_columns)
