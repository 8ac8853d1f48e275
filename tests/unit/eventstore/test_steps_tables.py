"""The tables by which the machine steps are those of the protocols: every pair, of both."""

from enum import IntEnum, StrEnum

import pytest

from coordinator.protocols.phased import IllegalStep, Outcome, PhasedProtocol
from coordinator.protocols.saga import SAGA
from coordinator.protocols.try_confirm_cancel import TCC
from eventstore.machine.protocols import (
    CALLS,
    FINAL,
    FIRST,
    PHASES,
    REACTIONS,
    STEPS,
    UNDECIDED,
    Record,
)
from eventstore.rows import CallCode, EventCode, PhaseCode, ProtocolCode, StateCode

_RECORDS = {
    None: Record.NOTHING,
    Outcome.COMMITTED: Record.COMMITTED,
    Outcome.REJECTED: Record.REJECTED,
}
_BOTH = pytest.mark.parametrize("protocol", [TCC, SAGA], ids=lambda each: each.name)


def _names(codes: type[IntEnum]) -> set[str]:
    return {code.name for code in codes}


def _all(protocol: PhasedProtocol, which: str) -> list[StrEnum]:
    """All phases, events, states or calls of a protocol."""
    kinds = {
        "phase": type(protocol.begin),
        "event": type(protocol.accepted),
        "state": type(protocol.absent),
        "call": type(next(call for _, call in protocol.calls)),
    }
    return list(kinds[which])


@_BOTH
def test_each_step_leads_to_the_same(protocol: PhasedProtocol) -> None:
    code = ProtocolCode[protocol.name.upper()]
    first = protocol.first
    found = FIRST[code]
    assert found.source is not None
    assert (found.phase.name, found.source.name) == (first.phase.name, protocol.first_move.name)
    for phase in _all(protocol, "phase"):
        if phase is protocol.begin:
            continue
        assert (PhaseCode[phase.name] in FINAL) == (phase in protocol.final)
        assert (PhaseCode[phase.name] in UNDECIDED) == (phase in protocol.undecided)
        assert (PhaseCode[phase.name] in PHASES[code]) == (phase not in protocol.final)
        for event in _all(protocol, "event"):
            if event is protocol.accepted:
                continue
            pair = PhaseCode[phase.name], EventCode[event.name]
            try:
                step = protocol.step(phase, event)
            except IllegalStep:
                assert pair not in STEPS, pair
                continue
            ours = STEPS[pair]
            assert ours.phase.name == step.phase.name
            assert (ours.source.name if ours.source is not None else None) == (
                step.source.name if step.source else None
            )
            assert ours.record == _RECORDS[step.outcome]


@_BOTH
def test_each_call_does_the_same(protocol: PhasedProtocol) -> None:
    code = ProtocolCode[protocol.name.upper()]
    assert {call.name for call in _all(protocol, "call")} == {call.name for call in CALLS[code]}
    assert protocol.refused.state.name == StateCode.REFUSED.name
    assert protocol.absent.name == StateCode.ABSENT.name
    for state in _all(protocol, "state"):
        for call in _all(protocol, "call"):
            pair = StateCode[state.name], CallCode[call.name]
            try:
                reaction = protocol.react(state, call)
            except IllegalStep:
                assert pair not in REACTIONS, pair
                continue
            ours = REACTIONS[pair]
            assert ours.state.name == reaction.state.name
            assert (ours.move.name if ours.move is not None else None) == (
                reaction.move.name if reaction.move else None
            )
            # So STANDS says of a call that was repeated what was heard of it the first time.
            assert reaction.move is None or reaction.state is not state


def test_there_is_nothing_else() -> None:
    both = TCC, SAGA
    assert len(STEPS) == sum(len(each.phases) - 1 for each in both)
    assert len(REACTIONS) == sum(len(each.calls) for each in both)
    phases = {phase.name for each in both for phase in _all(each, "phase")} - {"BEGINNING"}
    assert _names(PhaseCode) - {"NONE", "NOT_BEGUN"} == phases
    events = {event.name for each in both for event in _all(each, "event")} - {"ACCEPTED"}
    assert _names(EventCode) == events
    assert _names(StateCode) == {state.name for each in both for state in _all(each, "state")}
    assert _names(CallCode) == {call.name for each in both for call in _all(each, "call")}
