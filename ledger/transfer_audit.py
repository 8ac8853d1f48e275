"""What must hold of one transfer, whatever the moment: as a pure function of all that the shards
hold of it.

By two-phase commit, and by any protocol within one shard, a transfer has both entries, at one time,
or none. By Try-Confirm/Cancel and by Saga its two sides come one after the other: what is still to
come is what a row of the phase table on the source's shard says, and nothing else explains an entry
without its counterpart.

Phases and states are named here as they stand in the tables: the audit takes no protocol's word.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ledger.audit import Violation

ABSENT, TRIED, REFUSED, CANCELLED = "absent", "tried", "refused", "cancelled"
# The state of the destination's step, once the money has arrived.
ARRIVED = {"tcc": "confirmed", "saga": "credited"}
# Where an amount is reserved on the source.
RESERVING = ("tcc", "trying")
_PENDING, _COMMITTED, _REJECTED, _LAPSED = "pending", "committed", "rejected", "lapsed"


class Line(NamedTuple):
    """One entry as the audit of transfers needs it; `shard` is where it stands, `currency` is its
    account's, or "" if that is not there.
    """

    shard: str
    account: str
    amount: int
    counterparty: str
    stamp: int
    currency: str


class Record(NamedTuple):
    """One transfer's row as the audit of transfers needs it."""

    shard: str
    status: str
    source: str
    destination: str
    amount: int
    currency: str
    gtrid: str
    protocol: str = "xa"


class PhaseLine(NamedTuple):
    """One row of the phase table as the audit of transfers needs it."""

    shard: str
    outcome: str
    source: str
    destination: str
    amount: int
    currency: str
    gtrid: str
    protocol: str
    phase: str


class StepLine(NamedTuple):
    """One step on a destination's shard as the audit of transfers needs it."""

    shard: str
    account: str
    amount: int
    gtrid: str
    state: str


class Traces(NamedTuple):
    """What one shard, or all of them, hold of one transfer."""

    id: str
    records: list[Record]
    lines: list[Line]
    phases: list[PhaseLine]
    steps: list[StepLine]


class Stage(NamedTuple):
    """What goes with a phase: what its row says is recorded of the transfer, whether the source has
    paid, and the states in which the destination's step may be.
    """

    outcome: str
    is_paid: bool
    states: frozenset[str]


STAGES = {
    RESERVING: Stage(_PENDING, False, frozenset({ABSENT, TRIED, REFUSED})),
    ("tcc", "confirming"): Stage(_COMMITTED, True, frozenset({TRIED, ARRIVED["tcc"]})),
    ("tcc", "cancelling"): Stage(_LAPSED, False, frozenset({ABSENT, TRIED, REFUSED, CANCELLED})),
    ("saga", "crediting"): Stage(_PENDING, True, frozenset({ABSENT, REFUSED, ARRIVED["saga"]})),
    ("saga", "compensating"): Stage(_REJECTED, True, frozenset({REFUSED})),
}


def check_transfer(found: Traces) -> list[Violation]:
    """What is wrong with a transfer, of which this is all that the shards hold."""
    if len(found.records) > 1:
        places = ", ".join(record.shard for record in found.records)
        return [("one-transfer-per-id", f"it stands {len(found.records)} times: on {places}")]
    record = found.records[0] if found.records else None
    live = [phase for phase in found.phases if phase.outcome != _LAPSED]
    if len(live) > 1:
        attempts = ", ".join(f"{phase.gtrid} is {phase.phase}" for phase in live)
        return [("one-attempt-at-a-time", attempts)]
    return [
        *(problem for phase in found.phases for problem in _check_phase(phase, record, found)),
        *(problem for step in found.steps for problem in _check_step(step, record, found)),
        *_check_lines(record, live[0] if live else None, found),
    ]


# --- phases and steps -----------------------------------------------------------------------


def _check_phase(phase: PhaseLine, record: Record | None, found: Traces) -> Iterable[Violation]:
    """A phase row says of its transfer what is recorded, and how far the destination can be."""
    name = f"its attempt {phase.gtrid} by {phase.protocol} is {phase.phase}"
    stage = STAGES.get((phase.protocol, phase.phase))
    if stage is None:
        yield "phase-fits-transfer", f"{name}, which there is not"
        return
    if phase.outcome != stage.outcome:
        yield "phase-fits-transfer", f"{name} and says {phase.outcome}, not {stage.outcome}"
    if stage.outcome in (_COMMITTED, _REJECTED):
        if record is None or _outcome(record) != (stage.outcome, *_terms(phase)):
            is_recorded = f"what is recorded is {_told(record)}"
            yield "phase-fits-transfer", f"{name}; {is_recorded}, not that it is {stage.outcome}"
    elif record and (stage.outcome == _PENDING or record.gtrid == phase.gtrid):
        yield "phase-fits-transfer", f"{name}; yet it is recorded as {_told(record)}"
    states = [step.state for step in found.steps if step.gtrid == phase.gtrid] or [ABSENT]
    if not stage.states.issuperset(states):
        yield "step-fits-transfer", f"{name}; at its destination it is {', '.join(states)}"
    for step in found.steps:
        ends = (phase.destination, phase.amount)
        if step.gtrid == phase.gtrid and (step.account, step.amount) != ends:
            detail = f"{name} with {ends}; its step is of {(step.account, step.amount)}"
            yield "step-fits-transfer", detail


