"""The text of an entry that its chain is the digest of, as `ledger.chain` writes it: compiled.

`text` is where it is written; each function gives where the next one goes on. An account stands in
the text as its length and its id: these are kept ready, one after the other, in `names`.
"""

import numpy as np
from numpy.typing import NDArray

from eventstore.reading.compiled import Number, Word, inlined

Text = NDArray[np.uint8]

# What stands before the chain of the entry before, and between an entry's fields.
_BEGIN = np.frombuffer(b"tandem.entry.1|44:", np.uint8).copy()
_BAR, _MINUS, _DASH = (np.uint8(ord(c)) for c in "|--")
_TRANSFER = np.frombuffer(b"|36:", np.uint8).copy()
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8).copy()
_BASE64 = np.frombuffer(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8
).copy()
_PADDING = np.uint8(ord("="))
# "|", ids of 64 bytes with their lengths, numbers of 64 bits, and SHA-256's padding.
TEXT_BYTES_MAX = 448
_HUNDRED, _ONE, _TWO = np.uint64(100), np.uint64(1), np.uint64(2)
_POWERS = np.array([10**n for n in range(20)], np.uint64)
# The digits of 0 to 99.
_PAIRS = np.frombuffer("".join(f"{n:02}" for n in range(100)).encode(), np.uint8).copy()
_BYTE, _SIX = np.uint64(0xFF), np.uint64(63)


@inlined
def _put_all(text: Text, at: Number, what: Text) -> Number:
    for i in range(len(what)):
        text[at + i] = what[i]
    return at + len(what)


@inlined
def put_name(text: Text, at: Number, names: Text, start: Number, length: Number) -> Number:
    text[at] = _BAR
    for i in range(length):
        text[at + 1 + i] = names[start + i]
    return at + 1 + length


@inlined
def put_number(text: Text, at: Number, number: Number) -> Number:
    """A bar and a number in decimal."""
    text[at] = _BAR
    at += 1
    left = np.uint64(number)
    if number < 0:
        text[at] = _MINUS
        at += 1
        left = np.uint64(0) - left
    digits = 1
    while digits < len(_POWERS) and left >= _POWERS[digits]:
        digits += 1
    end = at + digits
    last = end
    while left >= _HUNDRED:
        rest = left // _HUNDRED
        two = np.int64(left - rest * _HUNDRED) * 2
        text[last - 2] = _PAIRS[two]
        text[last - 1] = _PAIRS[two + 1]
        last -= 2
        left = rest
    if last - at == 2:
        text[at] = _PAIRS[left * _TWO]
    text[last - 1] = _PAIRS[left * _TWO + _ONE]
    return end


@inlined
def _byte(chain: NDArray[np.int64], i: Number) -> Word:
    return np.uint64(chain[i >> 3]) >> np.uint64(8 * (i & 7)) & _BYTE


@inlined
def _put_base64(text: Text, at: Number, chain: NDArray[np.int64]) -> Number:
    """The 32 bytes of a digest: ten times three, and two."""
    for i in range(0, 30, 3):
        bits = (
            _byte(chain, i) << np.uint64(16)
            | _byte(chain, i + 1) << np.uint64(8)
            | _byte(chain, i + 2)
        )
        text[at] = _BASE64[bits >> np.uint64(18)]
        text[at + 1] = _BASE64[bits >> np.uint64(12) & _SIX]
        text[at + 2] = _BASE64[bits >> np.uint64(6) & _SIX]
        text[at + 3] = _BASE64[bits & _SIX]
        at += 4
    bits = _byte(chain, 30) << np.uint64(10) | _byte(chain, 31) << np.uint64(2)
    text[at] = _BASE64[bits >> np.uint64(12)]
    text[at + 1] = _BASE64[bits >> np.uint64(6) & _SIX]
    text[at + 2] = _BASE64[bits & _SIX]
    text[at + 3] = _PADDING
    return at + 4


@inlined
def _put_hex(text: Text, at: Number, word: Word) -> Number:
    for i in range(8):
        byte = word >> np.uint64(8 * i) & _BYTE
        text[at] = _HEX[byte >> np.uint64(4)]
        text[at + 1] = _HEX[byte & np.uint64(15)]
        at += 2
    return at


@inlined
def put_transfer(text: Text, at: Number, slot: Number, first: Word, second: Word) -> Number:
    """A bar and a transfer's id, with its length."""
    at = _put_all(text, at, _TRANSFER)
    for i in range(3):
        text[at + i] = _HEX[slot >> (8 - 4 * i) & 15]
    text[at + 3] = _DASH
    return _put_hex(text, _put_hex(text, at + 4, first), second)


@inlined
def put_begin(text: Text, chain: NDArray[np.int64]) -> Number:
    """What comes before the account."""
    return _put_base64(text, _put_all(text, 0, _BEGIN), chain)
