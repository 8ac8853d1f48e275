"""BLAKE2b of short texts, to 16 bytes (RFC 7693): what accounts are found by.

It is what `hashlib.blake2b(text, digest_size=16)` gives; compiled, and without making anything.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import Number, Word, inlined

# A text is two blocks, or less; the room that is worked in has the words of one.
BLOCK_BYTES = 128
TEXT_BYTES_MAX = 2 * BLOCK_BYTES
ROOM_WORDS = BLOCK_BYTES // 8

_word = np.uint64
_0, _1, _2, _3, _4, _5, _6, _7 = map(
    _word,
    [
        0x6A09E667F3BCC908,
        0xBB67AE8584CAA73B,
        0x3C6EF372FE94F82B,
        0xA54FF53A5F1D36F1,
        0x510E527FADE682D1,
        0x9B05688C2B3E6C1F,
        0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179,
    ],
)
# Of the digest: 16 bytes, no key, one leaf.
_FIRST = _0 ^ _word(0x01010010)
_NONE, _ALL = _word(0), _word(2**64 - 1)
_ROUNDS = 12
# Which words of the block each round mixes in: the last two rounds are as the first two.
_SIGMA = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ],
    np.uint64,
)

Room = NDArray[np.uint64]
State = tuple[Word, Word, Word, Word, Word, Word, Word, Word]


@inlined
def blake2b(texts: Any, start: Number, length: Number, room: Room) -> tuple[Word, Word]:
    """The digest of the `length` bytes at `start`, as two little-endian words; `length` is
    TEXT_BYTES_MAX or less. `room` is for ROOM_WORDS words.
    """
    state = (_FIRST, _1, _2, _3, _4, _5, _6, _7)
    taken = 0
    if length > BLOCK_BYTES:
        taken = BLOCK_BYTES
        _take(texts, start, taken, room)
        state = _compressed(state, room, _word(taken), _NONE)
    _take(texts, start + taken, length - taken, room)
    state = _compressed(state, room, _word(length), _ALL)
    return state[0], state[1]


@inlined
def _take(texts: Any, start: Number, length: Number, room: Room) -> None:
    """The words of a block, with zero bytes behind its text."""
    whole = length >> 3
    for word in range(whole):
        room[word] = _word_at(texts, start + 8 * word, 8)
    for word in range(whole, ROOM_WORDS):
        room[word] = _NONE
    if length & 7:
        room[whole] = _word_at(texts, start + 8 * whole, length & 7)


@inlined
def _word_at(texts: Any, start: Number, length: Number) -> Word:
    found = _NONE
    for k in range(length):
        found |= _word(texts[start + k]) << _word(8 * k)
    return found


@inlined
def _compressed(state: State, m: Room, length: Word, is_last: Word) -> State:
    """The state after a block, the bytes of which end at `length` of the text. The sixteen words
    that are worked on are variables, so that they stay in registers.
    """
    a0, a1, a2, a3, b0, b1, b2, b3 = state
    c0, c1, c2, c3 = _0, _1, _2, _3
    d0, d1, d2, d3 = _4 ^ length, _5, _6 ^ is_last, _7
    for step in range(_ROUNDS):
        s = _SIGMA[step]
        a0, b0, c0, d0 = _mixed(a0, b0, c0, d0, m[s[0]], m[s[1]])
        a1, b1, c1, d1 = _mixed(a1, b1, c1, d1, m[s[2]], m[s[3]])
        a2, b2, c2, d2 = _mixed(a2, b2, c2, d2, m[s[4]], m[s[5]])
        a3, b3, c3, d3 = _mixed(a3, b3, c3, d3, m[s[6]], m[s[7]])
        # And the diagonals.
        a0, b1, c2, d3 = _mixed(a0, b1, c2, d3, m[s[8]], m[s[9]])
        a1, b2, c3, d0 = _mixed(a1, b2, c3, d0, m[s[10]], m[s[11]])
        a2, b3, c0, d1 = _mixed(a2, b3, c0, d1, m[s[12]], m[s[13]])
        a3, b0, c1, d2 = _mixed(a3, b0, c1, d2, m[s[14]], m[s[15]])
    return (
        state[0] ^ a0 ^ c0,
        state[1] ^ a1 ^ c1,
        state[2] ^ a2 ^ c2,
        state[3] ^ a3 ^ c3,
        state[4] ^ b0 ^ d0,
        state[5] ^ b1 ^ d1,
        state[6] ^ b2 ^ d2,
        state[7] ^ b3 ^ d3,
    )


@inlined
def _mixed(a: Word, b: Word, c: Word, d: Word, x: Word, y: Word) -> tuple[Word, Word, Word, Word]:
    a = a + b + x
    d = _rotated(d ^ a, _word(32))
    c = c + d
    b = _rotated(b ^ c, _word(24))
    a = a + b + y
    d = _rotated(d ^ a, _word(16))
    c = c + d
    return a, _rotated(b ^ c, _word(63)), c, d


@inlined
def _rotated(word: Word, bits: Word) -> Word:
    """To the right."""
    return (word >> bits) | (word << (_word(64) - bits))
