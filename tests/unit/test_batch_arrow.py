"""Arrow streams: rows are items, whatever is wrong with them is said, and nothing grows."""

import random
import struct
from io import BytesIO
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc

from coordinator.http.batches import arrow_frames, arrow_stream
from coordinator.http.json_text import VALUE_MAX, TooLong, Value
from coordinator.http.schemas import TransferResult

MOST = 8 << 20
END = b"\xff\xff\xff\xff\0\0\0\0"


def columns(count: int = 3) -> dict[str, Any]:
    return {
        "idempotency_key": [f"k{number}" for number in range(count)],
        "source": ["alice"] * count,
        "destination": ["bob"] * count,
        "amount": pa.array(range(1, count + 1), pa.int64()),
        "currency": ["EUR"] * count,
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
    found = columns(count) | others
    return stream(pa.record_batch({name: c for name, c in found.items() if c is not None}))


def rows(data: bytes) -> list[Value]:
    return list(arrow_stream.read(data, lambda: None, MOST))


def item(number: int) -> dict[str, Any]:
    return {
        "idempotency_key": f"k{number}",
        "source": "alice",
        "destination": "bob",
        "amount": number + 1,
        "currency": "EUR",
    }


def test_rows_are_items() -> None:
    assert rows(of()) == [(item(number), None) for number in range(3)]
    assert rows(of(0)) == []
    plain = pa.record_batch(columns(2500))
    assert rows(stream(plain)) == [(item(number), None) for number in range(2500)]
    parts = (plain.slice(0, 3), plain.slice(3, 0), plain.slice(3, 2))
    assert rows(stream(*parts)) == [(item(number), None) for number in range(5)]


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_ones(codec: str) -> None:
    packed = stream(pa.record_batch(columns(500)), compression=codec)
    assert len(packed) < len(of(500))
    assert rows(packed) == rows(of(500))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("index", [None, pa.int8(), pa.uint32(), pa.int64()])
def test_the_types_of_texts(kind: pa.DataType, index: pa.DataType | None) -> None:
    found = pa.array(["é", None, "bob"], kind)
    if index:
        found = found.dictionary_encode().cast(pa.dictionary(index, kind))
    told = rows(of(destination=found))
    assert [value.get("destination") for value, _ in told] == ["é", None, "bob"]
    assert "destination" not in told[1][0]


def test_a_null_in_a_dictionary_itself() -> None:
    found = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["bob", None]))
    told = rows(of(destination=found))
    assert [value.get("destination") for value, _ in told] == ["bob", None, None]


def test_a_dictionary_that_another_one_follows() -> None:
    batches = [
        pa.record_batch(columns(2) | {"source": pa.array(names).dictionary_encode()})
        for names in (["a", "b"], ["c", "d"], ["d", "d"])
    ]
    told = rows(stream(*batches))
    assert [value["source"] for value, _ in told] == ["a", "b", "c", "d", "d", "d"]


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.int16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
)
def test_the_types_of_amounts(kind: pa.DataType) -> None:
    told = rows(of(amount=pa.array([100, None, 0], kind)))
    assert [value.get("amount") for value, _ in told] == [100, None, 0]
    assert all(type(value.get("amount", 0)) is int for value, _ in told)


@pytest.mark.parametrize("hole", [None, 5])
def test_large_amounts_are_exact(hole: int | None) -> None:
    amounts = [2**63 - 1, 2**53 + 1, hole]
    told = rows(of(amount=pa.array(amounts, pa.int64())))
    assert [value.get("amount") for value, _ in told] == amounts
    amounts = [2**63, 2**64 - 1, hole]
    told = rows(of(amount=pa.array(amounts, pa.uint64())))
    assert [value.get("amount") for value, _ in told] == amounts


def test_metadata_is_json_text() -> None:
    texts = ['{"a": {"b": [1]}}', None, "null"]
    told = rows(of(metadata=texts))
    assert [value.get("metadata") for value, _ in told] == [{"a": {"b": [1]}}, None, None]
    assert not any(fault for _, fault in told)
    for text, why in (
        ('{"a": 1, "a": 2}', "occurs twice"),
        ("{", "Expecting"),
        ("", "empty"),
        (" ", "Expecting"),
        ("NaN", "NaN"),
        ('{"a": 1e999}', "out of range"),
        ("[" * 5000, "recursion"),
    ):
        before, found, after = rows(of(metadata=["{}", text, "{}"]))
        assert (before[1], after[1]) == (None, None)
        assert (found[1] or "").startswith("metadata: ")
        assert why in (found[1] or "")


def test_columns_without_any_value() -> None:
    told = rows(of(metadata=pa.nulls(3), protocol=pa.nulls(3), amount=pa.nulls(3)))
    for value, fault in told:
        assert (value.pop("metadata"), fault) == (None, None)
        assert sorted(value) == ["currency", "destination", "idempotency_key", "source"]


# --- columns that are refused ---------------------------------------------------------------