def _check_step(step: StepLine, record: Record | None, found: Traces) -> Iterable[Violation]:
    """A step without a phase row is of an attempt that is over, and says how it ended."""
    if any(phase.gtrid == step.gtrid for phase in found.phases):
        return
    name = f"on {step.shard} its attempt {step.gtrid} is {step.state}"
    own = record if record and record.gtrid == step.gtrid else None
    if step.state in ARRIVED.values():
        arrived = (
            (own.status, ARRIVED.get(own.protocol), own.destination, own.amount) if own else ()
        )
        if arrived != (_COMMITTED, step.state, step.account, step.amount):
            detail = f"{name} with {step.amount} for {step.account}; recorded is {_told(record)}"
            yield "step-fits-transfer", detail
    elif step.state in (REFUSED, CANCELLED):
        if own and own.status == _COMMITTED:
            yield "step-fits-transfer", f"{name}; yet it is recorded as {_told(record)}"
    else:
        yield "step-fits-transfer", f"{name}, and no phase row says that it goes on"


def _outcome(record: Record) -> tuple[object, ...]:
    return record.status, *_terms(record)


def _terms(row: Record | PhaseLine) -> tuple[object, ...]:
    return row.gtrid, row.protocol, row.source, row.destination, row.amount, row.currency


def _told(record: Record | None) -> str:
    return f"{record.status} by {record.protocol} ({record.gtrid})" if record else "nothing"


# --- entries --------------------------------------------------------------------------------


def _check_lines(record: Record | None, phase: PhaseLine | None, found: Traces) -> list[Violation]:
    """A transfer has the entries that its row and its phase row say, and no other."""
    lines, row = found.lines, phase or record
    shards = sorted({line.shard for line in lines})
    if row is None:
        detail = f"there are entries on {', '.join(shards)}, but no transfer and no phase row"
        return [("entry-has-transfer", detail)] if lines else []
    states = {step.state for step in found.steps if step.gtrid == row.gtrid}
    entries = sorted((line.account, line.amount, line.counterparty) for line in lines)
    wanted = _wanted(row, phase, record, has_arrived=ARRIVED.get(row.protocol) in states)
    if entries not in wanted:
        status = f"{phase.phase} by {phase.protocol}" if phase else record and record.status
        ways = " or ".join(map(str, wanted))
        return [("all-entries-or-none", f"it is {status} with entries {entries}, not {ways}")]
    if lines and phase is None and record:
        is_apart = record.protocol in ARRIVED and len(shards) > 1
        if is_apart or record.status == _REJECTED:
            # What was done at its destination stays there, so that it is not done again.
            needed = ARRIVED[record.protocol] if is_apart else REFUSED
            if needed not in states:
                detail = f"it is {_told(record)}, and at its destination it is not {needed}"
                return [("step-fits-transfer", detail)]
        elif len({line.stamp for line in lines}) > 1:
            stamps = ", ".join(str(line.stamp) for line in lines)
            return [("entries-at-one-time", f"its entries carry the times {stamps}")]
    if others := {line.currency for line in lines} - {row.currency, ""}:
        detail = f"it is of {row.currency}, its accounts of {', '.join(sorted(others))}"
        return [("transfer-in-its-currency", detail)]
    return []


def _wanted(
    row: Record | PhaseLine, phase: PhaseLine | None, record: Record | None, *, has_arrived: bool
) -> list[list[tuple[str, int, str]]]:
    """The entries that may be there: each way, sorted. `row` is what says who pays whom."""
    debit = (row.source, -row.amount, row.destination)
    credit = (row.destination, row.amount, row.source)
    refund = (row.source, row.amount, row.destination)
    if phase:
        stage = STAGES.get((phase.protocol, phase.phase))
        is_paid = stage is not None and stage.is_paid
        return [sorted([debit] * is_paid + [credit] * has_arrived)]
    if record and record.status == _COMMITTED:
        return [sorted([debit, credit])]
    # A Saga's money has left, and has come back when it was refused.
    return [[], sorted([debit, refund])] if row.protocol == "saga" else [[]]
