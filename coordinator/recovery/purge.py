"""Removes the traces of groups that are finished everywhere, so that tables stay small (rule R7).

Only the leader does it, in portions. Two at once would do no harm: every removal may be repeated,
and what may be removed stays so.

    committed decision   its markers are on all of its branches, for good
    marker               its group has no decision any more
    aborted decision     no transaction that ran on home after it was in is left, and no shard
                         lists the group
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from coordinator.protocols.recovery import (
    may_collect_aborted,
    may_collect_committed,
    may_collect_marker,
)
from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics
from shard_client.errors import ShardError
from shard_client.node import ShardNode
from shard_client.records import Decision, DecisionOutcome
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 3.0
# Rows that one statement speaks of at most.
_PORTION_MAX = 500
# Portions of decisions that a turn looks at on each shard: it has an end, however many are kept.
_PORTIONS_A_TURN = 20


class _Noted(NamedTuple):
    """Aborted decisions of a home, and the transactions that ran there after they were in."""

    gtrids: list[str]
    transactions: frozenset[tuple[int, str]]


class Purge:
    """Removes at every interval, while `leads` says yes."""

    def __init__(
        self,
        shards: Shards,
        *,
        cluster: str,
        interval_s: float,
        keep_s: float,
        leads: Callable[[], bool],
        metrics: Metrics,
    ) -> None:
        self._shards = shards
        self._cluster = cluster
        self._interval_s = interval_s
        self._keep_s = keep_s
        self._leads = leads
        self._noted: dict[str, _Noted] = {}
        # How far the walk through the decisions of each shard has come, and the search for markers
        # without a decision.
        self._places: dict[str, str] = defaultdict(str)
        self._searched: dict[str, str] = defaultdict(str)
        self._metrics = metrics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="purge", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=_CALL_TIMEOUT_S)

    def _work(self) -> None:
        while not self._stop.wait(self._interval_s):
            if not self._leads():
                self._noted.clear()
                continue
            for shard in self._shards.all():
                self._try(self._collect_decisions, shard)
                self._try(self._collect_markers, shard)
                self._try(self._collect_aborted, shard)

    def _try(self, collect: Callable[[ShardNode], None], shard: ShardNode) -> None:
        """One kind of trace on one shard; what fails concerns that shard alone. It is tidying up:
        that it takes long is no reason to take the shard for lost.
        """
        try:
            if shard.is_available:
                collect(shard)
        except ShardError as error:
            extra = {"event": "collection.put_off", "shard": shard.id, "code": error.code}
            log.info("traces on shard %s are collected later: %s", shard.id, error, extra=extra)
        except Exception:
            extra = {"event": "collection.bug", "shard": shard.id}
            log.exception("collecting on shard %s met a bug; it is repeated", shard.id, extra=extra)

    def _before(self) -> int:
        """Decisions younger than this stamp are left alone: others may be about to ask for them."""
        return time.time_ns() // 1000 - int(self._keep_s * 1_000_000)

    # --- decisions --------------------------------------------------------------------------

    def _collect_decisions(self, home: ShardNode) -> None:
        """Go on through the decisions from where the last turn has come to, some portions far."""
        before = self._before()
        aborted: list[str] = []
        for _ in range(_PORTIONS_A_TURN):
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            rows = home.purge.some_decisions(self._places[home.id], _PORTION_MAX, deadline)
            is_last = len(rows) < _PORTION_MAX
            self._places[home.id] = "" if is_last else rows[-1].gtrid
            old = [row for row in rows if row.decided_at < before]
            self._drop_committed(home, [r for r in old if r.outcome is DecisionOutcome.COMMITTED])
            aborted += [row.gtrid for row in old if row.outcome is DecisionOutcome.ABORTED]
            if is_last or self._stop.is_set() or not self._leads():
                break
        if aborted and home.id not in self._noted:
            self._note_aborted(home, aborted)

    def _drop_committed(self, home: ShardNode, rows: list[Decision]) -> None:
        marks = self._marks(rows)
        finished = [row for row in rows if may_collect_committed(row.branches, marks[row.gtrid])]
        if not finished:
            return
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        home.purge.drop_decisions([row.gtrid for row in finished], deadline)
        self._metrics.collected.labels("decisions").inc(len(finished))
        # Markers after their decision, never before. What fails here is found by the search.
        for shard, gtrids in _by_branch(finished).items():
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            with suppress(ShardError):
                self._shards[shard].purge.drop_markers(gtrids, deadline)
                self._metrics.collected.labels("markers").inc(len(gtrids))

    def _marks(self, rows: Iterable[Decision]) -> dict[str, set[str]]:
        """The shards on which each group has left its marker; one that is away has none to show."""
        found: dict[str, set[str]] = defaultdict(set)
        for shard, gtrids in _by_branch(rows).items():
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            with suppress(ShardError):
                for gtrid in self._shards[shard].purge.marked(gtrids, deadline):
                    found[gtrid].add(shard)
        return found

    # --- markers ----------------------------------------------------------------------------

    def _collect_markers(self, shard: ShardNode) -> None:
        """Search for markers that a collector that died in between has left: one portion a turn."""
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        start = self._searched[shard.id]
        names = shard.purge.some_markers(start, _PORTION_MAX, deadline)
        self._searched[shard.id] = names[-1] if len(names) == _PORTION_MAX else ""
        youngest = self._before() // 1000
        homes: dict[str, list[str]] = defaultdict(list)
        for name in names:
            gtrid = Gtrid.parse(name)
            if gtrid and gtrid.cluster == self._cluster and gtrid.time_ms < youngest:
                homes[gtrid.home].append(name)
        for home, gtrids in homes.items():
            self._drop_markers(shard, home, gtrids)

    def _drop_markers(self, shard: ShardNode, home: str, gtrids: list[str]) -> None:
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        decisions = self._shards[home].purge.read_decisions(gtrids, deadline)
        left = [gtrid for gtrid in gtrids if may_collect_marker(decisions.get(gtrid))]
        if left:
            shard.purge.drop_markers(left, deadline)
            self._metrics.collected.labels("markers").inc(len(left))

    # --- aborted ----------------------------------------------------------------------------

    def _note_aborted(self, home: ShardNode, gtrids: list[str]) -> None:
        """In this order: what runs is noted when the rows are in."""
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        transactions = home.purge.running(deadline)
        if transactions is not None:
            self._noted[home.id] = _Noted(gtrids, transactions)

    def _collect_aborted(self, home: ShardNode) -> None:
        noted = self._noted.get(home.id)
        if noted is None:
            return
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        now_running = home.purge.running(deadline)
        if now_running is None:
            return
        prepared = self._prepared()
        gone = [
            gtrid
            for gtrid in noted.gtrids
            if may_collect_aborted(noted.transactions, now_running, gtrid in prepared)
        ]
        for start in range(0, len(gone), _PORTION_MAX):
            some = gone[start : start + _PORTION_MAX]
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            home.purge.drop_decisions(some, deadline)
            self._metrics.collected.labels("decisions").inc(len(some))
        if noted.transactions.isdisjoint(now_running):
            del self._noted[home.id]

    def _prepared(self) -> set[str]:
        """Every group that is prepared on any shard. Raises ShardError if one cannot be asked."""
        found: set[str] = set()
        for shard in self._shards.all():
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            found |= {str(branch.gtrid) for branch in shard.purge.list_prepared(deadline)}
        return found


def _by_branch(rows: Iterable[Decision]) -> dict[str, list[str]]:
    branches: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for shard in row.branches:
            branches[shard].append(row.gtrid)
    return branches
