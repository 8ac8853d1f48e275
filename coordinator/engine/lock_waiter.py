"""Waits for accounts that were found locked too often (rule R9).

One at a time, in a transaction that holds nothing else, and with nobody waiting beside: those who
want the account stay in the queue, and its other accounts are free for everybody. When the lock is
had, those who want the account come into one group, and the rest of their accounts is locked
without waiting.
"""

import logging
import threading
import time
from collections.abc import Callable

from coordinator.engine import group_log
from coordinator.engine.participants import GroupBranches
from coordinator.engine.scheduler import LockWait, Queue
from coordinator.engine.tickets import XA, Group
from coordinator.engine.two_phase_run import BUG, GtridFactory, Held
from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics
from coordinator.telemetry.tracing import GroupTrace
from shard_client.errors import is_busy
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

# The server waits for a second; this is for the whole packet.
_WAIT_S = 3.0
_RELEASE_S = 1.0
_AFTER_BUG_S = 0.1


class LockWaiter:
    """The thread that waits, until the queue is closed. `run` takes a group to its end; it is given
    the lock too if the group can use it.
    """

    def __init__(
        self,
        queue: Queue,
        shards: Shards,
        metrics: Metrics,
        gtrids: GtridFactory,
        run: Callable[[Group, Held | None], None],
    ) -> None:
        self._queue = queue
        self._shards = shards
        self._metrics = metrics
        self._gtrids = gtrids
        self._run = run
        self._thread = threading.Thread(target=self._work, name="lock-waiter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                lock_wait = self._queue.take_lock_wait()
                if lock_wait is None:
                    return
                self._wait(lock_wait)
            except Exception:
                # A thread that ends would keep its accounts waiting for ever.
                log.exception("waiting met a bug and goes on", extra={"event": "executor.bug"})
                time.sleep(_AFTER_BUG_S)

    def _wait(self, lock_wait: LockWait) -> None:
        gtrid = self._gtrids.gtrid(lock_wait.shard)
        parties = GroupBranches(self._shards, gtrid, self._metrics, GroupTrace())
        with parties.used():
            try:
                is_had = self._is_had(lock_wait, parties, gtrid)
            except BaseException:
                self._queue.lost(lock_wait)
                raise
            group = self._queue.had(lock_wait) if is_had else None
            try:
                self._let_run(lock_wait, group, parties, gtrid)
            except BaseException:
                if group:
                    self._queue.broke(group, BUG)
                raise

    def _let_run(
        self, lock_wait: LockWait, group: Group | None, parties: GroupBranches, gtrid: Gtrid
    ) -> None:
        """Run those who want the account, with its lock if they can use it."""
        if group and group.protocol == XA and lock_wait.shard in group.at:
            self._run(group, Held(gtrid, parties))
            return
        parties.release(list(parties.branches), _RELEASE_S)
        if group:
            self._run(group, None)

    def _is_had(self, lock_wait: LockWait, parties: GroupBranches, gtrid: Gtrid) -> bool:
        """Wait for the lock; if it is not had, the queue knows why."""
        deadline = time.monotonic() + _WAIT_S
        parties.open([lock_wait.shard], deadline)
        answers = parties.ask(
            list(parties.branches), lambda b: b.wait_for([lock_wait.account], deadline), "lock"
        )
        if answers:
            parties.waited()
            return True
        if not is_busy(parties.lost[lock_wait.shard]):
            self._queue.lost(lock_wait)
            return False
        self._queue.timed_out(lock_wait)
        if lock_wait.ticket:
            group_log.log_kept_waiting(gtrid, lock_wait.ticket)
        return False
