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
    """What became of a batch of columns: `slots` and `digests` make the ids, see
    `shard_client.columns`; `others` has, by their index, the results of those that were not
    committed just now.
    """

    slots: "NDArray[np.uint16]"
    digests: "NDArray[np.uint8]"
    others: dict[int, TransferResult]


class Kind(NamedTuple):
    """How a batch is read, and how its results are written. `by_columns` makes columns of a body
    of which every item is valid and plain, None of any other; `write_columns` says what became of
    them.
    """

    media: str
    read: Reader
    write: Callable[[list[TransferResult]], bytes]
    by_columns: Callable[[bytes], Columns | None]
    write_columns: Callable[[Told], bytes]

    def items(self, body: bytes) -> Iterator[TransferItem | Malformed]:
        """The items of a body. Raises Refuse, perhaps after the last one."""
        return reading.items(body, self.read, _NAME, TransferItem)

    def columns(self, body: bytes) -> Columns | None:
        """The same as columns, if each item is valid, and plain. None: `items` tells."""
        columns = self.by_columns(body)
        return columns if columns and columns.size else None

    def answer(self, results: list[TransferResult]) -> Response:
        return Response(self.write(results), content_type=self.media)

    def told(self, told: Told) -> Response:
        return Response(self.write_columns(told), content_type=self.media)


def requested() -> Kind:
    """The kind of the request's body. Raises Refuse."""
    media = reading.media(JSON, NDJSON, ARROW)
    return _arrow() if media == ARROW else _TEXT[media]


def _read_json(data: bytes, pause: Callable[[], None]) -> Iterator[json_text.Value]:
    return json_text.read_list(data, _NAME, pause)


def _write_json(results: list[TransferResult]) -> bytes:
    return msgspec.json.encode(TransferResults(results))


# What follows is compiled, and loaded where batches are taken as columns alone.


def _json_columns(body: bytes) -> Columns | None:
    from coordinator.http.batches import scan

    return scan.json_columns(body, BATCH_MAX)


def _line_columns(body: bytes) -> Columns | None:
    from coordinator.http.batches import scan

    return scan.line_columns(body, BATCH_MAX)


def _told_json(told: Told) -> bytes:
    from coordinator.http.batches import told as writing

    return writing.json(*told)


def _told_lines(told: Told) -> bytes:
    from coordinator.http.batches import told as writing

    return writing.lines(*told)


_TEXT = {
    JSON: Kind(JSON, _read_json, _write_json, _json_columns, _told_json),
    NDJSON: Kind(
        NDJSON,
        json_text.read_lines,
        msgspec.json.Encoder().encode_lines,
        _line_columns,
        _told_lines,
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
    return Kind(ARROW, read, arrow_stream.write, lambda body: None, lambda told: b"")
