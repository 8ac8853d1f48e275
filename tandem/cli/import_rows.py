"""Reading accounts or transfers from CSV or JSON Lines, a line at a time, in bounded memory.

A record is one line: so a broken one spoils itself alone, and a line number is its name for ever.
Nothing here talks to the service.
"""

import csv
import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, BinaryIO, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from coordinator.http import json_text
from coordinator.http.schemas import AccountId, AccountItem, Amount, Currency, Key
from tandem.cli.terminal import CommandError

Kind = Literal["accounts", "transfers"]
Format = Literal["csv", "jsonl"]

# Metadata may have 4 KiB, which quoting in CSV can double; the rest is short.
LINE_MAX_BYTES = 64 * 1024
# So many lines of JSON are looked at to tell accounts from transfers.
LOOK_AHEAD = 100
DELIMITERS = ",;\t"
# What names a file in the keys made from it; with ":" and a line number it fits in 128.
KEY_NAME = re.compile(r"[!-~]([ -~]{0,98}[!-~])?")

INTEGER = re.compile(r"-?[0-9]{1,40}")


class TransferLine(msgspec.Struct, forbid_unknown_fields=True):
    """A transfer as a file has it; the key may also be called what the HTTP API calls it."""

    source: AccountId
    destination: AccountId
    amount: Amount
    currency: Currency
    key: Key | None = None
    idempotency_key: Key | None = None
    metadata: dict[str, Any] | None = None


LINE_TYPES: dict[Kind, type[msgspec.Struct]] = {"accounts": AccountItem, "transfers": TransferLine}
REQUIRED: dict[Kind, tuple[str, ...]] = {
    "accounts": ("id", "currency"),
    "transfers": ("source", "destination", "amount", "currency"),
}


class FileError(CommandError):
    """The file as a whole cannot be imported; nothing of it has been sent."""


class MalformedLine(Exception):
    """A line that cannot be sent; the text says why."""


class Line(NamedTuple):
    """A line of the file: `text` is None if it is too long or no UTF-8, and `problem` says so."""

    number: int
    text: str | None
    problem: str
    end: int  # bytes read so far


class Row(NamedTuple):
    """A record: the item to send, or the problem for which it cannot be sent."""

    line: int
    item: dict[str, Any] | None
    problem: str
    size: int
    end: int

    @property
    def name(self) -> str:
        """The key of a transfer or the id of an account."""
        item = self.item or {}
        return str(item.get("idempotency_key") or item.get("id") or "")


def rows_of(stream: BinaryIO, format: Format, name: str) -> tuple[Kind, Iterator[Row]]:
    """The kind of a file and its records, read as they are asked for.

    `name` goes into the keys of transfers that have none: NAME:LINE. Raises FileError.
    """
    lines = (line for line in _lines(stream) if line.text is None or line.text.strip())
    kind, parse, records = (_open_csv if format == "csv" else _open_json_lines)(lines)
    prefix = _key_prefix(name) if kind == "transfers" else ""
    return kind, (_row(line, parse, kind, prefix) for line in records)


def _key_prefix(name: str) -> str:
    shown = quote(name, safe=" !#$&'()*+,;=@[]{}^`|~<>?\"\\")
    if not KEY_NAME.fullmatch(shown):
        raise FileError(
            f"The name {name!r} cannot stand in idempotency keys (1 to 100 characters); "
            "give a shorter one with --name, and the same one whenever this file is imported."
        )
    return shown


def _lines(stream: BinaryIO) -> Iterator[Line]:
    number = end = 0
    while data := stream.readline(LINE_MAX_BYTES + 1):
        number += 1
        end += len(data)
        if len(data) > LINE_MAX_BYTES:
            while not data.endswith(b"\n") and (data := stream.readline(LINE_MAX_BYTES)):
                end += len(data)
            yield Line(number, None, f"it is longer than {LINE_MAX_BYTES} bytes", end)
            continue
        try:
            text = data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield Line(number, None, f"it is no UTF-8 text ({error.reason})", end)
        else:
            yield Line(number, text.rstrip("\r\n"), "", end)


Parse = Callable[[str], Any]


def _row(line: Line, parse: Parse, kind: Kind, prefix: str) -> Row:
    if line.text is None:
        return Row(line.number, None, line.problem, 0, line.end)
    try:
        record = parse(line.text)
        item = _account(record) if kind == "accounts" else _transfer(record, prefix, line.number)
    except MalformedLine as error:
        return Row(line.number, None, str(error), 0, line.end)
    # Field names and the key come on top of what the line has.
    return Row(line.number, item, "", len(line.text.encode()) + 300, line.end)


