"""Runs a group of transfers by TC/C or Saga.

    queue -> [ begin -> call -> advance -> (call -> advance) ] -> answer

All transfers of the group go through their phases together, so that each local transaction is
shared by many. One that cannot go on here is given up, if its protocol can, or left to the
resolver.
"""

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from coordinator.engine import group_log
from coordinator.engine.batch_order import BatchOrder
from coordinator.engine.grouping import pause_after
from coordinator.engine.in_flight import InFlight, Task, begin_of, begin_together
from coordinator.engine.known import answer_known
from coordinator.engine.local_transactions import LocalRunner, is_collision
from coordinator.engine.participants import LocalTransactions
from coordinator.engine.planning import has_answer, why_ahead
from coordinator.engine.scheduler import Queue
from coordinator.engine.shard_refusals import (
    after_too_much,
    note_what_blocks,
    refuse_ahead,
    refused_alone,
)
from coordinator.engine.tickets import (
    Group,
    NotExecuted,
    NotExecutedReason,
    Refused,
    Settled,
    Ticket,
    too_crowded,
)
from coordinator.engine.two_phase_run import GtridFactory
from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics
from coordinator.telemetry.tracing import Tracer
from ledger.ids import slot_of
from shard_client.errors import ClockAhead, ShardError, StatementRefused, is_busy
from shard_client.records import Found, StoredTransfer

# So long is a flight tried here whose account others have locked, or whose shard has undone the
# transaction. While it is, its source is at no other group's disposal.
_PATIENCE_S = 0.1


class TakesOverCourses(Protocol):
    """Goes on with what cannot go on here, as long as that takes."""

    def add(self, *flights: InFlight) -> None: ...

    def crowded(self, limit: int) -> set[str]: ...


