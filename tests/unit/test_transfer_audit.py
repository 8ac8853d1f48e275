"""All that the shards hold of one transfer: right ways pass, each wrong one is named."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from coordinator.protocols.phased import Outcome
from coordinator.protocols.saga import SAGA
from coordinator.protocols.saga import State as SagaState
from coordinator.protocols.try_confirm_cancel import TCC
from coordinator.protocols.try_confirm_cancel import State as TccState
from ledger.audit import Violation
from ledger.decide import Move
from ledger.transfer_audit import (
    ARRIVED,
    STAGES,
    Line,
    PhaseLine,
    Record,
    StepLine,
    Traces,
    check_transfer,
)

NOW, LATER = 5000, 5001
GTRID, EARLIER = "tandem.s1.c1.x.y", "tandem.s1.c1.w.y"
BOTH = pytest.mark.parametrize("protocol", ["tcc", "saga"])

DEBIT = Line("s1", "a", -7, "b", NOW, "EUR")
CREDIT = Line("s2", "b", 7, "a", NOW, "EUR")
LATE_CREDIT = CREDIT._replace(stamp=LATER)
REFUND = Line("s1", "a", 7, "b", LATER, "EUR")


def rules(found: Iterable[Violation]) -> list[str]:
    return [rule for rule, _ in found]


def record(status: str = "committed", protocol: str = "xa", **changes: Any) -> Record:
    return Record("s1", status, "a", "b", 7, "EUR", GTRID, protocol)._replace(**changes)


def phase(protocol: str, name: str, outcome: str, **changes: Any) -> PhaseLine:
    row = PhaseLine("s1", outcome, "a", "b", 7, "EUR", GTRID, protocol, name)
    return row._replace(**changes)


def step(state: str, gtrid: str = GTRID, **changes: Any) -> StepLine:
    return StepLine("s2", "b", 7, gtrid, state)._replace(**changes)


def check(*rows: Record | Line | PhaseLine | StepLine) -> list[Violation]:
    kinds = (Record, Line, PhaseLine, StepLine)
    found = [[row for row in rows if isinstance(row, kind)] for kind in kinds]
    return check_transfer(Traces("t", *found))  # type: ignore[arg-type]


TRYING = phase("tcc", "trying", "pending")
CONFIRMING = phase("tcc", "confirming", "committed")
CANCELLING = phase("tcc", "cancelling", "lapsed")
CREDITING = phase("saga", "crediting", "pending")
COMPENSATING = phase("saga", "compensating", "rejected")


# --- by two-phase commit, and within one shard --------------------------------------------------


def test_a_transfer_with_both_entries() -> None:
    assert check(record(), DEBIT, CREDIT) == []
    assert check(record(), CREDIT, DEBIT) == []


def test_a_rejected_transfer_without_any() -> None:
    assert check(record("rejected")) == []


WRONG = [
    [],
    [DEBIT],
    [CREDIT],
    [DEBIT, DEBIT, CREDIT, CREDIT],
    [DEBIT, CREDIT, CREDIT._replace(account="c")],
    [DEBIT, CREDIT._replace(amount=8)],
    [DEBIT, CREDIT._replace(account="c")],
    [DEBIT, CREDIT._replace(counterparty="c")],
]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_committed_transfer_with_anything_else(wrong: list[Line]) -> None:
    assert rules(check(record(), *wrong)) == ["all-entries-or-none"]


@pytest.mark.parametrize("wrong", [[DEBIT, CREDIT], [DEBIT], [DEBIT, REFUND]])
def test_a_rejected_transfer_with_entries(wrong: list[Line]) -> None:
    assert rules(check(record("rejected"), *wrong)) == ["all-entries-or-none"]


@pytest.mark.parametrize("protocol", ["xa", "tcc", "saga"])
def test_entries_of_different_times(protocol: str) -> None:
    """By two-phase commit nowhere, by the others not within one shard."""
    there = CREDIT if protocol == "xa" else CREDIT._replace(shard="s1")
    assert check(record(protocol=protocol), DEBIT, there) == []
    found = check(record(protocol=protocol), DEBIT, there._replace(stamp=LATER))
    assert rules(found) == ["entries-at-one-time"]
    assert "5000, 5001" in found[0][1]


def test_accounts_of_another_currency() -> None:
    found = check(record(), DEBIT, CREDIT._replace(currency="USD"))
    assert rules(found) == ["transfer-in-its-currency"]
    # That an account is not there is told by another rule.
    assert check(record(), DEBIT, CREDIT._replace(currency="")) == []


def test_entries_without_a_transfer() -> None:
    found = check(DEBIT, CREDIT)
    assert rules(found) == ["entry-has-transfer"]
    assert "s1, s2" in found[0][1]


def test_a_transfer_on_two_shards() -> None:
    found = check(record(), record(shard="s2"), DEBIT, CREDIT)
    assert rules(found) == ["one-transfer-per-id"]
    assert "s1, s2" in found[0][1]


# --- by the others: when all is over ------------------------------------------------------------


@BOTH
def test_what_is_committed_and_over(protocol: str) -> None:
    done = step(ARRIVED[protocol])
    assert check(record(protocol=protocol), done, DEBIT, LATE_CREDIT) == []
    # An earlier attempt has left a step of its own.
    rests = [step(state, EARLIER) for state in ("cancelled", "refused")]
    assert check(record(protocol=protocol), done, *rests[:1], DEBIT, LATE_CREDIT) == []
    assert check(record(protocol=protocol), done, *rests[1:], DEBIT, LATE_CREDIT) == []


@BOTH
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_committed_has_both_entries(protocol: str, wrong: list[Line]) -> None:
    found = check(record(protocol=protocol), step(ARRIVED[protocol]), *wrong)
    assert "all-entries-or-none" in rules(found)


def test_a_refused_saga_has_its_money_back_or_has_never_paid() -> None:
    refused = record("rejected", "saga")
    assert check(refused) == []
    assert check(refused, step("refused")) == []
    assert check(refused, step("refused"), DEBIT, REFUND) == []
    for wrong in ([DEBIT], [REFUND], [DEBIT, CREDIT], [DEBIT, REFUND._replace(amount=8)]):
        assert rules(check(refused, step("refused"), *wrong)) == ["all-entries-or-none"]


def test_what_tcc_has_refused_has_moved_nothing() -> None:
    refused = record("rejected", "tcc")
    assert check(refused, step("refused")) == []
    assert rules(check(refused, step("refused"), DEBIT, REFUND)) == ["all-entries-or-none"]


@BOTH
def test_what_was_done_has_its_step(protocol: str) -> None:
    found = check(record(protocol=protocol), DEBIT, LATE_CREDIT)
    assert rules(found) == ["step-fits-transfer"]
    assert ARRIVED[protocol] in found[0][1]
    assert rules(check(record("rejected", "saga"), DEBIT, REFUND)) == ["step-fits-transfer"]


@BOTH
@pytest.mark.parametrize("state", ["absent", "tried", "refused", "cancelled", "x"])
def test_the_step_of_what_is_committed_says_so(protocol: str, state: str) -> None:
    rows = [record(protocol=protocol), DEBIT, LATE_CREDIT, step(state)]
    assert "step-fits-transfer" in rules(check(*rows))


@BOTH
@pytest.mark.parametrize("change", [{"amount": 8}, {"account": "c"}, {"gtrid": EARLIER}])
def test_a_step_is_of_what_is_recorded(protocol: str, change: dict[str, Any]) -> None:
    changed = step(ARRIVED[protocol], **change)
    assert "step-fits-transfer" in rules(check(record(protocol=protocol), changed, DEBIT, CREDIT))


@BOTH
def test_a_step_that_arrived_without_a_record(protocol: str) -> None:
    for rows in ([], [record("rejected", protocol)], [CREDIT]):
        assert "step-fits-transfer" in rules(check(step(ARRIVED[protocol]), *rows))


def test_a_step_that_is_tried_and_of_which_nobody_knows() -> None:
    found = check(step("tried"))
    assert rules(found) == ["step-fits-transfer"]
    assert "no phase row" in found[0][1]
    assert check(step("cancelled")) == []
    assert check(step("refused")) == []


# --- while they are on their way ----------------------------------------------------------------

COMMITTED = record(protocol="tcc")
REFUSED = record("rejected", "saga")
# Each phase with what goes with it.
UNFINISHED: list[tuple[Any, ...]] = [
    (TRYING,),
    (TRYING, step("tried")),
    (TRYING, step("refused")),
    (CANCELLING,),
    (CANCELLING, step("tried")),
    (CANCELLING, step("refused")),
    (CANCELLING, step("cancelled")),
    (CONFIRMING, COMMITTED, DEBIT, step("tried")),
    (CONFIRMING, COMMITTED, DEBIT, step("confirmed"), LATE_CREDIT),
    (CREDITING, DEBIT),
    (CREDITING, DEBIT, step("refused")),
    (CREDITING, DEBIT, step("credited"), LATE_CREDIT),
    (COMPENSATING, REFUSED, DEBIT, step("refused")),
]


@pytest.mark.parametrize("rows", UNFINISHED)
def test_what_is_on_its_way_is_explained(rows: tuple[Any, ...]) -> None:
    assert check(*rows) == []


@pytest.mark.parametrize("rows", UNFINISHED)
def test_an_attempt_that_is_cancelled_does_not_keep_others_out(rows: tuple[Any, ...]) -> None:
    earlier = CANCELLING._replace(gtrid=EARLIER)
    assert check(*rows, earlier) == []
    assert check(*rows, earlier, step("tried", EARLIER)) == []
    assert check(earlier, record(), DEBIT, CREDIT) == []


def test_every_pair_of_stages_is_told_apart() -> None:
    """What goes with one phase passes with another one only if it goes with that one, too."""
    right = {frozenset(rows) for rows in UNFINISHED}
    phases = (TRYING, CONFIRMING, CANCELLING, CREDITING, COMPENSATING)
    states = ("tried", "refused", "cancelled", "confirmed", "credited")
    steps = [(), *((step(state),) for state in states)]
    entries = [(), (DEBIT,), (LATE_CREDIT,), (DEBIT, LATE_CREDIT), (DEBIT, REFUND)]
    rows = [(), *((record(s, p),) for s in ("committed", "rejected") for p in ("tcc", "saga"))]
    checked = set()
    for one, *others in itertools.product(phases, rows, entries, steps):
        whole = frozenset([one, *itertools.chain(*others)])
        checked.add(whole)
        assert bool(check(*whole)) == (whole not in right), whole
    assert right <= checked


@pytest.mark.parametrize(
    "rows", [rows for rows in UNFINISHED if rows[0].outcome != "lapsed" or step("tried") in rows]
)
def test_nothing_explains_it_without_its_phase_row(rows: tuple[Any, ...]) -> None:
    """Apart from what is over by the other tables, or has not begun."""
    others = rows[1:]
    is_over = others in [(), (step("refused"),)] or set(others) == {
        *(COMMITTED, DEBIT, LATE_CREDIT, step("confirmed"))
    }
    assert bool(check(*others)) == (not is_over)


@pytest.mark.parametrize("row", [CONFIRMING, COMPENSATING])
@pytest.mark.parametrize(
    "change",
    [
        {"gtrid": EARLIER},
        {"amount": 8},
        {"source": "c"},
        {"destination": "c"},
        {"currency": "USD"},
        {"protocol": "xa"},
    ],
)
def test_a_phase_row_fits_what_is_recorded(row: PhaseLine, change: dict[str, Any]) -> None:
    recorded = record(row.outcome, row.protocol)
    place = step("tried" if row is CONFIRMING else "refused")
    assert check(row, recorded, DEBIT, place) == []
    found = check(row, recorded._replace(**change), DEBIT, place)
    assert "phase-fits-transfer" in rules(found)


@pytest.mark.parametrize("change", [{"amount": 8}, {"account": "c"}])
def test_a_step_fits_its_phase_row(change: dict[str, Any]) -> None:
    found = check(TRYING, step("tried", **change))
    assert rules(found) == ["step-fits-transfer"]


@pytest.mark.parametrize("row", [TRYING, CONFIRMING, CANCELLING, CREDITING, COMPENSATING])
def test_a_phase_row_says_what_its_phase_says(row: PhaseLine) -> None:
    for outcome in {"pending", "committed", "rejected", "lapsed"} - {row.outcome}:
        assert "phase-fits-transfer" in rules(check(row._replace(outcome=outcome)))
    found = check(row._replace(phase="x"))
    assert "phase-fits-transfer" in rules(found)
    assert "x, which there is not" in found[0][1]


def test_two_attempts_at_once() -> None:
    found = check(TRYING, CREDITING._replace(gtrid=EARLIER), DEBIT)
    assert rules(found) == ["one-attempt-at-a-time"]
    assert GTRID in found[0][1]
    assert EARLIER in found[0][1]


def test_an_attempt_does_not_go_on_beside_a_record() -> None:
    """Also of another attempt: it could happen twice."""
    for row in (TRYING, CREDITING):
        for other in (GTRID, EARLIER):
            found = check(row, record(gtrid=other), DEBIT, CREDIT)
            assert "phase-fits-transfer" in rules(found)


def test_a_phase_row_in_another_currency() -> None:
    found = check(CREDITING._replace(currency="USD"), DEBIT)
    assert rules(found) == ["transfer-in-its-currency"]


# --- the protocols' own tables ------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [TCC, SAGA], ids=lambda protocol: protocol.name)
def test_the_stages_are_those_of_the_protocols(protocol: Any) -> None:
    """The audit names phases and states by itself: they are those that are written."""
    lasting = {step.phase for step in protocol.phases.values()} - protocol.final
    assert {phase for name, phase in STAGES if name == protocol.name} == lasting
    states = set(TccState if protocol is TCC else SagaState)
    assert ARRIVED[protocol.name] == protocol.arrived
    moves = {Move.PAY, Move.DEBIT}
    for (before, _), step_ in protocol.phases.items():
        stage = STAGES.get((protocol.name, step_.phase))
        if stage is None:
            continue
        assert stage.states <= states
        was_paid = before in lasting and STAGES[protocol.name, before].is_paid
        assert stage.is_paid == (was_paid or step_.source in moves)
        is_open = step_.phase in protocol.undecided
        outcome = step_.outcome or (None if is_open else "lapsed")
        assert stage.outcome == (outcome or "pending")
        assert outcome in (None, "lapsed", Outcome.COMMITTED, Outcome.REJECTED)
