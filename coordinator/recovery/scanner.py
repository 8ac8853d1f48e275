"""Looks for branches in doubt, and for transfers by TC/C and Saga, that nobody is at work on, and
gives them to those who finish them.
"""

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from coordinator.engine.in_flight import InFlight, taken_over
from coordinator.protocols.recovery import RecoveryView, recovery_duty
from coordinator.protocols.two_phase_commit import Phase
from coordinator.recovery.branches import BranchResolver
from coordinator.recovery.branches import Unfinished as Group
from coordinator.recovery.phased import PhasedResolver
from coordinator.shards.registry import Shards
from coordinator.telemetry.logs import few
from shard_client.errors import ShardError
from shard_client.node import ShardCalls
from shard_client.records import PhaseRow, Unfinished
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 3.0
# Younger branches are on their way.
_IN_DOUBT_S = 1.0
# What cannot be finished at once, a refund without room, does not keep a coordinator from starting.
_ATTEMPTS_WAITED_FOR = 20


class InDoubtScanner:
    """Scans at every interval, and at once when it is woken. `recovery_view` says what is known of
    the other processes at the moment of a scan.

    `in_doubt` has what the last look at each shard found prepared for more than a second, and
    `unfinished` what it found in the phase table as old;
    `last_success` is when all that can be used were last looked at, in seconds since 1970, or 0.
    """

    def __init__(
        self,
        shards: Shards,
        branch_resolver: BranchResolver,
        phased_resolver: PhasedResolver,
        *,
        cluster: str,
        interval_s: float,
        recovery_view: Callable[[], RecoveryView],
    ) -> None:
        self._shards = shards
        self._branch_resolver = branch_resolver
        self._phased_resolver = phased_resolver
        self._cluster = cluster
        self._interval_s = interval_s
        self._recovery_view = recovery_view
        self._scanned: set[str] = set()
        self.in_doubt: dict[str, list[Gtrid]] = {}
        self.unfinished: dict[str, list[Unfinished]] = {}
        self.last_success = 0.0
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="in-doubt-scanner", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=_CALL_TIMEOUT_S)

    def wake(self) -> None:
        """Scan soon: somebody is gone, or this process leads now."""
        self._wake.set()

    def scan(self) -> None:
        """Look once at every shard that can be used."""
        around = self._recovery_view()
        found: dict[Gtrid, set[str]] = defaultdict(set)
        flights: list[InFlight] = []
        is_complete = True
        for shard in self._shards.all():
            if not shard.is_available:
                continue
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            try:
                prepared = shard.recovery.list_prepared(deadline)
                unfinished = shard.recovery.list_unfinished(deadline)
                rows = self._abandoned(shard.recovery, unfinished, around)
            except ShardError:
                is_complete = False
                continue
            self.in_doubt[shard.id] = [
                branch.gtrid for branch in prepared if age_of(branch.gtrid) > _IN_DOUBT_S
            ]
            self.unfinished[shard.id] = [
                item for item in unfinished if age_of(item.gtrid) > _IN_DOUBT_S
            ]
            flights += [taken_over(row, time.monotonic()) for row in rows]
            for branch in prepared:
                if recovery_duty(branch.gtrid, age_of(branch.gtrid), around).is_mine:
                    found[branch.gtrid].add(branch.shard)
            self._scanned.add(shard.id)
        if is_complete:
            self.last_success = time.time()
        known = {item.gtrid for item in self._branch_resolver.pool.unfinished()}
        if new := found.keys() - known:
            extra = {"event": "recovery.found", "count": len(new), "gtrids": few(sorted(new))}
            log.info("%d groups in doubt are being finished", len(new), extra=extra)
        self._branch_resolver.add(
            *(Group(gtrid, shards, Phase.ARBITRATING) for gtrid, shards in found.items())
        )
        at_work = {flight.attempt for flight in self._phased_resolver.pool.unfinished()}
        if abandoned := [flight for flight in flights if flight.attempt not in at_work]:
            extra = {
                "event": "phases.found",
                "count": len(abandoned),
                "gtrids": few(sorted({flight.gtrid for flight in abandoned})),
            }
            log.info("%d unfinished transfers are being finished", len(abandoned), extra=extra)
        self._phased_resolver.add(*abandoned)

    def _abandoned(
        self, calls: ShardCalls, unfinished: Sequence[Unfinished], around: RecoveryView
    ) -> list[PhaseRow]:
        """What of this is to be finished here, and is not yet. Raises ShardError."""
        at_work = Counter(flight.gtrid for flight in self._phased_resolver.pool.unfinished())
        there: Counter[Gtrid] = Counter()
        for item in unfinished:
            there[item.gtrid] += item.transfers
        mine = [
            str(gtrid)
            for gtrid, count in there.items()
            if at_work[str(gtrid)] < count and recovery_duty(gtrid, age_of(gtrid), around).is_mine
        ]
        return calls.read_phases(mine, _CALL_TIMEOUT_S) if mine else []

    def reasons_to_wait(self) -> list[str]:
        """Why what an earlier life left behind is not finished yet, as far as it can be; none when
        it is. What waits for a shard that is down is no reason.
        """
        around = self._recovery_view()
        reasons = [
            f"shard {shard.id} was not searched for unfinished groups yet"
            for shard in self._shards.all()
            if shard.is_available and shard.id not in self._scanned
        ]
        for item in self._branch_resolver.pool.unfinished():
            gtrid = item.gtrid
            is_past = gtrid.coordinator == around.coordinator and gtrid.time_ms < around.started_ms
            needed = {*item.branches, gtrid.home}
            can_go_on = all(self._shards.trouble_with(shard) is None for shard in needed)
            if is_past and not item.is_stuck and can_go_on:
                reasons.append(f"group {gtrid} of an earlier life is being finished")
        names = {
            flight.gtrid
            for flight in self._phased_resolver.pool.unfinished()
            if self._is_waited_for(flight)
        }
        for gtrid in filter(None, map(Gtrid.parse, sorted(names))):
            if gtrid.coordinator == around.coordinator and gtrid.time_ms < around.started_ms:
                text = f"transfers of group {gtrid} of an earlier life are being finished"
                reasons.append(text)
        return reasons

    def _is_waited_for(self, flight: InFlight) -> bool:
        """Whether a flight that is being finished can be, as far as it can be told."""
        ends = (flight.transfer.source, flight.transfer.destination)
        can_go_on = all(
            self._shards.trouble_with(self._shards.shard_of(account)) is None for account in ends
        )
        return can_go_on and flight.attempts <= _ATTEMPTS_WAITED_FOR

    def _work(self) -> None:
        while not self._stopping:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            if self._stopping:
                return
            try:
                self.scan()
            except Exception:
                log.exception(
                    "the scan met a bug; it is repeated", extra={"event": "recovery.sweep_bug"}
                )


def age_of(gtrid: Gtrid) -> float:
    """How long ago a group was formed, in seconds, by this machine's clock."""
    return max(time.time() - gtrid.time_ms / 1000, 0.0)
