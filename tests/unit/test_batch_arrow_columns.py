"""Arrow streams as columns: every row with the values of the careful way, or nothing."""

import struct
from io import BytesIO
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc

from coordinator.http.batches import arrow_columns as columns
from coordinator.http.batches import arrow_stream
from coordinator.http.schemas import BATCH_MAX, TransferItem
from tests.unit.test_batch_scan import items_of

MOST = 8 << 20


def careful(data: bytes, bytes_max: int = MOST) -> list[TransferItem] | None:
    """The items, or None if the stream or one of them is refused."""
    found = []
    try:
        for value, fault in arrow_stream.read(data, lambda: None, bytes_max):
            if fault:
                return None
            found.append(msgspec.convert(value, TransferItem))
    except ValueError:
        return None
    return found


def agrees(data: bytes, bytes_max: int = MOST, room: int = BATCH_MAX) -> bool:
    """Whether all of a stream is plain; then its values are those of the careful way."""
    found = columns.arrow_columns(data, room, bytes_max)
    if found is None:
        return False
    assert items_of(found) == careful(data, bytes_max)
    return True


def table(count: int = 3) -> dict[str, Any]:
    return {
        "idempotency_key": pa.array([f'k"{number}' for number in range(count)], pa.string()),
        "source": pa.array([f"alice-{number % 7}" for number in range(count)], pa.string()),
        "destination": pa.array(["bob"] * count, pa.string()),
        "amount": pa.array(range(1, count + 1), pa.int64()),
        "currency": pa.array(["EUR", "USDT4ALL", "X1Y"] * count, pa.string())[:count],
    }


def stream(*batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = BytesIO()
    written = ipc.IpcWriteOptions(**options)
    with ipc.new_stream(sink, batches[0].schema, options=written) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def of(count: int = 3, **others: Any) -> bytes:
    """A stream of one batch, with other columns than usual; None: without it."""
    found = table(count) | others
    return stream(pa.record_batch({name: c for name, c in found.items() if c is not None}))


def test_rows_of_one_stream_or_several_batches() -> None:
    for count in (0, 1, 3, BATCH_MAX):
        assert agrees(of(count))
    assert not agrees(of(BATCH_MAX + 1))
    plain = pa.record_batch(table(2500))
    assert agrees(stream(plain.slice(0, 3), plain.slice(3, 0), plain.slice(3)))
    assert agrees(stream(plain, compression="lz4"))
    assert agrees(stream(*[plain.slice(0, 1)] * 16))
    assert not agrees(stream(*[plain.slice(0, 1)] * 17))


def test_wherever_a_stream_begins_in_memory() -> None:
    data = of()
    for shift in range(8):
        assert agrees(memoryview(bytes(shift) + data)[shift:].tobytes())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("index", [None, pa.int8(), pa.uint32(), pa.uint64()])
def test_the_types_of_texts(kind: pa.DataType, index: pa.DataType | None) -> None:
    as_it_is = pa.dictionary(index, kind) if index else kind
    texts = {"source": ["x", "bob", "x"], "currency": ["EUR", "USD", "EUR"]}
    texts["protocol"] = ["saga", "tcc", "tcc"]
    plain = {name: pa.array(found, kind) for name, found in texts.items()}
    assert agrees(of(**{name: found.cast(as_it_is) for name, found in plain.items()}))
    for name in texts:
        hole = pa.array(["EUR", None, "EUR"], kind).cast(as_it_is)
        assert not agrees(of(**{name: hole}))


def test_a_dictionary_of_which_not_all_is_used() -> None:
    for listed, is_plain in ((["bob", "no id", "al"], True), (["bob", None, "al"], False)):
        found = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2]), pa.array(listed))
        assert agrees(of(destination=found)) == is_plain
    batches = [
        pa.record_batch(table(2) | {"source": pa.array(names).dictionary_encode()})
        for names in (["a", "b"], ["c", "d"], ["d", "d"])
    ]
    assert agrees(stream(*batches))


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.int16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
)
def test_the_types_of_amounts(kind: pa.DataType) -> None:
    for amounts, is_plain in (([1, 2, 100], True), ([1, 0, 1], False), ([1, None, 1], False)):
        assert agrees(of(amount=pa.array(amounts, kind))) == is_plain
    if pa.types.is_signed_integer(kind):
        assert not agrees(of(amount=pa.array([1, -1, 1], kind)))


