"""Reading files to import: what a line becomes, and that a broken one spoils itself alone."""

import io

import pytest

from ledger.model import AMOUNT_MAX
from tandem.cli.import_rows import LINE_MAX_BYTES, FileError, Format, Row, rows_of

TRANSFER = {"source": "a", "destination": "b", "amount": 5, "currency": "EUR"}


def read(data: str | bytes, format: Format = "csv", name: str = "f.csv") -> tuple[str, list[Row]]:
    raw = data.encode() if isinstance(data, str) else data
    kind, rows = rows_of(io.BytesIO(raw), format, name)
    return kind, list(rows)


def test_accounts_in_csv() -> None:
    text = (
        "id,currency,overdraft_limit\n"
        "a,EUR,0\nb,EUR,500\nc,EUR,\nd,EUR,null\ne,EUR,Unlimited\n{f}:x,USD,7\n"
    )
    kind, rows = read(text)
    assert kind == "accounts"
    assert [row.item and row.item["overdraft_limit"] for row in rows] == [
        0,
        500,
        None,
        None,
        None,
        7,
    ]
    assert rows[5].item == {"id": "{f}:x", "currency": "USD", "overdraft_limit": 7}


def test_accounts_without_a_limit_column_have_limit_zero() -> None:
    _, rows = read("id,currency\na,EUR\n")
    assert rows[0].item == {"id": "a", "currency": "EUR", "overdraft_limit": 0}


def test_transfers_in_csv_with_and_without_key() -> None:
    text = (
        "source,destination,amount,currency,key,metadata\n"
        'a,b,5,EUR,k1,"{""n"": ""x, y""}"\n'
        "\n"
        "a,b,5,EUR,,\n"
    )
    kind, rows = read(text, name="pay roll.csv")
    assert kind == "transfers"
    assert [row.item for row in rows] == [
        {"idempotency_key": "k1", **TRANSFER, "metadata": {"n": "x, y"}},
        {"idempotency_key": "pay roll.csv:4", **TRANSFER},
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_in_any_order_and_with_any_usual_delimiter(delimiter: str) -> None:
    text = "Currency,AMOUNT, source ,destination\r\nEUR, 5 ,a,b\r\n".replace(",", delimiter)
    _, rows = read(text)
    assert rows[0].item == {"idempotency_key": "f.csv:2", **TRANSFER}


def test_a_byte_order_mark_is_no_part_of_the_first_column() -> None:
    assert read(b"\xef\xbb\xbfid,currency\na,EUR\n")[0] == "accounts"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a,b,5", "3 columns"),
        ("a,b,5,EUR,x", "5 columns"),
        ("a,b,5.0,EUR", "'5.0' is no whole number"),
        ("a,b,1e3,EUR", "'1e3' is no whole number"),
        ("a,b,1_000,EUR", "'1_000' is no whole number"),
        ("a,b,٥,EUR", "is no whole number"),
        ("a,b,,EUR", "'' is no whole number"),
        ("a,b,0,EUR", "amount"),
        ("a,b,-1,EUR", "amount"),
        (f"a,b,{AMOUNT_MAX + 1},EUR", "amount"),
        ("a b,b,5,EUR", "source"),
        (f"a,{'b' * 65},5,EUR", "destination"),
        ("a,b';--,5,EUR", "destination"),
        ('a,"b,5,EUR', "CSV"),
        (",b,5,EUR", "source"),
    ],
)
def test_a_malformed_line_is_named_and_the_next_one_is_read(line: str, told: str) -> None:
    _, rows = read(f"source,destination,amount,currency\n{line}\na,b,5,EUR\n")
    assert rows[0].line == 2
    assert rows[0].item is None
    assert told in rows[0].problem
    assert rows[1].item == {"idempotency_key": "f.csv:3", **TRANSFER}


def test_the_largest_amount_is_good() -> None:
    _, rows = read(f"source,destination,amount,currency\na,b,{AMOUNT_MAX},EUR\n")
    assert rows[0].item is not None


