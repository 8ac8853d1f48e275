"""A transfer by TC/C or Saga on its way, and what one shard does for many: pure.

A flight is one attempt at a transfer. Its position says what is to be done next, and on which
shard: to make a step durable in the phase table of its source's shard, to call its destination's
shard, or to look up where it stands. `begin` and `go_on` plan a local
transaction: what it writes, and where each flight is once that is committed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, StrEnum
from typing import NamedTuple

from coordinator.engine.batch_order import BatchOrder
from coordinator.engine.tickets import NotExecuted, Ticket, accounts_in_batch
from coordinator.protocols.phased import Outcome, PhasedProtocol, Step
from coordinator.protocols.saga import SAGA
from coordinator.protocols.try_confirm_cancel import TCC
from ledger.decide import Move, decide, lacks_funds, move
from ledger.errors import Bug
from ledger.ids import SLOT_COUNT, slot_of
from ledger.model import Account, Entry, Reason, Refusal, Transfer
from shard_client.records import (
    LAPSED,
    PENDING,
    Found,
    LocalWrites,
    Locked,
    PhaseChange,
    PhaseRow,
    PhaseState,
    StepRow,
    StoredTransfer,
    Wanted,
)

# Of a transaction that has nothing to lock or look up: compare-and-set is all that it needs.
NOTHING_FOUND = Found(Locked(frozenset(range(SLOT_COUNT)), True, {}, {}, 2**63), {}, {}, {})
PROTOCOLS: Mapping[str, PhasedProtocol] = {protocol.name: protocol for protocol in (TCC, SAGA)}


class Task(Enum):
    """What a flight needs next."""

    BEGIN = "it is to begin"
    CALL = "its destination's shard is to be called"
    ADVANCE = "what was heard is to be made durable in the phase table"
    LOOK = "its phase is to be looked up"
    NONE = "nothing"


class Position(NamedTuple):
    """Where a flight is.

    `event` is what was heard, to be made durable, and `refusal` why it was a no. `outcome` is that
    of the phase table; `stored` is the record, if it was made or seen by this flight.
    """

    phase: StrEnum | None
    task: Task
    event: StrEnum | None = None
    refusal: Refusal | None = None
    destination_state: str = ""
    stored: StoredTransfer | None = None
    outcome: str = PENDING

    @property
    def is_expired(self) -> bool:
        """Whether it is certain that nothing comes of this attempt."""
        return self.outcome == LAPSED

    @property
    def begun(self) -> StrEnum:
        """The phase of one that has begun. Raises Bug."""
        if self.phase is None:
            raise Bug(f"what has not begun is in no phase: {self}")
        return self.phase


class InFlight:
    """One attempt at a transfer; see the module."""

    __slots__ = (
        "alone",
        "attempts",
        "blocked_since",
        "error",
        "gtrid",
        "is_local",
        "is_running",
        "not_before",
        "not_executed",
        "position",
        "queued",
        "since",
        "skips",
        "ticket",
        "transfer",
    )

    def __init__(
        self,
        transfer: Transfer,
        gtrid: str,
        position: Position,
        since: float,
        ticket: Ticket | None,
    ) -> None:
        self.transfer = transfer
        self.gtrid = gtrid
        # One within a shard goes with those of its batch that do not: it is done where they begin.
        source, destination = ticket.shards if ticket else ("", "")
        self.is_local = source == destination != ""
        self.position = position
        self.ticket = ticket
        # What its client is told if it lapses; without, it runs again.
        self.not_executed: NotExecuted | None = None
        self.since = since
        # The ticket that it has begun with: what comes after it in its batch may have to wait.
        self.queued = ticket
        # How often its next transaction has failed, and since when; and how often it was because
        # an account was locked.
        self.attempts = 0
        self.skips = 0
        self.blocked_since = 0.0
        self.not_before = 0.0
        self.error: str | None = None
        self.is_running = False
        # A transaction that it was part of failed: perhaps because of it.
        self.alone = False

    @property
    def attempt(self) -> tuple[str, str]:
        return self.transfer.id, self.gtrid

    @property
    def protocol(self) -> PhasedProtocol:
        return PROTOCOLS[self.transfer.protocol]

    @property
    def is_done(self) -> bool:
        return self.position.task is Task.NONE

    @property
    def step(self) -> Step:
        """The step that is to be made durable. Raises Bug if nothing was heard."""
        return self._step_from(self.position)

    def _step_from(self, position: Position) -> Step:
        if position.event is None:
            raise Bug(f"nothing was heard to be made durable of {self.attempt}: {position}")
        return self.protocol.step(position.begun, position.event)

    @property
    def call(self) -> StrEnum:
        """What is asked of its destination's shard. Raises Bug in a phase in which nothing is."""
        call = self.protocol.call_of(self.position.begun)
        if call is None:
            raise Bug(
                f"{self.protocol.name} calls nobody while {self.position.phase}: {self.attempt}"
            )
        return call

    @property
    def account(self) -> str | None:
        """The account that its next step changes. Any thread may ask: who takes it on may replace
        its position meanwhile, so that is read once.
        """
        position = self.position
        task = position.task
        if task is Task.CALL:
            return self.transfer.destination
        if task is Task.ADVANCE:
            return self.transfer.source if self._step_from(position).source else None
        # Whether it has begun is certain only behind the lock: its packet may be on its way still.
        may_begin = task is Task.BEGIN or (task is Task.LOOK and position.phase is None)
        return self.transfer.source if may_begin else None

    @property
    def ends(self) -> tuple[str, ...]:
        """The accounts that it has to have when it begins: what one across shards does to its
        destination comes later, in a transaction of its own.
        """
        source, destination = self.transfer.source, self.transfer.destination
        return (source, destination) if self.is_local else (source,)

    @property
    def where(self) -> str:
        """The account on whose shard its next step is."""
        is_call = self.position.task is Task.CALL
        return self.transfer.destination if is_call else self.transfer.source

    @property
    def can_be_answered(self) -> bool:
        """Its outcome is recorded, and all that a client could see of it is done."""
        if self.position.stored is None or self.position.task is Task.NONE:
            return self.position.stored is not None
        if self.position.task is not Task.ADVANCE:
            return False
        return self.step.phase in self.protocol.final and self.step.source is None

    def failed(self, why: str, now: float) -> None:
        """Its transaction has failed, at `now` by the monotonic clock."""
        self.error = why
        self.attempts += 1
        if self.attempts == 1:
            self.blocked_since = now

    def expire(self, not_executed: NotExecuted | None) -> bool:
        """Give it up, if its protocol can at this position; says whether it can."""
        phase = self.position.phase
        event = self.protocol.orphaned.get(phase) if phase else None
        if event is None or self.position.task is not Task.CALL:
            return False
        self.position = self.position._replace(task=Task.ADVANCE, event=event)
        self.not_executed = not_executed
        self.attempts, self.error = 0, None
        return True

    def look_up(self) -> None:
        """Its source's shard has not answered: how far it is, only that knows."""
        if self.position.task in (Task.BEGIN, Task.ADVANCE):
            self.position = self.position._replace(task=Task.LOOK)


