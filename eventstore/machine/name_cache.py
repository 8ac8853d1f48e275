"""Numbers of accounts by the bytes of their ids, of those that were named lately.

An account is found by the BLAKE2b of its id, and to make that takes longer than all else that a
transfer takes. Whatever is found here was found so before, and is compared with the id that the
account was opened with, byte for byte: so no outcome depends on what is in here (rule E4).

A line has eight slots: the upper half of a slot is a part of the hash, the lower half is the
account's number plus one (zero: the slot is empty). Where a line is full a new one takes the place
of another.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine import bytewise
from eventstore.machine.compiled import Number, Truth, Word, inlined, prefetch, types
from eventstore.machine.memory import reserve_words

# The first line has the hash's key, and how many lines there are behind it (2 ** bits).
_KEY_0, _KEY_1, _BITS = range(3)
_LINE = np.uint64(8)
_BITS_MIN = 7
# 32 MiB, for 4 million accounts. Where more are named in turn some are digested each time.
_BITS_MAX = 19

_ONE, _WIDTH, _HALF = np.uint64(1), np.uint64(64), np.uint64(32)
_LOWER, _SLOT = np.uint64(0xFFFFFFFF), np.uint64(7)
_UPPER = np.uint64(0xFFFFFFFF00000000)
_EMPTY = np.uint64(0)


class Named(NamedTuple):
    """The cache as compiled functions see it; with all ids, one after the other, and where each one
    ends.
    """

    lines: NDArray[np.uint64]
    ids: NDArray[np.uint8]
    ends: NDArray[np.uint64]


NAMED = types.NamedTuple((types.uint64[::1], types.uint8[::1], types.uint64[::1]), Named)


class NameCache:
    """For one thread at a time."""

    def __init__(self, key: bytes) -> None:
        """`key`, 16 bytes, is for the hash."""
        self._key = np.frombuffer(key, "<u8", 2)
        self.lines = self._new_lines(_BITS_MIN)

    def make_room(self, accounts: int) -> None:
        """Have two slots for each of so many accounts, or as many as there may be. Larger, it is
        empty, and is filled again by what is looked up: nothing is stopped for it.
        """
        bits = _BITS_MIN
        while (4 << bits) < accounts and bits < _BITS_MAX:
            bits += 1
        if bits > self.lines[_BITS]:
            self.lines = self._new_lines(bits)

    def _new_lines(self, bits: int) -> NDArray[np.uint64]:
        lines = reserve_words((1 + (1 << bits)) * int(_LINE))
        lines[: _KEY_1 + 1] = self._key
        lines[_BITS] = bits
        return lines


# --- compiled -----------------------------------------------------------------------------------


@inlined
def hash_of(named: Named, texts: Any, at: Number, length: Number) -> Word:
    """By which the id of so many bytes is looked for."""
    return bytewise.hash_of(named.lines[_KEY_0], named.lines[_KEY_1], texts, at, length)


@inlined
def _line_of(named: Named, hashed: Word) -> Word:
    return (_ONE + (hashed >> (_WIDTH - named.lines[_BITS]))) * _LINE


@inlined
def fetch(named: Named, hashed: Word) -> None:
    """Begin to fetch what `recall` looks at."""
    prefetch(named.lines, _line_of(named, hashed))


@inlined
def recall(named: Named, hashed: Word) -> Number:
    """The account that may have an id with this hash; -1 if there is none. Begins to fetch where
    its id ends.
    """
    line = _line_of(named, hashed)
    for slot in range(8):
        word = named.lines[line + np.uint64(slot)]
        if (word ^ hashed << _HALF) & _UPPER == _EMPTY and word != _EMPTY:
            number = (word & _LOWER) - _ONE
            prefetch(named.ends, number)
            return np.int64(number)
    return -1


@inlined
def _start_of(named: Named, number: Number) -> Word:
    return named.ends[number - 1] if number > 0 else _EMPTY


@inlined
def fetch_id(named: Named, number: Number) -> None:
    """Begin to fetch what `has_id` looks at."""
    prefetch(named.ids, _start_of(named, number))


@inlined
def has_id(named: Named, number: Number, texts: Any, at: Number, length: Number) -> Truth:
    """Whether the account was opened with this id."""
    start = np.int64(_start_of(named, number))
    if np.int64(named.ends[number]) - start != length:
        return False
    return bytewise.are_equal(named.ids, start, texts, at, length)


@inlined
def remember(named: Named, hashed: Word, number: Number) -> None:
    """Have `recall` find an account by its id's hash."""
    line = _line_of(named, hashed)
    # If nothing is free, by bits that the line does not depend on.
    at = line + (hashed >> _HALF & _SLOT)
    for slot in range(8):
        word = named.lines[line + np.uint64(slot)]
        if word == _EMPTY or (word ^ hashed << _HALF) & _UPPER == _EMPTY:
            at = line + np.uint64(slot)
            break
    named.lines[at] = hashed << _HALF | np.uint64(number + 1)
