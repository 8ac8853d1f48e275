"""Arrow streams with the numbers of accounts: rows become columns, and faults are told by rows."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coordinator.http.batches import arrow_numbers
from coordinator.http.batches.arrow_numbers import Numbered, is_numbered
from coordinator.http.json_text import TooLong
from eventstore.machine.parts import check_texts
from eventstore.machine.words import as_words
from eventstore.node.check import check
from eventstore.numbered_packing import pack_numbered
from eventstore.rows import COMMAND, Kind, ProtocolCode, currency_number
from tests.unit.test_batch_arrow_columns import stream

MOST = 8 << 20


def table(count: int = 3) -> dict[str, Any]:
    return {
        "id": pa.array([bytes([number % 256]) * 16 for number in range(count)], pa.binary(16)),
        "source": pa.array(range(count), pa.uint32()),
        "destination": pa.array(range(1, count + 1), pa.uint32()),
        "amount": pa.array(range(1, count + 1), pa.int64()),
        "currency": pa.array(["EUR", "USDT4ALL", "EUR"] * count, pa.string())[:count],
    }


def of(count: int = 3, **others: Any) -> bytes:
    """A stream of one batch, with other columns than usual; None: without it."""
    found = table(count) | others
    return stream(pa.record_batch({name: c for name, c in found.items() if c is not None}))


def read(data: bytes, room: int = 10_000) -> Numbered:
    return arrow_numbers.read(data, room, MOST)


def faults(**others: Any) -> dict[int, str]:
    return read(of(**others)).faults


def test_rows_are_columns() -> None:
    rows, columns, wrong = read(of(protocol=pa.array(["saga", None, "tcc"])))
    assert (rows.tolist(), wrong) == ([0, 1, 2], {})
    assert columns.id.tobytes() == b"".join(bytes([number]) * 16 for number in range(3))
    assert columns.source.tolist() == [0, 1, 2]
    assert columns.destination.tolist() == columns.amount.tolist() == [1, 2, 3]
    wanted = [currency_number(name) for name in ("EUR", "USDT4ALL", "EUR")]
    assert columns.currency.tolist() == wanted
    assert columns.protocol.tolist() == [3, 0, 2]
    kinds = [column.dtype.str for column in columns]
    assert kinds == ["|u1", "<u4", "<u4", "<i8", "<i8", "|u1"]


def test_several_batches_or_none() -> None:
    batch = pa.record_batch(table(2500))
    found = read(stream(batch.slice(0, 3), batch.slice(3, 0), batch.slice(3)))
    assert found.columns.size == 2500
    for one, other in zip(found.columns, read(of(2500)).columns, strict=True):
        assert one.tobytes() == other.tobytes()
    assert read(of(0)).columns.size == 0
    assert read(stream(batch.slice(0, 0), batch.slice(0, 0))).columns.size == 0
    part = pa.record_batch(table(2) | {"amount": pa.array([1, 0])})
    assert read(stream(part, part)).faults.keys() == {1, 3}
    assert read(stream(part, part)).rows.tolist() == [0, 2]
    with pytest.raises(TooLong, match="2500 rows or more"):
        read(of(2500), room=2499)
    with pytest.raises(TooLong, match="17 record batches"):
        read(stream(*[batch.slice(0, 1)] * 17))


@pytest.mark.parametrize("name", table())
def test_a_member_that_is_missing(name: str) -> None:
    columns = table()
    kind = columns[name].type
    hole = pa.array([columns[name][0].as_py(), None, columns[name][2].as_py()], kind)
    found = read(of(**{name: hole}))
    assert found.faults == {1: f"the member {name} is missing"}
    assert found.rows.tolist() == [0, 2]
    assert found.columns.source.tolist() == [0, 2]
    with pytest.raises(ValueError, match=f"the column {name} is missing"):
        read(of(**{name: None}))


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
)
def test_amounts(kind: pa.DataType) -> None:
    assert faults(amount=pa.array([1, 0, 100], kind)) == {
        1: "amount is 0, not 1 to 9223372036854775807"
    }
    if pa.types.is_signed_integer(kind):
        assert faults(amount=pa.array([1, 2, -1], kind)).keys() == {2}


def test_amounts_beyond_64_bits_with_a_sign() -> None:
    assert faults(amount=pa.array([2**63 - 1, 2**63, 2**64 - 1], pa.uint64())).keys() == {1, 2}


@pytest.mark.parametrize("index", [None, pa.int8(), pa.uint64()])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_texts(kind: pa.DataType, index: pa.DataType | None) -> None:
    def column(*texts: str | None) -> pa.Array:
        found = pa.array(texts, kind)
        return found.dictionary_encode().cast(pa.dictionary(index, kind)) if index else found

    assert faults(currency=column("EUR", "X1Y", "EUR")) == {}
    for odd in ("eur", "EU", "EUREUREUR", "EUR\0", "É" * 3, ""):
        assert faults(currency=column("EUR", odd, odd)).keys() == {1, 2}
    assert faults(currency=column("EUR", None, "EUR")) == {1: "the member currency is missing"}
    assert faults(protocol=column("tcc", None, "xa")) == {
        2: "protocol is 'xa', neither tcc nor saga"
    }


def test_a_null_in_a_dictionary_itself() -> None:
    found = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["EUR", None]))
    assert faults(currency=found).keys() == {1, 2}


def test_a_dictionary_as_large_as_its_indices_can_name() -> None:
    names = [f"A{number:03}" for number in range(128)]
    few = pa.array([127, None, 0], pa.int8())
    many = pa.array([*range(128), None], pa.int8())
    for indices in (few, many):
        found = read(of(len(indices), currency=pa.DictionaryArray.from_arrays(indices, names)))
        (hole,) = found.faults
        wanted = indices.to_pylist()
        assert wanted[hole] is None
        del wanted[hole]
        assert found.columns.currency.tolist() == [currency_number(names[i]) for i in wanted]


def test_a_number_that_means_none() -> None:
    odd = pa.array([0, 2**32 - 1, 2**32 - 2], pa.uint32())
    for name in ("source", "destination"):
        assert faults(**{name: odd}) == {1: f"{name} is 4294967295, which is no account's number"}


def test_columns_that_are_refused() -> None:
    for name, column in (
        ("id", pa.array([b"x" * 15] * 3, pa.binary(15))),
        ("id", pa.array(["k"] * 3)),
        ("source", pa.array(["alice"] * 3)),
        ("source", pa.array([1] * 3, pa.int64())),
        ("destination", pa.array([1] * 3, pa.uint16())),
        ("amount", pa.array([1.0] * 3)),
        ("currency", pa.array([1] * 3)),
    ):
        with pytest.raises(ValueError, match=f"the column '{name}' is of type"):
            read(of(**{name: column}))
    for name in ("idempotency_key", "metadata", "x"):
        with pytest.raises(ValueError, match=f"'{name}' is no column"):
            read(of(**{name: ["k"] * 3}))


def test_which_streams_are_such() -> None:
    assert is_numbered(of(), MOST)
    assert not is_numbered(of(id=None), MOST)
    assert not is_numbered(b"", MOST)
    assert not is_numbered(of()[:100], MOST)
    for data in (b"", of()[:-8], of() + b"x"):
        with pytest.raises(ValueError, match="stream"):
            read(data)


# --- as rows ------------------------------------------------------------------------------------


def test_they_are_rows_that_a_node_takes() -> None:
    columns = read(of(protocol=pa.array(["saga", None, "tcc"]))).columns
    commands, texts = pack_numbered(columns, ProtocolCode.TCC)
    assert commands.dtype == COMMAND
    assert commands["id"].tobytes() == columns.id.tobytes()
    for name in ("source", "destination", "amount"):
        assert commands[name].tolist() == getattr(columns, name).tolist()
    assert commands["currency"].tobytes() == columns.currency.tobytes()
    assert commands["protocol"].tolist() == [3, 2, 2]
    assert set(commands["kind"].tolist()) == {int(Kind.TRANSFER)}
    assert set(commands["text"].tolist()) == {8}
    assert not commands["step"].any()
    check(commands, texts, accounts=4)
    check_texts(commands, as_words(commands), texts)
    empty = pack_numbered(read(of(0)).columns, ProtocolCode.TCC)
    assert (len(empty.commands), empty.texts) == (0, b"")
    backwards = columns._replace(id=columns.id[::-1], currency=columns.currency[::-1])
    turned = pack_numbered(backwards, ProtocolCode.TCC).commands
    assert turned["id"].tobytes() == commands["id"][::-1].tobytes()
    assert np.array_equal(turned["currency"], commands["currency"][::-1])
