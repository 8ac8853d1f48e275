"""The words by which a frame's accounts are found, where commands give them by name."""

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.blake2 import ROOM_WORDS, TEXT_BYTES_MAX, Room, blake2b
from eventstore.machine.compiled import BYTES, WORDS, Number, Truth, compiled, inlined, types
from eventstore.machine.index import TABLES, Index, Tables, find, hash_of
from eventstore.machine.texts import names_of
from eventstore.machine.words import (
    Words,
    as_words,
    destination_of,
    is_by_name,
    kind_of,
    source_of,
    text_of,
)
from eventstore.rows import Commands, Kind

_LENGTH = 2
_SOURCE, _PARTS = 2, 4
Texts = NDArray[np.uint8]


def names(
    commands: Commands, words: Words, named: NDArray[np.int64], texts: bytes
) -> tuple[Words, dict[int, str]]:
    """Of a frame: the words of all accounts that are given by name, of shape (commands, 4), or
    (0, 4) if there are none; and the ids of those that are to be opened, by the command's index.

    `named` has the index of each such command, and where its texts begin. Raises Bug if texts are
    not what their command's kind has.
    """
    found = np.zeros((len(commands) if len(named) else 0, 4), np.uint64)
    left = np.empty((len(named), 2), np.int64)
    room = np.empty(ROOM_WORDS, np.uint64)
    count = _name(words, np.frombuffer(texts, np.uint8), named, found, left, room)
    return found, names_of(commands, left[:count], texts, found)


def numbers(
    commands: Commands, named: NDArray[np.int64], texts: bytes, accounts: Index
) -> NDArray[np.int64]:
    """Of each command the numbers of source and destination, where `named` (see `names`) has it and
    its texts name them; -1 elsewhere, and where there is no such account.
    """
    found = np.full((len(commands), 2), -1, np.int64)
    by_name, _ = names(commands, as_words(commands), named, texts)
    _look_up_all(by_name, named, accounts.tables, found)
    return found


@compiled(types.void(types.uint64[:, ::1], types.int64[:, ::1], TABLES, types.int64[:, ::1]))
def _look_up_all(
    by_name: Words, named: NDArray[np.int64], accounts: Tables, found: NDArray[np.int64]
) -> None:
    for k in range(len(named)):
        i = named[k, 0]
        for side in range(2):
            first, second = by_name[i, 2 * side], by_name[i, 2 * side + 1]
            if first != 0 or second != 0:
                hashed = hash_of(accounts, first, second)
                found[i, side] = find(accounts, first, second, hashed)[0]


@inlined
def _name_sides(
    words: Words, i: Number, texts: Texts, at: Number, found: Words, room: Room
) -> Truth:
    """Whether the texts that begin at a byte are those of a transfer; then its names are found."""
    end = at + text_of(words, i)
    for part in range(_PARTS):
        if at + _LENGTH > end:
            return False
        length = np.int64(texts[at]) | np.int64(texts[at + 1]) << 8
        at += _LENGTH
        if at + length > end:
            return False
        if part >= _SOURCE:
            number = source_of(words, i) if part == _SOURCE else destination_of(words, i)
            if is_by_name(number) != (length > 0) or length > TEXT_BYTES_MAX:
                return False
            if length > 0:
                side = 2 * (part - _SOURCE)
                first, second = blake2b(texts, at, length, room)
                found[i, side], found[i, side + 1] = first, second
        at += length
    return at == end


@compiled(
    types.int64(
        WORDS,
        BYTES,
        types.int64[:, ::1],
        types.uint64[:, ::1],
        types.int64[:, ::1],
        types.uint64[::1],
    )
)
def _name(
    words: Words,
    texts: Texts,
    named: NDArray[np.int64],
    found: Words,
    left: NDArray[np.int64],
    room: Room,
) -> int:
    """Find the names of transfers; note what is left for Python, and give how much that is."""
    count = 0
    for k in range(len(named)):
        i, start = named[k, 0], named[k, 1]
        if kind_of(words, i) != Kind.TRANSFER or not _name_sides(
            words, i, texts, start, found, room
        ):
            left[count, 0], left[count, 1] = i, start
            count += 1
    return count