def begin_of(ticket: Ticket, gtrid: str, now: float) -> InFlight:
    """The flight of a ticket that is to begin."""
    return InFlight(ticket.transfer, gtrid, Position(None, Task.BEGIN), now, ticket)


def taken_over(row: PhaseRow, now: float) -> InFlight:
    """The flight of a row of the phase table, by whoever finishes it."""
    protocol = PROTOCOLS[row.transfer.protocol]
    return InFlight(row.transfer, row.gtrid, _resumed(protocol, row, None), now, None)


def _resumed(protocol: PhasedProtocol, row: PhaseRow, stored: StoredTransfer | None) -> Position:
    """What is to be done next with a transfer that is in this phase."""
    phase = protocol.phase(row.phase)
    event = protocol.orphaned.get(phase) or protocol.by_itself.get(phase)
    task = Task.ADVANCE if event else Task.CALL
    refusal = Refusal(Reason(row.reason), row.detail or "") if row.reason else None
    return Position(phase, task, event, refusal, row.destination_state, stored, row.outcome)


# --- what a local transaction needs ---------------------------------------------------------


def wanted(flights: Sequence[InFlight]) -> Wanted:
    """What a transaction that takes these flights on is to lock and look up."""
    needs = Wanted(set(), set(), set(), set(), set())
    for flight in flights:
        id_ = flight.transfer.id
        if flight.position.task is Task.BEGIN:
            needs.accounts.update(flight.ends)
        elif flight.account:
            needs.accounts.add(flight.account)
        if flight.position.task is Task.CALL:
            needs.steps.add(id_)
        elif flight.position.task is Task.LOOK:
            needs.phases.add(id_)
        elif flight.account and flight.position.task is Task.ADVANCE:
            needs.standing.add(id_)
        if flight.position.task in (Task.BEGIN, Task.LOOK):
            needs.transfers.add(id_)
    return needs


# --- what a local transaction does ----------------------------------------------------------


