"""Finishes transfers by TC/C and Saga that are left open: by a shard that is away, or by a process
that died. It goes on from where the phase table says, and tries for ever, with growing pauses.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence

from coordinator.engine.in_flight import InFlight
from coordinator.engine.local_transactions import LocalRunner
from coordinator.engine.phased_run import settle
from coordinator.engine.scheduler import Queue
from coordinator.engine.tickets import NotExecuted, NotExecutedReason, Ticket
from coordinator.recovery.retry_pool import Kind, Limits, Portion, Resolver, RetryPool, pause_after
from coordinator.shards.registry import FINISHING_CONNECTIONS, Shards
from coordinator.telemetry.logs import few
from coordinator.telemetry.tracing import GroupTrace
from ledger.errors import Bug
from shard_client.errors import StatementRefused
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_PAUSE_MIN_S = 0.02
# A transaction takes 500 flights on at most. Three wait for locks at once, and one at each shard.
_LIMITS = Limits(threads=6, at_shard=FINISHING_CONNECTIONS, portion=500, waiting=3)
# After it was passed over so often, a flight waits for the lock of its account (rule R9).
_SKIPS_MAX = 5
# So long is one that can be given up tried, from when an account was found locked.
_PATIENCE_S = 1.0

Attempt = tuple[str, str]


class PhasedResolver(Resolver[InFlight, InFlight]):
    """See the module."""

    def __init__(self, shards: Shards, queue: Queue, local: LocalRunner) -> None:
        self._shards = shards
        self._queue = queue
        self._local = local
        self.pool: RetryPool[Attempt, InFlight, InFlight] = RetryPool(
            self, _LIMITS, name="phased-resolver", bug_event="phases.bug"
        )

    def add(self, *flights: InFlight) -> None:
        """Take flights to finish; one that is here already goes on as it is."""
        self.pool.add([(flight.attempt, flight) for flight in flights], _join)

    def crowded(self, limit: int) -> set[str]:
        """The accounts that are locked, and to which so many flights or more want to go on."""
        counts = Counter(
            flight.account for flight in self.pool.unfinished() if flight.account and flight.skips
        )
        return {account for account, count in counts.items() if count >= limit}

    # --- portions ---------------------------------------------------------------------------

    def tasks_of(self, flight: InFlight) -> Sequence[InFlight]:
        return (flight,)

    def spot_of(self, flight: InFlight) -> tuple[str, Kind]:
        """Those that want one locked account wait for it as one; whatever may have made others
        fail is tried by itself.
        """
        waits = flight.skips >= _SKIPS_MAX
        shard = self._shards.shard_of(flight.where)
        if flight.alone:
            return shard, Kind(1, flight.attempt, waits)
        return shard, Kind(1, flight.account, waits) if waits else Kind(0)

    def resolve(self, portion: Portion[InFlight]) -> None:
        flights = portion.tasks
        try:
            is_theirs = self._go_on(portion)
        except Exception as bug:
            log.exception(
                "finishing transfers met a bug; it is tried again",
                extra={
                    "event": "phases.bug",
                    "shard": portion.shard,
                    "transfer_ids": few(flight.transfer.id for flight in flights),
                },
            )
            for flight in flights:
                text = f"a fault of the service, see the log: {bug}"
                flight.failed(text, time.monotonic())
            is_theirs = True
        if is_theirs:
            # It failed because of one of them, perhaps.
            for flight in flights:
                flight.alone = True
        self._settle(flights)

    def _go_on(self, portion: Portion[InFlight]) -> bool:
        """Go to a shard; says whether it was one of the flights that it has refused."""
        flights = portion.tasks
        gtrid = _gtrid_of(flights[0])
        # The others want its account too.
        awaited = flights[0] if portion.kind.waits else None
        lost = self._local.go_on(gtrid, flights, GroupTrace(), awaited)
        blocked = [flight for flight in flights if flight.error]
        if blocked:
            self._local.note_attempts(gtrid, blocked, _pause_after(blocked[0]))
        return isinstance(lost.get(portion.shard), StatementRefused)

    def _settle(self, flights: Sequence[InFlight]) -> None:
        """Answer those that can be, put off what has failed, and drop what is done."""
        now = time.monotonic()
        again: list[Ticket] = []
        with self.pool.lock:
            for flight in flights:
                if flight.error:
                    flight.not_before = now + _pause_after(flight)
                    self._give_up_late(flight, now)
                if ticket := settle(self._queue, flight, is_left=True):
                    again.append(ticket)
                if flight.is_done:
                    self.pool.drop(flight.attempt, flight)
        done = [flight for flight in flights if flight.is_done]
        over = [flight.queued for flight in done if flight.queued]
        # Back in their places before what comes after them may go on.
        if again:
            self._queue.put_back(again)
        if over or again:
            self._queue.let_go([*over, *again])
        if done:
            extra = {
                "event": "phases.finished",
                "count": len(done),
                "transfer_ids": few(flight.transfer.id for flight in done),
            }
            log.info("%d transfers that were left open are finished", len(done), extra=extra)

    def _give_up_late(self, flight: InFlight, now: float) -> None:
        """Take back what somebody waits for, if its account stays locked and its protocol can."""
        if flight.ticket is None or now - flight.blocked_since <= _PATIENCE_S:
            return
        is_away = self._shards.trouble_with(self._shards.shard_of(flight.where))
        reason = NotExecutedReason.SHARD_UNAVAILABLE if is_away else NotExecutedReason.ACCOUNT_BUSY
        if flight.expire(NotExecuted(reason, f"{flight.error}; nothing has happened")):
            flight.not_before, flight.skips = 0.0, 0


def _join(known: InFlight, other: InFlight) -> None:
    """One that is here already goes on as it is; who waits for the other one waits for it now."""
    if known.ticket is None:
        known.ticket, known.not_executed, known.queued = (
            other.ticket,
            other.not_executed,
            other.queued,
        )


def _gtrid_of(flight: InFlight) -> Gtrid:
    """The group that has begun an attempt. Raises Bug if it has another name than groups have."""
    gtrid = Gtrid.parse(flight.gtrid)
    if gtrid is None:
        raise Bug(f"transfer {flight.transfer.id} was begun by {flight.gtrid!r}, which is no gtrid")
    return gtrid


def _pause_after(flight: InFlight) -> float:
    """How long a flight is left alone whose transaction has failed, in seconds."""
    return pause_after(flight.attempts, _PAUSE_MIN_S)
