"""Finishes groups whose outcome or whose branches are left open: by a lost answer, or by a process
that died.

The resolver walks the same table as the executor, from ARBITRATING, COMMITTING or ABORTING on, and
tries for ever, with growing pauses: what is to be asked of one shard is asked in one packet.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from coordinator.protocols.recovery import MISSING_MAX, Verdict, judge_unknown
from coordinator.protocols.two_phase_commit import Event, Phase, step
from coordinator.recovery.retry_pool import Kind, Limits, Portion, Resolver, RetryPool, pause_after
from coordinator.shards.registry import RECOVERING_THREADS, Shards
from coordinator.telemetry.metrics import Metrics
from coordinator.telemetry.tracing import Tracer
from shard_client.errors import ConnectionLost, ShardError, ShardUnavailable, UnknownBranch
from shard_client.records import DecisionOutcome, Look
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_PAUSE_MIN_S = 0.05
# Between two looks for a branch that is nowhere.
_PAUSE_MISSING_S = 1.0
_CALL_TIMEOUT_S = 3.0
# A packet speaks of 64 groups at most.
_LIMITS = Limits(threads=12, at_shard=RECOVERING_THREADS, portion=64)

_OUTCOME = {
    Phase.COMMITTING: DecisionOutcome.COMMITTED,
    Phase.ABORTING: DecisionOutcome.ABORTED,
}
_FOUND = {
    DecisionOutcome.COMMITTED: Event.FOUND_COMMITTED,
    DecisionOutcome.ABORTED: Event.FOUND_ABORTED,
}


class Task:
    """Something to do about a group on one shard: to ask home, or to finish a branch."""

    __slots__ = (
        "alone",
        "attempts",
        "error",
        "is_running",
        "item",
        "missing",
        "not_before",
        "shard",
    )

    def __init__(self, item: "Unfinished", shard: str) -> None:
        self.item = item
        self.shard = shard
        self.attempts = 0
        self.not_before = 0.0
        self.is_running = False
        # A portion that it was part of failed: perhaps because of it.
        self.alone = False
        # How often its branch was nowhere, though home says that it is committed.
        self.missing = 0
        self.error: str | None = None

    @property
    def is_question(self) -> bool:
        return self is self.item.question

    @property
    def is_stuck(self) -> bool:
        """A committed branch is nowhere to be found: a person must look (rule R6)."""
        return self.missing >= MISSING_MAX

    def put_off(self, why: str) -> None:
        self.not_before = time.monotonic() + pause_after(self.attempts, _PAUSE_MIN_S)
        self.attempts += 1
        self.error = why


class Unfinished:
    """A group with branches to finish; `on_settled` is told its outcome, once it is known."""

    def __init__(
        self,
        gtrid: Gtrid,
        shards: Iterable[str],
        phase: Phase,
        on_settled: Callable[[DecisionOutcome], None] | None = None,
    ) -> None:
        self.gtrid = gtrid
        self.phase = phase
        # Who is to be told the outcome, each once.
        self.callbacks = [on_settled] if on_settled else []
        self.branches = {shard: Task(self, shard) for shard in shards}
        self.question = Task(self, gtrid.home)
        self.since = time.monotonic()
        self.finished: list[str] = []

    def join(self, other: "Unfinished") -> None:
        """Take over what another one for the same group knows: shards, and who is to be told. A
        branch that was called missing and has been seen since is not missing.
        """
        for shard in other.branches:
            if shard not in self.branches or self.branches[shard].is_stuck:
                self.branches[shard] = Task(self, shard)
        self.callbacks += other.callbacks

    @property
    def tasks(self) -> list[Task]:
        """What can be done now."""
        if self.phase is Phase.ARBITRATING:
            return [self.question]
        return list(self.branches.values())

    @property
    def is_done(self) -> bool:
        return self.phase is not Phase.ARBITRATING and not self.branches

    @property
    def is_stuck(self) -> bool:
        return any(task.is_stuck for task in self.branches.values())

    @property
    def last_error(self) -> str | None:
        return next((task.error for task in self.tasks if task.error), None)


class BranchResolver(Resolver[Unfinished, Task]):
    """Finishes groups in the background until nothing is left of them."""

    def __init__(self, shards: Shards, metrics: Metrics, tracer: Tracer) -> None:
        self._shards = shards
        self._metrics = metrics
        self._tracer = tracer
        self.pool: RetryPool[Gtrid, Unfinished, Task] = RetryPool(
            self, _LIMITS, name="branch-resolver", bug_event="recovery.bug"
        )

    def take_over(
        self,
        gtrid: Gtrid,
        shards: Iterable[str],
        phase: Phase,
        on_settled: Callable[[DecisionOutcome], None] | None = None,
    ) -> None:
        """`add` for who knows a group by its parts."""
        self.add(Unfinished(gtrid, shards, phase, on_settled))

    def add(self, *items: Unfinished) -> None:
        """Take groups to finish; one that is here already gets further shards and callbacks."""
        kept = self.pool.add([(item.gtrid, item) for item in items], Unfinished.join)
        for known in kept:
            self._tell(known)

    # --- portions ---------------------------------------------------------------------------

    def tasks_of(self, item: Unfinished) -> Iterable[Task]:
        return [task for task in item.tasks if not task.is_stuck]

    def spot_of(self, task: Task) -> tuple[str, Kind]:
        """Questions come first, and what may have made others fail last, by itself."""
        rank = (0 if task.is_question else 2) + task.alone
        return task.shard, Kind(rank, task.item.gtrid if task.alone else None)

    def resolve(self, portion: Portion[Task]) -> None:
        try:
            if portion.tasks[0].is_question:
                self._ask(portion)
            else:
                self._finish(portion)
        except ShardError as error:
            self._metrics.failed(error.code, "recovering")
            self._put_off(portion.tasks, error)
        except Exception:
            log.exception(
                "finishing groups met a bug; it is tried again",
                extra={
                    "event": "recovery.bug",
                    "shard": portion.shard,
                    "gtrids": [str(task.item.gtrid) for task in portion.tasks],
                },
            )
            self._put_off(portion.tasks, None)
        self._drop_done(task.item for task in portion.tasks)

    def _drop_done(self, items: Iterable[Unfinished]) -> None:
        with self.pool.lock:
            done = [item for item in items if item.is_done and self.pool.drop(item.gtrid, item)]
        for item in done:
            self._metrics.recovery_seconds.observe(time.monotonic() - item.since)
            outcome = _OUTCOME[item.phase].value
            self._tracer.recovered(item.gtrid, outcome, item.finished, item.since)

    def _put_off(self, tasks: Iterable[Task], error: ShardError | None) -> None:
        # What collides, or cannot be carried out, may do so because of one of them; but not what
        # concerns the shard, or found no free connection.
        is_away = isinstance(error, ShardUnavailable | ConnectionLost)
        is_theirs = not is_away and bool(error is None or error.code)
        for task in tasks:
            task.put_off(str(error or "a fault of the service, see the log"))
            task.alone = task.alone or is_theirs

    # --- asking home ------------------------------------------------------------------------

    def _ask(self, portion: Portion[Task]) -> None:
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        gtrids = [str(task.item.gtrid) for task in portion.tasks]
        home = self._shards[portion.shard].recovery
        outcomes = home.arbitrate(gtrids, time.time_ns() // 1000, deadline)
        # One line for all: a line for each would cost as much as to finish it.
        for outcome in set(outcomes.values()):
            names = [gtrid for gtrid, found in outcomes.items() if found is outcome]
            extra = {
                "event": "recovery.settled",
                "shard": portion.shard,
                "outcome": outcome.value,
                "gtrids": names,
            }
            log.info(
                "home %s says %s of %d groups",
                portion.shard,
                outcome.value,
                len(names),
                extra=extra,
            )
        for task in portion.tasks:
            outcome = outcomes[str(task.item.gtrid)]
            with self.pool.lock:
                task.item.phase, _ = step(task.item.phase, _FOUND[outcome])
            self._tell(task.item)

    def _tell(self, item: Unfinished) -> None:
        """Tell the outcome, if it is known, to those who wait for it and were not told yet."""
        with self.pool.lock:
            if item.phase is Phase.ARBITRATING:
                return
            waiting, item.callbacks = item.callbacks, []
        for callback in waiting:
            try:
                callback(_OUTCOME[item.phase])
            except Exception:
                # The others wait for it too.
                extra = {"event": "recovery.bug", "gtrids": [str(item.gtrid)]}
                log.exception("telling the outcome of a group met a bug", extra=extra)

    # --- finishing branches -----------------------------------------------------------------

    def _finish(self, portion: Portion[Task]) -> None:
        there, unknown = list(portion.tasks), list[Task]()
        while there:
            count = self._finish_some(portion.shard, there)
            if count == len(there):
                break
            refused, rest = there[count], there[count + 1 :]
            # Somebody else may be at work on the same: the others are not tried one by one.
            listed = self._listed(portion)
            if refused.item.gtrid in listed:
                self._free(portion.shard, there[count:])
            unknown += [refused, *(task for task in rest if task.item.gtrid not in listed)]
            there = [task for task in rest if task.item.gtrid in listed]
        if unknown:
            self._find_out(portion.shard, unknown)

    def _listed(self, portion: Portion[Task]) -> set[Gtrid]:
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        prepared = self._shards[portion.shard].recovery.list_prepared(deadline)
        return {branch.gtrid for branch in prepared}

    def _finish_some(self, shard: str, tasks: Sequence[Task]) -> int:
        """Finish branches until one is unknown to the server; says how many are finished."""
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        branches = [(str(task.item.gtrid), _OUTCOME[task.item.phase]) for task in tasks]
        try:
            self._shards[shard].recovery.finish(branches, deadline)
            count = len(tasks)
        except UnknownBranch as error:
            count = error.statement or 0
        for task in tasks[:count]:
            self._done(task)
        if count:
            extra = {
                "event": "recovery.branches_finished",
                "shard": shard,
                "gtrids": [gtrid for gtrid, _ in branches[:count]],
            }
            log.info("%d branches on shard %s are finished", count, shard, extra=extra)
        return count

    def _done(self, task: Task) -> None:
        item = task.item
        with self.pool.lock:
            if item.branches.get(task.shard) is not task:
                return
            del item.branches[task.shard]
            item.finished.append(task.shard)
        age_s = max(time.time() - item.gtrid.time_ms / 1000, 0.0)
        self._metrics.recovered(_OUTCOME[item.phase].value, task.shard, age_s)

    def _free(self, shard: str, tasks: Sequence[Task]) -> None:
        """A branch is listed and yet unknown: on MariaDB its session keeps it to itself."""
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        gtrids = [str(task.item.gtrid) for task in tasks]
        if self._shards[shard].recovery.end_sessions_of(gtrids, deadline):
            extra = {"event": "recovery.sessions_ended", "shard": shard, "gtrids": gtrids}
            log.info(
                "sessions that kept branches to themselves on shard %s are ended",
                shard,
                extra=extra,
            )

    def _find_out(self, shard: str, tasks: Sequence[Task]) -> None:
        """Why branches are unknown to their server (rule R6)."""
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        names = {str(task.item.gtrid): task for task in tasks}
        looks = self._shards[shard].recovery.branch_status(names, deadline)
        asked: dict[str, list[Task]] = defaultdict(list)
        for gtrid, task in names.items():
            # Only of what is nowhere has home to say whether it should be somewhere.
            is_nowhere = looks[gtrid] is Look.ABSENT and task.item.phase is Phase.COMMITTING
            asked[task.item.gtrid.home if is_nowhere else ""].append(task)
        self._judge(asked.pop("", []), looks, {})
        for home, some in asked.items():
            try:
                deadline = time.monotonic() + _CALL_TIMEOUT_S
                gtrids = [str(task.item.gtrid) for task in some]
                decisions = self._shards[home].recovery.read_decisions(gtrids, deadline)
            except ShardError as error:
                self._put_off(some, error)
            else:
                self._judge(some, looks, decisions)

    def _judge(
        self,
        tasks: Iterable[Task],
        looks: Mapping[str, Look],
        decisions: Mapping[str, DecisionOutcome],
    ) -> None:
        for task in tasks:
            gtrid = str(task.item.gtrid)
            outcome = _OUTCOME[task.item.phase]
            verdict = judge_unknown(outcome, looks[gtrid], decisions.get(gtrid))
            if verdict is Verdict.DONE:
                self._done(task)
                continue
            task.put_off(looks[gtrid].value)
            if verdict is Verdict.MISSING:
                self._note_missing(task)

    def _note_missing(self, task: Task) -> None:
        task.missing += 1
        task.not_before = time.monotonic() + _PAUSE_MISSING_S
        if task.is_stuck:
            log.critical(
                "group %s was committed, but its branch on shard %s is neither prepared nor "
                "committed here: atomicity is at risk, nothing more is done about it; see "
                "docs/operations/missing-branch.md",
                task.item.gtrid,
                task.shard,
                extra={
                    "event": "recovery.branch_missing",
                    "gtrid": str(task.item.gtrid),
                    "shard": task.shard,
                },
            )