class LocalPlan(NamedTuple):
    """A local transaction's plan: what it writes, and where its flights are after it; and those
    for which something stood in the way, and why.
    """

    writes: LocalWrites
    positions: list[tuple[InFlight, Position]]
    blocked: list[tuple[InFlight, str]]


class Begin(NamedTuple):
    """A plan of the transaction in which transfers begin; and for each why it is refused without a
    record.
    """

    plan: LocalPlan
    refusals: list[Refusal | None]


def begin(flights: Sequence[InFlight], found: Found, now: int, expires_at: int) -> Begin:
    """Plan the transaction in which transfers begin, all on one shard; see `begin_together`."""
    on = [("here", flight) for flight in flights]
    return begin_together(on, {"here": found}, now, expires_at)["here"]


def begin_together(
    flights: Iterable[tuple[str, InFlight]],
    found: Mapping[str, Found],
    now: int,
    expires_at: int,
) -> dict[str, Begin]:
    """Plan the transactions in which transfers begin, each on its source's shard; one for each
    shard that `found` has.

    The caller holds the locks of the accounts and has not found their ids. What is blocked has to
    wait, with what comes after it in its batch: whether it is refused depends on those before it.
    """
    begins = {shard: Begin(LocalPlan(LocalWrites(), [], []), []) for shard in found}
    order = _Order()
    for shard, flight in flights:
        plan, refusals = begins[shard]
        result = _first(flight, plan.writes, found[shard], now)
        if order.has_to_wait(flight, result, plan.writes, found[shard]):
            plan.blocked.append((flight, "one before it in its batch is not decided yet"))
            continue
        is_unrecorded = isinstance(result, Refusal) and not result.is_recorded
        refusals.append(result if isinstance(result, Refusal) and is_unrecorded else None)
        position = _begun(flight, result, plan.writes, now, expires_at)
        order.begins(flight, position)
        plan.positions.append((flight, position))
    return begins


def _first(
    flight: InFlight, writes: LocalWrites, found: Found, now: int
) -> tuple[list[Account], list[Entry]] | Refusal:
    """The first thing that happens to a transfer, and to one within its shard the only one: the
    accounts after it, and the entries that it makes.
    """
    transfer = flight.transfer
    source = _account(transfer.source, writes, found)
    if not flight.is_local:
        moved = move(flight.protocol.first_move, transfer, source, now)
        if isinstance(moved, Refusal):
            return moved
        return [moved.account], [moved.entry] if moved.entry else []
    ends = (source, _account(transfer.destination, writes, found))
    accounts = {account.id: account for account in ends if account}
    (outcome,), changed = decide(accounts, [transfer], now)
    return outcome if isinstance(outcome, Refusal) else ([*changed.values()], [*outcome])


def _begun(
    flight: InFlight,
    result: tuple[list[Account], list[Entry]] | Refusal,
    writes: LocalWrites,
    now: int,
    expires_at: int,
) -> Position:
    """Lay out the writes of one that begins; where it is after them."""
    done = Position(None if flight.is_local else flight.protocol.begin, Task.NONE)
    if isinstance(result, Refusal):
        if not result.is_recorded:
            return done
        stored = _record(flight, Outcome.REJECTED.value, result, now)
        writes.transfers.append(stored)
        return done._replace(stored=stored)
    accounts, entries = result
    for account in accounts:
        _put(writes, account)
    writes.entries += entries
    if flight.is_local:
        stored = _record(flight, Outcome.COMMITTED.value, None, entries[0].stamp)
        writes.transfers.append(stored)
        return done._replace(stored=stored)
    protocol, phase = flight.protocol, flight.protocol.first.phase
    row = PhaseRow(
        flight.transfer,
        flight.gtrid,
        phase.value,
        PENDING,
        protocol.source_states[phase],
        protocol.absent.value,
        attempts=0,
        next_attempt_at=now,
        expires_at=expires_at,
        updated_at=now,
        reason=None,
        detail=None,
    )
    writes.begun.append(row)
    return Position(phase, Task.CALL)


