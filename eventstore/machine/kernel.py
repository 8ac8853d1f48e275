"""The loop that decides a frame's commands, strictly in their order, in numbers alone.

A transfer whose id is known is REPLAYED here, with the place of the first command that had it.
Whether its body is the same is found afterwards, in Python: neither answer changes the state.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine import index
from eventstore.machine.compiled import (
    WORDS,
    Number,
    Truth,
    Word,
    compiled,
    inlined,
    prefetch,
    types,
)
from eventstore.machine.currencies import TABLE, Table, index_for
from eventstore.machine.index import TABLES, Tables
from eventstore.machine.rules import (
    BALANCE,
    CHANGES,
    EXPECTED,
    HELD,
    LIMIT,
    META,
    Rows,
    currency_in,
    new_row,
    post,
    refuse,
    refuse_closing,
    status_in,
    unfinished_in,
    with_status,
)
from eventstore.machine.words import (
    Words,
    amount_of,
    currency_of,
    destination_of,
    id_of,
    is_by_name,
    kind_of,
    source_of,
)
from eventstore.rows import Code, Kind, StatusCode

Numbers = NDArray[np.int64]

# For so many commands at a time memory is fetched in advance: what they need stays near until then.
AHEAD = 64
_ROW_WORDS = np.uint64(8)
_COMMAND, _A, _B, _C, _D = range(5)


class Frame(NamedTuple):
    """A frame's commands. `names` is of shape (commands, 4), two words for the id of the source (or
    of the account) and two for that of the destination, where these are given by name; or of shape
    (0, 4) if none are. `place` is that of the first command.
    """

    words: Words
    names: NDArray[np.uint64]
    now: int
    place: int


class State(NamedTuple):
    """What the commands change: the accounts, what they are in, their index, and the transfers'."""

    rows: Rows
    currencies: Table
    accounts: Tables
    transfers: Tables


_NUMBERS = types.int64[:, ::1]
_FRAME = types.NamedTuple((WORDS, types.uint64[:, ::1], types.int64, types.int64), Frame)
_STATE = types.NamedTuple((_NUMBERS, TABLE, TABLES, TABLES), State)


@inlined
def _named(frame: Frame, i: Number, side: Number, number: Number, accounts: Tables) -> Number:
    """The account that is given by a number or, for NOBODY, by name; -1 if there is none."""
    if not is_by_name(number):
        return number
    first, second = frame.names[i, side], frame.names[i, side + 1]
    return index.find(accounts, first, second, index.hash_of(accounts, first, second))[0]


@inlined
def _write(
    details: Numbers, filled: Number, a: Number, b: Number = 0, c: Number = 0, d: Number = 0
) -> None:
    details[filled, _A] = a
    details[filled, _B] = b
    details[filled, _C] = c
    details[filled, _D] = d


@inlined
def _has_details(code: Number) -> Truth:
    return code >= Code.SOURCE_CURRENCY and code != Code.NO_ACCOUNT


# --- transfers ----------------------------------------------------------------------------------


@inlined
def _transfer(
    frame: Frame, i: Number, state: State, hashed: Word, details: Numbers, filled: Number
) -> Number:
    first, second = id_of(frame.words, i)
    known, at = index.find(state.transfers, first, second, hashed)
    if known >= 0:
        _write(details, filled, known)
        return Code.REPLAYED
    source = _named(frame, i, 0, source_of(frame.words, i), state.accounts)
    if source < 0:
        return Code.NO_SOURCE
    # From here on the outcome is recorded, whatever it is.
    index.put(state.transfers, at, first, second, frame.place + i)
    destination = _named(frame, i, 2, destination_of(frame.words, i), state.accounts)
    amount, currency = amount_of(frame.words, i), currency_of(frame.words, i)
    code = refuse(state.rows, state.currencies, source, destination, amount, currency)
    if code == Code.DONE:
        post(state.rows, source, destination, amount, frame.now)
    else:
        _explain(code, state, source, destination, details, filled)
    return code


