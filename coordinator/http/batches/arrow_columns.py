"""Arrow IPC streams as columns, where every row is plain: pure.

What this takes, the careful way (`arrow_stream.read`, then the types of `schemas`) takes too, with
the same values; whatever else there is, is left to that, which tells what is wrong with it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from coordinator.http.batches import arrow_frames, arrow_stream, patterns
from coordinator.http.batches.compiled import BYTES, Number, Truth, compiled, inlined, types
from coordinator.http.batches.patterns import ACCOUNT, ACCOUNT_BYTES_MAX, KEY, KEY_BYTES_MAX, Data
from ledger.columns import Columns
from ledger.model import AMOUNT_MAX

# Of more record batches each would be little, and the careful way gives others their turn.
_BATCHES_MAX = 16
_TEXT_BYTES_MAX = KEY_BYTES_MAX + 2 * ACCOUNT_BYTES_MAX

Numbers = NDArray[np.int64]
Spans = NDArray[np.int32]


class _NotPlain(Exception):
    """Something is left to the careful way."""


class _Texts(NamedTuple):
    """The texts of a column: each begins and ends somewhere in the bytes."""

    data: Data
    begins: Numbers
    ends: Numbers


def arrow_columns(data: bytes, room: int, bytes_max: int) -> Columns | None:
    """The rows of a stream, `room` at most, which may take `bytes_max` when it is decompressed.
    None: not all of them are plain, or the stream is something else.
    """
    try:
        arrow_frames.check(data, bytes_max)
        return _columns(_batches(data, room), bytes_max)
    except (_NotPlain, ValueError, pa.ArrowException, OSError):
        return None


def _batches(data: bytes, room: int) -> list[pa.RecordBatch]:
    """Raises _NotPlain, ValueError, ArrowException, OSError."""
    stream = ipc.open_stream(data, options=ipc.IpcReadOptions(use_threads=False))
    arrow_stream.check_columns(stream.schema)
    batches: list[pa.RecordBatch] = []
    for records in stream:
        batches.append(records)
        if len(batches) > _BATCHES_MAX or sum(map(len, batches)) > room:
            raise _NotPlain
        records.validate(full=True)
    return batches


def _columns(batches: list[pa.RecordBatch], bytes_max: int) -> Columns:
    """Raises _NotPlain."""
    rows = sum(map(len, batches))
    made = _empty(rows)
    at = row = spelled = 0
    for records in batches:
        if "metadata" in records.schema.names and not _is_nowhere(records["metadata"]):
            raise _NotPlain
        part = slice(row, row + len(records))
        row += len(records)
        for name, spans, kind in (
            ("idempotency_key", made.key, KEY),
            ("source", made.source, ACCOUNT),
            ("destination", made.destination, ACCOUNT),
        ):
            at = _placed(_take, *_texts(records[name]), kind, made.data, at, spans[part])
        currency = _texts(records["currency"])
        spelled += _placed(_currencies, *currency, made.currency[part])
        made.amount[part] = _amounts(records["amount"])
        spelled += _protocols(records, made.protocol[part])
    if at + spelled > bytes_max:
        raise _NotPlain
    return made._replace(data=made.data[:at])


def _empty(rows: int) -> Columns:
    key, source, destination = (np.empty((rows, 2), np.int32) for _ in range(3))
    return Columns(
        np.empty(rows * _TEXT_BYTES_MAX, np.uint8),
        key,
        source,
        destination,
        np.empty(rows, np.int64),
        np.empty(rows, np.int64),
        np.empty(rows, np.uint8),
    )


def _placed(take: Callable[..., int], *given: Any) -> int:
    """What a compiled function gives, which is -1 where a text is not as it must be. Raises
    _NotPlain.
    """
    found = take(*given)
    if found < 0:
        raise _NotPlain
    return found


def _is_nowhere(column: pa.Array) -> bool:
    """Whether no row has a value in the column."""
    if pa.types.is_dictionary(column.type):
        # One may refer to a null.
        return bool(column.indices.null_count == len(column))
    return bool(column.null_count == len(column))


def _texts(column: pa.Array) -> _Texts:
    """The texts of a column, of which each row has one. Raises _NotPlain."""
    places = None
    if pa.types.is_dictionary(column.type):
        if column.indices.null_count:
            raise _NotPlain
        places = column.indices.to_numpy().astype(np.int64)
        column = column.dictionary
    if column.null_count or pa.types.is_null(column.type):
        raise _NotPlain
    _, offsets, data = column.buffers()
    kind = np.int64 if pa.types.is_large_string(column.type) else np.int32
    none = np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, kind)[column.offset :] if offsets and len(column) else none
    ends = ends[: len(column) + 1]
    texts = np.frombuffer(data, np.uint8) if data else none
    # Copies, since in a body nothing need be where a processor likes it to be.
    if places is None:
        return _Texts(texts, ends[:-1].astype(np.int64), ends[1:].astype(np.int64))
    return _Texts(texts, ends[places].astype(np.int64), ends[places + 1].astype(np.int64))


def _amounts(column: pa.Array) -> Numbers:
    """Raises _NotPlain."""
    if column.null_count or not pa.types.is_integer(column.type):
        raise _NotPlain
    amounts: NDArray[np.integer[Any]] = column.to_numpy()
    if len(amounts) and not 1 <= int(amounts.min()) <= int(amounts.max()) <= AMOUNT_MAX:
        raise _NotPlain
    return amounts.astype(np.int64)


def _protocols(records: pa.RecordBatch, codes: NDArray[np.uint8]) -> int:
    """Note the protocols; gives how many characters their names have. Raises _NotPlain."""
    if "protocol" not in records.schema.names or _is_nowhere(records["protocol"]):
        codes[:] = 0
        return 0
    return _placed(_codes, *_texts(records["protocol"]), codes)


# --- compiled -----------------------------------------------------------------------------------

_NUMBERS = types.int64[::1]
_TCC, _SAGA = "tcc", "saga"
_TCC_NUMBER, _SAGA_NUMBER = (int.from_bytes(name.encode(), "little") for name in (_TCC, _SAGA))


@inlined
def _is_within(data: Data, begin: Number, end: Number) -> Truth:
    return begin >= 0 and begin <= end and end <= len(data)


@compiled(
    types.int64(
        BYTES, _NUMBERS, _NUMBERS, types.int64, types.uint8[::1], types.int64, types.int32[:, ::1]
    )
)
def _take(
    data: Data, begins: Numbers, ends: Numbers, kind: int, taken: Data, at: int, spans: Spans
) -> int:
    """Put the texts, which are of this kind, behind what is taken; gives where they end, or -1."""
    for i in range(len(begins)):
        begin, end = begins[i], ends[i]
        if not _is_within(data, begin, end):
            return -1
        if kind == KEY:
            if not patterns.is_key(data, begin, end):
                return -1
        elif not patterns.is_account(begin, end):
            return -1
        spans[i, 0] = at
        for k in range(begin, end):
            if not patterns.is_of(data[k], kind):
                return -1
            taken[at + k - begin] = data[k]
        at += end - begin
        spans[i, 1] = at
    return at


@compiled(types.int64(BYTES, _NUMBERS, _NUMBERS, _NUMBERS))
def _currencies(data: Data, begins: Numbers, ends: Numbers, numbers: Numbers) -> int:
    """Note the currencies; gives how many characters they have, or -1."""
    count = 0
    for i in range(len(begins)):
        if not _is_within(data, begins[i], ends[i]):
            return -1
        numbers[i] = patterns.currency_at(data, begins[i], ends[i])
        if numbers[i] < 0:
            return -1
        count += ends[i] - begins[i]
    return count


@inlined
def _letters(data: Data, begin: Number, end: Number) -> Number:
    """Up to eight bytes as one number."""
    number: Number = 0
    for k in range(end - begin):
        number |= np.int64(data[begin + k]) << (8 * k)
    return number


@compiled(types.int64(BYTES, _NUMBERS, _NUMBERS, types.uint8[::1]))
def _codes(data: Data, begins: Numbers, ends: Numbers, codes: NDArray[np.uint8]) -> int:
    """Note the protocols; gives how many characters their names have, or -1."""
    count = 0
    for i in range(len(begins)):
        begin, length = begins[i], ends[i] - begins[i]
        if not _is_within(data, begin, ends[i]):
            return -1
        if length == len(_TCC) and _letters(data, begin, ends[i]) == _TCC_NUMBER:
            codes[i] = patterns.TCC
        elif length == len(_SAGA) and _letters(data, begin, ends[i]) == _SAGA_NUMBER:
            codes[i] = patterns.SAGA
        else:
            return -1
        count += length
    return count