WRONG = {
    "amount": [
        pa.array([1.0] * 3),
        pa.array(["1"] * 3),
        pa.array([True] * 3),
        pa.array([1] * 3).cast(pa.decimal128(20, 0)),
        pa.array([1] * 3).dictionary_encode(),
        pa.array([1] * 3, pa.timestamp("us")),
    ],
    "source": [
        pa.array([b"a"] * 3),
        pa.array([1] * 3),
        pa.array(["a"] * 3, pa.string_view()),
        pa.array([["a"]] * 3),
        pa.array([b"a"] * 3).dictionary_encode(),
        pa.RunEndEncodedArray.from_arrays(pa.array([3], pa.int32()), pa.array(["a"])),
    ],
    "metadata": [
        pa.array([{"a": 1}] * 3),
        pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
        pa.array(["{}"] * 3, pa.json_()),
    ],
    "idempotency_key": [pa.array([b"x" * 16] * 3, pa.uuid())],
}


@pytest.mark.parametrize(
    ("name", "column"), [(name, column) for name, some in WRONG.items() for column in some]
)
def test_a_column_of_a_wrong_type(name: str, column: pa.Array) -> None:
    with pytest.raises(ValueError, match=f"the column '{name}' is of type"):
        rows(of(**{name: column}))


def test_a_type_that_only_others_know() -> None:
    batch = pa.record_batch(columns())
    fields = list(batch.schema)
    fields[1] = fields[1].with_metadata({"ARROW:extension:name": "mine"})
    with pytest.raises(ValueError, match="the column 'source'"):
        rows(stream(pa.RecordBatch.from_arrays(batch.columns, schema=pa.schema(fields))))


@pytest.mark.parametrize("name", ["Amount", "id", "", "__index_level_0__", "x" * 5000])
def test_an_unknown_column(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name[:10]}.* is no column here"):
        rows(of(**{name: ["x"] * 3}))


def test_a_column_twice_or_not_at_all() -> None:
    batch = pa.record_batch(columns())
    doubled = pa.RecordBatch.from_arrays(
        [*batch.columns, batch["amount"]], [*batch.schema.names, "amount"]
    )
    with pytest.raises(ValueError, match="'amount' is there 2 times"):
        rows(stream(doubled))
    for name in columns():
        with pytest.raises(ValueError, match=f"column {name} is missing"):
            rows(of(**{name: None}))


# --- streams that are none ------------------------------------------------------------------


def test_a_stream_that_breaks_off_wherever_it_does() -> None:
    good = of()
    for length in range(len(good)):
        with pytest.raises(ValueError, match="breaks off"):
            rows(good[:length])
    assert good.endswith(END)
    # Many take it for a whole one.
    assert ipc.open_stream(good[: -len(END)]).read_all().num_rows == 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"not Arrow at all", "no message of an Arrow stream begins"),
        (b'{"transfers": []}', "no message of an Arrow stream begins"),
        (b"ARROW1\0\0" + of(), "no message of an Arrow stream begins"),
        (of()[4:], "no message of an Arrow stream begins"),
        (END, None),
        (of() + b"\0", "something follows"),
        (of() + of(), "something follows"),
        (of()[: -len(END)] + of(), "one schema"),
        (stream(pa.record_batch(columns()), use_legacy_format=True), "no message"),
        (stream(pa.record_batch(columns()), metadata_version=ipc.MetadataVersion.V4), "V5"),
    ],
)
def test_what_is_no_stream(data: bytes, why: str | None) -> None:
    with pytest.raises(ValueError, match=why):
        rows(data)


def test_a_delta_dictionary() -> None:
    batches = [
        pa.record_batch(
            columns(1) | {"source": pa.DictionaryArray.from_arrays([at], ["a", "b"][: at + 1])}
        )
        for at in range(2)
    ]
    assert len(rows(stream(*batches))) == 2
    with pytest.raises(ValueError, match="delta dictionary"):
        rows(stream(*batches, emit_dictionary_deltas=True))


def test_a_place_that_a_dictionary_has_not() -> None:
    places = pa.array([0, 7, 1], pa.int8())
    astray = pa.DictionaryArray.from_arrays(places, pa.array(["a", "b"]), safe=False)
    with pytest.raises(ValueError, match="cannot be read"):
        rows(of(source=astray))


def test_a_text_that_is_not_utf_8() -> None:
    good = of(source=["alice", "#####", "alice"])
    with pytest.raises(ValueError, match=r"cannot be read.*UTF8"):
        rows(good.replace(b"#####", b"\xff\xfe\xff\xfe\xff"))


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_stream_that_grows_when_it_is_decompressed(codec: str) -> None:
    texts = ["{" + " " * 30_000 + "}"] * 1000
    packed = stream(pa.record_batch(columns(1000) | {"metadata": texts}), compression=codec)
    assert len(packed) < MOST // 10
    with pytest.raises(TooLong, match=f"more than {MOST} bytes when it is decompressed"):
        rows(packed)
    named = pa.array(texts, pa.string()).dictionary_encode()
    assert len(rows(stream(pa.record_batch(columns(100) | {"metadata": named.slice(0, 100)})))) > 0