class _Order:
    """What of those that begin together bears upon those after them in their batches.

    An account pays with what it has: what those before are to bring it comes later, and what they
    have taken from it may come back. Whoever has enough without is decided as if they were done.
    """

    def __init__(self) -> None:
        self._may_come: defaultdict[tuple[int, str], int] = defaultdict(int)
        self._order = BatchOrder()

    def has_to_wait(
        self, flight: InFlight, result: object, writes: LocalWrites, found: Found
    ) -> bool:
        """Whether its outcome is open while one before it in its batch is, or it comes after one
        that has to wait.
        """
        if flight.ticket is None or flight.ticket.batch is None:
            return False
        waits = self._order.blocks(flight.ticket)
        lacks = isinstance(result, Refusal) and result.reason is Reason.INSUFFICIENT_FUNDS
        end, _ = accounts_in_batch(flight.ticket)
        if lacks and not waits and (more := self._may_come.get(end)):
            source = _account(flight.transfer.source, writes, found)
            waits = source is not None and not lacks_funds(flight.transfer, source, more)
        if waits:
            self._order.hold(flight.ticket)
        return waits

    def begins(self, flight: InFlight, position: Position) -> None:
        """It is planned to be at `position` after the transaction."""
        if flight.ticket and flight.ticket.batch is not None and position.task is not Task.NONE:
            for end in accounts_in_batch(flight.ticket):
                self._may_come[end] += flight.transfer.amount


def has_to_lock(flights: Iterable[InFlight]) -> bool:
    """Whether a transaction that takes these flights on has to lock or look up anything."""
    return any(flight.account or flight.position.task is Task.LOOK for flight in flights)


def go_on(
    flights: Sequence[InFlight], found: Found, absent: set[str], now: int, pause_us: int
) -> LocalPlan:
    """Plan a transaction that takes flights on. `found` is NOTHING_FOUND if nothing was looked for,
    `absent` are accounts that are known not to exist; what cannot be done now is noted in the phase
    table as to be tried again after a pause.
    """
    plan = LocalPlan(LocalWrites(), [], [])
    for flight in flights:
        slots = found.locked.slots
        if not found.locked.is_writable or slot_of(flight.where) not in slots:
            plan.blocked.append((flight, "its shard is read only, or its slot has moved"))
            continue
        account = flight.account
        if account and account not in found.locked.accounts and account not in absent:
            plan.blocked.append((flight, locked_by_others(flight)))
            continue
        position: Position | None
        if flight.position.task is Task.CALL:
            position = _call(flight, plan.writes, found, now)
        elif flight.position.task is Task.ADVANCE:
            position = _advance(flight, plan, found, now, pause_us)
        else:
            position = _look(flight, plan.writes, found)
        if position:
            plan.positions.append((flight, position))
    return plan


def locked_by_others(flight: InFlight) -> str:
    """What stands in the way of a flight whose account is not free."""
    return f"account {flight.account} is locked by other transfers"


def _call(flight: InFlight, writes: LocalWrites, found: Found, now: int) -> Position:
    """Carry out a call on the destination's shard, or find that it was carried out."""
    transfer, protocol = flight.transfer, flight.protocol
    row = found.steps.get(flight.attempt)
    state = protocol.state(row.state) if row else protocol.absent
    reaction = protocol.react(state, flight.call)
    refusal: Refusal | None = None
    stamp = now
    if reaction.move:
        account = _account(transfer.destination, writes, found)
        result = move(reaction.move, transfer, account, now)
        if isinstance(result, Refusal):
            reaction, refusal = protocol.refused, result
        else:
            _put(writes, result.account)
            if result.entry:
                writes.entries.append(result.entry)
                stamp = result.entry.stamp
    elif row and row.reason:
        refusal = Refusal(Reason(row.reason), row.detail or "")
    step = StepRow(
        *flight.attempt,
        transfer.destination,
        transfer.amount,
        reaction.state.value,
        is_empty=int(row is None and reaction.move is None and refusal is None),
        stamp=stamp,
        reason=refusal.reason.value if refusal else None,
        detail=refusal.detail if refusal else None,
    )
    if row is None:
        writes.new_steps.append(step)
    elif row.state != step.state:
        writes.next_steps.append(step)
    else:
        writes.rests_on_reading = True
    return flight.position._replace(
        task=Task.ADVANCE,
        event=reaction.event,
        refusal=refusal,
        destination_state=reaction.state.value,
    )


