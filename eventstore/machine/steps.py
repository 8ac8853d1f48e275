"""What TC/C and Saga do in a group: an attempt begins, is called, and is taken further. Compiled.

Each command finds its attempt, compares the phase or state that it fits (rule E12), and only then
moves money, by the tables of `protocols.py`. So it may come late, twice, or before another one:
what does not fit changes nothing and is told where the attempt stands.
"""

import numpy as np

from eventstore.machine import index
from eventstore.machine.attempts import (
    ACCOUNTS,
    AMOUNT,
    BEGUN,
    CALLED,
    ID_0,
    ID_1,
    MARK,
    META,
    PROTOCOL_AT,
    SINCE,
    destination_in,
    phase_in,
    protocol_in,
    source_in,
    state_in,
    with_destination,
    with_phase,
    with_source,
    with_state,
)
from eventstore.machine.compiled import Number, Truth, Word, called, compiled, inlined, types
from eventstore.machine.index import Tables
from eventstore.machine.moves import SUM_OVERFLOW, MoveKind, move
from eventstore.machine.outcomes import Numbers, explain, write
from eventstore.machine.protocols import (
    NO_LINE,
    NO_MOVE,
    Record,
    first_line,
    is_final,
    is_undecided,
    move_in,
    reaction_line,
    record_in,
    step_line,
    target_in,
)
from eventstore.machine.rules import META as ACCOUNT_META
from eventstore.machine.rules import UNFINISHED_AT
from eventstore.machine.views import FRAME, STATE, Frame, State
from eventstore.machine.words import (
    amount_of,
    currency_of,
    destination_of,
    id_of,
    is_by_name,
    kind_of,
    protocol_of,
    source_of,
    step_of,
)
from eventstore.rows import Code, Kind, PhaseCode, StateCode

_ONE_UNFINISHED = 1 << UNFINISHED_AT
_BYTE, _EVENT_AT = 0xFF, 8


# --- ids ----------------------------------------------------------------------------------------


@called
def _look_up(tables: Tables, first: Word, second: Word) -> tuple[Number, Word, Word]:
    """What `index.find` gives, and the hash. Not inlined: it is long, and needed often here."""
    hashed = index.hash_of(tables, first, second)
    number, at = index.find(tables, first, second, hashed)
    return number, at, hashed


@called
def _change(tables: Tables, first: Word, second: Word, number: Number) -> None:
    """Give an id that is there another number."""
    index.change(tables, first, second, index.hash_of(tables, first, second), number)


@called
def _put(tables: Tables, at: Word, first: Word, second: Word, number: Number) -> None:
    index.put(tables, at, first, second, number)


# --- the id of a transfer -----------------------------------------------------------------------


@inlined
def is_pending(known: Number, state: State) -> Truth:
    """Whether what the index of transfers has of an id is an attempt that is not decided."""
    if known < MARK:
        return False
    return is_undecided(phase_in(state.attempt_rows[known - MARK, META]))


@inlined
def keep(
    state: State,
    known: Number,
    at: Word,
    first: Word,
    second: Word,
    number: Number,
) -> None:
    """Keep, under the id of a transfer, `number`; `known` and `at` are what `index.find` gave."""
    if known < 0:
        _put(state.transfers, at, first, second, number)
    else:
        _change(state.transfers, first, second, number)


# --- rows ---------------------------------------------------------------------------------------


@inlined
def _attempt_words(frame: Frame, i: Number) -> tuple[Word, Word]:
    at = 2 if kind_of(frame.words, i) == Kind.BEGIN else 0
    return frame.names[i, at], frame.names[i, at + 1]


@inlined
def _account(frame: Frame, i: Number, side: Number, number: Number, accounts: Tables) -> Number:
    """The account that is given by a number or, for NOBODY, by name; -1 if there is none."""
    if not is_by_name(number):
        return number
    return _look_up(accounts, frame.names[i, side], frame.names[i, side + 1])[0]


