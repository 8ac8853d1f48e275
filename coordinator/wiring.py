"""The one place that builds a coordinator's process from its settings."""

import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from coordinator.cluster.election import Member
from coordinator.cluster.session import ClusterSession
from coordinator.engine.commands import Commands
from coordinator.engine.local_transactions import LocalRunner
from coordinator.engine.lock_waiter import LockWaiter
from coordinator.engine.phased_run import PhasedRun
from coordinator.engine.scheduler import Queue
from coordinator.engine.tickets import XA, Group
from coordinator.engine.two_phase_run import (
    Executors,
    GroupRun,
    GtridFactory,
    Held,
    Homes,
    Timeouts,
)
from coordinator.operations.cluster_admin import ClusterAdmin
from coordinator.operations.gauges import Gauges
from coordinator.operations.trace import TransferTraces
from coordinator.operations.unfinished import UnfinishedTransfers
from coordinator.protocols.recovery import RecoveryView
from coordinator.recovery.branches import BranchResolver
from coordinator.recovery.phased import PhasedResolver
from coordinator.recovery.purge import Purge
from coordinator.recovery.scanner import InDoubtScanner
from coordinator.security.tokens import Tokens
from coordinator.services.accounts import Accounts
from coordinator.services.column_transfers import ColumnTransfers
from coordinator.services.snapshot_reads import SnapshotReads
from coordinator.services.transfers import Transfers
from coordinator.settings import Settings
from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics
from coordinator.telemetry.tracers import tracer

log = logging.getLogger(__name__)

# How long a transfer waits for a shard that has just failed before it is refused: long enough for
# a broken connection to be replaced, short enough not to pile up.
_SHARD_PATIENCE_S = 0.5
_POLL_S = 0.02


