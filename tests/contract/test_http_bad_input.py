"""Bad input of every kind gets its 4xx and changes nothing."""

import json
from typing import Any

import httpx
import pytest

from tests.cluster import Cluster
from tests.contract.http import Town, is_problem, item, results, visit, wish


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


JSON = {"Content-Type": "application/json"}
KEY = {"Idempotency-Key": "k"}

# As they stand in the JSON text.
BAD_AMOUNTS = [
    *("0", "-1", "-0", "0.1", "1.0", "1e3", "1E0", "1e400", "9223372036854775808"),
    *("1" + "0" * 400, '"5"', '""', "null", "true", "false", "[]", "[1]", "{}", "NaN", "Infinity"),
    *("+1", "01", "0x1", "1_000", "--1", ""),
]
BAD_IDS = [
    *("", " ", "a b", "a'b", 'a"b', "a`b", "a\\b", "a;b", "a/b", "a%b", "a\x00b", "a\nb"),
    *("a\n", "\na", "a\t", "x" * 65, "x" * 10_000, "käthe", "алиса", "ａ", "١", "😀", "a,b"),
    *("' OR '1'='1", "a'; DROP TABLE accounts; --", "a--b#", "a\u200bb"),
]
BAD_CURRENCIES = ["", "EU", "eur", "EURO-", "E R", "TOOLONG99", "EUR\n", "€€€", "ЕUR", "E'R"]
BAD_KEYS = [
    "",
    " ",
    "k ",
    " k",
    "x" * 129,
    "clé",
    "ключ",
    "a\x00b",
    "a\nb",
    "k\n",
    "a\tb",
    "a\x7fb",
]
# What is no id where an id is due.
NOT_TEXT: list[Any] = [None, 5, 1.5, True, [], ["a"], {}]


def trim(value: object) -> str:
    text = str(value)
    return repr(text if len(text) < 30 else f"{text[:10]}...{len(text)}")


@pytest.fixture
def ends(town: Town) -> tuple[str, str]:
    """A rich account on one shard and another account on the other."""
    return town.pair(funds=10_000)


def send(town: Town, text: str | bytes, headers: dict[str, str] = KEY) -> httpx.Response:
    return town.api.post("/v1/transfers", content=text, headers=JSON | headers)


def body(ends: tuple[str, str], **changes: Any) -> str:
    return json.dumps(wish(*ends, 5) | changes)


# --- the body of a transfer -----------------------------------------------------------------


@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=trim)
def test_a_bad_amount(town: Town, ends: tuple[str, str], amount: str) -> None:
    text = body(ends, amount="AMOUNT").replace('"AMOUNT"', amount)
    batch = '{{"transfers": [{}]}}'.format(body(ends, amount="AMOUNT", idempotency_key="k"))
    batch = batch.replace('"AMOUNT"', amount)
    with town.unchanged():
        is_problem(send(town, text), 400, "malformed")
        answer = town.api.post("/v1/transfers/batch", content=batch, headers=JSON)
        # What is no JSON at all spoils the whole batch.
        if answer.status_code == 200:
            assert [result["reason"] for result in results(answer)] == ["malformed"]
        else:
            is_problem(answer, 400, "malformed")


@pytest.mark.parametrize("field", ["source", "destination"])
@pytest.mark.parametrize("account", [*BAD_IDS, *NOT_TEXT], ids=trim)
def test_a_bad_account_in_a_transfer(
    town: Town, ends: tuple[str, str], field: str, account: Any
) -> None:
    with town.unchanged():
        is_problem(send(town, body(ends, **{field: account})), 400, "malformed", field)
        bad = item(*ends, 5, "k") | {field: account}
        found = results(town.api.post("/v1/transfers/batch", json={"transfers": [bad]}))
        assert [(r["id"], r["status"], r["reason"]) for r in found] == [
            (None, "rejected", "malformed")
        ]


@pytest.mark.parametrize("currency", [*BAD_CURRENCIES, *NOT_TEXT], ids=trim)
def test_a_bad_currency(town: Town, ends: tuple[str, str], currency: Any) -> None:
    name = town.name()
    with town.unchanged():
        is_problem(send(town, body(ends, currency=currency)), 400, "malformed", "currency")
        answer = town.api.put(f"/v1/accounts/{name}", json={"currency": currency})
        is_problem(answer, 400, "malformed", "currency")


@pytest.mark.parametrize("field", ["source", "destination", "amount", "currency"])
def test_a_missing_field(town: Town, ends: tuple[str, str], field: str) -> None:
    wished = wish(*ends, 5)
    del wished[field]
    with town.unchanged():
        is_problem(send(town, json.dumps(wished)), 400, "malformed", field)


@pytest.mark.parametrize("field", ["note", "Amount", "idempotency_key", "id", "", "amount "])
def test_an_unknown_field(town: Town, ends: tuple[str, str], field: str) -> None:
    with town.unchanged():
        is_problem(send(town, body(ends, **{field: 5})), 400, "malformed", field)


