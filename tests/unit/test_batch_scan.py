"""Bodies read by compiled code: all items with the values of the careful way, or nothing."""

import json
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.http import json_text
from coordinator.http.batches import compiled, scan
from coordinator.http.json_text import VALUE_MAX, Value
from coordinator.http.schemas import BATCH_MAX, TransferItem
from eventstore.rows import ProtocolCode, currency_text
from ledger.ids import ACCOUNT_ID_PATTERN
from shard_client.columns import Columns

Read = Callable[[bytes, Callable[[], None]], Iterator[Value]]

JSON, LINES = "json", "lines"
CAREFUL: dict[str, Read] = {
    JSON: lambda data, pause: json_text.read_list(data, "transfers", pause),
    LINES: json_text.read_lines,
}
SCANS = {JSON: scan.json_columns, LINES: scan.line_columns}

GOOD = {
    "idempotency_key": "k-1",
    "source": "alice",
    "destination": "bob",
    "amount": 5,
    "currency": "EUR",
}


def written(kind: str, items: list[str]) -> bytes:
    text = "\n".join(items) if kind == LINES else '{"transfers": [' + ",".join(items) + "]}"
    return text.encode()


def careful(kind: str, data: bytes) -> list[TransferItem] | None:
    """The items, or None if the body or one of them is refused."""
    found = []
    try:
        for value, fault in CAREFUL[kind](data, lambda: None):
            if fault:
                return None
            found.append(msgspec.convert(value, TransferItem))
    except (ValueError, RecursionError):
        return None
    return found if len(found) <= BATCH_MAX else None


def items_of(columns: Columns) -> list[TransferItem]:
    """The transfers that columns hold."""
    data = columns.data.tobytes()

    def texts(spans: Any) -> list[str]:
        return [data[begin:end].decode() for begin, end in spans.tolist()]

    names = [ProtocolCode(code).name.lower() for code in columns.protocol.tolist()]
    return [
        TransferItem(
            idempotency_key=key,
            source=source,
            destination=destination,
            amount=amount,
            currency=currency_text(currency),
            protocol=msgspec.UNSET if name == "unnamed" else name,  # type: ignore[arg-type]
        )
        for key, source, destination, amount, currency, name in zip(
            texts(columns.key),
            texts(columns.source),
            texts(columns.destination),
            columns.amount.tolist(),
            columns.currency.tolist(),
            names,
            strict=True,
        )
    ]


def agrees(kind: str, data: bytes, room: int = BATCH_MAX) -> bool:
    """Whether all of a body is plain; then its values are those of the careful way."""
    found = SCANS[kind](data, room)
    if found is None:
        return False
    assert items_of(found) == careful(kind, data)
    return True


# --- what is plain ------------------------------------------------------------------------------

KEY_LETTERS = "".join(map(chr, range(0x21, 0x7F)))
PLAIN_LETTERS = KEY_LETTERS.replace('"', "").replace("\\", "")
KEYS = st.text(KEY_LETTERS + " ", min_size=1, max_size=9)
PLAIN_KEYS = st.text(PLAIN_LETTERS, min_size=1, max_size=9) | st.sampled_from(["a b", "k" * 128])
ACCOUNTS = st.text(
    "".join(letter for letter in KEY_LETTERS if re.match(ACCOUNT_ID_PATTERN, letter)),
    min_size=1,
    max_size=9,
) | st.just("a" * 64)
ITEMS = st.fixed_dictionaries(
    {
        "idempotency_key": PLAIN_KEYS,
        "source": ACCOUNTS,
        "destination": ACCOUNTS,
        "amount": st.integers(1, 2**63 - 1) | st.integers(1, 20),
        "currency": st.text("EUR019AZ", min_size=3, max_size=8),
    },
    optional={"protocol": st.sampled_from(["tcc", "saga"]), "metadata": st.none()},
)
BLANKS = ["", "", "", " ", "\t", "\r", "\n", "  \r\n "]


def plain(kind: str, items: list[dict[str, Any]], chance: Random) -> bytes:
    """A body of which all is plain: members in any order, and blanks wherever they may be."""

    def blank() -> str:
        found = chance.choice(BLANKS)
        return found.replace("\n", "") if kind == LINES else found

    def item(members: dict[str, Any]) -> str:
        texts = [
            f"{blank()}{json.dumps(name)}{blank()}:{blank()}{json.dumps(value)}{blank()}"
            for name, value in chance.sample(list(members.items()), len(members))
        ]
        return f"{blank()}{{{','.join(texts)}}}{blank()}"

    texts = list(map(item, items))
    if kind == LINES:
        return ("\n".join(texts) + chance.choice(["", "\n"] if texts else [""])).encode()
    name = f'{blank()}"transfers"{blank()}'
    listed = ",".join(texts) or blank()
    return f"{blank()}{{{name}:{blank()}[{listed}]{blank()}}}{blank()}".encode()


KINDS = st.sampled_from([JSON, LINES])
CHANCES = st.integers(0, 2**32).map(Random)
BODIES = KINDS.flatmap(
    lambda kind: st.tuples(
        st.just(kind), st.builds(plain, st.just(kind), st.lists(ITEMS, max_size=3), CHANCES)
    )
)


@given(BODIES)
def test_what_is_plain_is_taken(body: tuple[str, bytes]) -> None:
    assert agrees(*body)


