"""Arrow IPC streams that name accounts by the numbers of a ledger group: pure.

The columns are `id` (fixed_size_binary[16]: what the client has drawn as the transfer's name, in
place of a key), `source` and `destination` (uint32), `amount`, `currency`, and `protocol`. What is
wrong with the stream or with a column spoils the batch; what is wrong with a row is that row's
fault alone.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from coordinator.http.batches import arrow_frames
from coordinator.http.batches.patterns import SAGA, TCC
from coordinator.http.json_text import TooLong, shown
from ledger.columns import NumberedColumns
from ledger.model import AMOUNT_MAX

_ID_BYTES = 16
# Each is some work, however small it is.
_BATCHES_MAX = 16
_NEEDED = ("id", "source", "destination", "amount", "currency")
_COLUMNS = (*_NEEDED, "protocol")
_EXTENSION = b"ARROW:extension:name"
# The event store's word for no number at all.
_NOBODY = 2**32 - 1
_CURRENCY = re.compile("[A-Z0-9]{3,8}")
_PROTOCOLS = {"tcc": TCC, "saga": SAGA}
# What `_codes` gives for a text that is none of those that it may be, and for none.
_WRONG, _MISSING = -1, -2
_NOTHING = NumberedColumns(
    np.empty((0, _ID_BYTES), np.uint8),
    np.empty(0, np.uint32),
    np.empty(0, np.uint32),
    np.empty(0, np.int64),
    np.empty(0, np.int64),
    np.empty(0, np.uint8),
)


class Numbered(NamedTuple):
    """The rows that are right: which they are, and their columns. `faults` has, by its row, what is
    wrong with each of the others.
    """

    rows: NDArray[np.int64]
    columns: NumberedColumns
    faults: dict[int, str]


def is_numbered(data: bytes, bytes_max: int) -> bool:
    """Whether it is such a stream, by the column `id`; False for what is no stream."""
    try:
        arrow_frames.check(data, bytes_max)
        return "id" in ipc.open_stream(data).schema.names
    except (ValueError, pa.ArrowException, OSError):
        return False


def read(data: bytes, room: int, bytes_max: int) -> Numbered:
    """The rows of a stream, `room` at most, which may take `bytes_max` when it is decompressed.
    Raises ValueError, TooLong.
    """
    arrow_frames.check(data, bytes_max)
    made: list[NumberedColumns] = []
    count = 0
    faults = _Faults()
    try:
        stream = ipc.open_stream(data, options=ipc.IpcReadOptions(use_threads=False))
        _check_columns(stream.schema)
        for records in stream:
            faults.first = count
            count += len(records)
            if count > room or len(made) == _BATCHES_MAX:
                raise TooLong(
                    f"there are {count} rows or more in {len(made) + 1} record batches: {room} "
                    f"in {_BATCHES_MAX} are taken"
                )
            records.validate(full=True)
            made.append(_columns(records, faults))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"the Arrow stream cannot be read: {error}") from None
    return _right_ones(made or [_NOTHING], count, faults)


def _right_ones(made: list[NumberedColumns], count: int, faults: "_Faults") -> Numbered:
    rows = np.arange(count)
    if faults.by_row:
        rows = np.delete(rows, list(faults.by_row))
    all_of = made[0] if len(made) == 1 else _of(map(np.concatenate, zip(*made, strict=True)))
    columns = _of(column[rows] for column in all_of) if faults.by_row else all_of
    return Numbered(rows, columns, faults.by_row)


def _of(columns: Iterable[Any]) -> NumberedColumns:
    return NumberedColumns(*columns)


def _check_columns(schema: pa.Schema) -> None:
    """Raises ValueError, which names the column at fault."""
    for field in schema:
        name = shown(field.name)
        if field.name not in _COLUMNS:
            raise ValueError(
                f"{name} is no column where accounts have numbers ({', '.join(_COLUMNS)})"
            )
        if schema.names.count(field.name) > 1:
            raise ValueError(f"the column {name} is there {schema.names.count(field.name)} times")
        wanted, is_right = _TYPES[field.name]
        if not is_right(field.type) or _EXTENSION in (field.metadata or {}):
            raise ValueError(f"the column {name} is of type {shown(str(field.type))}, not {wanted}")
    for needed in _NEEDED:
        if needed not in schema.names:
            raise ValueError(f"the column {needed} is missing")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(kind == pa.uint32())


_NUMBER = ("uint32", _is_number)
_TEXT = ("utf8, large_utf8 or a dictionary", _is_text)
_TYPES: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "id": (f"fixed_size_binary[{_ID_BYTES}]", lambda kind: bool(kind == pa.binary(_ID_BYTES))),
    "source": _NUMBER,
    "destination": _NUMBER,
    "amount": ("integers", lambda kind: bool(pa.types.is_integer(kind))),
    "currency": _TEXT,
    "protocol": (_TEXT[0], lambda kind: _is_text(kind) or bool(pa.types.is_null(kind))),
}


class _Faults:
    """What is wrong with rows: of each the first thing. `first` is the row that a batch begins
    with.
    """

    def __init__(self) -> None:
        self.by_row: dict[int, str] = {}
        self.first = 0

    def note(self, wrong: NDArray[np.bool_], say: Callable[[int], str]) -> None:
        """`say` is given rows of the batch."""
        for row in np.flatnonzero(wrong).tolist():
            self.by_row.setdefault(self.first + row, say(row))


def _columns(records: pa.RecordBatch, faults: _Faults) -> NumberedColumns:
    """The columns of a batch; where a row has a fault there is anything in them."""
    for name in _NEEDED:
        text = f"the member {name} is missing"
        faults.note(_is_null(records[name]), lambda _, text=text: text)  # type: ignore[misc]
    protocol = np.zeros(len(records), np.int64)
    if "protocol" in records.schema.names and not pa.types.is_null(records["protocol"].type):
        listed = _codes(records["protocol"], _protocol, faults, "protocol", "neither tcc nor saga")
        protocol = np.where(listed == _MISSING, 0, listed)
    currency = _codes(records["currency"], _currency, faults, "currency", "not 3 to 8 of A-Z 0-9")
    # A dictionary may have a null itself.
    faults.note(currency == _MISSING, lambda _: "the member currency is missing")
    return NumberedColumns(
        _ids(records["id"]),
        _numbers(records["source"], faults, "source"),
        _numbers(records["destination"], faults, "destination"),
        currency,
        _amounts(records["amount"], faults),
        protocol.astype(np.uint8),
    )


def _is_null(column: pa.Array) -> NDArray[np.bool_]:
    if not column.null_count:
        return np.zeros(len(column), np.bool_)
    found: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return found


def _ids(column: pa.Array) -> NDArray[np.uint8]:
    data = column.buffers()[1]
    if not len(column):
        return np.empty((0, _ID_BYTES), np.uint8)
    first = column.offset * _ID_BYTES
    found = np.frombuffer(data, np.uint8)[first : first + len(column) * _ID_BYTES]
    return found.reshape(-1, _ID_BYTES)


def _values(column: pa.Array) -> NDArray[np.integer[Any]]:
    """The numbers of a column, 0 for a null."""
    found: NDArray[np.integer[Any]] = (
        column.fill_null(0) if column.null_count else column
    ).to_numpy()
    return found


def _numbers(column: pa.Array, faults: _Faults, name: str) -> NDArray[np.uint32]:
    found = _values(column).astype(np.uint32)
    faults.note(found == _NOBODY, lambda row: f"{name} is {_NOBODY}, which is no account's number")
    return found


def _amounts(column: pa.Array, faults: _Faults) -> NDArray[np.int64]:
    found = _values(column)
    wrong = (found < 1) | (found > AMOUNT_MAX)
    faults.note(wrong, lambda row: f"amount is {found[row]}, not 1 to {AMOUNT_MAX}")
    return found.astype(np.int64)


def _currency(text: str) -> int:
    is_one = _CURRENCY.fullmatch(text)
    return int.from_bytes(text.encode("ascii"), "little") if is_one else _WRONG


def _protocol(text: str) -> int:
    return _PROTOCOLS.get(text, _WRONG)


def _codes(
    column: pa.Array, code_of: Callable[[str], int], faults: _Faults, name: str, what: str
) -> NDArray[np.int64]:
    """The codes of texts, each found once, however often it is there; _MISSING for a null."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    none = len(column.dictionary)
    places = _values(column.indices).astype(np.int64)
    places[_is_null(column.indices)] = none
    used = np.arange(none + 1)
    if none > len(places):
        # It may be much larger than a batch.
        used, places = np.unique(places, return_inverse=True)
    texts = [_text_at(column.dictionary, place) for place in used.tolist()]
    codes = np.array([_MISSING if text is None else code_of(text) for text in texts], np.int64)
    found: NDArray[np.int64] = codes[places]
    faults.note(found == _WRONG, lambda row: f"{name} is {shown(texts[places[row]])}, {what}")
    return found


def _text_at(dictionary: pa.Array, place: int) -> str | None:
    text: str | None = dictionary[place].as_py() if place < len(dictionary) else None
    return text