def test_large_amounts_are_exact() -> None:
    for amounts, is_plain in (([2**63 - 1, 2**53 + 1, 1], True), ([1, 2**63, 2**64 - 1], False)):
        assert agrees(of(amount=pa.array(amounts, pa.uint64()))) == is_plain


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("idempotency_key", ["k", " k", "k"]),
        ("idempotency_key", ["k", "k", "k" * 129]),
        ("idempotency_key", ["k", "é", "k"]),
        ("source", ["a", "", "a"]),
        ("source", ["a", "a" * 65, "a"]),
        ("destination", ["a", "a b", "a"]),
        ("destination", ["a", 'a"', "a"]),
        ("currency", ["EUR", "eur", "EUR"]),
        ("currency", ["EUR", "EU", "EUR"]),
        ("currency", ["EUR", "EUREUREUR", "EUR"]),
        ("currency", ["EUR", "EUR\0", "EUR"]),
        ("protocol", ["tcc", "xa", "tcc"]),
        ("protocol", ["tcc", "tcc\0", "tcc"]),
        ("protocol", ["tcc", "sagas", "tcc"]),
        ("metadata", [None, "{}", None]),
        ("metadata", [None, "null", None]),
    ],
)
def test_what_is_left_to_the_careful_way(name: str, texts: list[str | None]) -> None:
    assert not agrees(of(**{name: texts}))
    assert agrees(of(**{name: [texts[0]] * 3}))


def test_columns_without_any_value() -> None:
    texts = pa.nulls(3, pa.string())
    for nothing in (pa.nulls(3), texts, texts.dictionary_encode()):
        assert agrees(of(metadata=nothing, protocol=pa.nulls(3)))
        assert not agrees(of(source=pa.nulls(3, pa.string())))
    for gone in table():
        assert not agrees(of(**{gone: None}))
        assert not agrees(of(**{gone: pa.nulls(3)}))
    assert not agrees(of(more=["x"] * 3))
    assert not agrees(of(amount=pa.array([1.0] * 3)))


def test_its_texts_have_a_limit() -> None:
    size = sum(len(name) for name in ("k" * 128, "a" * 64, "b", "EUR", "tcc")) * 1000
    texts = {"idempotency_key": "k" * 128, "source": "a" * 64, "destination": "b"}
    listed: dict[str, Any] = {
        name: pa.array([text] * 1000).dictionary_encode()
        for name, text in (texts | {"currency": "EUR", "protocol": "tcc"}).items()
    }
    data = of(1000, **listed)
    for bytes_max, is_plain in ((size, True), (size - 1, False)):
        assert agrees(data, bytes_max) == (careful(data, bytes_max) is not None) == is_plain


@given(st.binary(min_size=1, max_size=4), st.floats(0, 1), st.booleans())
def test_a_damaged_stream_is_nothing_or_what_the_careful_way_takes(
    piece: bytes, where: float, is_dictionary: bool
) -> None:
    names = pa.array(["al", "bob", "al"])
    data = of(source=names.dictionary_encode() if is_dictionary else names)
    at = int(where * (len(data) - len(piece)))
    agrees(data[:at] + piece + data[at + len(piece) :])


def test_offsets_that_lead_elsewhere() -> None:
    data = of(destination=["b" * 7, "c" * 9, "d" * 11])
    ends = struct.pack("<4i", 0, 7, 16, 27)
    assert data.count(ends) == 1
    for odd in ((0, 16, 7, 27), (0, 7, 16, 2**31 - 1), (-1, 7, 16, 27), (0, 7, 7, 27)):
        assert not agrees(data.replace(ends, struct.pack("<4i", *odd)))
