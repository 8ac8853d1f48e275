"""Traces of two-phase commit: a group of one transfer, which walks the product's table."""

from collections.abc import Callable

from coordinator.engine.planning import plan, sort_out
from coordinator.protocols.recovery import may_collect_aborted, may_collect_committed
from coordinator.protocols.two_phase_commit import Effect, Event, Phase, step
from shard_client.branch import Branch
from shard_client.collect import drop_decisions, drop_markers, marked
from shard_client.prepared import (
    DecisionOutcome,
    arbitrate,
    finish,
    list_prepared,
)
from shard_client.transfers import StoredTransfer
from tests.traces.world import (
    FIRST,
    FUNDS,
    GTRID,
    NOW,
    OTHER,
    Shard,
    Trace,
    ticket_of,
    transfer_by,
    two_shards,
)

_FOUND = {
    DecisionOutcome.COMMITTED: Event.FOUND_COMMITTED,
    DecisionOutcome.ABORTED: Event.FOUND_ABORTED,
}
_OUTCOME = {
    Effect.COMMIT_BRANCHES: DecisionOutcome.COMMITTED,
    Effect.ROLL_BACK_BRANCHES: DecisionOutcome.ABORTED,
}


class Group:
    """One transfer's group on two shards. `crashes_before` an effect, or `loses_answer` to one."""

    def __init__(
        self,
        amount: int,
        *,
        crashes_before: Effect | None = None,
        loses_answer: Effect | None = None,
    ) -> None:
        self.ticket = ticket_of(transfer_by("xa", amount))
        self.shards = two_shards()
        self.trace = Trace(self.ticket.transfer, self.shards.values())
        self._crashes_before = crashes_before
        self._loses_answer = loses_answer
        self._who = FIRST
        self._is_told = False
        self._branches = {
            name: Branch(shard, str(GTRID), is_local=name == GTRID.home)  # type: ignore[arg-type]
            for name, shard in self.shards.items()
        }
        self._plan = plan([], {}, NOW, str(GTRID))

    @property
    def home(self) -> Shard:
        return self.shards[GTRID.home]

    @property
    def _remote(self) -> list[str]:
        return sorted(self._plan.writes.keys() - {GTRID.home})

    def run(self) -> None:
        """As its coordinator does, from the locks to an end of the table."""
        self._walk(Phase.LOCKING, self._lock())

    def recover(self, who: str) -> None:
        """As another one does that has found what is prepared."""
        self._who = who
        for shard in self.shards.values():
            prepared = self.trace.send(who, shard, list_prepared, shard, GTRID.cluster, 0)
            if [branch.gtrid for branch in prepared] == [GTRID]:
                self.trace.takes_over(who)
        self._walk(Phase.ARBITRATING, self._arbitrate())

    def _walk(self, phase: Phase, event: Event | None) -> None:
        while event:
            before, (phase, effect) = phase, step(phase, event)
            self.trace.says(self._who, f"{event}: {before} -> {phase}, {effect}")
            if effect is self._crashes_before:
                self._branches.clear()
                self.trace.stops(self._who, "is gone", self.shards.values())
                return
            event = self._perform(effect)

    def _perform(self, effect: Effect) -> Event | None:
        effects: dict[Effect, Callable[[], Event | None]] = {
            Effect.WRITE_ALONE: self._write_alone,
            Effect.COMMIT_ALONE: self._commit_alone,
            Effect.WRITE_AND_PREPARE: self._write_and_prepare,
            Effect.INSERT_DECISION: self._decide,
            Effect.ARBITRATE: self._arbitrate,
            Effect.COMMIT_BRANCHES: lambda: self._finish(effect),
            Effect.ROLL_BACK_BRANCHES: lambda: self._finish(effect),
            Effect.ANSWER: self._answer,
            Effect.RUN_AGAIN: lambda: None,
        }
        return effects[effect]()

    # --- the packets of a coordinator ---------------------------------------------------------

    def _send(self, name: str, call: Callable[..., object], *arguments: object) -> None:
        self.trace.send(self._who, self.shards[name], call, *arguments, 0)

    def _lock(self) -> Event:
        transfer = self.ticket.transfer
        for name, shard in self.shards.items():
            ids = [transfer.id] if name == self.ticket.shards[0] else []
            self._send(name, self._branches[name].lock, shard.locked.accounts, ids)
        locked = {name: shard.locked for name, shard in self.shards.items()}
        ready = sort_out([self.ticket], locked, set(), NOW).ready
        accounts = {k: v for answer in locked.values() for k, v in answer.accounts.items()}
        self._plan = plan(ready, accounts, NOW, str(GTRID))
        writers = self._plan.writes.keys()
        if not writers:
            return Event.NOTHING_TO_WRITE
        for name in [] if len(writers) > 1 else self.shards.keys() - writers:
            self._send(name, self._branches[name].roll_back)
        return Event.SEVERAL_SHARDS_WRITE if len(writers) > 1 else Event.ONE_SHARD_WRITES

    def _write(self, name: str, call: Callable[..., object]) -> None:
        writes = self._plan.writes[name]
        self.shards[name].bring(writes)
        self._send(name, call, writes)

    def _write_alone(self) -> Event:
        (name,) = self._plan.writes
        self._write(name, self._branches[name].write_unprepared)
        return Event.ALL_VOTED_YES

    def _commit_alone(self) -> Event:
        (name,) = self._plan.writes
        self._send(name, self._branches[name].commit_alone)
        return Event.DECIDED

    def _write_and_prepare(self) -> Event:
        for name in sorted(self._plan.writes):
            self._write(name, self._branches[name].write)
        return Event.ALL_VOTED_YES

    def _decide(self) -> Event:
        self._send(GTRID.home, self._branches[GTRID.home].decide, self._remote, NOW)
        if self._loses_answer is Effect.INSERT_DECISION:
            self.trace.loses(self.home, self._who)
            # It closes all of its connections; what is prepared stays.
            self._branches.clear()
            return Event.DECISION_UNKNOWN
        return Event.DECIDED

    def _answer(self) -> None:
        """Tell the client, unless it was told when home had said the outcome."""
        for result in [] if self._is_told else self._plan.results:
            if isinstance(result, StoredTransfer):
                self.trace.tells_client(self._who, result)
        self._is_told = True

    # --- of whoever finishes it ---------------------------------------------------------------

    def _arbitrate(self) -> Event:
        found = self.trace.send(self._who, self.home, arbitrate, self.home, [str(GTRID)], NOW, 0)
        outcome = found[str(GTRID)]
        self.trace.answers(self.home, self._who, outcome.value)
        return _FOUND[outcome]

    def _finish(self, effect: Effect) -> Event:
        """With its own branches, or, as finishers do, by the names of those that are prepared. A
        finisher of its coordinator tells the client first.
        """
        if effect is Effect.COMMIT_BRANCHES and self._who == FIRST and not self._branches:
            self._answer()
        for name in self._remote:
            if name in self._branches:
                self._send(name, self._branches[name].commit)
            else:
                branch = (str(GTRID), _OUTCOME[effect])
                self._send(name, finish, self.shards[name], [branch])
        return Event.FINISHED

    # --- collecting ---------------------------------------------------------------------------

    def collect(self, who: str) -> None:
        """What nobody needs any more goes: a committed decision before its markers."""
        name, branches, trace = str(GTRID), self._remote, self.trace
        if self.home.tables.rows.get("decisions") == DecisionOutcome.ABORTED.value:
            states = [shard.state for shard in self.shards.values()]
            if may_collect_aborted(set(), set(), "prepared" in states):
                trace.send(who, self.home, drop_decisions, self.home, [name], 0)
            return
        places = [self.shards[branch] for branch in branches]
        marks = [s.shard for s in places if trace.send(who, s, marked, s, [name], 0)]
        if may_collect_committed(branches, marks):
            trace.send(who, self.home, drop_decisions, self.home, [name], 0)
            for shard in places:
                trace.send(who, shard, drop_markers, shard, [name], 0)


def commit_across_shards() -> Trace:
    """Nothing goes wrong."""
    group = Group(40)
    group.run()
    group.collect(OTHER)
    return group.trace


def refused() -> Trace:
    """The source has too little: one shard writes, so that nothing has to be agreed upon."""
    group = Group(FUNDS + 1)
    group.run()
    return group.trace


def decision_answer_lost() -> Trace:
    """Home commits, and the coordinator does not hear it: so it asks, as everybody else would."""
    group = Group(40, loses_answer=Effect.INSERT_DECISION)
    group.run()
    group.collect(OTHER)
    return group.trace


def abort_by_recovery() -> Trace:
    """The coordinator is gone when all have voted. Whether it has decided, home is asked."""
    group = Group(40, crashes_before=Effect.INSERT_DECISION)
    group.run()
    group.recover(OTHER)
    group.collect(OTHER)
    return group.trace
