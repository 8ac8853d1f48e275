"""Times and metadata on their way in and out, and what the request types let through."""

import re
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.http import schemas
from coordinator.http.schemas import (
    AccountItem,
    AccountTerms,
    TransferItem,
    TransferRequest,
    parse_time,
    time_text,
    transfer_view,
)
from ledger.model import AMOUNT_MAX, Transfer
from shard_client.records import StoredTransfer

YEAR_10000 = 253_402_300_800_000_000
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

# --- times ----------------------------------------------------------------------------------


@given(st.integers(0, YEAR_10000 - 1))
def test_a_stamp_there_and_back(stamp: int) -> None:
    text = time_text(stamp)
    assert RFC_3339.fullmatch(text)
    assert parse_time(text) == stamp


@given(st.integers(0, YEAR_10000 - 2))
def test_times_sort_as_text(stamp: int) -> None:
    assert time_text(stamp) < time_text(stamp + 1)


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T19:30:00-04:30", 0),
        ("2026-11-22T10:00:00Z", 1_795_341_600_000_000),
        ("1969-12-31T23:59:59.999999Z", -1),
    ],
)
def test_a_time(text: str, stamp: int) -> None:
    assert parse_time(text) == stamp


def test_a_time_agrees_with_the_clock() -> None:
    now = datetime.now(UTC)
    assert parse_time(now.isoformat()) == round(now.timestamp() * 1_000_000)


@pytest.mark.parametrize(
    "text",
    ["", "now", "1795341600", "2026-11-22", "2026-11-22T10:00:00", "2026-13-01T00:00:00Z"],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)


def test_a_time_without_offset_says_so() -> None:
    with pytest.raises(ValueError, match="offset from UTC"):
        parse_time("2026-11-22T10:00:00")


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00Z", "0999-12-31T00:00:00Z", "0001-01-01T00:00:00+01:00"]
)
def test_a_time_that_is_taken_can_be_shown(text: str) -> None:
    """An answer repeats the time that was asked for."""
    try:
        stamp = parse_time(text)
    except (ValueError, OverflowError):
        return
    assert RFC_3339.fullmatch(time_text(stamp))


# --- metadata -------------------------------------------------------------------------------


def stored(metadata: str | None, status: str = "committed") -> StoredTransfer:
    transfer = Transfer("id", "key", "a", "b", 5, "EUR", metadata, "xa", 1)
    if status == "committed":
        return StoredTransfer(transfer, "g", status, None, None, 2)
    return StoredTransfer(transfer, "g", status, "insufficient-funds", "a has 0", 2)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), _json, max_size=4))
def test_metadata_comes_back_as_it_went_in(metadata: dict[str, object]) -> None:
    text = msgspec.json.encode(metadata, order="sorted").decode()
    assert transfer_view(stored(text)).metadata == metadata


def test_no_metadata_is_not_empty_metadata() -> None:
    assert transfer_view(stored(None)).metadata is None
    assert transfer_view(stored("{}")).metadata == {}


def test_metadata_is_an_object() -> None:
    for value in ("[]", '"text"', "5", "true"):
        body = _body(metadata=msgspec.Raw(value.encode()))
        with pytest.raises(msgspec.ValidationError, match="metadata"):
            msgspec.json.decode(body, type=TransferRequest)
    for value, expected in (("null", None), ("{}", {}), ('{"a":[1]}', {"a": [1]})):
        body = _body(metadata=msgspec.Raw(value.encode()))
        assert msgspec.json.decode(body, type=TransferRequest).metadata == expected


# --- views ----------------------------------------------------------------------------------


def test_a_committed_transfer() -> None:
    shown = msgspec.to_builtins(transfer_view(stored(None)))
    assert shown == {
        "id": "id",
        "status": "committed",
        "protocol": "xa",
        "source": "a",
        "destination": "b",
        "amount": 5,
        "currency": "EUR",
        "metadata": None,
        "created_at": "1970-01-01T00:00:00.000001Z",
        "committed_at": "1970-01-01T00:00:00.000002Z",
    }