@inlined
def _find(frame: Frame, i: Number, state: State) -> tuple[Number, Word]:
    first, second = _attempt_words(frame, i)
    number, at, _ = _look_up(state.attempts, first, second)
    return number, at


@inlined
def _row_for(frame: Frame, i: Number, state: State, number: Number, at: Word) -> Number:
    """The number of the attempt's row; a new one if it has none."""
    if number >= 0:
        return number
    first, second = _attempt_words(frame, i)
    new = index.count_of(state.attempts)
    _put(state.attempts, at, first, second, new)
    row = state.attempt_rows[new]
    row[ID_0], row[ID_1] = id_of(frame.words, i)
    row[AMOUNT] = amount_of(frame.words, i)
    row[ACCOUNTS] = with_destination(with_source(0, -1), -1)
    row[SINCE] = frame.now
    row[META] = protocol_of(frame.words, i) << PROTOCOL_AT
    return new


@inlined
def _is_unlike(frame: Frame, i: Number, state: State, number: Number) -> Truth:
    """Whether it is another transfer than that of the attempt's row, as far as numbers tell."""
    row = state.attempt_rows[number]
    if protocol_in(row[META]) != protocol_of(frame.words, i):
        return True
    return kind_of(frame.words, i) != Kind.ADVANCE and row[AMOUNT] != amount_of(frame.words, i)


# --- BEGIN --------------------------------------------------------------------------------------


@inlined
def _never(frame: Frame, i: Number, state: State, number: Number, at: Word) -> None:
    """Remember an attempt that was told no, and of which nothing else is recorded."""
    row = state.attempt_rows[_row_for(frame, i, state, number, at)]
    row[BEGUN] = frame.place + i
    row[META] = with_phase(row[META], PhaseCode.NOT_BEGUN)


@inlined
def _begin(
    frame: Frame,
    i: Number,
    state: State,
    number: Number,
    at: Word,
    details: Numbers,
    filled: Number,
) -> Number:
    first, second = id_of(frame.words, i)
    known, place, _ = _look_up(state.transfers, first, second)
    if 0 <= known < MARK:
        write(details, filled, known)
        return Code.REPLAYED
    if is_pending(known, state):
        write(details, filled, state.attempt_rows[known - MARK, BEGUN])
        _never(frame, i, state, number, at)
        return Code.IN_USE
    source = _account(frame, i, 0, source_of(frame.words, i), state.accounts)
    if source < 0:
        _never(frame, i, state, number, at)
        return Code.NO_SOURCE
    line = first_line(protocol_of(frame.words, i))
    amount, currency = amount_of(frame.words, i), currency_of(frame.words, i)
    what = move_in(line)
    code = move(state.rows, state.currencies, source, what, amount, currency, frame.now)
    if code == Code.DONE:
        new = _row_for(frame, i, state, number, at)
        row = state.attempt_rows[new]
        row[BEGUN] = frame.place + i
        row[ACCOUNTS] = with_source(row[ACCOUNTS], source)
        row[META] = with_phase(row[META], target_in(line))
        state.rows[source, ACCOUNT_META] += _ONE_UNFINISHED
        keep(state, known, place, first, second, MARK + new)
        return code
    if code == SUM_OVERFLOW:
        code = np.int64(Code.HELD_OVERFLOW)
    explain(code, state, source, -1, details, filled)
    keep(state, known, place, first, second, frame.place + i)
    return code


# --- CALL ---------------------------------------------------------------------------------------


