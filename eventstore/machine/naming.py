"""The accounts of a frame, where commands give them by name."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.blake2 import ROOM_WORDS, TEXT_BYTES_MAX, Room, blake2b
from eventstore.machine.compiled import BYTES, WORDS, Number, Truth, compiled, inlined, types
from eventstore.machine.index import TABLES, Tables, find, hash_of
from eventstore.machine.name_cache import (
    NAMED,
    Named,
    fetch,
    fetch_id,
    has_id,
    recall,
    remember,
)
from eventstore.machine.name_cache import hash_of as hash_of_name
from eventstore.machine.state import Accounts
from eventstore.machine.texts import names_of
from eventstore.machine.words import (
    Words,
    destination_of,
    is_by_name,
    kind_of,
    source_of,
    text_of,
    with_accounts,
)
from eventstore.rows import COMMAND, Commands, Kind

_LENGTH = 2
_SOURCE, _PARTS = 2, 4
# For so many commands at a time memory is fetched in advance.
_AHEAD = 32
_AT, _SIZE, _NUMBER = range(3)
_COMMAND_WORDS = COMMAND.itemsize // 8
Texts = NDArray[np.uint8]
Numbers = NDArray[np.int64]


class Looked(NamedTuple):
    """A frame's commands, with the numbers of accounts that transfers give by name in the place of
    NOBODY, where there are such accounts.

    For those there are not, and for all other commands that name accounts, `names` has the words by
    which they are found: of shape (commands, 4), or (0, 4) if nothing is given by name. `opened`
    has the ids of those that are to be opened, by the command's index.
    """

    words: Words
    names: Words
    opened: dict[int, str]


def look_up(
    commands: Commands, words: Words, named: Numbers, texts: bytes, accounts: Accounts
) -> Looked:
    """Look up a frame's accounts, as they are before it. Nothing that it says depends on what was
    looked up before.

    `named` has the index of each command that gives an account by name, and where its texts begin.
    Raises Bug if texts are not what their command's kind has.
    """
    if not len(named):
        return Looked(words, np.zeros((0, 4), np.uint64), {})
    numbers, names = np.full((len(words), 2), -1, np.int64), np.zeros((len(words), 4), np.uint64)
    left = _transfers(words, named, texts, accounts, numbers, names)
    opened = names_of(commands, left, texts, names)
    looked = np.empty((len(words), _COMMAND_WORDS), np.uint64)
    _put_numbers(words, numbers, looked)
    looked.flags.writeable = False
    return Looked(looked, names, opened)


def numbers_of(words: Words, named: Numbers, texts: bytes, accounts: Accounts) -> Numbers:
    """Of each transfer the numbers of source and destination, where `named` (see `look_up`) has it
    and its texts name them; -1 elsewhere, and where there is no such account. All that `named` has
    are transfers that a machine has taken.
    """
    numbers, names = np.full((len(words), 2), -1, np.int64), np.zeros((len(words), 4), np.uint64)
    _transfers(words, named, texts, accounts, numbers, names)
    return numbers


def _transfers(
    words: Words,
    named: Numbers,
    texts: bytes,
    accounts: Accounts,
    numbers: Numbers,
    names: Words,
) -> Numbers:
    """Look up what transfers name; gives what `named` has besides."""
    accounts.names.make_room(len(accounts))
    left = np.empty((len(named), 2), np.int64)
    spans, hashes = np.empty((2 * _AHEAD, 3), np.int64), np.empty(2 * _AHEAD, np.uint64)
    count = _look_up_all(
        words,
        np.frombuffer(texts, np.uint8),
        named,
        accounts.index.tables,
        accounts.named,
        numbers,
        names,
        left,
        spans,
        hashes,
        np.empty(ROOM_WORDS, np.uint64),
    )
    return left[:count]


# --- compiled -----------------------------------------------------------------------------------


@inlined
def _find_sides(
    words: Words, i: Number, texts: Texts, at: Number, spans: Numbers, s: Number
) -> Truth:
    """Whether the texts that begin at a byte are those of a transfer; then spans `s` and `s + 1`
    are where source and destination are named: of no size where they are not.
    """
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
            spans[s + part - _SOURCE, _AT] = at
            spans[s + part - _SOURCE, _SIZE] = length
        at += length
    return at == end


@inlined
def _recall_all(
    texts: Texts, named: Named, spans: Numbers, hashes: NDArray[np.uint64], count: Number
) -> None:
    """Find who is remembered by these names, step by step, so that memory is fetched meanwhile."""
    for s in range(count):
        if spans[s, _SIZE] > 0:
            hashes[s] = hash_of_name(named, texts, spans[s, _AT], spans[s, _SIZE])
            fetch(named, hashes[s])
    for s in range(count):
        spans[s, _NUMBER] = recall(named, hashes[s]) if spans[s, _SIZE] > 0 else -1
    for s in range(count):
        if spans[s, _NUMBER] >= 0:
            fetch_id(named, spans[s, _NUMBER])


@inlined
def _put_numbers_of(
    i: Number,
    side: Number,
    span: Numbers,
    hashed: Number,
    texts: Texts,
    accounts: Tables,
    named: Named,
    numbers: Numbers,
    names: Words,
    room: Room,
) -> None:
    """Put what is found of a side that is named into `numbers`, or else into `names`."""
    at, length, number = span[_AT], span[_SIZE], span[_NUMBER]
    if number < 0 or not has_id(named, number, texts, at, length):
        first, second = blake2b(texts, at, length, room)
        number = find(accounts, first, second, hash_of(accounts, first, second))[0]
        if number < 0:
            names[i, 2 * side], names[i, 2 * side + 1] = first, second
            return
        remember(named, hashed, number)
    numbers[i, side] = number


@compiled(
    types.int64(
        WORDS,
        BYTES,
        types.int64[:, ::1],
        TABLES,
        NAMED,
        types.int64[:, ::1],
        types.uint64[:, ::1],
        types.int64[:, ::1],
        types.int64[:, ::1],
        types.uint64[::1],
        types.uint64[::1],
    )
)
def _look_up_all(
    words: Words,
    texts: Texts,
    commands: Numbers,
    accounts: Tables,
    named: Named,
    numbers: Numbers,
    names: Words,
    left: Numbers,
    spans: Numbers,
    hashes: NDArray[np.uint64],
    room: Room,
) -> int:
    """Look up what transfers name; note what is left for Python, and give how much that is. `spans`
    and `hashes` are room for two sides each of _AHEAD commands.
    """
    count = 0
    for start in range(0, len(commands), _AHEAD):
        end = min(start + _AHEAD, len(commands))
        for k in range(start, end):
            i, at, s = commands[k, 0], commands[k, 1], 2 * (k - start)
            is_read = kind_of(words, i) == Kind.TRANSFER
            if not is_read or not _find_sides(words, i, texts, at, spans, s):
                spans[s, _SIZE] = spans[s + 1, _SIZE] = 0
                left[count, 0], left[count, 1] = i, at
                count += 1
        _recall_all(texts, named, spans, hashes, 2 * (end - start))
        for s in range(2 * (end - start)):
            if spans[s, _SIZE] > 0:
                i = commands[start + (s >> 1), 0]
                _put_numbers_of(
                    *(i, s & 1, spans[s], hashes[s], texts, accounts, named, numbers, names, room)
                )
    return count


@compiled(types.void(WORDS, types.int64[:, ::1], types.uint64[:, ::1]))
def _put_numbers(words: Words, numbers: Numbers, into: Words) -> None:
    """Copy commands, with the numbers that were found."""
    for i in range(len(words)):
        for k in range(_COMMAND_WORDS):
            into[i, k] = words[i, k]
        source, destination = source_of(words, i), destination_of(words, i)
        if numbers[i, 0] >= 0:
            source = numbers[i, 0]
        if numbers[i, 1] >= 0:
            destination = numbers[i, 1]
        with_accounts(into, i, source, destination)
