"""What operators ask and do: who is there, what is in doubt, what happens next; finish it now."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from coordinator.cluster.election import Leader
from coordinator.cluster.session import ClusterSession
from coordinator.operations.answers import (
    ClusterView,
    CoordinatorView,
    HandOverView,
    InDoubtList,
    InDoubtView,
    LeaderView,
    ResolutionView,
    ResolvedView,
    ShardView,
    listed,
)
from coordinator.operations.unfinished import UnfinishedTransfers, by_age
from coordinator.protocols.recovery import RecoveryView, recovery_duty
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

# Shard -> why it cannot be asked, or what is wrong with it.
Troubles = dict[str, str]


class Seen(NamedTuple):
    """What one question to each shard has found; a phased one with the shard of its phase table."""

    prepared: list[PreparedBranch]
    phased: list[tuple[str, Phased]]
    unreachable: Troubles


class Decisions(NamedTuple):
    """What the homes of groups say: gtrid -> decision; and home -> why it cannot be asked."""

    known: dict[str, DecisionOutcome]
    unasked: dict[str, ShardError]


class Overview(NamedTuple):
    """The cluster and the oldest of what is in doubt or unfinished, from one question to each
    shard; the totals are how many branches and how many transfers are as old.
    """

    cluster: ClusterView
    oldest: InDoubtList
    total: int
    unfinished_total: int


class ClusterAdmin:
    """See the module. Nothing here decides an outcome: it asks home, and obeys."""

    def __init__(
        self,
        settings: Settings,
        shards: Shards,
        cluster: ClusterSession,
        branch_resolver: BranchResolver,
        unfinished: UnfinishedTransfers,
        recovery_view: Callable[[], RecoveryView],
    ) -> None:
        self._cluster_id = settings.cluster.id
        self._interval_s = settings.engine.sweep_interval_ms / 1000
        self._shards = shards
        self._cluster = cluster
        self._branch_resolver = branch_resolver
        self._unfinished = unfinished
        self._recovery_view = recovery_view

    # --- the cluster ------------------------------------------------------------------------

    def cluster(self) -> ClusterView:
        """Raises NoShardMap."""
        _ = self._shards.map
        return self._cluster_with(self._look())

    def overview(self, older_than_s: float, most: int) -> Overview:
        """The cluster, and at most so many branches and unfinished groups that are older than that,
        the oldest first.

        Younger ones are left out: every transfer across shards is in doubt for some milliseconds.
        Raises NoShardMap.
        """
        _ = self._shards.map
        seen = self._look()
        branches = [branch for branch in seen.prepared if age_of(branch.gtrid) >= older_than_s]
        phased = [item for item in seen.phased if age_of(item[1].gtrid) >= older_than_s]
        oldest = self._describe_all(Seen(branches[:most], phased[:most], seen.unreachable))
        total = sum(item.transfers for _, item in phased)
        return Overview(self._cluster_with(seen), oldest, len(branches), total)

    def _cluster_with(self, seen: Seen) -> ClusterView:
        current = self._shards.map
        shards = []
        for shard in sorted(self._shards.all(), key=lambda shard: shard.id):
            branches = [branch for branch in seen.prepared if branch.shard == shard.id]
            phased = [item.transfers for place, item in seen.phased if place == shard.id]
            trouble = seen.unreachable.get(shard.id)
            shards.append(
                ShardView(
                    id=shard.id,
                    reachable=trouble is None,
                    server_version=shard.version,
                    slots=sum(last - first + 1 for first, last in current.ranges_of(shard.id)),
                    in_doubt=None if trouble else len(branches),
                    unfinished=None if trouble else sum(phased),
                    trouble=trouble,
                )
            )
        coordinators = self._coordinators()
        return ClusterView(
            coordinators,
            shards,
            current.version,
            "connected" if self._cluster.is_connected else "away",
        )

    def _coordinators(self) -> list[CoordinatorView]:
        view = self._cluster.view
        counts: dict[tuple[str, str], int] = defaultdict(int)
        for member in view.members:
            counts[member.coordinator, member.address] += 1
        epochs = {leader.member.coordinator: leader.epoch for leader in (view.leader,) if leader}
        return [
            CoordinatorView(id_, address, id_ in epochs, epochs.get(id_), count)
            for (id_, address), count in sorted(counts.items())
        ]

    def step_down(self) -> HandOverView:
        """Ask the leader to hand over. Raises ClusterError."""
        log.info("the leader is asked to step down", extra={"event": "leader.asked_to_step_down"})
        old, new = self._cluster.hand_over(time.monotonic() + _STEP_DOWN_TIMEOUT_S)
        return HandOverView(_leader(old), _leader(new) if new else None)

    # --- what is in doubt -------------------------------------------------------------------

    def in_doubt(self) -> InDoubtList:
        """Every prepared branch and every unfinished transfer on every shard, oldest first; and the
        shards that cannot be asked.

        Raises NoShardMap.
        """
        _ = self._shards.map
        return self._describe_all(self._look())

    def _describe_all(self, seen: Seen) -> InDoubtList:
        decisions = self._decisions({branch.gtrid for branch in seen.prepared})
        # The same answer everywhere: what the cluster will do, not what this process will.
        around = self._recovery_view()._replace(coordinator="", leads=True)
        branches = [self._describe(branch, decisions, around) for branch in seen.prepared]
        unfinished = self._unfinished.describe(seen.phased, around, self._actor())
        return InDoubtList(branches, unfinished, listed(seen.unreachable))

    def _look(self) -> Seen:
        """All that is prepared or in a phase table, the oldest first; and why what shards cannot be
        asked.
        """
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
        seen.prepared.sort(key=lambda branch: (branch.gtrid.time_ms, branch.gtrid, branch.shard))
        seen.phased.sort(key=lambda found: by_age(*found))
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
        around: RecoveryView,
    ) -> InDoubtView:
        gtrid, age_s = branch.gtrid, age_of(branch.gtrid)
        duty = recovery_duty(gtrid, age_s, around)
        decision: DecisionOutcome | None = None
        in_s: float | None = None
        if home_error := decisions.unasked.get(gtrid.home):
            text = (
                f"it waits for its home {gtrid.home}, which alone knows the outcome and cannot be "
                f"asked ({home_error.text}); bring {gtrid.home} back"
            )
        else:
            decision = decisions.known.get(str(gtrid))
            in_s = round(duty.in_s + self._interval_s, 3)
            when = f"in {duty.in_s:.0f} s" if duty.in_s >= 1 else "now"
            text = f"{duty.why}; {self._actor()} {_action(decision, gtrid.home)} {when}"
        return InDoubtView(
            gtrid=str(gtrid),
            shard=branch.shard,
            home=gtrid.home,
            coordinator=gtrid.coordinator,
            age_seconds=round(age_s, 3),
            decision=decision.value if decision else None,
            next=text,
            next_in_seconds=in_s,
        )

    def _actor(self) -> str:
        leader = self._cluster.view.leader
        if not self._cluster.is_connected:
            return "ZooKeeper is away, so every coordinator"
        if leader is None:
            return "the next leader, who is being elected,"
        return f"the leader, {leader.member.coordinator},"

    # --- finishing now ----------------------------------------------------------------------

    def resolve(self, gtrid: Gtrid) -> ResolutionView | None:
        """Finish a group now, without waiting for its turn; None if it is certain that there
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
        return _resolution(gtrid, heard[0] if heard else None, unfinished, finished)

    def _resolve_phased(
        self, gtrid: Gtrid, shards: list[str], unreachable: Troubles
    ) -> ResolutionView:
        transfers, left = self._unfinished.resolve(gtrid, shards)
        finished = [shard for shard in shards if shard not in left]
        # There may be more of it on those that are away.
        return _resolution(gtrid, None, unreachable | left, finished, transfers)

    def _left_of(self, gtrid: Gtrid) -> dict[str, str]:
        """The branches of a group that this process has not finished, and why."""
        item = next((i for i in self._branch_resolver.pool.unfinished() if i.gtrid == gtrid), None)
        if item is None:
            return {}
        asking = item.question.error if item.phase is Phase.ARBITRATING else None
        return {shard: _why(task, asking) for shard, task in item.branches.items()}

    def _nothing_prepared(self, gtrid: Gtrid, unreachable: Troubles) -> ResolutionView | None:
        """What is known of a group that is prepared on no shard that can be asked."""
        found = self._decisions([gtrid])
        known, home_error = found.known.get(str(gtrid)), found.unasked.get(gtrid.home)
        # It may be prepared on those that are away.
        unfinished = dict(unreachable) | self._left_of(gtrid)
        if home_error and gtrid.home in self._shards.map.shards:
            unfinished[gtrid.home] = home_error.text
        if known:
            return _resolution(gtrid, known, unfinished)
        return _resolution(gtrid, None, unfinished) if unfinished else None


def _resolution(
    gtrid: Gtrid,
    outcome: DecisionOutcome | None,
    unfinished: Troubles,
    finished: Sequence[str] = (),
    transfers: Sequence[ResolvedView] = (),
) -> ResolutionView:
    """`unfinished` has the shards whose branch, or a transfer, is not finished or not found."""
    return ResolutionView(
        gtrid=str(gtrid),
        outcome=outcome.value if outcome else None,
        finished=list(finished),
        unfinished=listed(unfinished),
        transfers=list(transfers),
    )


def _why(task: Task, asking: str | None) -> str:
    if task.is_stuck:
        return "it is missing: neither prepared nor committed, see operations/missing-branch.md"
    return task.error or asking or "it takes long"


def _leader(leader: Leader) -> LeaderView:
    return LeaderView(leader.member.coordinator, leader.member.address, leader.epoch)


def _action(decision: DecisionOutcome | None, home: str) -> str:
    if decision is DecisionOutcome.COMMITTED:
        return f"commits it, as home {home} has decided,"
    if decision is DecisionOutcome.ABORTED:
        return f"rolls it back, as home {home} has decided,"
    return f"asks home {home} and obeys (aborted, unless it is decided before),"