def _account(record: AccountItem) -> dict[str, Any]:
    return {
        "id": record.id,
        "currency": record.currency,
        "overdraft_limit": record.overdraft_limit,
    }


def _transfer(record: TransferLine, prefix: str, number: int) -> dict[str, Any]:
    if record.key and record.idempotency_key:
        raise MalformedLine("it has both key and idempotency_key; give one")
    item = {
        "idempotency_key": record.key or record.idempotency_key or f"{prefix}:{number}",
        "source": record.source,
        "destination": record.destination,
        "amount": record.amount,
        "currency": record.currency,
    }
    return item if record.metadata is None else {**item, "metadata": record.metadata}


Opened = tuple[Kind, Parse, Iterator[Line]]


def _open_csv(lines: Iterator[Line]) -> Opened:
    header = next(lines, None)
    if header is None:
        raise FileError("The file is empty; its first line must name the columns.")
    text = header.text or ""
    delimiter = max(DELIMITERS, key=text.count)
    try:
        columns = [column.strip().lower() for column in _split(text, delimiter)]
    except MalformedLine as error:
        raise FileError(f"The first line cannot be read: {error}.") from error
    kind = _kind_of(set(columns))
    known = LINE_TYPES[kind].__struct_fields__ if kind else ()
    unknown = [column for column in columns if column not in known]
    if kind is None or unknown or len(set(columns)) != len(columns):
        raise FileError(
            f"The first line must name the columns, each once; it is {text[:200]!r}. "
            "Accounts have id, currency and if wanted overdraft_limit; transfers have source, "
            "destination, amount, currency and if wanted key, metadata."
        )

    def parse(text: str) -> Any:
        fields = [field.strip() for field in _split(text, delimiter)]
        if len(fields) != len(columns):
            raise MalformedLine(f"it has {len(fields)} columns, the first line has {len(columns)}")
        return _checked(_from_texts(dict(zip(columns, fields, strict=True))), LINE_TYPES[kind])

    return kind, parse, lines


def _split(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise MalformedLine(f"it is no line of CSV ({error})") from error


def _from_texts(texts: dict[str, str]) -> dict[str, Any]:
    """The values of a CSV line; what is optional and empty is left out."""
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name == "overdraft_limit" and text.lower() in {"", "null", "unlimited"}:
            values[name] = None
        elif name in {"amount", "overdraft_limit"}:
            if not INTEGER.fullmatch(text):
                raise MalformedLine(
                    f"{name} {text!r} is no whole number (of the minor unit, as 1250 for 12.50)"
                )
            values[name] = int(text)
        elif name == "metadata" and text:
            values[name] = _decode(text, dict, name)
        elif text or name not in {"key", "idempotency_key", "metadata"}:
            values[name] = text
    return values


def _open_json_lines(lines: Iterator[Line]) -> Opened:
    seen: list[Line] = []
    kind = None
    for line in islice(lines, LOOK_AHEAD):
        seen.append(line)
        try:
            value = _decode(line.text or "", dict, "the line")
        except MalformedLine:
            continue
        kind = _kind_of(set(value))
        if kind:
            break
    if not seen:
        raise FileError("The file is empty.")
    if kind is None:
        raise FileError(
            f"None of the first {LOOK_AHEAD} lines is a JSON object with the fields of an account "
            "(id, currency) or of a transfer (source, destination, amount, currency). "
            "JSON Lines has one object on each line, with no brackets or commas around them."
        )
    kind_found: Kind = kind
    return (
        kind_found,
        lambda text: _decode(text, LINE_TYPES[kind_found], "the line"),
        chain(seen, lines),
    )


def _kind_of(names: set[str]) -> Kind | None:
    kinds: tuple[Kind, ...] = ("transfers", "accounts")
    return next((kind for kind in kinds if names.issuperset(REQUIRED[kind])), None)


def _decode(text: str, kind: Any, what: str) -> Any:
    try:
        # As the service reads it: also what is ambiguous is no good.
        value, fault = json_text.read(text.encode())
    except (ValueError, RecursionError) as error:
        raise MalformedLine(f"{what} is no JSON object ({error})") from error
    if fault:
        raise MalformedLine(fault)
    return _checked(value, kind)


def _checked(values: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise MalformedLine(_plain(error)) from error


def _plain(error: msgspec.ValidationError) -> str:
    """ "Expected `int` >= 1 - at `$.amount`" as "amount: expected `int` >= 1"."""
    text, _, place = str(error).partition(" - at ")
    field = place.strip("`").removeprefix("$").removeprefix(".")
    return f"{field}: {text[:1].lower()}{text[1:]}" if field else text