@inlined
def _call(
    frame: Frame,
    i: Number,
    state: State,
    number: Number,
    at: Word,
    details: Numbers,
    filled: Number,
) -> Number:
    before = (
        np.int64(StateCode.ABSENT) if number < 0 else state_in(state.attempt_rows[number, META])
    )
    line = reaction_line(before, step_of(frame.words, i))
    if line == NO_LINE or target_in(line) == before:
        write(details, filled, 0 if number < 0 else state.attempt_rows[number, CALLED], before)
        return Code.STANDS
    what, after, code = move_in(line), target_in(line), np.int64(Code.DONE)
    destination = _account(frame, i, 2, destination_of(frame.words, i), state.accounts)
    if before != StateCode.ABSENT:
        # What was tried is confirmed, or cancelled, where that was.
        destination = destination_in(state.attempt_rows[number, ACCOUNTS])
    if what != NO_MOVE:
        amount, currency = amount_of(frame.words, i), currency_of(frame.words, i)
        code = move(state.rows, state.currencies, destination, what, amount, currency, frame.now)
    if code == SUM_OVERFLOW:
        code = np.int64(Code.EXPECTED_OVERFLOW)
    if code != Code.DONE:
        after = np.int64(StateCode.REFUSED)
    row = state.attempt_rows[_row_for(frame, i, state, number, at)]
    if before == StateCode.ABSENT:
        row[CALLED] = frame.place + i
        row[ACCOUNTS] = with_destination(row[ACCOUNTS], destination)
    row[META] = with_state(row[META], after)
    if code == Code.DONE:
        write(details, filled, row[CALLED], after)
        return Code.STEPPED
    explain(code, state, -1, destination, details, filled)
    return code


# --- ADVANCE ------------------------------------------------------------------------------------


@inlined
def _advance(
    frame: Frame, i: Number, state: State, number: Number, details: Numbers, filled: Number
) -> Number:
    if number < 0:
        write(details, filled, 0, PhaseCode.NONE)
        return Code.STANDS
    row, step = state.attempt_rows[number], step_of(frame.words, i)
    phase = phase_in(row[META])
    if phase != step & _BYTE:
        write(details, filled, row[BEGUN], phase)
        return Code.STANDS
    line, source = step_line(phase, step >> _EVENT_AT), source_in(row[ACCOUNTS])
    what = move_in(line)
    if what != NO_MOVE:
        code = move(state.rows, state.currencies, source, what, row[AMOUNT], 0, frame.now)
        if code == Code.DESTINATION_OVERFLOW and what == MoveKind.REFUND:
            explain(Code.REFUND_OVERFLOW, state, source, -1, details, filled)
            return Code.REFUND_OVERFLOW
        if code != Code.DONE:
            return code
    row[META] = with_phase(row[META], target_in(line))
    if is_final(target_in(line)):
        state.rows[source, ACCOUNT_META] -= _ONE_UNFINISHED
    if record_in(line) != Record.NOTHING:
        first, second = id_of(frame.words, i)
        _change(state.transfers, first, second, frame.place + i)
    write(details, filled, row[BEGUN], target_in(line))
    return Code.STEPPED


# --- all of them --------------------------------------------------------------------------------


@compiled(types.int64(FRAME, types.int64, STATE, types.int64[:, ::1], types.int64))
def step(frame: Frame, i: Number, state: State, details: Numbers, filled: Number) -> Number:
    """Decide a BEGIN, a CALL or an ADVANCE: its Code, or BROKEN for a mistake of our own, after
    which the state is of no use.
    """
    kind = kind_of(frame.words, i)
    number, at = _find(frame, i, state)
    if number >= 0 and _is_unlike(frame, i, state, number):
        row = state.attempt_rows[number]
        write(details, filled, row[BEGUN], row[CALLED])
        return Code.UNLIKE
    if kind == Kind.CALL:
        return _call(frame, i, state, number, at, details, filled)
    if kind == Kind.ADVANCE:
        return _advance(frame, i, state, number, details, filled)
    phase = phase_in(state.attempt_rows[number, META]) if number >= 0 else np.int64(PhaseCode.NONE)
    if phase != PhaseCode.NONE:
        write(details, filled, state.attempt_rows[number, BEGUN], phase)
        return Code.STANDS
    return _begin(frame, i, state, number, at, details, filled)
