"""What the texts of a transfer are made of, by the patterns of the API, for compiled functions.

`data` is bytes, and a text a place in it; what is found is -1 where it is none.
"""

import re

import numpy as np
from numpy.typing import NDArray

from coordinator.http.batches.compiled import Number, Truth, inlined
from ledger.model import AMOUNT_MAX

ACCOUNT_BYTES_MAX, KEY_BYTES_MAX = 64, 128
CURRENCY_BYTES_MIN, CURRENCY_BYTES_MAX = 3, 8
AMOUNT_DIGITS_MAX = len(str(AMOUNT_MAX))
TCC, SAGA = 2, 3

Data = NDArray[np.uint8]

# Which characters a text may have: a bit for each kind. In JSON a quotation mark ends a text, and
# a backslash begins an escape; so a key may have them, and what is read by itself tells them apart.
ACCOUNT, KEY, CURRENCY, MARK = 1, 2, 4, 8
_PATTERNS = {ACCOUNT: r"[A-Za-z0-9_.:{}-]", KEY: r"[ -~]", CURRENCY: r"[A-Z0-9]", MARK: r'["\\]'}
_KINDS = np.array(
    [
        sum(bit for bit, pattern in _PATTERNS.items() if re.fullmatch(pattern, chr(byte)))
        for byte in range(256)
    ],
    np.uint8,
)
_BLANK = ord(" ")


@inlined
def is_of(byte: Number, kind: Number) -> Truth:
    """Whether a text of this kind may have such a byte."""
    return _KINDS[byte] & kind != 0


@inlined
def is_marked(byte: Number) -> Truth:
    """Whether it is a mark that JSON writes with an escape."""
    return _KINDS[byte] & MARK != 0


@inlined
def is_account(begin: Number, end: Number) -> Truth:
    """Of a text of such characters."""
    return begin < end and end - begin <= ACCOUNT_BYTES_MAX


@inlined
def is_key(data: Data, begin: Number, end: Number) -> Truth:
    """Of a text of such characters: it neither begins nor ends with a blank."""
    if begin >= end or end - begin > KEY_BYTES_MAX:
        return False
    return data[begin] != _BLANK and data[end - 1] != _BLANK


@inlined
def currency_at(data: Data, begin: Number, end: Number) -> Number:
    """The number of a currency (`rows.currency_number`), or -1."""
    if end - begin < CURRENCY_BYTES_MIN or end - begin > CURRENCY_BYTES_MAX:
        return -1
    number: Number = 0
    for k in range(end - begin):
        if not is_of(data[begin + k], CURRENCY):
            return -1
        number |= np.int64(data[begin + k]) << (8 * k)
    return number
