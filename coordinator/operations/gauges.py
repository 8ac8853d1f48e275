"""Keeps the gauges of a process true: looks at its parts once a second."""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version

from coordinator.cluster.session import ClusterSession
from coordinator.engine.commands import Commands
from coordinator.engine.in_flight import PROTOCOLS
from coordinator.engine.scheduler import Queue
from coordinator.operations.ledger_gauges import LedgerGauges
from coordinator.recovery.branches import BranchResolver
from coordinator.recovery.scanner import InDoubtScanner, age_of
from coordinator.settings import Settings
from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_INTERVAL_S = 1.0


class Gauges:
    """See the module. What is counted when it happens is not its business."""

    def __init__(
        self,
        settings: Settings,
        started_ms: int,
        metrics: Metrics,
        *,
        cluster: ClusterSession,
        shards: Shards,
        queue: Queue,
        commands: Commands,
        branch_resolver: BranchResolver,
        in_doubt_scanner: InDoubtScanner,
    ) -> None:
        self._settings = settings
        self._started_ms = started_ms
        self._metrics = metrics
        self._cluster = cluster
        self._shards = shards
        self._queue = queue
        self._commands = commands
        self._branch_resolver = branch_resolver
        self._in_doubt_scanner = in_doubt_scanner
        self._own = _EverySecond("gauges", self._look)
        # A group may not answer, and the others do not wait for that.
        self._ledger = _EverySecond("ledger gauges", LedgerGauges(shards, metrics).look)

    def start(self) -> None:
        settings = self._settings
        names = version("tandem"), settings.coordinator.id, settings.cluster.id
        self._metrics.info.labels(*names).set(1)
        self._metrics.start_time.set(self._started_ms / 1000)
        self._metrics.workers.set(1)
        self._metrics.queue_limit.set(settings.engine.queue_max)
        self._own.refresh()
        self._own.start()
        self._ledger.start()

    def stop(self) -> None:
        self._own.stop()
        self._ledger.stop()
        self._metrics.is_leader.set(0)

    def _look(self) -> None:
        metrics, cluster = self._metrics, self._cluster
        metrics.is_leader.set(cluster.leads)
        leader = cluster.view.leader
        metrics.epoch.set(leader.epoch if leader else cluster.epoch)
        metrics.zookeeper.set(cluster.is_connected)
        current = cluster.map.current
        metrics.map_version.set(current.version if current else 0)
        for name, address in current.shards.items() if current else ():
            metrics.shard_kind.labels(name, address.kind.value).set(1)
        metrics.queue_length.set(self._queue.waiting + self._commands.unsettled)
        metrics.callers.set(self._queue.callers + self._commands.callers)
        accounts, transfers = self._queue.stuck
        metrics.stuck_accounts.set(accounts)
        metrics.stuck_transfers.set(transfers)
        metrics.missing.set(sum(item.is_stuck for item in self._branch_resolver.pool.unfinished()))
        if self._in_doubt_scanner.last_success:
            metrics.swept_at.set(self._in_doubt_scanner.last_success)
        for shard in self._shards.all():
            metrics.know_shard(shard.id)
            metrics.shard_up.labels(shard.id).set(shard.is_available)
            metrics.weak.labels(shard.id).set(bool(shard.weaknesses))
            for name, pool in shard.pool_states.items():
                metrics.pool.labels(shard.id, name, "busy").set(pool.busy)
                metrics.pool.labels(shard.id, name, "idle").set(pool.idle)
                metrics.pool_limit.labels(shard.id, name).set(pool.size)
        for name, gtrids in list(self._in_doubt_scanner.in_doubt.items()):
            metrics.in_doubt.labels(name).set(len(gtrids))
            metrics.in_doubt_oldest.labels(name).set(max(map(age_of, gtrids), default=0.0))
        for name, groups in list(self._in_doubt_scanner.unfinished.items()):
            ages = [age_of(group.gtrid) for group in groups]
            metrics.unfinished_oldest.labels(name).set(max(ages, default=0.0))
            counts: Counter[tuple[str, str]] = Counter()
            for group in groups:
                counts[group.protocol, group.phase] += group.transfers
            for protocol in PROTOCOLS.values():
                for phase in protocol.source_states:
                    labels = (name, protocol.name, str(phase))
                    metrics.unfinished.labels(*labels).set(counts[labels[1:]])


class _EverySecond:
    """A thread that looks at something once a second."""

    def __init__(self, name: str, look: Callable[[], None]) -> None:
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def refresh(self) -> None:
        """Look now; a bug is logged."""
        try:
            self._look()
        except Exception:
            log.exception(
                "the gauges met a bug and are refreshed again", extra={"event": "metrics.bug"}
            )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=_INTERVAL_S)

    def _work(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            self.refresh()
