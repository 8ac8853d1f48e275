"""SipHash-1-3, word by word, for hash tables: https://cr.yp.to/siphash/siphash-20120918.pdf."""

import numpy as np

from eventstore.machine.compiled import Word, inlined

_word = np.uint64
_START_0 = _word(0x736F6D6570736575)
_START_1 = _word(0x646F72616E646F6D)
_START_2 = _word(0x6C7967656E657261)
_START_3 = _word(0x7465646279746573)
# What SipHash appends to 16 bytes: their count in the top byte.
_LENGTH = _word(16 << 56)
_END = _word(0xFF)


State = tuple[Word, Word, Word, Word]


@inlined
def siphash(key_0: Word, key_1: Word, first: Word, second: Word) -> Word:
    """The hash of 16 bytes, given as two little-endian words (uint64), as uint64. Whoever does not
    know the key cannot look for words whose hashes share bits.
    """
    state = take(take(begin(key_0, key_1), first), second)
    return finish(take(state, _LENGTH))


@inlined
def begin(key_0: Word, key_1: Word) -> State:
    """The state before the first word."""
    return key_0 ^ _START_0, key_1 ^ _START_1, key_0 ^ _START_2, key_1 ^ _START_3


@inlined
def take(state: State, word: Word) -> State:
    """The state after a word. The last one has what is left of the text, and the text's length in
    its top byte.
    """
    a, b, c, d = state
    a, b, c, d = _mix(a, b, c, d ^ word)
    return a ^ word, b, c, d


@inlined
def finish(state: State) -> Word:
    """The hash."""
    a, b, c, d = state
    c ^= _END
    a, b, c, d = _mix(a, b, c, d)
    a, b, c, d = _mix(a, b, c, d)
    a, b, c, d = _mix(a, b, c, d)
    return a ^ b ^ c ^ d


@inlined
def _mix(a: Word, b: Word, c: Word, d: Word) -> tuple[Word, Word, Word, Word]:
    a += b
    b = _rotate(b, _word(13)) ^ a
    a = _rotate(a, _word(32))
    c += d
    d = _rotate(d, _word(16)) ^ c
    a += d
    d = _rotate(d, _word(21)) ^ a
    c += b
    b = _rotate(b, _word(17)) ^ c
    c = _rotate(c, _word(32))
    return a, b, c, d


@inlined
def _rotate(word: Word, bits: Word) -> Word:
    return (word << bits) | (word >> (_word(64) - bits))
