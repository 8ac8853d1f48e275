"""Bodies in JSON and NDJSON as columns, where every item is plain: pure.

What this takes, the careful way (`json_text`, then the types of `schemas`) takes too, with the same
values; whatever else there is, is left to that, which tells what is wrong with it. So it takes
little: the members of a transfer, each once, in texts without escapes.
"""

import numpy as np
from numpy.typing import NDArray

from coordinator.http.batches import patterns
from coordinator.http.batches.compiled import BYTES, Number, Truth, compiled, inlined, types
from coordinator.http.batches.patterns import Data
from coordinator.http.json_text import VALUE_MAX
from ledger.columns import Columns
from ledger.model import AMOUNT_MAX

# No item is shorter: its five members alone have as many.
_ITEM_BYTES_MIN = 80
# Places are numbers of 32 bits.
_PLACE_MAX = 2**31 - 1

_KEY, _SOURCE, _DESTINATION, _AMOUNT, _CURRENCY, _PROTOCOL, _METADATA = range(7)
_NEEDED = 1 << _KEY | 1 << _SOURCE | 1 << _DESTINATION | 1 << _AMOUNT | 1 << _CURRENCY
_MEMBERS = (
    "idempotency_key",
    "source",
    "destination",
    "amount",
    "currency",
    "protocol",
    "metadata",
)
# What is compared byte by byte: the names in their quotation marks, and words besides.
_WORDS = [
    *(f'"{name}"'.encode() for name in _MEMBERS),
    b'"transfers"',
    b'"tcc"',
    b'"saga"',
    b"null",
]
_TRANSFERS, _TCC, _SAGA, _NULL = range(len(_MEMBERS), len(_WORDS))
_LETTERS = np.frombuffer(b"".join(_WORDS), np.uint8)
_STARTS = np.cumsum([0, *map(len, _WORDS)])
# Each name begins with a letter of its own.
_BY_LETTER = np.full(256, -1, np.int64)
for _number, _name in enumerate(_MEMBERS):
    _BY_LETTER[ord(_name[0])] = _number

_QUOTE, _COLON, _COMMA = (ord(mark) for mark in '":,')
_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST = (ord(mark) for mark in "{}[]")
_BLANK, _TAB, _RETURN, _LINE_END = (ord(mark) for mark in " \t\r\n")
_ZERO = ord("0")

Spans = NDArray[np.int32]
Numbers = NDArray[np.int64]
Codes = NDArray[np.uint8]
_SIGNATURE = types.int64(
    types.boolean,
    BYTES,
    types.int32[:, ::1],
    types.int32[:, ::1],
    types.int32[:, ::1],
    types.int64[::1],
    types.int64[::1],
    types.uint8[::1],
)


def json_columns(data: bytes, room: int) -> Columns | None:
    """The items of the list `transfers`, the only member of an object: `room` at most. None: not
    all of them are plain, or the body is something else.
    """
    return _columns(data, room, are_lines=False)


def line_columns(data: bytes, room: int) -> Columns | None:
    """The items of lines that hold one each, `room` at most. None: not all of them are plain."""
    return _columns(data, room, are_lines=True)


