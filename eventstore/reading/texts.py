"""The text of an entry that its chain is the digest of, as `ledger.chain` writes it: compiled.

`text` is where it is written; each function gives where the next one goes on. Eight bytes are
written at once, also where fewer are wanted: what comes behind overwrites the rest. An account
stands in the text as its length and its id: these are kept ready, one after the other, in `names`,
behind which there are eight bytes more.
"""

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import put_word, word_at
from eventstore.reading.compiled import Number, Word, inlined

Text = NDArray[np.uint8]

# What stands before the chain of the entry before, and between an entry's fields.
_BEGIN = np.frombuffer(b"tandem.entry.1|44:", np.uint8).copy()
_BEGIN_BYTES = len(_BEGIN)
_BAR, _MINUS, _DASH = (np.uint8(ord(c)) for c in "|--")
_TRANSFER = np.frombuffer(b"|36:", np.uint8).copy()
_DIGITS = b"0123456789abcdef"
_HEX = np.frombuffer(_DIGITS, np.uint8).copy()
# Of each byte its two digits, as they stand in memory.
_HEXES = np.array([_DIGITS[n >> 4] | _DIGITS[n & 15] << 8 for n in range(256)], np.uint64)
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# Of 12 bits each their two letters, as they stand in memory.
_BASE64 = np.array([_LETTERS[n >> 6] | _LETTERS[n & 63] << 8 for n in range(4096)], np.uint64)
_PADDING = np.uint64(ord("=") << 24)
# "|", ids of 64 bytes with their lengths, numbers of 64 bits, and SHA-256's padding.
TEXT_BYTES_MAX = 448
_HUNDRED, _ONE, _TWO = np.uint64(100), np.uint64(1), np.uint64(2)
_POWERS = np.array([10**n for n in range(20)], np.uint64)
# The digits of 0 to 99.
_PAIRS = np.frombuffer("".join(f"{n:02}" for n in range(100)).encode(), np.uint8).copy()
_BYTE, _TWELVE = np.uint64(0xFF), np.uint64(0xFFF)
_8, _16, _24, _32, _36, _48 = (np.uint64(n) for n in (8, 16, 24, 32, 36, 48))
_LOWER_16, _LOWER_32 = np.uint64(0xFFFF), np.uint64(0xFFFFFFFF)
_EVEN_BYTES, _EVEN_PAIRS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)


@inlined
def put_copy(text: Text, at: Number, other: Text, start: Number, length: Number) -> Number:
    """So many bytes that stand elsewhere."""
    for word in range((length + 7) >> 3):
        put_word(text, np.uint64(at + 8 * word), word_at(other, np.uint64(start + 8 * word)))
    return at + length


@inlined
def put_name(text: Text, at: Number, names: Text, start: Number, length: Number) -> Number:
    text[at] = _BAR
    return put_copy(text, at + 1, names, start, length)


@inlined
def put_number(text: Text, at: Number, number: Number) -> Number:
    """A bar and a number in decimal."""
    text[at] = _BAR
    at += 1
    if number < 0:
        text[at] = _MINUS
        return put_digits(text, at + 1, np.uint64(0) - np.uint64(number))
    return put_digits(text, at, np.uint64(number))


@inlined
def put_digits(text: Text, at: Number, left: Word) -> Number:
    """A number in decimal."""
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
def put_amount(text: Text, at: Number, is_taken: Number, digits_at: Number, end: Number) -> Number:
    """A bar and an amount, the digits of which stand elsewhere in the text."""
    text[at] = _BAR
    at += 1
    if is_taken:
        text[at] = _MINUS
        at += 1
    return put_copy(text, at, text, digits_at, end - digits_at)


@inlined
def _in_order(word: Word) -> Word:
    """The first byte in memory is the highest."""
    word = (word & _EVEN_BYTES) << _8 | word >> _8 & _EVEN_BYTES
    word = (word & _EVEN_PAIRS) << _16 | word >> _16 & _EVEN_PAIRS
    return word << _32 | word >> _32


@inlined
def _eight_letters(bits: Word) -> Word:
    """Of 48 bits."""
    return (
        _BASE64[bits >> _36 & _TWELVE]
        | _BASE64[bits >> _24 & _TWELVE] << _16
        | _BASE64[bits >> np.uint64(12) & _TWELVE] << _32
        | _BASE64[bits & _TWELVE] << _48
    )


@inlined
def _put_base64(text: Text, at: Number, chain: NDArray[np.int64]) -> Number:
    """The 32 bytes of a digest: five times six, and two."""
    a, b = _in_order(np.uint64(chain[0])), _in_order(np.uint64(chain[1]))
    c, d = _in_order(np.uint64(chain[2])), _in_order(np.uint64(chain[3]))
    place = np.uint64(at)
    put_word(text, place, _eight_letters(a >> _16))
    put_word(text, place + _8, _eight_letters((a & _LOWER_16) << _32 | b >> _32))
    put_word(text, place + _16, _eight_letters((b & _LOWER_32) << _16 | c >> _48))
    put_word(text, place + _24, _eight_letters(c))
    put_word(text, place + _32, _eight_letters(d >> _16))
    bits = (d & _LOWER_16) << _TWO
    first, third = _BASE64[bits >> np.uint64(6)], _BASE64[(bits & np.uint64(63)) << np.uint64(6)]
    put_word(text, place + np.uint64(40), first | (third & _BYTE) << _16 | _PADDING)
    return at + 44


@inlined
def _put_hex(text: Text, at: Number, word: Word) -> Number:
    for half in range(2):
        four = word >> np.uint64(32 * half)
        digits = _HEXES[four & _BYTE] | _HEXES[four >> _8 & _BYTE] << _16
        digits |= _HEXES[four >> _16 & _BYTE] << _32 | _HEXES[four >> _24 & _BYTE] << _48
        put_word(text, np.uint64(at + 8 * half), digits)
    return at + 16


@inlined
def put_transfer(text: Text, at: Number, slot: Number, first: Word, second: Word) -> Number:
    """A bar and a transfer's id, with its length."""
    for i in range(len(_TRANSFER)):
        text[at + i] = _TRANSFER[i]
    at += len(_TRANSFER)
    for i in range(3):
        text[at + i] = _HEX[slot >> (8 - 4 * i) & 15]
    text[at + 3] = _DASH
    return _put_hex(text, _put_hex(text, at + 4, first), second)


@inlined
def begin(text: Text) -> None:
    """What every text begins with; nothing else is written there."""
    for i in range(_BEGIN_BYTES):
        text[i] = _BEGIN[i]


@inlined
def put_chain(text: Text, chain: NDArray[np.int64]) -> Number:
    """What comes before the account, behind `begin`."""
    return _put_base64(text, _BEGIN_BYTES, chain)
