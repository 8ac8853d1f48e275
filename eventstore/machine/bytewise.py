"""Texts taken eight bytes at a time: compiled."""

from typing import Any

import numpy as np

from eventstore.machine.compiled import Number, Truth, Word, inlined, word_at
from eventstore.machine.siphash import begin, finish, take

_NOT_ASCII = np.uint64(0x8080808080808080)
_NONE = np.uint64(0)


@inlined
def is_ascii(texts: Any, at: Number, length: Number) -> Truth:
    """Whether all of the `length` bytes at `at` are."""
    bits = _NONE
    for word in range(length >> 3):
        bits |= word_at(texts, np.uint64(at + 8 * word))
    for byte in range(at + (length & ~7), at + length):
        bits |= np.uint64(texts[byte])
    return bits & _NOT_ASCII == _NONE


@inlined
def are_equal(one: Any, at: Number, other: Any, other_at: Number, length: Number) -> Truth:
    """Whether so many bytes at two places are the same."""
    for word in range(length >> 3):
        here, there = np.uint64(at + 8 * word), np.uint64(other_at + 8 * word)
        if word_at(one, here) != word_at(other, there):
            return False
    bits = _NONE
    for byte in range(length & ~7, length):
        bits |= np.uint64(one[at + byte] ^ other[other_at + byte])
    return bits == _NONE


@inlined
def hash_of(key_0: Word, key_1: Word, texts: Any, at: Number, length: Number) -> Word:
    """A SipHash-1-3 of bytes: nobody who does not know the key can look for texts whose hashes
    share bits.
    """
    state = begin(key_0, key_1)
    for word in range(length >> 3):
        state = take(state, word_at(texts, np.uint64(at + 8 * word)))
    last = np.uint64(length) << np.uint64(56)
    for byte in range(length & 7):
        last |= np.uint64(texts[at + (length & ~7) + byte]) << np.uint64(8 * byte)
    return finish(take(state, last))
