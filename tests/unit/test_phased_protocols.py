"""The tables of Try-Confirm/Cancel and Saga, enumerated: they are small enough to try all of it."""

from enum import StrEnum
from itertools import product

import pytest

from coordinator.protocols import saga, try_confirm_cancel
from coordinator.protocols.phased import IllegalStep, Outcome, PhasedProtocol
from coordinator.protocols.saga import SAGA
from coordinator.protocols.try_confirm_cancel import TCC
from ledger.decide import Move

ENUMS = {
    "tcc": (try_confirm_cancel.Phase, try_confirm_cancel.Event, try_confirm_cancel.State,
            try_confirm_cancel.Call),
    "saga": (saga.Phase, saga.Event, saga.State, saga.Call),
}  # fmt: skip
BOTH = pytest.mark.parametrize("protocol", [TCC, SAGA], ids=["tcc", "saga"])
PHASE_EVENTS = [(p, *pair) for p in (TCC, SAGA) for pair in product(*ENUMS[p.name][:2])]
STATE_CALLS = [(p, *pair) for p in (TCC, SAGA) for pair in product(*ENUMS[p.name][2:])]


def reachable(protocol: PhasedProtocol, start: StrEnum) -> set[StrEnum]:
    """The phases to which some events lead, `start` included."""
    found, new = {start}, [start]
    while new:
        phase = new.pop()
        for (origin, _), step in protocol.phases.items():
            if origin is phase and step.phase not in found:
                found.add(step.phase)
                new.append(step.phase)
    return found


def ways(protocol: PhasedProtocol, start: StrEnum) -> list[list[tuple[StrEnum, StrEnum]]]:
    """Every way from a phase to an end. There are no circles, see below."""
    if start in protocol.final:
        return [[]]
    return [
        [(start, event), *rest]
        for (origin, event), step in protocol.phases.items()
        if origin is start
        for rest in ways(protocol, step.phase)
    ]


# --- phases ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "phase", "event"), PHASE_EVENTS)
def test_a_pair_leads_where_the_table_says_or_is_a_bug(
    protocol: PhasedProtocol, phase: StrEnum, event: StrEnum
) -> None:
    if (phase, event) in protocol.phases:
        assert protocol.step(phase, event) == protocol.phases[phase, event]
        return
    with pytest.raises(IllegalStep, match=f"{event} cannot occur while {phase}"):
        protocol.step(phase, event)


@BOTH
def test_every_phase_leads_to_an_end_and_none_out_of_it(protocol: PhasedProtocol) -> None:
    phases, events, _, _ = ENUMS[protocol.name]
    assert reachable(protocol, protocol.begin) == set(phases)
    for phase in phases:
        assert reachable(protocol, phase) & protocol.final
    for (origin, _), step in protocol.phases.items():
        assert origin not in protocol.final
        assert origin not in reachable(protocol, step.phase), "a circle"
    assert {event for _, event in protocol.phases} == set(events)


@BOTH
def test_each_way_records_one_outcome_or_none(protocol: PhasedProtocol) -> None:
    """And the money is where it says: paid if it is committed, and otherwise as it was."""
    effect = {
        Move.RESERVE: (0, 1), Move.RELEASE: (0, -1), Move.PAY: (-1, -1),
        Move.DEBIT: (-1, 0), Move.REFUND: (1, 0),
    }  # fmt: skip
    for way in ways(protocol, protocol.begin):
        steps = [protocol.phases[pair] for pair in way]
        outcomes = [step.outcome for step in steps if step.outcome]
        assert len(outcomes) <= 1, way
        moved = [effect[step.source] for step in steps if step.source]
        balance, held = map(sum, zip(*moved, strict=True))
        assert held == 0, way
        assert balance == (-1 if outcomes == [Outcome.COMMITTED] else 0), way


@BOTH
def test_a_phase_has_one_call(protocol: PhasedProtocol) -> None:
    for phase in ENUMS[protocol.name][0]:
        calls = {step.call for step in protocol.phases.values() if step.phase is phase}
        assert len(calls) <= 1
        if calls and phase not in protocol.final:
            has_call = protocol.call_of(phase) is not None
            assert has_call != (phase in protocol.by_itself), "it would stay there for ever"


@BOTH
def test_what_is_heard_in_a_phase_leads_on(protocol: PhasedProtocol) -> None:
    """Whatever a call can be answered, in its phase there is a step for it, or the phase has been
    left by somebody else, so that compare-and-set refuses the step.
    """
    for (_, call), reaction in protocol.calls.items():
        for phase in ENUMS[protocol.name][0]:
            if phase in protocol.final or phase is protocol.begin:
                continue
            if protocol.call_of(phase) is call:
                assert (phase, reaction.event) in protocol.phases
                if reaction.move:
                    refusable = reaction.move in (Move.EXPECT, Move.CREDIT)
                    assert refusable == ((phase, protocol.refused.event) in protocol.phases)