class PhasedRun:
    """One group on its way. Whatever happens, each of its tickets then is answered, or waits again,
    or is with the resolver.
    """

    def __init__(
        self,
        group: Group,
        *,
        queue: Queue,
        shards: Shards,
        local: LocalRunner,
        resolver: TakesOverCourses,
        metrics: Metrics,
        tracer: Tracer,
        gtrids: GtridFactory,
        grace_s: float,
        unfinished_max: int,
    ) -> None:
        self._group = group
        self._queue = queue
        self._shards = shards
        self._local = local
        self._resolver = resolver
        self._metrics = metrics
        self._grace_s = grace_s
        self._unfinished_max = unfinished_max
        self._gtrid = gtrids.gtrid(group.tickets[0].shards[0])
        self._trace = tracer.group(self._gtrid, [ticket.origin for ticket in group.tickets])
        self._again: list[Ticket] = []
        # Accounts that others had locked, once, and for as long as they were tried.
        self._missed: set[str] = set()
        self._stuck: set[str] = set()
        self._flights: list[InFlight] = []

    def run(self) -> None:
        """See the class."""
        try:
            self._metrics.group_size.observe(len(self._group.tickets))
            self._begin()
            self._go_on()
        except Exception:
            group_log.log_bug(self._gtrid, self._group.tickets, "on its way")
            self._give_up_after_bug()
        finally:
            self._queue.finished(self._group, self._again, self._missed, self._stuck)
            self._metrics.deferred.inc(len(self._again))
            self._trace.end(self._group.protocol)

    def _give_up_after_bug(self) -> None:
        """How far its flights are is not known: the phase table will say."""
        begun = {id(flight.ticket) for flight in self._flights}
        for flight in self._flights:
            if not flight.is_done:
                flight.position = flight.position._replace(task=Task.LOOK)
        self._leave([flight for flight in self._flights if not flight.is_done])
        self._again = [
            ticket
            for ticket in self._group.tickets
            if ticket.answer is None and id(ticket) not in begun
        ]
        self._delay(self._again)

    # --- begin ------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Make the first step of each transfer durable, on its source's shard."""
        work: dict[str, list[InFlight]] = defaultdict(list)
        name, now = str(self._gtrid), time.monotonic()
        pairs = [(begin_of(ticket, name, now), ticket) for ticket in self._group.tickets]
        for flight, ticket in pairs:
            work[ticket.shards[0]].append(flight)
        parties = LocalTransactions(self._shards, self._gtrid, self._metrics, self._trace)
        with parties.used():
            found = self._local.lock(parties, work)
            asked = {shard: {name for c in work[shard] for name in c.ends} for shard in found}
            missing = {
                shard: names - found[shard].locked.accounts.keys() for shard, names in asked.items()
            }
            absent = self._local.absent(parties, missing)
            taken = sum(map(len, missing.values())) - sum(map(len, absent.values()))
            self._queue.met_others(self._group, taken, sum(map(len, asked.values())))
            found = {shard: found[shard] for shard in parties.branches}
            for shard, names in missing.items():
                self._missed |= names - absent.get(shard, names)
            begins = _sort(pairs, found, {name for some in absent.values() for name in some})
            refuse_ahead(self._queue, self._shards.clocks, self._metrics, begins.ahead)
            self._withdraw_crowd(begins.ready)
            self._write_first(parties, begins.ready, found)
        for ticket in begins.waiting:
            error = parties.lost.get(ticket.shards[0])
            if isinstance(error, ClockAhead):
                answer = NotExecuted(
                    NotExecutedReason.SHARD_UNAVAILABLE, f"{error}; nothing has happened"
                )
                self._queue.withdraw([ticket], answer)
        if begins.has_moved:
            self._shards.look_again()
        waiting = after_too_much(self._queue, self._gtrid, begins.waiting, parties.lost)
        for ticket in waiting:
            note_what_blocks(ticket, parties.lost, ticket.shards)
        self._put_again(waiting)
        deadline = self._local.deadline
        self._put_again(answer_known(self._queue, self._shards, begins.known, deadline))

    def _withdraw_crowd(self, ready: list[InFlight]) -> None:
        """Write nothing of those towards accounts that are locked and for which too many that have
        begun wait already.
        """
        crowded = self._resolver.crowded(self._unfinished_max)
        for flight in ready if crowded else ():
            if flight.ticket and flight.transfer.destination in crowded:
                answer = too_crowded(flight.transfer.destination, self._unfinished_max)
                self._queue.withdraw([flight.ticket], answer)

    def _write_first(
        self, parties: LocalTransactions, every: list[InFlight], found: dict[str, Found]
    ) -> None:
        claimed = self._queue.claim_for_writing(
            [flight.ticket for flight in every if flight.ticket], str(self._gtrid)
        )
        kept = set(map(id, claimed))
        begun = [(c.ticket.shards[0], c) for c in every if c.ticket and id(c.ticket) in kept]
        now = time.time_ns() // 1000
        expires_at = now + round(self._grace_s * 1e6)
        begins = begin_together(begun, found, now, expires_at)
        plans = {shard: begin.plan for shard, begin in begins.items()}
        self._wait(c.ticket for plan in plans.values() for c, _ in plan.blocked)
        done = self._local.commit(parties, plans)
        for shard, plan in plans.items():
            flights = [flight for flight, _ in plan.positions]
            if shard in done:
                self._local.apply(plan)
                answers = zip(flights, begins[shard].refusals, strict=True)
                self._queue.settle((c.ticket, Refused(r)) for c, r in answers if r and c.ticket)
                self._flights += flights
            else:
                self._not_begun(flights, parties.lost[shard])

    def _wait(self, tickets: Iterable[Ticket | None]) -> None:
        """Nothing is written for these: they wait for those before them in their batches."""
        waiting = [ticket for ticket in tickets if ticket]
        for ticket in waiting:
            ticket.has_waited = True
        self._queue.reopen(waiting, str(self._gtrid))
        self._put_again(waiting)

    def _not_begun(self, flights: list[InFlight], error: ShardError) -> None:
        """The transaction in which these were to begin has failed, or was not answered."""
        tickets = [flight.ticket for flight in flights if flight.ticket]
        if is_collision(error):
            self._queue.reopen(tickets, str(self._gtrid))
            self._put_again(tickets)
            return
        for ticket in tickets:
            note_what_blocks(ticket, {error.shard: error}, [error.shard])
        if isinstance(error, StatementRefused):
            group_log.log_refused(self._gtrid, tickets, error)
            for ticket in tickets:
                ticket.limit = max(len(tickets) // 2, 1)
            if len(flights) == 1:
                flights[0].not_executed = refused_alone(error)
        # They may have begun, even if it was the COMMIT that was refused: the resolver looks behind
        # their locks, and what has not begun runs again.
        for flight in flights:
            flight.look_up()
        self._leave(flights)

    # --- go on ------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Take what has begun through its phases. Those whose accounts others have locked are tried
        again beside those that go on.
        """
        active = self._settled(self._flights)
        while active:
            lost = self._local.go_on(self._gtrid, active, self._trace)
            late = [flight for flight in active if self._is_late(flight, lost)]
            # What is locked now may be free soon: the resolver gives it up.
            left = [
                c for c in late if not self._is_lost(c, lost) or not c.expire(self._told(c, lost))
            ]
            if left:
                self._stuck |= {c.account for c in left if c.account and c.skips}
                self._settled(left, is_left=True)
                self._leave(left)
            gone = set(map(id, left))
            active = self._settled([flight for flight in active if id(flight) not in gone])
            if active and all(flight.error for flight in active):
                time.sleep(pause_after(min(flight.attempts for flight in active)))

    def _leave(self, flights: Sequence[InFlight]) -> None:
        """To the resolver; what comes after them in their batches waits until they are done."""
        self._queue.hold_back([flight.queued for flight in flights if flight.queued])
        self._resolver.add(*flights)

    def _is_late(self, flight: InFlight, lost: dict[str, ShardError]) -> bool:
        """Whether a flight cannot go on here."""
        if flight.error is None:
            return False
        return self._is_lost(flight, lost) or time.monotonic() - flight.blocked_since > _PATIENCE_S

    def _is_lost(self, flight: InFlight, lost: dict[str, ShardError]) -> bool:
        """Whether it is the shard that cannot do its part."""
        error = lost.get(self._shards.shard_of(flight.where))
        return error is not None and not is_collision(error)

    def _told(self, flight: InFlight, lost: dict[str, ShardError]) -> NotExecuted | None:
        """What is told of a flight that is given up; None: it runs again, in a smaller group."""
        shard = self._shards.shard_of(flight.where)
        error = lost.get(shard)
        if isinstance(error, StatementRefused) and flight.ticket:
            size = len(self._group.tickets)
            flight.ticket.limit = max(size // 2, 1)
            return None if size > 1 else refused_alone(error)
        if isinstance(error, ClockAhead):
            detail = f"{flight.error}; nothing has happened"
            return NotExecuted(NotExecutedReason.SHARD_UNAVAILABLE, detail)
        if self._shards.trouble_with(shard) or (error and not is_busy(error)):
            detail = f"shard {shard} does not answer: {flight.error}; nothing has happened"
            return NotExecuted(NotExecutedReason.SHARD_UNAVAILABLE, detail)
        return NotExecuted(NotExecutedReason.ACCOUNT_BUSY, f"{flight.error}; nothing has happened")

    def _settled(self, flights: Iterable[InFlight], *, is_left: bool = False) -> list[InFlight]:
        """Answer those that can be; gives those that are not done."""
        active = []
        for flight in flights:
            again = settle(self._queue, flight, is_left=is_left)
            if again:
                self._put_again([again])
            if not flight.is_done:
                active.append(flight)
        return active

    # --- again ------------------------------------------------------------------------------

    def _put_again(self, tickets: Iterable[Ticket]) -> None:
        again = list(tickets)
        self._delay(again)
        self._again += again

    def _delay(self, tickets: Iterable[Ticket]) -> None:
        # One draw for all: they come back together.
        now, drawn = time.monotonic(), random.random()
        for ticket in tickets:
            ticket.not_before = now + pause_after(ticket.skips, lambda: drawn)


class _Begins(NamedTuple):
    """What becomes of the tickets of a group when the source accounts are locked."""

    ready: list[InFlight]
    waiting: list[Ticket]
    # They have an outcome from before.
    known: list[tuple[Ticket, StoredTransfer]]
    # They cannot be stamped, and why.
    ahead: list[tuple[Ticket, str]]
    has_moved: bool


def _sort(
    pairs: Iterable[tuple[InFlight, Ticket]], found: Mapping[str, Found], absent: set[str]
) -> _Begins:
    """Sort a group's flights, in its order, by what its shards have answered."""
    ready: list[InFlight] = []
    waiting: list[Ticket] = []
    known: list[tuple[Ticket, StoredTransfer]] = []
    ahead: list[tuple[Ticket, str]] = []
    seen: set[str] = set()
    order = BatchOrder()
    has_moved = False
    for flight, ticket in pairs:
        transfer = flight.transfer
        answer = found.get(ticket.shards[0])
        is_owner = answer is not None and _owns(answer, flight)
        has_moved = has_moved or (answer is not None and not is_owner)
        stored = answer.locked.known.get(transfer.id) if answer and is_owner else None
        if stored and has_answer(ticket, stored):
            known.append((ticket, stored))
            continue
        if answer and is_owner and not stored and transfer.id not in seen:
            is_free = all(name in answer.locked.accounts or name in absent for name in flight.ends)
            if is_free and not order.blocks(ticket):
                # Both sides of what is within one shard get one stamp.
                why = flight.is_local and why_ahead(ticket, answer.locked, answer.locked, 0)
                if why:
                    ahead.append((ticket, why))
                    continue
                seen.add(transfer.id)
                ready.append(flight)
                continue
        if is_owner:
            ticket.skips += 1
        order.hold(ticket)
        waiting.append(ticket)
    return _Begins(ready, waiting, known, ahead, has_moved)


def _owns(answer: Found, flight: InFlight) -> bool:
    locked = answer.locked
    return locked.is_writable and all(slot_of(name) in locked.slots for name in flight.ends)


def settle(queue: Queue, flight: InFlight, *, is_left: bool) -> Ticket | None:
    """Answer a flight's ticket, if its outcome is recorded and, unless it `is_left` to be finished
    later, all that its client could see is done. Gives the ticket if it is to run again.
    """
    ticket, position = flight.ticket, flight.position
    if ticket is None:
        return None
    if position.stored and (is_left or flight.can_be_answered):
        flight.ticket = None
        queue.settle([(ticket, Settled(position.stored, is_replay=False))])
        return None
    if position.is_expired and position.task is not Task.LOOK:
        flight.ticket = None
        queue.reopen([ticket], flight.gtrid)
        if flight.not_executed:
            queue.settle([(ticket, flight.not_executed)])
            return None
        return ticket
    return None
