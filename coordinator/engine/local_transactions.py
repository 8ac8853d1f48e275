"""Takes transfers by TC/C and Saga further: one local transaction on each shard that they need, all
at once.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from coordinator.engine.in_flight import (
    NOTHING_FOUND,
    InFlight,
    LocalPlan,
    attempts_of,
    go_on,
    has_to_lock,
    locked_by_others,
    wanted,
)
from coordinator.engine.participants import LocalTransactions
from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics
from coordinator.telemetry.tracing import GroupTrace
from ledger.ids import slot_of
from shard_client.errors import (
    ClockAhead,
    DuplicateRow,
    ShardError,
    ShardUnavailable,
    TryAgain,
)
from shard_client.node import LOCK_WAIT_S
from shard_client.records import Found, clock_is_ahead
from shard_client.xid import Gtrid

# The pause that is noted in the phase table for a step that cannot be made now.
_PAUSE_US = 1_000_000


def is_collision(error: ShardError | None) -> bool:
    """Whether a transaction was undone because somebody else was at the same, or was faster."""
    return isinstance(error, TryAgain | DuplicateRow)


class LocalRunner:
    """Runs them. A shard may take `lock_s` to lock and look up, `write_s` to commit."""

    def __init__(self, shards: Shards, metrics: Metrics, *, lock_s: float, write_s: float) -> None:
        self._shards = shards
        self._metrics = metrics
        self._lock_s = lock_s
        self._write_s = write_s

    def deadline(self) -> float:
        """For a packet that locks or looks up."""
        return time.monotonic() + self._lock_s

    def lock(
        self,
        parties: LocalTransactions,
        work: Mapping[str, Sequence[InFlight]],
        awaited: InFlight | None = None,
    ) -> dict[str, Found]:
        """Begin one on each of these shards; those that are lost are missing. The account of
        the flight that is `awaited` is waited for, up to a second, before anything else is locked.
        """
        began = time.monotonic()
        parties.open(work, self.deadline())
        if awaited and awaited.account:
            account, shard = awaited.account, self._shards.shard_of(awaited.where)
            deadline = self.deadline() + LOCK_WAIT_S
            parties.ask([shard], lambda v: v.wait_for([account], deadline), "lock")
        needs = {shard: wanted(flights) for shard, flights in work.items()}
        # Phases and steps are waited for, where others are at the same transfers.
        found = parties.ask(
            list(work), lambda v: v.lock(needs[v.shard], self.deadline() + LOCK_WAIT_S), "enter"
        )
        for shard, answer in found.items():
            if not answer.locked.is_writable:
                self._shards.note(ShardUnavailable(shard, "it is read only"))
        waited_us = round((time.monotonic() - began) * 1e6)
        # One that shows no slots has shown no clock either; what is asked of it has to wait.
        shown = {s: answer.locked for s, answer in found.items() if answer.locked.slots}
        self._leave_out(parties, {s: locked.latest + waited_us for s, locked in shown.items()})
        return {shard: answer for shard, answer in found.items() if shard in parties.branches}

    def _leave_out(self, parties: LocalTransactions, latest: Mapping[str, int]) -> None:
        """Leave out shards of whose clock this process's is too far ahead."""
        now = time.time_ns() // 1000
        for shard, stamp in latest.items():
            if now > stamp and shard in parties.branches:
                error = ClockAhead(shard, clock_is_ahead(now, stamp))
                self._metrics.stamps_refused.inc()
                self._shards.clocks.refused(str(error))
                parties.leave_out(error)

    def absent(
        self, parties: LocalTransactions, missing: Mapping[str, set[str]]
    ) -> dict[str, set[str]]:
        """Which of these accounts do not exist, on each shard, rather than being locked."""
        asked = {shard: names for shard, names in missing.items() if names}
        existing = parties.ask(
            list(asked), lambda v: v.existing(asked[v.shard], self.deadline()), "lock"
        )
        return {shard: asked[shard] - found for shard, found in existing.items()}

    def commit(self, parties: LocalTransactions, plans: Mapping[str, LocalPlan]) -> set[str]:
        """Write and commit; says on which shards that was answered."""
        writing = [shard for shard, plan in plans.items() if not plan.writes.is_empty]
        idle = [shard for shard in plans if shard not in writing]
        parties.release(idle, self._write_s)
        done = parties.ask(
            writing,
            lambda v: v.commit(plans[v.shard].writes, time.monotonic() + self._write_s),
            "leave",
            releases=True,
        )
        return {*done, *idle}

    def go_on(
        self,
        gtrid: Gtrid,
        flights: Iterable[InFlight],
        trace: GroupTrace,
        awaited: InFlight | None = None,
    ) -> dict[str, ShardError]:
        """Take flights a step further, each on the shard that it needs. One for which that failed
        has an `error`, and one more attempt; only for the account of the one that is `awaited` is
        it waited. Says which shards were lost.
        """
        began = time.monotonic()
        work: dict[str, list[InFlight]] = defaultdict(list)
        for flight in flights:
            work[self._shards.shard_of(flight.where)].append(flight)
        parties = LocalTransactions(self._shards, gtrid, self._metrics, trace)
        with parties.used():
            plans = self._plan(parties, work, awaited)
            done = self.commit(parties, plans)
        self._metrics.phase("visiting", time.monotonic() - began)
        trace.phase("visiting", began)
        for shard, plan in plans.items():
            if shard in done:
                self.apply(plan)
        for shard, error in parties.lost.items():
            for flight in work[shard]:
                if shard in plans:
                    flight.look_up()
                is_awaited = awaited is not None and flight.account == awaited.account
                is_locked = is_awaited and is_collision(error)
                why = locked_by_others(flight) if is_locked else str(error)
                flight.failed(why, time.monotonic())
        return parties.lost

    def _plan(
        self,
        parties: LocalTransactions,
        work: Mapping[str, list[InFlight]],
        awaited: InFlight | None,
    ) -> dict[str, LocalPlan]:
        entering = {shard: flights for shard, flights in work.items() if has_to_lock(flights)}
        found = self.lock(parties, entering, awaited)
        straight = [shard for shard in work if shard not in entering]
        parties.open(straight, self.deadline())
        straight = [shard for shard in straight if shard in parties.branches]
        self._leave_out(parties, {shard: self._shards.clocks.latest(shard) for shard in straight})
        found |= dict.fromkeys(straight, NOTHING_FOUND)
        missing = {
            shard: {flight.account for flight in flights if flight.account}
            - found[shard].locked.accounts.keys()
            for shard, flights in work.items()
            if shard in found
        }
        absent = self.absent(parties, missing)
        now = time.time_ns() // 1000
        plans = {
            shard: go_on(work[shard], answer, absent.get(shard, set()), now, _PAUSE_US)
            for shard, answer in found.items()
            if shard in parties.branches
        }
        for shard, plan in plans.items():
            slots = found[shard].locked.slots
            if any(slot_of(flight.where) not in slots for flight, _ in plan.blocked):
                self._shards.look_again()
        return plans

    def note_attempts(self, gtrid: Gtrid, flights: Iterable[InFlight], pause_s: float) -> None:
        """Let the phase tables say that these could not go on, as far as their shards can be asked:
        it is for those who look, and nothing rests on it.
        """
        now = time.time_ns() // 1000
        work: dict[str, list[InFlight]] = defaultdict(list)
        for flight in flights:
            work[self._shards.shard_of(flight.transfer.source)].append(flight)
        plans = {
            shard: LocalPlan(attempts_of(some, now, round(pause_s * 1e6)), [], [])
            for shard, some in work.items()
            if self._shards.trouble_with(shard) is None and now <= self._shards.clocks.latest(shard)
        }
        parties = LocalTransactions(self._shards, gtrid, self._metrics, GroupTrace())
        with parties.used():
            parties.open(plans, self.deadline())
            self.commit(parties, {name: plans[name] for name in parties.branches})

    def apply(self, plan: LocalPlan) -> None:
        """The transaction is committed: its flights are where it was planned."""
        phases: Counter[tuple[str, str]] = Counter()
        now = time.monotonic()
        for flight, position in plan.positions:
            if position.phase is not None and position.phase is not flight.position.phase:
                phases[flight.protocol.name, position.phase.value] += 1
            flight.position = position
            flight.attempts, flight.skips, flight.error, flight.alone = 0, 0, None, False
            if flight.is_done and not flight.is_local:
                self._metrics.course_ended(flight.protocol.name, now - flight.since)
        self._metrics.phases_changed(phases)
        for flight, why in plan.blocked:
            flight.failed(why, now)
            flight.skips += 1