@BOTH
def test_what_a_phase_needs_is_said(protocol: PhasedProtocol) -> None:
    middle = set(ENUMS[protocol.name][0]) - protocol.final - {protocol.begin}
    assert set(protocol.source_states) == middle
    assert protocol.undecided < middle
    for phase, event in {**protocol.by_itself, **protocol.orphaned}.items():
        assert (phase, event) in protocol.phases


def test_tcc_decides_once_and_for_good() -> None:
    phase = try_confirm_cancel.Phase
    assert reachable(TCC, phase.CONFIRMING) == {phase.CONFIRMING, phase.CONFIRMED}
    assert reachable(TCC, phase.CANCELLING) == {phase.CANCELLING, phase.CANCELLED}


def test_a_saga_gives_back_only_what_was_refused() -> None:
    phase, event = saga.Phase, saga.Event
    into = [pair for pair, step in SAGA.phases.items() if step.phase is phase.COMPENSATING]
    assert into == [(phase.CREDITING, event.REFUSED)]
    refunds = [pair for pair, step in SAGA.phases.items() if step.source is Move.REFUND]
    assert refunds == [(phase.COMPENSATING, event.DUE)]


# --- calls ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "state", "call"), STATE_CALLS)
def test_a_call_does_what_the_table_says_or_is_a_bug(
    protocol: PhasedProtocol, state: StrEnum, call: StrEnum
) -> None:
    if (state, call) in protocol.calls:
        assert protocol.react(state, call) == protocol.calls[state, call]
        return
    with pytest.raises(IllegalStep, match=f"{call} cannot be called when {state}"):
        protocol.react(state, call)


def test_the_pairs_that_are_bugs() -> None:
    state, call = try_confirm_cancel.State, try_confirm_cancel.Call
    illegal = {pair for pair in product(state, call) if pair not in TCC.calls}
    assert illegal == {
        (state.ABSENT, call.CONFIRM),
        (state.REFUSED, call.CONFIRM),
        (state.CANCELLED, call.CONFIRM),
        (state.CONFIRMED, call.CANCEL),
    }


@BOTH
def test_a_call_that_is_repeated_changes_nothing(protocol: PhasedProtocol) -> None:
    for (_, call), reaction in protocol.calls.items():
        again = protocol.react(reaction.state, call)
        assert again == (reaction.state, None, reaction.event)
    refused, _, event = protocol.refused
    for (_, call), reaction in protocol.calls.items():
        if reaction.move in (Move.EXPECT, Move.CREDIT):
            assert protocol.react(refused, call) == (refused, None, event)


def test_a_try_behind_its_cancel_reserves_nothing() -> None:
    state, call = try_confirm_cancel.State, try_confirm_cancel.Call
    empty = TCC.react(state.ABSENT, call.CANCEL)
    assert (empty.state, empty.move) == (state.CANCELLED, None)
    hanging = TCC.react(state.CANCELLED, call.TRY)
    assert (hanging.state, hanging.move) == (state.CANCELLED, None)


@BOTH
def test_every_sequence_of_calls_moves_the_money_once(protocol: PhasedProtocol) -> None:
    """All sequences of up to five calls, each of which may be refused by the money rules."""
    _, _, _, calls = ENUMS[protocol.name]
    effect = {
        Move.EXPECT: (0, 1), Move.EXPECT_NO_MORE: (0, -1), Move.RECEIVE: (1, -1),
        Move.CREDIT: (1, 0),
    }  # fmt: skip
    for length in range(1, 6):
        for sequence in product(calls, (True, False), repeat=length):
            state, balance, expected = protocol.absent, 0, 0
            for call, is_allowed in zip(sequence[::2], sequence[1::2], strict=True):
                try:
                    reaction = protocol.react(state, call)
                except IllegalStep:
                    break
                if reaction.move in (Move.EXPECT, Move.CREDIT) and not is_allowed:
                    reaction = protocol.refused
                if reaction.move:
                    balance += effect[reaction.move][0]
                    expected += effect[reaction.move][1]
                state = reaction.state
                assert (balance, expected) == (
                    int(state == protocol.arrived), int(state == "tried"),
                )  # fmt: skip


# --- the documents --------------------------------------------------------------------------


@BOTH
def test_the_diagram_is_the_tables(protocol: PhasedProtocol) -> None:
    phases, calls = protocol.diagram().split("\n\n")
    assert phases.count(" --> ") == len(protocol.phases) + 1 + len(protocol.final)
    refusable = [r for r in protocol.calls.values() if r.move in (Move.EXPECT, Move.CREDIT)]
    assert calls.count(" --> ") == len(protocol.calls) + 1 + len(refusable)
    for (phase, event), step in protocol.phases.items():
        assert f"{phase.name.lower()} --> {step.phase.name.lower()}: {event} / " in phases
    for (state, call), reaction in protocol.calls.items():
        assert f"{state.name.lower()} --> {reaction.state.name.lower()}: {call} / " in calls