@pytest.mark.parametrize(
    "metadata",
    [5, "x", [], [{}], True, {"a": "x" * 4097}, {"x" * 4097: 1}, {"a": "é" * 2100}],
    ids=trim,
)
def test_bad_metadata(town: Town, ends: tuple[str, str], metadata: Any) -> None:
    with town.unchanged():
        is_problem(send(town, body(ends, metadata=metadata)), 400, "malformed", "metadata")


def test_metadata_at_its_largest(town: Town, ends: tuple[str, str]) -> None:
    largest = {"a": "x" * (4096 - len('{"a":""}'))}
    assert town.transfer(*ends, 5, metadata=largest).json()["metadata"] == largest
    with town.unchanged():
        one_more = {"a": largest["a"] + "x"}
        is_problem(town.transfer(*ends, 5, metadata=one_more), 400, "malformed", "4097", "4096")


@pytest.mark.parametrize("depth", [100, 101, 500, 970, 980, 984, 990, 1000, 2000, 100_000])
def test_nested_metadata(town: Town, ends: tuple[str, str], depth: int) -> None:
    """Whatever is taken can also be read again."""
    lists = depth - 1
    text = body(ends, metadata="M").replace('"M"', '{{"a":{}1{}}}'.format("[" * lists, "]" * lists))
    if depth == 100:
        answer = send(town, text)
        assert answer.status_code == 201
        found = town.other.get(f"/v1/transfers/{answer.json()['id']}")
        assert found.json() == answer.json()
    else:
        with town.unchanged():
            # What is too long is not looked at.
            is_long = len(text) > 32 << 10
            is_problem(send(town, text), *(413, "too-large") if is_long else (400, "malformed"))


@pytest.mark.parametrize("number", ["1" + "0" * 400, "18446744073709551616", "-0.0", "1e308"])
def test_numbers_in_metadata_come_back(town: Town, ends: tuple[str, str], number: str) -> None:
    answer = send(town, body(ends, metadata="M").replace('"M"', f'{{"n": {number}}}'))
    assert answer.status_code == 201
    assert answer.json()["metadata"] == {"n": json.loads(number)}


@pytest.mark.parametrize("protocol", ["2pc", "XA", "", None, 5])
def test_a_bad_protocol(town: Town, ends: tuple[str, str], protocol: Any) -> None:
    with town.unchanged():
        is_problem(send(town, body(ends, protocol=protocol)), 400, "malformed", "protocol")


BROKEN = {
    "nothing": b"",
    "text": b"hello",
    "null": b"null",
    "a list": b"[]",
    "a number": b"5",
    "a string": b'"{}"',
    "unfinished": b'{"source": "a", "amount": 5',
    "wrong, then unfinished": b'{"source": 5, "amount',
    "wrong, then broken": b'{"source": "a b", "destination": oops}',
    "two": b"{}{}",
    "trailing comma": b'{"source": "a",}',
    "single quotes": b"{'source': 'a'}",
    "comment": b"{} // comment",
    "not UTF-8": b'{"source": "\xff\xfe"}',
    "wrong, then not UTF-8": b'{"source": 5, "destination": "\xff"}',
    "lone surrogate": b'{"source": "\\ud800"}',
    "UTF-16": '{"source": "a"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "deep": b"[" * 30_000,
    "deep inside": b'{"source": ' + b"[" * 30_000,
}


@pytest.mark.parametrize("path", ["/v1/transfers", "/v1/transfers/batch", "/v1/accounts/batch"])
@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_body_that_is_none(town: Town, path: str, text: bytes) -> None:
    with town.unchanged():
        answer = town.api.post(path, content=text, headers=JSON | KEY)
        is_problem(answer, 400, "malformed")


ITEMS = {
    "null": b"null",
    "a number": b"5",
    "a list": b"[]",
    "an empty object": b"{}",
    "not UTF-8": b'{"source": "\xff"}',
    "wrong, then not UTF-8": b'{"source": 5, "id": 5, "x": "\xff"}',
    "lone surrogate": b'{"source": "\\ud800", "id": "\\ud800"}',
    "wrong, then lone surrogate": b'{"source": 5, "id": 5, "x": "\\ud800"}',
    "deep": b'{"source": %s1%s}' % (b"[" * 900, b"]" * 900),
}


@pytest.mark.parametrize("things", ["transfers", "accounts"])
@pytest.mark.parametrize("text", ITEMS.values(), ids=ITEMS)
def test_an_item_that_is_none(town: Town, things: str, text: bytes) -> None:
    """It is refused by itself, or the body as a whole where it is no JSON."""
    batch = b'{"%s": [%s]}' % (things.encode(), text)
    with town.unchanged():
        answer = town.api.post(f"/v1/{things}/batch", content=batch, headers=JSON)
        if answer.status_code == 200:
            assert [(r["id"], r["status"], r["reason"]) for r in results(answer)] == [
                (None, "rejected", "malformed")
            ]
        else:
            is_problem(answer, 400, "malformed")