# --- what is not --------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *(bytes([byte]) for byte in range(256)),
        *(b"\xef\xbb\xbf", "é".encode(), b"\\u0061", b'\\"', b"1.0", b"1e3", b"-1", b"01", b"0"),
        *(b"9223372036854775807", b"9223372036854775808", b"99999999999999999999", b"true"),
        *(b"null", b'"saga"', b'"xa"', b"{}", b"[]", b'"', b",,", b"\r\n", b"\n\n", b'"amount":1,'),
        *(b'"metadata":{},', b'"metadata":null,', b'"protocol":null,', b'"x":1,', b"]}", b"NaN"),
    ]
)


@st.composite
def changed(draw: st.DrawFn) -> tuple[str, bytes]:
    """A body of which something was changed."""
    kind, data = draw(BODIES)
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(data)))
        over = draw(st.sampled_from([0, 1, 1, 2, 10]))
        data = data[:at] + draw(PIECES | st.just(b"")) + data[at + over :]
    return kind, data


@given(changed())
def test_nothing_else_is_taken_than_the_careful_way_takes(body: tuple[str, bytes]) -> None:
    agrees(*body)


@given(KINDS, st.data())
def test_values_of_other_kinds(kind: str, data: st.DataObject) -> None:
    texts = KEYS | st.sampled_from(["", " a", "a\n", "é", "eur", "xa", "\0", "a" * 65, "k" * 129])
    numbers = st.integers(-(2**64), 2**64) | st.floats() | st.booleans() | st.none()
    item: dict[str, Any] = dict(data.draw(ITEMS))
    name = data.draw(st.sampled_from([*item, "protocol", "metadata", "x", "Amount"]))
    item[name] = data.draw(texts | numbers | st.just({}) | st.just([1]))
    if data.draw(st.booleans()):
        item.pop(data.draw(st.sampled_from(sorted(item))))
    agrees(kind, written(kind, [json.dumps(item), json.dumps(GOOD)]))


NOT_PLAIN = [
    GOOD | {"metadata": {}},
    GOOD | {"protocol": "xa"},
    GOOD | {"protocol": None},
    GOOD | {"amount": 2**63},
    GOOD | {"amount": 0},
    GOOD | {"amount": 1.0},
    GOOD | {"amount": True},
    GOOD | {"amount": "1"},
    GOOD | {"source": "a b"},
    GOOD | {"source": "a" * 65},
    GOOD | {"source": ""},
    GOOD | {"idempotency_key": "k "},
    GOOD | {"idempotency_key": 'k"k'},
    GOOD | {"idempotency_key": "k" * 129},
    GOOD | {"idempotency_key": "\x7f"},
    GOOD | {"currency": "EU"},
    GOOD | {"currency": "EUREUREUR"},
    GOOD | {"x": 1},
    *({name: value for name, value in GOOD.items() if name != gone} for gone in GOOD),
]


@pytest.mark.parametrize("kind", SCANS)
def test_what_is_left_to_the_careful_way(kind: str) -> None:
    good = json.dumps(GOOD)
    assert agrees(kind, written(kind, [good] * 3))
    for odd in NOT_PLAIN:
        for items in ([json.dumps(odd)], [good, json.dumps(odd), good]):
            assert not agrees(kind, written(kind, items)), odd
    twice = good[:-1] + ', "amount": 5}'
    for text in (twice, f"{good},", f"{good} {good}", "", " ", "null", f"[{good}]"):
        assert not agrees(kind, written(kind, [good, text, good])), text


@pytest.mark.parametrize("kind", SCANS)
def test_a_body_that_is_cut_anywhere(kind: str) -> None:
    data = written(kind, [json.dumps(GOOD | {"protocol": "tcc", "metadata": None})])
    # What lies behind it in memory would make it whole.
    for length in range(len(data)):
        assert agrees(kind, bytes(memoryview(data)[:length])) == (kind == LINES and length == 0)
    assert agrees(kind, data)


@pytest.mark.parametrize("kind", SCANS)
def test_it_has_room_for_so_many(kind: str) -> None:
    least = GOOD | {"idempotency_key": "k", "source": "a", "destination": "b"}
    items = [json.dumps(least, separators=(",", ":"))] * 6
    for count in range(7):
        assert agrees(kind, written(kind, items[:count]), room=5) == (count <= 5)
    assert agrees(kind, written(kind, items * 1000))


@pytest.mark.parametrize("kind", SCANS)
@pytest.mark.parametrize("more", [0, 1])
def test_an_item_is_as_long_as_the_careful_way_lets_it_be(kind: str, more: int) -> None:
    text = json.dumps(GOOD)
    long = text[:-1] + " " * (VALUE_MAX - len(text) + more) + "}"
    data = written(kind, [text, long, text])
    assert agrees(kind, data) == (careful(kind, data) is not None) == (not more)


def test_lines_end_as_they_do() -> None:
    good = json.dumps(GOOD).encode()
    for data, is_plain in (
        (good + b"\r\n" + good + b"\r\n", True),
        (good + b"\n\n", False),
        (good + b"\n ", False),
        (b"\n" + good, False),
        (good + b"\r" + good, False),
        (good.replace(b" ", b"\n", 1), False),
        (b"\xef\xbb\xbf" + good, False),
    ):
        assert agrees(LINES, data) == is_plain, data


def test_compiled_code_is_kept_under_a_name_of_all_its_sources() -> None:
    name = scan._scan_list.py_func.__qualname__  # type: ignore[attr-defined]
    assert name == f"_scan_list.{compiled.hash_of_sources()}"