@inlined
def _explain(
    code: Number,
    state: State,
    source: Number,
    destination: Number,
    details: Numbers,
    filled: Number,
) -> None:
    """What the text of this refusal is made of, for those that have numbers in it."""
    rows = state.rows
    if code == Code.SOURCE_CURRENCY:
        _write(details, filled, currency_in(rows[source, META], state.currencies))
    elif code == Code.DESTINATION_CURRENCY:
        _write(details, filled, currency_in(rows[destination, META], state.currencies))
    elif code == Code.FUNDS:
        limit = rows[source, LIMIT]
        _write(details, filled, rows[source, BALANCE], rows[source, HELD], limit)
    elif code == Code.SOURCE_OVERFLOW:
        _write(details, filled, rows[source, BALANCE], rows[source, HELD])
    elif code == Code.DESTINATION_OVERFLOW:
        _write(details, filled, rows[destination, BALANCE], rows[destination, EXPECTED])


# --- accounts -----------------------------------------------------------------------------------


@inlined
def _open(frame: Frame, i: Number, state: State, details: Numbers, filled: Number) -> Number:
    first, second = id_of(frame.words, i)
    hashed = index.hash_of(state.accounts, first, second)
    known, at = index.find(state.accounts, first, second, hashed)
    if known >= 0:
        _write(details, filled, known)
        return Code.EXISTS
    number = index.count_of(state.accounts)
    index.put(state.accounts, at, first, second, number)
    currency = index_for(state.currencies, currency_of(frame.words, i))
    new_row(state.rows, number, amount_of(frame.words, i), currency, frame.now)
    return Code.DONE


@inlined
def _set_status(frame: Frame, i: Number, state: State, details: Numbers, filled: Number) -> Number:
    rows = state.rows
    account = _named(frame, i, 0, source_of(frame.words, i), state.accounts)
    if account < 0:
        return Code.NO_ACCOUNT
    status, meta = amount_of(frame.words, i), rows[account, META]
    if status == StatusCode.CLOSED and refuse_closing(rows, account) != Code.DONE:
        balance, held, expected = (
            rows[account, BALANCE],
            rows[account, HELD],
            rows[account, EXPECTED],
        )
        _write(details, filled, balance, held, expected, unfinished_in(meta))
        return Code.NOT_EMPTY
    if status_in(meta) != status:
        rows[account, META] = with_status(meta, status)
        rows[account, CHANGES] += 1
    return Code.DONE


# --- all of them --------------------------------------------------------------------------------


@inlined
def _fetch(frame: Frame, start: Number, end: Number, state: State, hashes: Words) -> None:
    """Begin to fetch the accounts and slots that these commands will need; keep the hashes."""
    for i in range(start, end):
        if kind_of(frame.words, i) == Kind.TRANSFER:
            first, second = id_of(frame.words, i)
            hashes[i - start] = index.hash_of(state.transfers, first, second)
            index.fetch(state.transfers, hashes[i - start])
            prefetch(state.rows, np.uint64(source_of(frame.words, i)) * _ROW_WORDS)
            prefetch(state.rows, np.uint64(destination_of(frame.words, i)) * _ROW_WORDS)


@compiled(types.int64(_FRAME, _STATE, types.uint8[::1], _NUMBERS, types.uint64[::1]))
def decide(
    frame: Frame, state: State, codes: NDArray[np.uint8], details: Numbers, hashes: Words
) -> Number:
    """Decide all commands of a frame; gives the number of details.

    `codes` is filled with an outcome for each command, the beginning of `details`, of shape
    (commands, 5), with those of `rows.DETAIL`. `hashes` is room for AHEAD words.
    """
    filled = 0
    for start in range(0, len(frame.words), AHEAD):
        end = min(start + AHEAD, len(frame.words))
        _fetch(frame, start, end, state, hashes)
        for i in range(start, end):
            kind = kind_of(frame.words, i)
            if kind == Kind.TRANSFER:
                code = _transfer(frame, i, state, hashes[i - start], details, filled)
            elif kind == Kind.OPEN:
                code = _open(frame, i, state, details, filled)
            else:
                code = _set_status(frame, i, state, details, filled)
            codes[i] = code
            if _has_details(code):
                details[filled, _COMMAND] = i
                filled += 1
    return filled