class WorkerProcess:
    """Everything that one worker process of a coordinator consists of.

    `started_ms` is when the coordinator, not this process, was started: prepared branches that
    are older belong to an earlier life of it.
    """

    def __init__(self, settings: Settings, started_ms: int) -> None:
        engine = settings.engine
        self.settings = settings
        self.started_ms = started_ms
        instance = secrets.randbits(32)
        me = Member(
            settings.coordinator.id,
            f"{instance:08x}",
            settings.coordinator.listen,
            os.getpid(),
            time.time_ns() // 1000,
        )
        self.metrics = Metrics()
        self.tracer = tracer(settings, me.name)
        tokens_file, workers = settings.access.tokens_file, settings.coordinator.workers
        # None: there is no access control.
        self.tokens = Tokens(Path(tokens_file), workers) if tokens_file else None
        self.shards = Shards(settings)
        self.cluster = ClusterSession(
            settings, me, self.shards.use_map, self._on_cluster_change, self.metrics.elected
        )
        self.shards.look_again = self.cluster.look_again
        self.queue = Queue(
            waiting_max=engine.queue_max,
            group_max=engine.group_max,
            skips_max=engine.skips_max,
            stuck_max=engine.stuck_max,
            shard_patience_s=_SHARD_PATIENCE_S,
            shard_of=self.shards.shard_of,
            trouble_with=self.shards.trouble_with,
            slow_shards=self.shards.slow,
            slow_max=max(engine.executors // 2, 1),
        )
        self.commands = Commands(
            self.shards,
            room=engine.queue_max,
            patience_s=_SHARD_PATIENCE_S,
            default=engine.protocol,
        )
        self.branch_resolver = BranchResolver(self.shards, self.metrics, self.tracer)
        interval_s = engine.sweep_interval_ms / 1000
        self._timeouts = Timeouts(engine.lock_timeout_ms / 1000, engine.write_timeout_ms / 1000)
        self._local = LocalRunner(
            self.shards,
            self.metrics,
            lock_s=self._timeouts.lock_s,
            write_s=self._timeouts.write_s,
        )
        self.phased_resolver = PhasedResolver(self.shards, self.queue, self._local)
        self.in_doubt_scanner = InDoubtScanner(
            self.shards,
            self.branch_resolver,
            self.phased_resolver,
            cluster=settings.cluster.id,
            interval_s=interval_s,
            recovery_view=self.recovery_view,
        )
        self.purge = Purge(
            self.shards,
            cluster=settings.cluster.id,
            interval_s=interval_s,
            keep_s=engine.collect_after_ms / 1000,
            leads=lambda: self.cluster.leads,
            metrics=self.metrics,
        )
        self._gtrids = GtridFactory(settings.cluster.id, settings.coordinator.id, instance)
        self._homes = Homes()
        self.executors = Executors(engine.executors, self.queue, self._run_group)
        self.lock_waiter = LockWaiter(
            self.queue, self.shards, self.metrics, self._gtrids, self._run_group
        )
        # What an earlier life left behind holds up the start, not what comes back later.
        self._was_ready = False
        self.accounts = Accounts(self.shards)
        self.snapshot_reads = SnapshotReads(self.shards)
        self.transfers = Transfers(
            self.shards, self.queue, self.commands, self.metrics, engine.protocol
        )
        self.column_transfers = ColumnTransfers(
            self.shards, self.commands, self.metrics, self.transfers
        )
        self.transfer_traces = TransferTraces(self.shards, self.queue, self.commands)
        # Called when no new connections are taken any more, before the requests have ended.
        self.when_stopping: list[Callable[[], None]] = []
        unfinished = UnfinishedTransfers(self.shards, self.phased_resolver, interval_s)
        self.cluster_admin = ClusterAdmin(
            settings,
            self.shards,
            self.cluster,
            self.branch_resolver,
            unfinished,
            self.recovery_view,
        )
        self._gauges = Gauges(
            settings,
            started_ms,
            self.metrics,
            cluster=self.cluster,
            shards=self.shards,
            queue=self.queue,
            commands=self.commands,
            branch_resolver=self.branch_resolver,
            in_doubt_scanner=self.in_doubt_scanner,
        )

    def recovery_view(self) -> RecoveryView:
        """What this process knows of the others now.

        While ZooKeeper is away nobody can be known to lead. Then everybody finishes what is past
        its grace time: two who do at once come to one outcome.
        """
        view = self.cluster.view
        return RecoveryView(
            coordinator=self.settings.coordinator.id,
            started_ms=self.started_ms,
            grace_s=self.settings.engine.sweep_grace_ms / 1000,
            leads=self.cluster.leads or not self.cluster.is_connected,
            present=view.present,
            gone=view.gone,
        )

    def _on_cluster_change(self) -> None:
        self.in_doubt_scanner.wake()

    def _run_group(self, group: Group, held: Held | None = None) -> None:
        if group.protocol != XA:
            self._run_phased(group)
            return
        GroupRun(
            group,
            queue=self.queue,
            shards=self.shards,
            resolver=self.branch_resolver,
            metrics=self.metrics,
            tracer=self.tracer,
            gtrids=self._gtrids,
            homes=self._homes,
            timeouts=self._timeouts,
            held=held,
        ).run()

    def _run_phased(self, group: Group) -> None:
        PhasedRun(
            group,
            queue=self.queue,
            shards=self.shards,
            local=self._local,
            resolver=self.phased_resolver,
            metrics=self.metrics,
            tracer=self.tracer,
            gtrids=self._gtrids,
            grace_s=self.settings.engine.sweep_grace_ms / 1000,
            unfinished_max=self.settings.engine.unfinished_max,
        ).run()

    def start(self, patience_s: float) -> None:
        """Start everything, and wait, for `patience_s` at most, until it is ready."""
        deadline = time.monotonic() + patience_s
        self.cluster.start()
        self.cluster.wait_for(lambda: self.cluster.map.current, deadline)
        self.shards.admit_all()
        self.branch_resolver.pool.start()
        self.phased_resolver.pool.start()
        self.in_doubt_scanner.scan()
        while self.in_doubt_scanner.reasons_to_wait() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self.shards.start()
        self.in_doubt_scanner.start()
        self.purge.start()
        self.commands.start()
        self.executors.start()
        self.lock_waiter.start()
        self._gauges.start()
        reasons = "; ".join(self.reasons_not_ready())
        log.info(
            "%s takes requests at %s%s",
            self.cluster.me.name,
            self.settings.coordinator.listen,
            f", and is not ready: {reasons}" if reasons else "",
            extra={"event": "process.started", "member": self.cluster.me.name},
        )

    def begin_to_stop(self) -> None:
        """Hand leadership over; transfers are still taken and answered."""
        for call in self.when_stopping:
            call()
        self.cluster.leave_seat()

    def stop(self, patience_s: float) -> None:
        """Hand leadership over, take nothing more, finish and answer what is here, and end."""
        self.begin_to_stop()
        extra: dict[str, object] = {"event": "process.stopping", "member": self.cluster.me.name}
        log.info("%s takes no more requests and ends", self.cluster.me.name, extra=extra)
        give_up = time.monotonic() + patience_s
        if not all([self.queue.close(give_up), self.commands.close(give_up)]):
            left = self.queue.unsettled + self.commands.unsettled
            extra = {"event": "process.left_undone", "count": left}
            log.warning("%d transfers are left to recovery", left, extra=extra)
        self.in_doubt_scanner.stop()
        self.purge.stop()
        self.branch_resolver.pool.stop()
        self.phased_resolver.pool.stop()
        self._gauges.stop()
        # Last: as long as it is a member, what it has under way is left to it.
        self.cluster.stop()
        self.shards.stop()
        self.tracer.stop()

    def reasons_not_ready(self) -> list[str]:
        """Why this process cannot take transfers; none when it can."""
        if self.tokens and not self.tokens.was_read:
            return ["nobody gets in: the file of tokens is not used, see the log"]
        if self.cluster.map.current is None:
            return [self.cluster.map.complaint or "no shard map"]
        shards = self.shards.all()
        if not any(shard.is_available for shard in shards):
            return [f"shard {shard.id}: {shard.unavailable_because}" for shard in shards]
        if self.shards.clocks.trouble:
            return [self.shards.clocks.trouble]
        if not self._was_ready:
            reasons = self.in_doubt_scanner.reasons_to_wait()
            self._was_ready = not reasons
            return reasons
        return []

    def troubles(self) -> list[str]:
        """What is wrong, though transfers can be taken."""
        found = [
            f"shard {shard.id}: {shard.unavailable_because}"
            for shard in self.shards.all()
            if not shard.is_available
        ]
        if self.tokens:
            self.tokens.look()
            if self.tokens.trouble:
                found.append("the file of tokens is not used, see the log; the last good one holds")
        if not self.cluster.is_connected:
            found.append("ZooKeeper does not answer; the last shard map stays in force")
        if self.cluster.trouble:
            found.append(self.cluster.trouble)
        if self.cluster.map.complaint:
            found.append(self.cluster.map.complaint)
        found += [
            f"group {item.gtrid}: a committed branch is missing, see the log"
            for item in self.branch_resolver.pool.unfinished()
            if item.is_stuck
        ]
        for shard in self.shards.all():
            weak = shard.weaknesses
            found += [f"shard {shard.id}: {text}" for text in weak]
        return found
