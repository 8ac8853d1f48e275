"""The kinds in which a batch of transfers comes; it is answered in the same one."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from flask import Response

from coordinator.http import json_text, reading
from coordinator.http.problems import Refuse
from coordinator.http.reading import JSON, Malformed, Reader
from coordinator.http.schemas import BATCH_MAX, TransferItem, TransferResult, TransferResults
from ledger.columns import Columns

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


class ByColumns(NamedTuple):
    """How a body is read as columns (None: not all of it is plain), and how what became of them is
    written: from what `Told` has.
    """

    read: Callable[[bytes], Columns | None]
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

    def columns(self, body: bytes) -> Columns | None:
        """The same as columns, if each item is valid, and plain. None: `items` tells."""
        columns = self.by_columns().read(body)
        return columns if columns and columns.size else None

    def answer(self, results: list[TransferResult]) -> Response:
        return Response(self.write(results), content_type=self.media)

    def told(self, told: Told) -> Response:
        return Response(self.by_columns().write(*told), content_type=self.media)


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


def _json_by_columns() -> ByColumns:
    from coordinator.http.batches import scan, told

    return ByColumns(partial(scan.json_columns, room=BATCH_MAX), told.json)


def _lines_by_columns() -> ByColumns:
    from coordinator.http.batches import scan, told

    return ByColumns(partial(scan.line_columns, room=BATCH_MAX), told.lines)


def _arrow_by_columns() -> ByColumns:
    from coordinator.http.batches import arrow_columns, arrow_told

    size = reading.batch_bytes_max
    return ByColumns(
        lambda body: arrow_columns.arrow_columns(body, BATCH_MAX, size()), arrow_told.arrow
    )


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