def test_a_rejected_transfer() -> None:
    shown = msgspec.to_builtins(transfer_view(stored(None, "rejected")))
    assert shown["status"] == "rejected"
    assert shown["reason"] == "insufficient-funds"
    assert shown["detail"] == "a has 0"
    assert shown["rejected_at"] == "1970-01-01T00:00:00.000002Z"
    assert "committed_at" not in shown


# --- requests -------------------------------------------------------------------------------


def _body(**changes: object) -> bytes:
    fields: dict[str, object] = {"source": "a", "destination": "b", "amount": 1, "currency": "EUR"}
    return msgspec.json.encode({k: v for k, v in (fields | changes).items() if v != "missing"})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"source": "A" * 64, "destination": "a_b.c:d-{e}"},
        {"amount": AMOUNT_MAX},
        {"currency": "USD2"},
        {"currency": "ABCDEFGH"},
        {"protocol": "xa"},
    ],
)
def test_a_good_transfer(changes: dict[str, object]) -> None:
    msgspec.json.decode(_body(**changes), type=TransferRequest)


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "missing"},
        {"destination": "missing"},
        {"amount": "missing"},
        {"currency": "missing"},
        {"extra": 1},
        {"source": ""},
        {"source": "A" * 65},
        {"source": "a b"},
        {"source": "ä"},
        {"source": "a/b"},
        {"source": "a\n"},
        {"source": "a\u0000"},
        {"source": None},
        {"source": 5},
        {"destination": "b\n"},
        {"amount": 0},
        {"amount": -1},
        {"amount": AMOUNT_MAX + 1},
        {"amount": 10**30},
        {"amount": 1.5},
        {"amount": 1.0},
        {"amount": "1"},
        {"amount": True},
        {"amount": None},
        {"currency": "EU"},
        {"currency": "ABCDEFGHI"},
        {"currency": "eur"},
        {"currency": "EUR\n"},
        {"currency": None},
        {"protocol": "2pc"},
        {"protocol": None},
    ],
)
def test_a_bad_transfer(changes: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(_body(**changes), type=TransferRequest)


@pytest.mark.parametrize("key", ["k", "a  key", "~" * 128, "! !"])
def test_a_good_key(key: str) -> None:
    assert msgspec.json.decode(_body(idempotency_key=key), type=TransferItem).idempotency_key == key


@pytest.mark.parametrize(
    "key", ["", " ", "k ", " k", "~" * 129, "k\n", "\t", "ü", "\x7f", None, 5, "missing"]
)
def test_a_bad_key(key: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(_body(idempotency_key=key), type=TransferItem)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ('{"currency":"EUR"}', 0),
        ('{"currency":"EUR","overdraft_limit":null}', None),
        ('{"currency":"EUR","overdraft_limit":9223372036854775807}', AMOUNT_MAX),
    ],
)
def test_terms_of_an_account(text: str, limit: int | None) -> None:
    assert msgspec.json.decode(text, type=AccountTerms).overdraft_limit == limit


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"currency":"EUR","overdraft_limit":-1}',
        '{"currency":"EUR","overdraft_limit":9223372036854775808}',
        '{"currency":"EUR","overdraft_limit":"0"}',
        '{"currency":"EUR","status":"open"}',
        '{"currency":"EUR\\n"}',
    ],
)
def test_bad_terms_of_an_account(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=AccountTerms)


@pytest.mark.parametrize("id_", ["", "a\\n", "a b", "A" * 65])
def test_a_bad_id_of_an_account(id_: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(f'{{"id":"{id_}","currency":"EUR"}}', type=AccountItem)


def test_limits_of_the_interface() -> None:
    assert schemas.BATCH_MAX == 10_000
    assert schemas.BALANCES_MAX == 1000
    assert schemas.METADATA_MAX_BYTES == 4096
