"""A frame's commands as compiled functions read them: six words of 64 bits each (`rows.COMMAND`).

`words` is of shape (commands, 6), `i` the index of a command in it.
"""

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import Number, Truth, Word, inlined
from eventstore.rows import COMMAND, NOBODY, Commands
from ledger.errors import Bug

Words = NDArray[np.uint64]

_BYTE, _SHORT = np.uint64(0xFF), np.uint64(0xFFFF)
_HALF = np.uint64(0xFFFFFFFF)
_PROTOCOL_AT, _TEXT_AT = np.uint64(8), np.uint64(16)
_UPPER = np.uint64(32)
_ACCOUNTS, _CURRENCY = 3, 4


def as_words(commands: Commands) -> Words:
    """The same memory, to be read only, or a copy where it is not laid out as is needed."""
    if commands.dtype != COMMAND or commands.ndim != 1:
        raise Bug(f"commands are rows of {COMMAND}, not {commands.dtype} in {commands.ndim} axes")
    words = np.ascontiguousarray(commands).view("<u8").reshape(-1, COMMAND.itemsize // 8)
    words = np.require(np.asarray(words), requirements=["C", "A"]).view()
    words.flags.writeable = False
    return words


def currencies_among(words: Words, indexes: list[int]) -> list[int]:
    """The currencies of these commands."""
    found: list[int] = words[indexes, _CURRENCY].tolist()
    return found


def is_named(words: Words) -> NDArray[np.bool_]:
    """Of each command whether it gives an account by name."""
    accounts = np.ascontiguousarray(words[:, _ACCOUNTS])
    found: NDArray[np.bool_] = (accounts.view("<u4").reshape(-1, 2) == NOBODY).any(axis=1)
    return found


def kinds_in(words: Words) -> NDArray[np.uint64]:
    """The kinds of all commands."""
    kinds: NDArray[np.uint64] = words[:, 5] & _BYTE
    return kinds


@inlined
def id_of(words: Words, i: Number) -> tuple[Word, Word]:
    return words[i, 0], words[i, 1]


@inlined
def amount_of(words: Words, i: Number) -> Number:
    return np.int64(words[i, 2])


@inlined
def source_of(words: Words, i: Number) -> Number:
    return np.int64(words[i, 3] & _HALF)


@inlined
def destination_of(words: Words, i: Number) -> Number:
    return np.int64(words[i, 3] >> _UPPER)


@inlined
def with_accounts(words: Words, i: Number, source: Number, destination: Number) -> None:
    """Put the accounts of a command into words that may be written to."""
    words[i, 3] = np.uint64(source) | np.uint64(destination) << _UPPER


@inlined
def currency_of(words: Words, i: Number) -> Number:
    return np.int64(words[i, _CURRENCY])


@inlined
def kind_of(words: Words, i: Number) -> Number:
    return np.int64(words[i, 5] & _BYTE)


@inlined
def protocol_of(words: Words, i: Number) -> Number:
    return np.int64(words[i, 5] >> _PROTOCOL_AT & _BYTE)


@inlined
def text_of(words: Words, i: Number) -> Number:
    return np.int64(words[i, 5] >> _TEXT_AT & _SHORT)


@inlined
def step_of(words: Words, i: Number) -> Number:
    return np.int64(words[i, 5] >> _UPPER)


@inlined
def is_by_name(number: Number) -> Truth:
    """Whether an account is given by its id, in the texts."""
    return number == NOBODY