def _columns(data: bytes, room: int, *, are_lines: bool) -> Columns | None:
    if len(data) > _PLACE_MAX:
        return None
    most = min(room, len(data) // _ITEM_BYTES_MIN)
    key, source, destination = (np.empty((most, 2), np.int32) for _ in range(3))
    currency, amount = np.empty(most, np.int64), np.empty(most, np.int64)
    texts, protocol = np.frombuffer(data, np.uint8), np.empty(most, np.uint8)
    made = Columns(texts, key, source, destination, currency, amount, protocol)
    count = _scan(are_lines, *made)
    if count < 0:
        return None
    return Columns(texts, *(column[:count] for column in made[1:]))  # type: ignore[arg-type]


# --- compiled -----------------------------------------------------------------------------------
#
# A place behind what was gone over is given, or -1 where it is not plain.


@inlined
def _is_at(data: Data, at: Number, mark: Number) -> Truth:
    return at < len(data) and data[at] == mark


@inlined
def _over_blanks(data: Data, at: Number, last: Number) -> Number:
    """`last` is the last kind of blank: where an item is on one line, a line end is none."""
    while at < len(data) and (
        data[at] == _BLANK or data[at] == last or data[at] == _RETURN or data[at] == _TAB
    ):
        at += 1
    return at


@inlined
def _over_mark(data: Data, at: Number, mark: Number, last: Number) -> Number:
    """Over a mark with blanks on both sides."""
    at = _over_blanks(data, at, last)
    return _over_blanks(data, at + 1, last) if _is_at(data, at, mark) else -1


@inlined
def _over_word(data: Data, at: Number, word: Number) -> Number:
    first, length = _STARTS[word], _STARTS[word + 1] - _STARTS[word]
    if length > len(data) - at:
        return -1
    for k in range(length):
        if data[at + k] != _LETTERS[first + k]:
            return -1
    return at + length


@inlined
def _over_text(data: Data, at: Number, is_key: Truth, spans: Spans, n: Number) -> Number:
    """Over a key or an account's id in quotation marks; it is noted where it lies."""
    if not _is_at(data, at, _QUOTE):
        return -1
    kind = patterns.KEY if is_key else patterns.ACCOUNT
    begin = at + 1
    end = begin
    while end < len(data) and patterns.is_of(data[end], kind):
        if patterns.is_marked(data[end]):
            break
        end += 1
    if not _is_at(data, end, _QUOTE):
        return -1
    is_right = patterns.is_key(data, begin, end) if is_key else patterns.is_account(begin, end)
    spans[n, 0], spans[n, 1] = begin, end
    return end + 1 if is_right else -1


@inlined
def _over_currency(data: Data, at: Number, numbers: Numbers, n: Number) -> Number:
    if not _is_at(data, at, _QUOTE):
        return -1
    end = at + 1
    while end < len(data) and end <= at + patterns.CURRENCY_BYTES_MAX and data[end] != _QUOTE:
        end += 1
    if not _is_at(data, end, _QUOTE):
        return -1
    numbers[n] = patterns.currency_at(data, at + 1, end)
    return end + 1 if numbers[n] >= 0 else -1


@inlined
def _over_amount(data: Data, at: Number, numbers: Numbers, n: Number) -> Number:
    """Over 1 to AMOUNT_MAX in digits alone."""
    first, number = at, np.uint64(0)
    while at < len(data) and at <= first + patterns.AMOUNT_DIGITS_MAX:
        digit = np.int64(data[at]) - _ZERO
        if digit < 0 or digit > 9:
            break
        number = number * np.uint64(10) + np.uint64(digit)
        at += 1
    if at == first or at - first > patterns.AMOUNT_DIGITS_MAX or data[first] == _ZERO:
        return -1
    if number > np.uint64(AMOUNT_MAX):
        return -1
    numbers[n] = np.int64(number)
    return at


@inlined
def _over_protocol(data: Data, at: Number, codes: Codes, n: Number) -> Number:
    codes[n] = patterns.TCC
    end = _over_word(data, at, _TCC)
    if end < 0:
        codes[n] = patterns.SAGA
        end = _over_word(data, at, _SAGA)
    return end


@inlined
def _over_item(
    data: Data,
    at: Number,
    n: Number,
    last: Number,
    key: Spans,
    source: Spans,
    destination: Spans,
    currency: Numbers,
    amount: Numbers,
    protocol: Codes,
) -> Number:
    begin, seen = at, 0
    if n >= len(amount) or not _is_at(data, at, _OPEN):
        return -1
    protocol[n] = 0
    at = _over_blanks(data, at + 1, last)
    while True:
        member = _BY_LETTER[data[at + 1]] if at + 1 < len(data) else -1
        if member < 0 or seen >> member & 1:
            return -1
        seen |= 1 << member
        at = _over_word(data, at, member)
        if at >= 0:
            at = _over_mark(data, at, _COLON, last)
        if at < 0:
            return -1
        if member <= _DESTINATION:
            spans = key if member == _KEY else source if member == _SOURCE else destination
            at = _over_text(data, at, member == _KEY, spans, n)
        elif member == _AMOUNT:
            at = _over_amount(data, at, amount, n)
        elif member == _CURRENCY:
            at = _over_currency(data, at, currency, n)
        elif member == _PROTOCOL:
            at = _over_protocol(data, at, protocol, n)
        else:
            at = _over_word(data, at, _NULL)
        if at < 0:
            return -1
        at = _over_blanks(data, at, last)
        if not _is_at(data, at, _COMMA):
            break
        at = _over_blanks(data, at + 1, last)
    if not _is_at(data, at, _CLOSE) or seen & _NEEDED != _NEEDED:
        return -1
    at += 1
    return at if at - begin <= VALUE_MAX else -1


@inlined
def _into_list(data: Data) -> Number:
    """Up to the first item of the list, or its end."""
    at = _over_mark(data, 0, _OPEN, _LINE_END)
    if at >= 0:
        at = _over_word(data, at, _TRANSFERS)
    if at >= 0:
        at = _over_mark(data, at, _COLON, _LINE_END)
    return _over_mark(data, at, _OPEN_LIST, _LINE_END) if at >= 0 else -1


@inlined
def _is_over(data: Data, at: Number) -> Truth:
    """Whether the list ends here, and nothing follows it."""
    at = _over_mark(data, at, _CLOSE_LIST, _LINE_END)
    if at >= 0:
        at = _over_mark(data, at, _CLOSE, _LINE_END)
    return at == len(data)


@compiled(_SIGNATURE)
def _scan(
    are_lines: bool,
    data: Data,
    key: Spans,
    source: Spans,
    destination: Spans,
    currency: Numbers,
    amount: Numbers,
    protocol: Codes,
) -> int:
    """Fill the columns; gives how many items there are, or -1. On lines, all that is left is the
    next item; in the list there has to be a comma before it.
    """
    last, between = (_TAB, _LINE_END) if are_lines else (_LINE_END, _COMMA)
    at, n = 0 if are_lines else _into_list(data), 0
    is_more = at < len(data) if are_lines else at >= 0 and not _is_at(data, at, _CLOSE_LIST)
    while is_more:
        at = _over_blanks(data, at, last)
        at = _over_item(data, at, n, last, key, source, destination, currency, amount, protocol)
        if at < 0:
            return -1
        n += 1
        at = _over_blanks(data, at, last)
        is_more = _is_at(data, at, between)
        if is_more:
            at += 1
            is_more = not are_lines or at < len(data)
    if are_lines:
        return n if at == len(data) else -1
    return n if at >= 0 and _is_over(data, at) else -1