def test_a_buffer_that_says_that_it_holds_very_much() -> None:
    """No room is made for it."""
    packed = stream(pa.record_batch(columns(100)), compression="zstd")
    amounts = pa.record_batch(columns(100))["amount"].buffers()[1]
    said = struct.pack("<q", amounts.size)
    assert said in packed
    for lie in (2**62, MOST + 1):
        with pytest.raises(TooLong):
            rows(packed.replace(said, struct.pack("<q", lie)))
    with pytest.raises(ValueError, match="says that it holds -2 bytes"):
        rows(packed.replace(said, struct.pack("<q", -2)))


def test_a_dictionary_whose_values_are_used_often() -> None:
    text = '{"a": "' + "x" * 30_000 + '"}'
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int16()), [text])
    data = stream(pa.record_batch(columns(1000) | {"metadata": many}))
    assert len(data) < MOST // 10
    with pytest.raises(TooLong, match=f"more than {MOST} characters"):
        rows(data)


def test_a_text_has_a_limit() -> None:
    blank = '{"a": ""}'
    longest = blank.replace('""', '"' + "x" * (VALUE_MAX - len(blank)) + '"')
    for kind in (pa.string(), pa.large_string()):
        for found in (pa.array([longest], kind), pa.array([longest], kind).dictionary_encode()):
            assert rows(of(1, metadata=found))[0][1] is None
        for long in (pa.array([longest + " "], kind), pa.array(["x" * 10**6], kind)):
            for found in (long, long.dictionary_encode()):
                with pytest.raises(TooLong, match=f"'?metadata.*{VALUE_MAX}"):
                    rows(of(1, metadata=found))


def test_rows_have_a_limit_wherever_they_are() -> None:
    assert len(rows(of(10_000))) == 10_000
    with pytest.raises(TooLong, match=r"10001.* 10000 "):
        rows(of(10_001))
    one = pa.record_batch(columns(9000))
    with pytest.raises(TooLong, match="18000"):
        rows(stream(one, one))


def test_rows_that_take_no_room() -> None:
    said, lie = struct.pack("<q", 12_345), struct.pack("<q", 2**40)
    small = of(**dict.fromkeys(columns(), pa.nulls(12_345)))
    assert small.count(said) > len(columns())
    with pytest.raises(TooLong, match=str(2**40)):
        rows(small.replace(said, lie))


def test_messages_have_a_limit() -> None:
    one = pa.record_batch(columns(1))
    assert len(rows(stream(*[one] * arrow_frames.MESSAGES_MAX))) == arrow_frames.MESSAGES_MAX
    with pytest.raises(TooLong, match="record batches"):
        rows(stream(*[one] * (arrow_frames.MESSAGES_MAX + 1)))


def test_the_head_of_a_message_has_a_limit() -> None:
    batch = pa.record_batch(columns(1)).replace_schema_metadata({"pandas": "x" * 10_000})
    assert len(rows(stream(batch))) == 1
    batch = batch.replace_schema_metadata({"pandas": "x" * arrow_frames.HEAD_BYTES_MAX})
    with pytest.raises(TooLong, match=str(arrow_frames.HEAD_BYTES_MAX)):
        rows(stream(batch))


# --- attacked -------------------------------------------------------------------------------


def flipped(chance: random.Random, data: bytes) -> bytes:
    """A stream with some bits or bytes changed, or moved."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(found))
        match chance.randrange(4):
            case 0:
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                found[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                found[at : at + 8] = chance.choice((b"\0", b"\xff")) * 8
            case 3:
                other = chance.randrange(len(found))
                found[at : at + 8] = found[other : other + 8]
    return bytes(found)


@pytest.mark.parametrize("seed", range(4))
def test_a_broken_stream_is_refused_or_has_rows(seed: int) -> None:
    chance = random.Random(seed)
    wished = columns(6) | {
        "source": pa.array(["alice", "bob"] * 3).dictionary_encode(),
        "metadata": pa.array(['{"a": 1}', None] * 3, pa.large_string()),
    }
    batch = pa.record_batch(wished)
    bases = [stream(batch, batch, compression=codec) for codec in (None, "lz4", "zstd")]
    refused = read = 0
    for _ in range(500):
        try:
            found = rows(flipped(chance, chance.choice(bases)))
        except ValueError:
            refused += 1
        else:
            read += 1
            for value, _ in found:
                assert set(value) <= {*wished}
                assert type(value.get("amount", 0)) is int
                assert isinstance(value.get("source", ""), str)
    assert refused
    assert read


# --- answers --------------------------------------------------------------------------------


def test_results_are_rows() -> None:
    data = arrow_stream.write(
        [
            TransferResult("t1", "committed"),
            TransferResult("t2", "committed", replayed=True),
            TransferResult(None, "rejected", "malformed", "why é"),
        ]
    )
    found = ipc.open_stream(data).read_all()
    assert found.schema.names == ["id", "status", "reason", "detail", "replayed"]
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("t1", "committed", None, None, None),
        ("t2", "committed", None, None, True),
        (None, "rejected", "malformed", "why é", None),
    ]
    arrow_frames.check(data, MOST)
    nothing = ipc.open_stream(arrow_stream.write([])).read_all()
    assert nothing.num_rows == 0
    assert nothing.schema == found.schema