# --- keys -----------------------------------------------------------------------------------


def test_a_transfer_without_a_key(town: Town, ends: tuple[str, str]) -> None:
    with town.unchanged():
        is_problem(send(town, body(ends), {}), 400, "malformed", "Idempotency-Key")


@pytest.mark.parametrize("key", ["", "x" * 129, "clé", "ключ", "a\tb"], ids=trim)
def test_a_bad_key(town: Town, ends: tuple[str, str], key: str) -> None:
    headers = {**JSON, "Idempotency-Key": key.encode()}
    with town.unchanged():
        answer = town.api.post("/v1/transfers", content=body(ends), headers=headers)
        is_problem(answer, 400, "malformed", "Idempotency-Key")


@pytest.mark.parametrize("key", [*BAD_KEYS, *NOT_TEXT], ids=trim)
def test_a_bad_key_in_a_batch(town: Town, ends: tuple[str, str], key: Any) -> None:
    bad = item(*ends, 5, "k") | {"idempotency_key": key}
    with town.unchanged():
        found = results(town.api.post("/v1/transfers/batch", json={"transfers": [bad]}))
        assert [(r["id"], r["status"], r["reason"]) for r in found] == [
            (None, "rejected", "malformed")
        ]
        assert "idempotency_key" in found[0]["detail"]


# --- accounts -------------------------------------------------------------------------------

IN_A_PATH = [id_ for id_ in BAD_IDS if id_ and "/" not in id_ and len(id_) < 100]


@pytest.mark.parametrize("account", IN_A_PATH, ids=trim)
def test_a_bad_account_in_an_address(town: Town, account: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in account.encode())
    address = f"/v1/accounts/{encoded}"
    with town.unchanged():
        answers = [
            town.api.put(address, json={"currency": "EUR"}),
            town.api.patch(address, json={"status": "frozen"}),
            town.api.get(address),
            town.api.get(f"{address}/entries"),
            town.api.get(f"{address}/balance"),
            town.api.get(f"/v1/balances?account={encoded}"),
        ]
        for answer in answers:
            is_problem(answer, 400, "malformed")


@pytest.mark.parametrize("account", ["", "a/b"], ids=trim)
def test_an_address_that_is_none(town: Town, account: str) -> None:
    with town.unchanged():
        answer = town.api.put(
            f"/v1/accounts/{account.replace('/', '%2F')}", json={"currency": "EUR"}
        )
        is_problem(answer, 404, "not-found")


@pytest.mark.parametrize("account", [*BAD_IDS, *NOT_TEXT], ids=trim)
def test_a_bad_account_in_a_batch(town: Town, account: Any) -> None:
    batch = {"accounts": [{"id": account, "currency": "EUR"}]}
    with town.unchanged():
        found = results(town.api.post("/v1/accounts/batch", json=batch))
        assert [(r["id"], r["status"], r["reason"]) for r in found] == [
            (None, "rejected", "malformed")
        ]


@pytest.mark.parametrize(
    "limit", ["-1", "0.5", "1.0", "1e3", "9223372036854775808", '"5"', "true", "[]", "{}", "NaN"]
)
def test_a_bad_overdraft_limit(town: Town, limit: str) -> None:
    text = f'{{"currency": "EUR", "overdraft_limit": {limit}}}'
    with town.unchanged():
        answer = town.api.put(f"/v1/accounts/{town.name()}", content=text, headers=JSON)
        is_problem(answer, 400, "malformed")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"currency": "EUR", "balance": 5}',
        '{"currency": "EUR", "id": "x"}',
        '{"currency": "EUR", "status": "open"}',
        "[]",
        "null",
        "",
    ],
)
def test_bad_terms(town: Town, text: str) -> None:
    with town.unchanged():
        answer = town.api.put(f"/v1/accounts/{town.name()}", content=text, headers=JSON)
        is_problem(answer, 400, "malformed")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"status": "Open"}',
        '{"status": ""}',
        '{"status": null}',
        '{"status": "deleted"}',
        '{"status": "frozen", "currency": "USD"}',
        "[]",
        '"frozen"',
    ],
)
def test_a_bad_change(town: Town, text: str) -> None:
    name = town.account()
    with town.unchanged():
        answer = town.api.patch(f"/v1/accounts/{name}", content=text, headers=JSON)
        is_problem(answer, 400, "malformed")


# --- batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("things", ["transfers", "accounts"])
@pytest.mark.parametrize(
    "value", ["{}", '{"THINGS": {}}', '{"THINGS": null}', '{"THINGS": [], "more": 1}', "[]"]
)
def test_a_body_that_is_no_batch(town: Town, things: str, value: str) -> None:
    with town.unchanged():
        text = value.replace("THINGS", things)
        answer = town.api.post(f"/v1/{things}/batch", content=text, headers=JSON)
        is_problem(answer, 400, "malformed")