def _advance(
    flight: InFlight, plan: LocalPlan, found: Found, now: int, pause_us: int
) -> Position | None:
    """Make a step durable on the source's shard; None if it has to be tried again."""
    writes, transfer, position, protocol = (
        plan.writes,
        flight.transfer,
        flight.position,
        flight.protocol,
    )
    was, step, stamp = position.begun.value, flight.step, now
    if step.source:
        if found.standing.get(flight.attempt) != was:
            # Somebody else has taken it further.
            return position._replace(task=Task.LOOK)
        result = move(step.source, transfer, _account(transfer.source, writes, found), now)
        if isinstance(result, Refusal):
            # Later, perhaps: it is not the outcome of the transfer, and the phase stays.
            waiting = _state(flight, position, flight.attempts + 1, now + pause_us, now)
            writes.changed.append(PhaseChange(flight.attempt, was, waiting))
            plan.blocked.append((flight, result.detail))
            return None
        _put(writes, result.account)
        if result.entry:
            writes.entries.append(result.entry)
            stamp = result.entry.stamp
    stored, outcome = position.stored, position.outcome
    if step.outcome:
        stored, outcome = _record(flight, step.outcome.value, position.refusal, stamp), step.outcome
        writes.transfers.append(stored)
    elif outcome == PENDING:
        outcome = LAPSED
    after = position._replace(
        phase=step.phase, task=Task.NONE, event=None, stored=stored, outcome=outcome
    )
    if step.phase in protocol.final:
        writes.changed.append(PhaseChange(flight.attempt, was, None))
        return after
    writes.changed.append(PhaseChange(flight.attempt, was, _state(flight, after, 0, now, now)))
    event = protocol.by_itself.get(step.phase)
    return after._replace(task=Task.ADVANCE if event else Task.CALL, event=event)


def attempts_of(flights: Iterable[InFlight], now: int, pause_us: int) -> LocalWrites:
    """What the phase table is to say of flights whose destination could not be called: how often
    it was tried, and when it is tried again. A call is not durable on the source's shard otherwise.
    """
    writes = LocalWrites()
    for flight in flights:
        position = flight.position
        if position.phase and position.task is Task.CALL:
            state = _state(flight, position, flight.attempts, now + pause_us, now)
            writes.changed.append(PhaseChange(flight.attempt, position.phase.value, state))
    return writes


def _state(
    flight: InFlight, position: Position, attempts: int, next_at: int, now: int
) -> PhaseState:
    """What the phase table has of a flight at a position."""
    phase, refusal = position.begun, position.refusal
    return PhaseState(
        phase.value,
        str(position.outcome),
        flight.protocol.source_states[phase],
        position.destination_state or flight.protocol.absent.value,
        attempts,
        next_at,
        now,
        refusal.reason.value if refusal else None,
        refusal.detail if refusal else None,
    )


def _record(flight: InFlight, status: str, refusal: Refusal | None, stamp: int) -> StoredTransfer:
    """What is recorded of a transfer, for good."""
    reason, detail = (refusal.reason.value, refusal.detail) if refusal else (None, None)
    return StoredTransfer(flight.transfer, flight.gtrid, status, reason, detail, stamp)


def _look(flight: InFlight, writes: LocalWrites, found: Found) -> Position:
    """Where a flight stands, by what its source's shard has."""
    writes.rests_on_reading = True
    known = found.locked.known.get(flight.transfer.id)
    is_ours = known is not None and known.gtrid == flight.gtrid and known.status != PENDING
    stored = known if is_ours else None
    row = found.phases.get(flight.attempt)
    if row:
        return _resumed(flight.protocol, row, stored)
    outcome = stored.status if stored else LAPSED
    return flight.position._replace(task=Task.NONE, event=None, stored=stored, outcome=outcome)


def _account(name: str, writes: LocalWrites, found: Found) -> Account | None:
    return writes.accounts.get(name) or found.locked.accounts.get(name)


def _put(writes: LocalWrites, account: Account) -> None:
    writes.accounts[account.id] = account


# --- one moment -----------------------------------------------------------------------------


def as_whole(
    accounts: Mapping[str, Account], rows: Iterable[PhaseRow], steps: Iterable[StepRow]
) -> dict[str, Account]:
    """Accounts that were read at one moment, without the one side of a transfer whose other side is
    not there yet. `rows` are the unfinished transfers from them, `steps` how far these are on their
    destinations' shards.
    """
    found = dict(accounts)
    states = {step.attempt: step.state for step in steps}
    for row in rows:
        protocol = PROTOCOLS[row.transfer.protocol]
        what = protocol.whole.get(protocol.phase(row.phase))
        if what is None or states.get(row.attempt) == protocol.arrived:
            continue
        name = row.transfer.source if what is Move.REFUND else row.transfer.destination
        if name in found:
            account = found[name]
            found[name] = account._replace(balance=account.balance + row.transfer.amount)
    return found


def hangs_on_step(row: PhaseRow) -> bool:
    """Whether the balance of the source, for whoever reads many at one moment, depends on what the
    destination's shard says. When the outcome is recorded it does not any more.
    """
    protocol = PROTOCOLS[row.transfer.protocol]
    phase = protocol.phase(row.phase)
    return phase in protocol.undecided and protocol.whole.get(phase) is Move.REFUND
