"""BLAKE2b of short texts, to 16 bytes (RFC 7693): what accounts are found by.

It is what `hashlib.blake2b(text, digest_size=16)` gives; compiled, and without making anything.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import Number, Word, inlined

# A text is one block, or less; the room that is worked in has words for the state and the block.
TEXT_BYTES_MAX = 128
ROOM_WORDS = 32

_word = np.uint64
_IV = np.array(
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
    np.uint64,
)
# Of the digest: 16 bytes, no key, one leaf.
_FIRST = _word(0x6A09E667F3BCC908 ^ 0x01010010)
_SECOND = _word(0xBB67AE8584CAA73B)
_ALL = _word(2**64 - 1)
_ROUNDS = 12
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
    ],
    np.int64,
)
# Which words of the state are mixed: its columns, then its diagonals.
_MIXED = np.array(
    [
        [0, 4, 8, 12],
        [1, 5, 9, 13],
        [2, 6, 10, 14],
        [3, 7, 11, 15],
        [0, 5, 10, 15],
        [1, 6, 11, 12],
        [2, 7, 8, 13],
        [3, 4, 9, 14],
    ],
    np.int64,
)
_M = 16

Room = NDArray[np.uint64]


@inlined
def blake2b(texts: Any, start: Number, length: Number, room: Room) -> tuple[Word, Word]:
    """The digest of the `length` bytes at `start`, as two little-endian words; `length` is
    TEXT_BYTES_MAX or less. `room` is for ROOM_WORDS words.
    """
    for k in range(8):
        room[k], room[8 + k] = _IV[k], _IV[k]
    room[0] = _FIRST
    room[12] ^= _word(length)
    room[14] ^= _ALL
    for k in range(16):
        room[_M + k] = _word(0)
    for k in range(length):
        room[_M + (k >> 3)] |= _word(texts[start + k]) << _word((k & 7) << 3)
    for step in range(_ROUNDS):
        for g in range(8):
            _mix(room, step % 10, g)
    return _FIRST ^ room[0] ^ room[8], _SECOND ^ room[1] ^ room[9]


@inlined
def _mix(room: Room, sigma: Number, g: Number) -> None:
    a, b, c, d = _MIXED[g, 0], _MIXED[g, 1], _MIXED[g, 2], _MIXED[g, 3]
    room[a] = room[a] + room[b] + room[_M + _SIGMA[sigma, 2 * g]]
    room[d] = _rotated(room[d] ^ room[a], _word(32))
    room[c] = room[c] + room[d]
    room[b] = _rotated(room[b] ^ room[c], _word(24))
    room[a] = room[a] + room[b] + room[_M + _SIGMA[sigma, 2 * g + 1]]
    room[d] = _rotated(room[d] ^ room[a], _word(16))
    room[c] = room[c] + room[d]
    room[b] = _rotated(room[b] ^ room[c], _word(63))


@inlined
def _rotated(word: Word, bits: Word) -> Word:
    """To the right."""
    return (word >> bits) | (word << (_word(64) - bits))
