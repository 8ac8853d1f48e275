"""The loop that decides a frame's commands, strictly in their order, in numbers alone.

A transfer whose id is known is REPLAYED here, with the place of the first command that had it.
Whether its body is the same is found afterwards, in Python: neither answer changes the state.
"""

import numpy as np
from numpy.typing import NDArray

from eventstore.machine import index
from eventstore.machine.attempts import BEGUN, MARK
from eventstore.machine.compiled import Number, Truth, Word, compiled, inlined, prefetch, types
from eventstore.machine.currencies import index_for
from eventstore.machine.outcomes import COMMAND, Numbers, explain, has_details, write
from eventstore.machine.rules import (
    BALANCE,
    CHANGES,
    EXPECTED,
    HELD,
    META,
    new_row,
    post,
    refuse,
    refuse_closing,
    status_in,
    unfinished_in,
    with_status,
)
from eventstore.machine.steps import is_pending, keep, step
from eventstore.machine.views import FRAME, STATE, Frame, State, named
from eventstore.machine.words import (
    Words,
    amount_of,
    currency_of,
    destination_of,
    id_of,
    kind_of,
    source_of,
)
from eventstore.rows import Code, Kind, StatusCode

# For so many commands at a time memory is fetched in advance: what they need stays near until then.
AHEAD = 64
_ROW_WORDS = np.uint64(8)
_NUMBERS = types.int64[:, ::1]


# --- transfers ----------------------------------------------------------------------------------


@inlined
def _transfer(
    frame: Frame,
    i: Number,
    state: State,
    hashed: Word,
    details: Numbers,
    filled: Number,
    has_attempts: Truth,
) -> Number:
    first, second = id_of(frame.words, i)
    known, at = index.find(state.transfers, first, second, hashed)
    if known >= 0 and not (has_attempts and known >= MARK):
        write(details, filled, known)
        return Code.REPLAYED
    if has_attempts and is_pending(known, state):
        write(details, filled, state.attempt_rows[known - MARK, BEGUN])
        return Code.IN_USE
    source = named(frame, i, 0, source_of(frame.words, i), state.accounts)
    if source < 0:
        return Code.NO_SOURCE
    # From here on the outcome is recorded, whatever it is.
    if has_attempts:
        keep(state, known, at, first, second, frame.place + i)
    else:
        index.put(state.transfers, at, first, second, frame.place + i)
    destination = named(frame, i, 2, destination_of(frame.words, i), state.accounts)
    amount, currency = amount_of(frame.words, i), currency_of(frame.words, i)
    code = refuse(state.rows, state.currencies, source, destination, amount, currency)
    if code == Code.DONE:
        post(state.rows, source, destination, amount, frame.now)
    else:
        explain(code, state, source, destination, details, filled)
    return code


# --- accounts -----------------------------------------------------------------------------------


@inlined
def _open(frame: Frame, i: Number, state: State, details: Numbers, filled: Number) -> Number:
    first, second = id_of(frame.words, i)
    hashed = index.hash_of(state.accounts, first, second)
    known, at = index.find(state.accounts, first, second, hashed)
    if known >= 0:
        write(details, filled, known)
        return Code.EXISTS
    number = index.count_of(state.accounts)
    index.put(state.accounts, at, first, second, number)
    currency = index_for(state.currencies, currency_of(frame.words, i))
    new_row(state.rows, number, amount_of(frame.words, i), currency, frame.now)
    return Code.DONE


@inlined
def _set_status(frame: Frame, i: Number, state: State, details: Numbers, filled: Number) -> Number:
    rows = state.rows
    account = named(frame, i, 0, source_of(frame.words, i), state.accounts)
    if account < 0:
        return Code.NO_ACCOUNT
    status, meta = amount_of(frame.words, i), rows[account, META]
    if status == StatusCode.CLOSED and refuse_closing(rows, account) != Code.DONE:
        balance, held, expected = (
            rows[account, BALANCE],
            rows[account, HELD],
            rows[account, EXPECTED],
        )
        write(details, filled, balance, held, expected, unfinished_in(meta))
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


@inlined
def _decide(
    frame: Frame,
    state: State,
    codes: NDArray[np.uint8],
    details: Numbers,
    hashes: Words,
    has_attempts: Truth,
) -> Number:
    filled = 0
    for start in range(0, len(frame.words), AHEAD):
        end = min(start + AHEAD, len(frame.words))
        _fetch(frame, start, end, state, hashes)
        for i in range(start, end):
            kind = kind_of(frame.words, i)
            if kind == Kind.TRANSFER:
                hashed = hashes[i - start]
                code = _transfer(frame, i, state, hashed, details, filled, has_attempts)
            elif kind == Kind.OPEN:
                code = _open(frame, i, state, details, filled)
            elif has_attempts and kind >= Kind.BEGIN:
                code = step(frame, i, state, details, filled)
            else:
                code = _set_status(frame, i, state, details, filled)
            codes[i] = code
            if has_details(code):
                details[filled, COMMAND] = i
                filled += 1
    return filled


_DECIDE = types.int64(FRAME, STATE, types.uint8[::1], _NUMBERS, types.uint64[::1])


@compiled(_DECIDE)
def decide(
    frame: Frame, state: State, codes: NDArray[np.uint8], details: Numbers, hashes: Words
) -> Number:
    """Decide all commands of a frame; gives the number of details. There are no attempts, neither
    in the frame nor in the state: that makes the loop quicker.

    `codes` is filled with an outcome for each command, the beginning of `details`, of shape
    (commands, 5), with those of `rows.DETAIL`. `hashes` is room for AHEAD words.
    """
    return _decide(frame, state, codes, details, hashes, False)


@compiled(_DECIDE)
def decide_with_attempts(
    frame: Frame, state: State, codes: NDArray[np.uint8], details: Numbers, hashes: Words
) -> Number:
    """The same, whatever there is."""
    return _decide(frame, state, codes, details, hashes, True)