def test_a_line_that_is_no_utf8_and_one_that_is_too_long_spoil_themselves_alone() -> None:
    long = b"a,b,5," + b"E" * 3 * LINE_MAX_BYTES
    _, rows = read(b"source,destination,amount,currency\n\xff,b,5,EUR\n" + long + b"\na,b,5,EUR\n")
    assert [(row.line, row.item is None) for row in rows] == [(2, True), (3, True), (4, False)]
    assert "UTF-8" in rows[0].problem
    assert "longer" in rows[1].problem


def test_transfers_in_json_lines() -> None:
    lines = [
        '{"source":"a","destination":"b","amount":5,"currency":"EUR","metadata":{"n":[1]}}',
        '{"source":"a","destination":"b","amount":5,"currency":"EUR","idempotency_key":"k"}',
    ]
    kind, rows = read("\n".join(lines), "jsonl", "t.jsonl")
    assert kind == "transfers"
    assert [row.item for row in rows] == [
        {"idempotency_key": "t.jsonl:1", **TRANSFER, "metadata": {"n": [1]}},
        {"idempotency_key": "k", **TRANSFER},
    ]


def test_accounts_in_json_lines_after_a_broken_first_line() -> None:
    kind, rows = read('{"id":\n{"id":"a","currency":"EUR","overdraft_limit":null}\n', "jsonl")
    assert kind == "accounts"
    assert rows[0].problem
    assert rows[1].item == {"id": "a", "currency": "EUR", "overdraft_limit": None}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('"amount":"5"', "amount"),
        ('"amount":5.0', "amount"),
        ('"amount":true', "amount"),
        ('"amount":null', "amount"),
        ('"amount":1e3', "amount"),
        ('"amount":5,"surprise":1', "surprise"),
        ('"amount":5,"metadata":[]', "metadata"),
        ('"amount":5,"metadata":{"a":1e999}', "out of range"),
        ('"amount":5,"metadata":{"a":"\\ud800"}', "JSON"),
        ('"amount":5,"metadata":' + '{"a":' * 5000 + "1" + "}" * 5000, "JSON"),
        ('"amount":5,"key":"x","idempotency_key":"y"', "idempotency_key"),
        ('"amount":5,"key":"x "', "key"),
        ('"amount":5,"amount":6', "'amount' occurs twice"),
        ('"amount":5,"metadata":{"a":1,"\\u0061":2}', "'a' occurs twice"),
    ],
)
def test_a_malformed_json_line_is_named(change: str, told: str) -> None:
    good = '{"source":"a","destination":"b","amount":5,"currency":"EUR"}'
    bad = f'{{"source":"a","destination":"b","currency":"EUR",{change}}}'
    _, rows = read(f"{good}\n{bad}\n{good}\n", "jsonl")
    assert [row.item is None for row in rows] == [False, True, False]
    assert told in rows[1].problem


@pytest.mark.parametrize(
    ("data", "format"),
    [
        ("", "csv"),
        ("", "jsonl"),
        ("a,b,5,EUR\n", "csv"),
        ("source,destination,amount\n", "csv"),
        ("source,destination,amount,currency,colour\n", "csv"),
        ("id,currency,id\n", "csv"),
        ("[\n", "jsonl"),
        ('{"name":"x"}\n', "jsonl"),
    ],
)
def test_a_file_that_is_neither_is_refused_as_a_whole(data: str, format: Format) -> None:
    with pytest.raises(FileError):
        read(data, format)


def test_a_name_outside_ascii_makes_a_key_of_ascii() -> None:
    _, rows = read("source,destination,amount,currency\na,b,5,EUR\n", name="löhne.csv")
    assert rows[0].item is not None
    assert rows[0].item["idempotency_key"] == "l%C3%B6hne.csv:2"


def test_a_name_too_long_for_a_key_is_refused() -> None:
    with pytest.raises(FileError, match="--name"):
        read("source,destination,amount,currency\n", name="x" * 101)


def test_a_file_is_read_only_as_far_as_its_rows_are_asked_for() -> None:
    stream = io.BytesIO(b"source,destination,amount,currency\n" + b"a,b,5,EUR\n" * 1000)
    _, rows = rows_of(stream, "csv", "f.csv")
    assert [next(rows).line for _ in range(3)] == [2, 3, 4]
    assert stream.tell() == len(b"source,destination,amount,currency\n") + 3 * len(b"a,b,5,EUR\n")
