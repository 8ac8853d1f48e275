"""What operators ask and do: who is there, what is in doubt, what happens next; finish it now."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from coordinator.cluster.election import Leader
from coordinator.cluster.session import ClusterSession
from coordinator.operations.unfinished import InPhase, Resolved, UnfinishedTransfers
from coordinator.protocols.recovery import Surroundings, whose_turn
from coordinator.protocols.two_phase_commit import Phase
from coordinator.recovery.branches import BranchResolver, Task, Unfinished
from coordinator.recovery.scanner import age_of
from coordinator.settings import Settings
from coordinator.shards.registry import Shards
from shard_client.errors import ShardError
from shard_client.node import ShardNode
from shard_client.records import DecisionOutcome, PreparedBranch
from shard_client.records import Unfinished as Phased
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 3.0
_RESOLVE_TIMEOUT_S = 8.0
_STEP_DOWN_TIMEOUT_S = 10.0

Unreachable = dict[str, str]


class InDoubt(NamedTuple):
    """A prepared branch: since when, what home says of its group, what happens next and when."""

    gtrid: Gtrid
    shard: str
    age_s: float
    decision: DecisionOutcome | None
    next: str
    # None: it depends on something that has to come back first.
    next_in_s: float | None


class CoordinatorState(NamedTuple):
    """A coordinator with the processes that it consists of; `epoch` if one of them leads."""

    id: str
    address: str
    processes: int
    epoch: int | None


class ShardState(NamedTuple):
    """A shard; `in_doubt` counts branches and `unfinished` transfers in its phase table, None when
    it cannot be asked.
    """

    id: str
    trouble: str | None
    version: str | None
    slots: int
    in_doubt: int | None
    unfinished: int | None


class ClusterState(NamedTuple):
    coordinators: list[CoordinatorState]
    shards: list[ShardState]
    map_version: int
    zookeeper_answers: bool


class Seen(NamedTuple):
    """What one question to each shard has found; a phased one with the shard of its phase table."""

    prepared: list[PreparedBranch]
    phased: list[tuple[str, Phased]]
    unreachable: Unreachable


class Decisions(NamedTuple):
    """What the homes of groups say: gtrid -> decision; and home -> why it cannot be asked."""

    known: dict[str, DecisionOutcome]
    unasked: dict[str, ShardError]


class Doubts(NamedTuple):
    """What is in doubt and what is unfinished, the oldest first, as far as shards can be asked."""

    branches: list[InDoubt]
    unfinished: list[InPhase]
    unreachable: Unreachable


class Overview(NamedTuple):
    """The cluster and the oldest of what is in doubt or unfinished, from one question to each
    shard; the totals are how many branches and how many transfers are as old.
    """

    cluster: ClusterState
    oldest: Doubts
    total: int
    unfinished_total: int


class Resolution(NamedTuple):
    """What came of finishing a group now; `outcome` is None when home has not said it (yet), and
    for one by TC/C or Saga, of which each transfer has an outcome of its own.
    """

    outcome: DecisionOutcome | None
    finished: list[str]
    # Shard -> why its branch, or a transfer, is not finished, or cannot be looked for.
    unfinished: dict[str, str]
    transfers: list[Resolved]


class Operation:
    """See the module. Nothing here decides an outcome: it asks home, and obeys."""

    def __init__(
        self,
        settings: Settings,
        shards: Shards,
        cluster: ClusterSession,
        branch_resolver: BranchResolver,
        unfinished: UnfinishedTransfers,
        surroundings: Callable[[], Surroundings],
    ) -> None:
        self._cluster_id = settings.cluster.id
        self._interval_s = settings.engine.sweep_interval_ms / 1000
        self._shards = shards
        self._cluster = cluster
        self._branch_resolver = branch_resolver
        self._unfinished = unfinished
        self._surroundings = surroundings

    # --- the cluster ------------------------------------------------------------------------

    def cluster(self) -> ClusterState:
        """Raises NoShardMap."""
        _ = self._shards.map
        return self._cluster_with(self._look())

    def overview(self, older_than_s: float, most: int) -> Overview:
        """The cluster, and at most so many branches and unfinished groups that are older than that,
        the oldest first.

        Younger ones are in doubt for the moment that every transfer across shards is. Raises
        NoShardMap.
        """
        _ = self._shards.map
        seen = self._look()
        branches = [branch for branch in seen.prepared if age_of(branch.gtrid) >= older_than_s]
        branches.sort(key=lambda branch: branch.gtrid.time_ms)
        phased = [item for item in seen.phased if age_of(item[1].gtrid) >= older_than_s]
        phased.sort(key=lambda item: item[1].gtrid.time_ms)
        oldest = self._describe_all(Seen(branches[:most], phased[:most], seen.unreachable))
        total = sum(item.transfers for _, item in phased)
        return Overview(self._cluster_with(seen), oldest, len(branches), total)

    def _cluster_with(self, seen: Seen) -> ClusterState:
        current = self._shards.map
        shards = []
        for shard in sorted(self._shards.all(), key=lambda shard: shard.id):
            branches = [branch for branch in seen.prepared if branch.shard == shard.id]
            phased = [item.transfers for place, item in seen.phased if place == shard.id]
            trouble = seen.unreachable.get(shard.id)
            shards.append(
                ShardState(
                    shard.id,
                    trouble,
                    shard.version,
                    sum(last - first + 1 for first, last in current.ranges_of(shard.id)),
                    None if trouble else len(branches),
                    None if trouble else sum(phased),
                )
            )
        coordinators = self._coordinators()
        return ClusterState(coordinators, shards, current.version, self._cluster.is_connected)

    def _coordinators(self) -> list[CoordinatorState]:
        view = self._cluster.view
        counts: dict[tuple[str, str], int] = defaultdict(int)
        for member in view.members:
            counts[member.coordinator, member.address] += 1
        return [
            CoordinatorState(id_, address, count, _term_of(view.leader, id_))
            for (id_, address), count in sorted(counts.items())
        ]

    def step_down(self) -> tuple[Leader, Leader | None]:
        """Ask the leader to hand over: the old one, and who leads now. Raises ClusterError."""
        log.info("the leader is asked to step down", extra={"event": "leader.asked_to_step_down"})
        return self._cluster.hand_over(time.monotonic() + _STEP_DOWN_TIMEOUT_S)

    # --- what is in doubt -------------------------------------------------------------------

    def in_doubt(self) -> Doubts:
        """Every prepared branch and every unfinished transfer on every shard, oldest first; and the
        shards that cannot be asked.

        Raises NoShardMap.
        """
        _ = self._shards.map
        return self._describe_all(self._look())

    def _describe_all(self, seen: Seen) -> Doubts:
        decisions = self._decisions({branch.gtrid for branch in seen.prepared})
        # Whoever asks: it is told what the cluster will do, not what this process will.
        around = self._surroundings()._replace(coordinator="", leads=True)
        found = [self._describe(branch, decisions, around) for branch in seen.prepared]
        found.sort(key=lambda item: (-item.age_s, item.gtrid, item.shard))
        unfinished = self._unfinished.describe(seen.phased, around, self._actor())
        return Doubts(found, unfinished, seen.unreachable)

    def _look(self) -> Seen:
        """All that is prepared or in a phase table; and why what shards cannot be asked."""
        shards = self._shards.all()
        seen = Seen([], [], {})

        def ask(shard: ShardNode) -> tuple[list[PreparedBranch], list[Phased]] | ShardError:
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            try:
                return shard.reads.list_prepared(deadline), shard.reads.list_unfinished(deadline)
            except ShardError as error:
                return error

        with ThreadPoolExecutor(max(len(shards), 1)) as pool:
            for shard, answer in zip(shards, pool.map(ask, shards), strict=True):
                if isinstance(answer, ShardError):
                    seen.unreachable[shard.id] = answer.text
                    continue
                branches, phased = answer
                seen.prepared.extend(branches)
                seen.phased.extend((shard.id, item) for item in phased)
        return seen

    def _decisions(self, gtrids: Iterable[Gtrid]) -> Decisions:
        homes: dict[str, list[str]] = defaultdict(list)
        for gtrid in gtrids:
            homes[gtrid.home].append(str(gtrid))
        found = Decisions({}, {})
        for home, names in homes.items():
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            try:
                found.known.update(self._shards[home].reads.read_decisions(names, deadline))
            except ShardError as error:
                found.unasked[home] = error
        return found

    def _describe(
        self,
        branch: PreparedBranch,
        decisions: Decisions,
        around: Surroundings,
    ) -> InDoubt:
        gtrid, age_s = branch.gtrid, age_of(branch.gtrid)
        turn = whose_turn(gtrid, age_s, around)
        if home_error := decisions.unasked.get(gtrid.home):
            text = (
                f"it waits for its home {gtrid.home}, which alone knows the outcome and cannot be "
                f"asked ({home_error.text}); nobody guesses; bring {gtrid.home} back"
            )
            return InDoubt(gtrid, branch.shard, age_s, None, text, None)
        decision = decisions.known.get(str(gtrid))
        when = f"in {turn.in_s:.0f} s" if turn.in_s >= 1 else "now"
        text = f"{turn.why}; {self._actor()} {_deed(decision, gtrid.home)} {when}"
        return InDoubt(gtrid, branch.shard, age_s, decision, text, turn.in_s + self._interval_s)

    def _actor(self) -> str:
        leader = self._cluster.view.leader
        if not self._cluster.is_connected:
            return "ZooKeeper is away, so every coordinator"
        if leader is None:
            return "the next leader, who is being elected,"
        return f"the leader, {leader.member.coordinator},"

    # --- finishing now ----------------------------------------------------------------------

    def resolve(self, gtrid: Gtrid) -> Resolution | None:
        """Finish a group now, without waiting for anybody's turn; None if it is certain that there
        is nothing of it. Raises NoShardMap.
        """
        _ = self._shards.map
        seen = self._look()
        shards = sorted({branch.shard for branch in seen.prepared if branch.gtrid == gtrid})
        if phased := sorted({shard for shard, item in seen.phased if item.gtrid == gtrid}):
            return self._resolve_phased(gtrid, phased, seen.unreachable)
        if not shards:
            return self._nothing_prepared(gtrid, seen.unreachable)
        extra = {"event": "recovery.asked", "gtrid": str(gtrid), "shards": shards}
        log.info("group %s is to be finished now, as asked", gtrid, extra=extra)
        heard: list[DecisionOutcome] = []
        self._branch_resolver.add(Unfinished(gtrid, shards, Phase.ARBITRATING, heard.append))
        pool = self._branch_resolver.pool
        pool.hurry(lambda item: item.gtrid == gtrid)
        deadline = time.monotonic() + _RESOLVE_TIMEOUT_S
        pool.wait_for(lambda items: all(i.gtrid != gtrid for i in items), deadline)
        unfinished = self._left_of(gtrid)
        finished = [shard for shard in shards if shard not in unfinished]
        return Resolution(heard[0] if heard else None, finished, unfinished, [])

    def _resolve_phased(
        self, gtrid: Gtrid, shards: list[str], unreachable: Unreachable
    ) -> Resolution:
        transfers, left = self._unfinished.resolve(gtrid, shards)
        finished = [shard for shard in shards if shard not in left]
        # There may be more of it on those that are away.
        return Resolution(None, finished, unreachable | left, transfers)

    def _left_of(self, gtrid: Gtrid) -> dict[str, str]:
        """The branches of a group that this process has not finished, and why."""
        item = next((i for i in self._branch_resolver.pool.unfinished() if i.gtrid == gtrid), None)
        if item is None:
            return {}
        asking = item.question.error if item.phase is Phase.ARBITRATING else None
        return {shard: _why(task, asking) for shard, task in item.branches.items()}

    def _nothing_prepared(self, gtrid: Gtrid, unreachable: Unreachable) -> Resolution | None:
        """What is known of a group that is prepared on no shard that can be asked."""
        found = self._decisions([gtrid])
        known, home_error = found.known.get(str(gtrid)), found.unasked.get(gtrid.home)
        # It may be prepared on those that are away.
        unfinished = dict(unreachable) | self._left_of(gtrid)
        if home_error and gtrid.home in self._shards.map.shards:
            unfinished[gtrid.home] = home_error.text
        if known:
            return Resolution(known, [], unfinished, [])
        return Resolution(None, [], unfinished, []) if unfinished else None


def _why(task: Task, asking: str | None) -> str:
    if task.is_stuck:
        return "it is missing: neither prepared nor committed, see operations/missing-branch.md"
    return task.error or asking or "it takes long"


def _term_of(leader: Leader | None, coordinator: str) -> int | None:
    return leader.epoch if leader and leader.member.coordinator == coordinator else None


def _deed(decision: DecisionOutcome | None, home: str) -> str:
    if decision is DecisionOutcome.COMMITTED:
        return f"commits it, as home {home} has decided,"
    if decision is DecisionOutcome.ABORTED:
        return f"rolls it back, as home {home} has decided,"
    return f"asks home {home} and obeys (aborted, unless it is decided before),"
