"""Batches as Arrow IPC streams: rows are items, and columns are named as the members of an item.

A null is a member that is not there. What is wrong with the stream or with a column spoils the
batch; what is wrong with a row is that row's fault alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from coordinator.http import json_text
from coordinator.http.batches import arrow_frames
from coordinator.http.json_text import VALUE_MAX, TooLong, Value, shown
from coordinator.http.schemas import BATCH_MAX, TransferResult

_TEXTS = ("idempotency_key", "source", "destination", "currency", "metadata", "protocol")
_COLUMNS = (*_TEXTS, "amount")
# Without them all rows would be malformed.
_NEEDED = ("idempotency_key", "source", "destination", "amount", "currency")
# Of a type that Arrow does not know itself, such a note says the name.
_EXTENSION = b"ARROW:extension:name"
# So many rows are read at one go, or a text that is as long.
_AT_ONCE = 200
_LONG = 1024

_RESULT = pa.schema(
    [
        ("id", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("replayed", pa.bool_()),
    ]
)
SEQ = pa.field("seq", pa.int64())


def read(data: bytes, pause: Callable[[], None], bytes_max: int) -> Iterator[Value]:
    """The rows of a stream, each as an item is in JSON, one by one. It may take `bytes_max` when it
    is decompressed, and its texts so many characters when the dictionaries are looked up.

    A stream that is something else raises ValueError, and one that is too large TooLong, as late as
    at its end. `pause` is called now and then.
    """
    arrow_frames.check(data, bytes_max)
    pause()
    count = spelled = 0
    try:
        stream = ipc.open_stream(data, options=ipc.IpcReadOptions(use_threads=False))
        check_columns(stream.schema)
        for records in stream:
            count += records.num_rows
            if count > BATCH_MAX:
                raise TooLong(f"there are {count} rows or more, {BATCH_MAX} at most are taken")
            records.validate(full=True)
            pause()
            columns = _columns(records)
            spelled += _characters(columns)
            if spelled > bytes_max:
                raise TooLong(f"the texts of the rows have more than {bytes_max} characters")
            yield from _rows(columns, pause)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"the Arrow stream cannot be read: {error}") from None


def write(results: Sequence[TransferResult]) -> bytes:
    """The results as a stream. What JSON leaves out is null; without any `seq` there is no such
    column.
    """
    schema = _RESULT
    columns: list[list[Any]] = [
        [result.id for result in results],
        [result.status for result in results],
        [result.reason for result in results],
        [result.detail for result in results],
        [result.replayed or None for result in results],
    ]
    frames = [result.seq for result in results]
    if any(seq is not None for seq in frames):
        schema, columns = schema.append(SEQ), [*columns, frames]
    return write_columns(*map(pa.array, columns, schema.types))


def write_columns(*columns: pa.Array) -> bytes:
    """A stream of the columns that results have, the last of which, `seq`, may be missing."""
    schema = _RESULT if len(columns) == len(_RESULT) else _RESULT.append(SEQ)
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.record_batch(list(columns), schema=schema))
    return bytes(sink.getvalue())


def check_columns(schema: pa.Schema) -> None:
    """Refuse columns that are unknown, of a wrong type, missing or there twice. Raises ValueError,
    which names the column at fault.
    """
    names = schema.names
    for field in schema:
        name = shown(field.name)
        if field.name not in _COLUMNS:
            raise ValueError(f"{name} is no column here ({', '.join(_COLUMNS)})")
        if names.count(field.name) > 1:
            raise ValueError(f"the column {name} is there {names.count(field.name)} times")
        if not _is_right(field):
            wanted = "integers" if field.name == "amount" else "utf8, large_utf8 or a dictionary"
            raise ValueError(f"the column {name} is of type {shown(str(field.type))}, not {wanted}")
    for needed in _NEEDED:
        if needed not in names:
            raise ValueError(f"the column {needed} is missing")


def _is_right(field: pa.Field) -> bool:
    """Whether a column that is known is of a type that it may be of."""
    kind, types = field.type, pa.types
    if field.metadata and _EXTENSION in field.metadata:
        return False
    if types.is_null(kind):
        return True
    if field.name == "amount":
        return bool(types.is_integer(kind))
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _columns(records: pa.RecordBatch) -> dict[str, list[Any]]:
    """The values of each column. Raises TooLong."""
    columns = {
        name: _values(column)
        for name, column in zip(records.schema.names, records.columns, strict=True)
    }
    for name in columns.keys() & _TEXTS:
        if max(map(len, filter(None, columns[name])), default=0) > VALUE_MAX:
            raise TooLong(f"a text in the column {name} has more than {VALUE_MAX} characters")
    return columns


def _values(column: pa.Array) -> list[Any]:
    """The values of a column, None for a null. Of a dictionary rows share what they refer to."""
    if pa.types.is_dictionary(column.type):
        return _looked_up(column.dictionary, _values(column.indices))
    if pa.types.is_integer(column.type) and column.null_count:
        # NumPy knows no null, and would take floating point.
        values: list[Any] = column.to_pylist()
    else:
        values = column.to_numpy(zero_copy_only=False).tolist()
    return values


def _looked_up(dictionary: pa.Array, places: list[int | None]) -> list[str | None]:
    """What stands at these places of a dictionary. It may be much larger than a batch."""
    texts: dict[int | None, str | None]
    if len(dictionary) <= len(places):
        texts = dict(enumerate(_values(dictionary)))
    else:
        texts = {place: dictionary[place].as_py() for place in set(places) - {None}}
    return [texts.get(place) for place in places]


def _characters(columns: dict[str, list[Any]]) -> int:
    """How many characters the texts of the columns have."""
    return sum(sum(map(len, filter(None, columns[name]))) for name in columns.keys() & _TEXTS)


def _rows(columns: dict[str, list[Any]], pause: Callable[[], None]) -> Iterator[Value]:
    names = tuple(columns)
    metadata = _metadata(columns["metadata"], pause) if "metadata" in columns else None
    for number, row in enumerate(zip(*columns.values(), strict=True)):
        if number % _AT_ONCE == 0:
            pause()
        item = dict(zip(names, row, strict=True))
        if None in row:
            item = {name: value for name, value in item.items() if value is not None}
        fault = None
        if metadata:
            item["metadata"], fault = next(metadata)
        yield item, fault and f"metadata: {fault}"


def _metadata(texts: list[str | None], pause: Callable[[], None]) -> Iterator[Value]:
    """The values that are these texts, which are JSON; without one it is null."""

    def told() -> Iterator[str]:
        for text in texts:
            if text and len(text) > _LONG:
                pause()
            yield "null" if text is None else text

    return json_text.read_each(told())
