"""The tables of TC/C and Saga: those of `coordinator/protocols`, as compiled functions read them.

That both say the same of every pair is tested in `tests/unit/eventstore/test_steps_tables.py`.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import Number, Truth, inlined
from eventstore.machine.moves import MoveKind
from eventstore.rows import CallCode, EventCode, PhaseCode, ProtocolCode, StateCode


class Record(IntEnum):
    """What a step records of its transfer, for good."""

    NOTHING = 0
    COMMITTED = 1
    REJECTED = 2


class Step(NamedTuple):
    """Where an event leads, what that does to the source's account, and what it records."""

    phase: PhaseCode
    source: MoveKind | None
    record: Record = Record.NOTHING


class Reaction(NamedTuple):
    """What a call does to the destination's account, and the state after it."""

    state: StateCode
    move: MoveKind | None


_P, _E, _C, _S, _M = PhaseCode, EventCode, CallCode, StateCode, MoveKind

# Phases are of one protocol each, and so are calls: neither table needs its name.
FIRST = {
    ProtocolCode.TCC: Step(_P.TRYING, _M.RESERVE),
    ProtocolCode.SAGA: Step(_P.CREDITING, _M.DEBIT),
}
STEPS = {
    (_P.TRYING, _E.TRIED): Step(_P.CONFIRMING, _M.PAY, Record.COMMITTED),
    (_P.TRYING, _E.REFUSED): Step(_P.CANCELLED, _M.RELEASE, Record.REJECTED),
    (_P.TRYING, _E.EXPIRED): Step(_P.CANCELLING, _M.RELEASE),
    (_P.CONFIRMING, _E.CONFIRMED): Step(_P.CONFIRMED, None),
    (_P.CANCELLING, _E.CANCELLED): Step(_P.CANCELLED, None),
    (_P.CREDITING, _E.CREDITED): Step(_P.COMPLETED, None, Record.COMMITTED),
    (_P.CREDITING, _E.REFUSED): Step(_P.COMPENSATING, None, Record.REJECTED),
    (_P.COMPENSATING, _E.DUE): Step(_P.COMPENSATED, _M.REFUND),
}
REACTIONS = {
    (_S.ABSENT, _C.TRY): Reaction(_S.TRIED, _M.EXPECT),
    (_S.TRIED, _C.TRY): Reaction(_S.TRIED, None),
    (_S.REFUSED, _C.TRY): Reaction(_S.REFUSED, None),
    (_S.CONFIRMED, _C.TRY): Reaction(_S.CONFIRMED, None),
    (_S.CANCELLED, _C.TRY): Reaction(_S.CANCELLED, None),
    (_S.TRIED, _C.CONFIRM): Reaction(_S.CONFIRMED, _M.RECEIVE),
    (_S.CONFIRMED, _C.CONFIRM): Reaction(_S.CONFIRMED, None),
    (_S.TRIED, _C.CANCEL): Reaction(_S.CANCELLED, _M.EXPECT_NO_MORE),
    (_S.ABSENT, _C.CANCEL): Reaction(_S.CANCELLED, None),
    (_S.CANCELLED, _C.CANCEL): Reaction(_S.CANCELLED, None),
    (_S.REFUSED, _C.CANCEL): Reaction(_S.REFUSED, None),
    (_S.ABSENT, _C.CREDIT): Reaction(_S.CREDITED, _M.CREDIT),
    (_S.CREDITED, _C.CREDIT): Reaction(_S.CREDITED, None),
    (_S.REFUSED, _C.CREDIT): Reaction(_S.REFUSED, None),
}
CALLS = {
    ProtocolCode.TCC: frozenset({_C.TRY, _C.CONFIRM, _C.CANCEL}),
    ProtocolCode.SAGA: frozenset({_C.CREDIT}),
}
PHASES = {
    ProtocolCode.TCC: frozenset({_P.TRYING, _P.CONFIRMING, _P.CANCELLING}),
    ProtocolCode.SAGA: frozenset({_P.CREDITING, _P.COMPENSATING}),
}
FINAL = frozenset({_P.CONFIRMED, _P.CANCELLED, _P.COMPLETED, _P.COMPENSATED})
# Nothing is recorded of the transfer, and something still may be.
UNDECIDED = frozenset({_P.TRYING, _P.CREDITING})

# --- as compiled functions read them ------------------------------------------------------------

# A line of a table: the phase or state, the move, what is recorded. NO_LINE: the pair is not in it.
NO_LINE, NO_MOVE = -1, 15
_MOVE_AT, _RECORD_AT, _LOW = 8, 16, 0xFF
_WIDTH = 8


def _line(target: int, move: MoveKind | None, record: int = 0) -> int:
    return target | (NO_MOVE if move is None else move) << _MOVE_AT | record << _RECORD_AT


def _table(size: int, lines: dict[tuple[int, int], int]) -> NDArray[np.int64]:
    table = np.full(size * _WIDTH, NO_LINE, np.int64)
    for (row, column), line in lines.items():
        table[row * _WIDTH + column] = line
    return table


_FIRST = np.array([_line(*FIRST[code]) if code in FIRST else NO_LINE for code in ProtocolCode])
_STEPS = _table(len(PhaseCode), {(p, e): _line(*step) for (p, e), step in STEPS.items()})
_REACTIONS = _table(len(StateCode), {(s, c): _line(*r) for (s, c), r in REACTIONS.items()})
_IS_FINAL = np.array([phase in FINAL for phase in PhaseCode])
_IS_UNDECIDED = np.array([phase in UNDECIDED for phase in PhaseCode])


@inlined
def first_line(protocol: Number) -> Number:
    return _FIRST[protocol]


@inlined
def step_line(phase: Number, event: Number) -> Number:
    return _STEPS[phase * _WIDTH + event]


@inlined
def reaction_line(state: Number, call: Number) -> Number:
    return _REACTIONS[state * _WIDTH + call]


@inlined
def target_in(line: Number) -> Number:
    return line & _LOW


@inlined
def move_in(line: Number) -> Number:
    return line >> _MOVE_AT & _LOW


@inlined
def record_in(line: Number) -> Number:
    return line >> _RECORD_AT & _LOW


@inlined
def is_final(phase: Number) -> Truth:
    return _IS_FINAL[phase]


@inlined
def is_undecided(phase: Number) -> Truth:
    return _IS_UNDECIDED[phase]


@inlined
def is_phased(protocol: Number) -> Truth:
    return protocol == ProtocolCode.TCC or protocol == ProtocolCode.SAGA


@inlined
def is_call(protocol: Number, call: Number) -> Truth:
    """Whether the protocol makes such a call."""
    if protocol == ProtocolCode.SAGA:
        return call == CallCode.CREDIT
    return protocol == ProtocolCode.TCC and CallCode.TRY <= call <= CallCode.CANCEL


@inlined
def is_step(protocol: Number, phase: Number, event: Number) -> Truth:
    """Whether the protocol's table has such a step."""
    if phase >= len(_IS_FINAL) or event >= _WIDTH or step_line(phase, event) == NO_LINE:
        return False
    return is_phased(protocol) and (phase >= PhaseCode.CREDITING) == (protocol == ProtocolCode.SAGA)
