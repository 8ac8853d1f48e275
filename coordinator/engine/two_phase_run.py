"""Takes what waits, forms groups, and runs each through two-phase commit.

    queue -> [ lock -> decide -> write and prepare -> commit point -> commit ] -> answer

One thread runs one group at a time and has a packet under way on every shard of it at once.
"""

import itertools
import logging
import random
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from coordinator.engine import group_log
from coordinator.engine.grouping import pause_after
from coordinator.engine.known import answer_known
from coordinator.engine.participants import GroupBranches
from coordinator.engine.planning import EMPTY_PLAN, Plan, Sorted, plan, sort_out
from coordinator.engine.scheduler import Queue
from coordinator.engine.shard_refusals import (
    after_too_much,
    in_smaller_groups,
    note_what_blocks,
    refuse_ahead,
)
from coordinator.engine.tickets import (
    Group,
    NotExecuted,
    NotExecutedReason,
    Refused,
    Settled,
    Ticket,
)
from coordinator.protocols.two_phase_commit import Effect, Event, Phase, step
from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics
from coordinator.telemetry.tracing import Tracer
from ledger.ids import slot_of
from ledger.model import Account
from shard_client.errors import (
    ConnectionLost,
    DuplicateRow,
    ShardUnavailable,
    StatementRefused,
)
from shard_client.records import DecisionOutcome, Locked, StoredTransfer
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_RELEASE_TIMEOUT_S = 1.0
_AFTER_BUG_S = 0.1
BUG = NotExecuted(
    NotExecutedReason.INTERNAL_ERROR, "a fault of the service, see its log; nothing has happened"
)
# With so much of the busiest shard's part, another one's takes as long.
_ABOUT_AS_BUSY = 0.9
# The phases whose length is measured, under their names there.
_MEASURED = {
    Phase.LOCKING: "locking",
    Phase.WRITING_ALONE: "writing",
    Phase.COMMITTING_ALONE: "committing",
    Phase.PREPARING: "preparing",
    Phase.DECIDING: "deciding",
    Phase.COMMITTING: "committing",
    Phase.ABORTING: "aborting",
}


class Timeouts(NamedTuple):
    """How long a shard may take, in seconds: to lock; to write, to decide, to commit."""

    lock_s: float
    write_s: float


class GtridFactory(NamedTuple):
    """What the gtrids of this process have in common; `instance` is drawn anew by each process."""

    cluster: str
    coordinator: str
    instance: int

    def gtrid(self, home: str) -> Gtrid:
        """A new name for a group whose decision will be on `home`."""
        now_ms = time.time_ns() // 1_000_000
        random = self.instance << 32 | secrets.randbits(32)
        return Gtrid(self.cluster, home, self.coordinator, now_ms, random)


class Homes:
    """Chooses the homes of a process's groups."""

    def __init__(self) -> None:
        self._turns = itertools.count(1)
        self._last: dict[str, int] = {}

    def of(self, group: Group) -> str:
        """The busiest shard: its part costs no prepare, and it is free again first. The others
        flush twice, so of those that are about as busy the one is it whose last turn is the longest
        ago; of a lone transfer it is the source's, which has its record to write anyway.
        """
        enough = max(group.at.values()) * _ABOUT_AS_BUSY
        busy = sorted(shard for shard, count in group.at.items() if count >= enough)
        is_lone = len(group.tickets) == 1
        home = group.tickets[0].shards[0] if is_lone else min(busy, key=self._turn_of)
        self._last[home] = next(self._turns)
        return home

    def _turn_of(self, shard: str) -> int:
        return self._last.get(shard, 0)


class Executors:
    """The threads that run groups, until the queue is closed."""

    def __init__(self, count: int, queue: Queue, run: Callable[[Group], None]) -> None:
        self._queue = queue
        self._run = run
        self._threads = [
            threading.Thread(target=self._work, name=f"executor-{i}", daemon=True)
            for i in range(count)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while True:
            group = None
            try:
                group = self._queue.take()
                if group is None:
                    return
                self._run(group)
            except Exception:
                # A thread that ends would leave its part of the work undone for ever, and a group
                # that keeps its claims its accounts.
                log.exception("an executor met a bug and goes on", extra={"event": "executor.bug"})
                if group:
                    self._queue.broke(group, BUG)
                time.sleep(_AFTER_BUG_S)


class Held(NamedTuple):
    """A group's name, and its branches, of which one has locked an account."""

    gtrid: Gtrid
    participants: GroupBranches


class TakesOverBranches(Protocol):
    """Finishes branches, and asks home for the outcome where it is not known, as long as that
    takes; then tells it.
    """

    def take_over(
        self,
        gtrid: Gtrid,
        shards: Iterable[str],
        phase: Phase,
        on_settled: Callable[[DecisionOutcome], None] | None = None,
    ) -> None: ...


class GroupRun:
    """One group on its way; `run` takes it to an end of the protocol's table.

    One whose account was waited for has a name already, and a branch that has locked it (`held`).
    """

    def __init__(
        self,
        group: Group,
        *,
        queue: Queue,
        shards: Shards,
        resolver: TakesOverBranches,
        metrics: Metrics,
        tracer: Tracer,
        gtrids: GtridFactory,
        homes: Homes,
        timeouts: Timeouts,
        held: Held | None = None,
    ) -> None:
        self._group = group
        self._queue = queue
        self._shards = shards
        self._resolver = resolver
        self._metrics = metrics
        self._timeouts = timeouts
        self._gtrid = held.gtrid if held else gtrids.gtrid(homes.of(group))
        self._shard_names = sorted(group.at)
        self._trace = tracer.group(self._gtrid, [ticket.origin for ticket in group.tickets])
        if held:
            self._participants = held.participants
            self._participants.note_in(self._trace)
        else:
            self._participants = GroupBranches(shards, self._gtrid, metrics, self._trace)
        self._plan = EMPTY_PLAN
        self._now = 0
        self._known: list[tuple[Ticket, StoredTransfer]] = []
        self._again: list[Ticket] = []
        self._missed: set[str] = set()
        self._phase = Phase.LOCKING
        self._is_with_resolver = False

    def run(self) -> None:
        """Run the group. Whatever happens, each of its tickets then is answered, or waits again,
        or is with the resolver.
        """
        try:
            self._metrics.group_size.observe(len(self._group.tickets))
            began = time.monotonic()
            event: Event | None = self._lock()
            while event is not None:
                self._measure(began)
                began = time.monotonic()
                self._phase, effect = step(self._phase, event)
                event = self._perform(effect)
            group_log.log_end(
                self._gtrid, self._group.tickets, self._phase, self._participants.lost
            )
            self._answer_known()
        except Exception:
            group_log.log_bug(self._gtrid, self._group.tickets, self._phase)
            self._give_up_after_bug()
        finally:
            try:
                self._participants.close()
                self._note_what_blocks()
            finally:
                self._queue.finished(self._group, self._again, self._missed)
                self._metrics.deferred.inc(len(self._again))
            self._trace.end(self._phase)

    def _measure(self, began: float) -> None:
        if name := _MEASURED.get(self._phase):
            self._metrics.phase(name, time.monotonic() - began)
            self._trace.phase(name, began)

    def _give_up_after_bug(self) -> None:
        """What was written is not known: the home, or the ids of the transfers, are to decide."""
        self._participants.abandon()
        decided = set(map(id, self._plan.tickets))
        if self._phase in (Phase.PREPARING, Phase.DECIDING, Phase.COMMITTING):
            self._leave_to_resolver()
        if self._is_with_resolver:
            others = [ticket for ticket in self._group.tickets if id(ticket) not in decided]
        else:
            others = list(self._group.tickets)
        self._again = [ticket for ticket in others if ticket.answer is None]
        self._delay(self._again)

    def _perform(self, effect: Effect) -> Event | None:
        """Carry out an effect; None when the group's way ends with it."""
        effects: dict[Effect, Callable[[], Event | None]] = {
            Effect.WRITE_ALONE: self._write_alone,
            Effect.COMMIT_ALONE: self._commit_alone,
            Effect.WRITE_AND_PREPARE: self._write_and_prepare,
            Effect.INSERT_DECISION: self._insert_decision,
            Effect.ARBITRATE: self._leave_to_resolver,
            Effect.COMMIT_BRANCHES: self._commit_branches,
            Effect.ROLL_BACK_BRANCHES: self._roll_back_branches,
            Effect.ANSWER: self._answer,
            Effect.RUN_AGAIN: self._run_again,
        }
        return effects[effect]()

    # --- lock and decide --------------------------------------------------------------------

    def _lock(self) -> Event:
        began = time.monotonic()
        parts = self._participants
        more = [name for name in self._shard_names if name not in parts.branches]
        parts.open(more, self._lock_deadline())
        accounts, ids = self._wanted()
        locked = parts.ask(
            list(parts.branches),
            lambda b: b.lock(accounts[b.shard], ids[b.shard], self._lock_deadline()),
            "lock",
        )
        absent = self._absent(accounts, locked)
        taken = sum(len(accounts[name] - answer.accounts.keys()) for name, answer in locked.items())
        self._queue.met_others(self._group, taken - len(absent), len(self._group.accounts))
        # A shard that was lost since its answer has let go of its locks: it does not count.
        locked = {name: answer for name, answer in locked.items() if name in parts.branches}
        # The shards have read their clocks since; all of that time may have passed after it.
        read_at = time.time_ns() // 1000 - round((time.monotonic() - began) * 1e6)
        for name, answer in locked.items():
            self._missed |= accounts[name] - answer.accounts.keys() - absent
        sorted_ = sort_out(self._group.tickets, locked, absent, read_at)
        self._known = sorted_.known
        refuse_ahead(self._queue, self._shards.clocks, self._metrics, sorted_.ahead)
        self._put_off(sorted_, locked)
        if self._gtrid.home not in parts.branches:
            self._again += sorted_.ready
            return Event.LOCKS_LOST
        return self._decide(sorted_.ready, locked)

    def _wanted(self) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        """The accounts and the transfer ids that each shard is asked for."""
        accounts: dict[str, set[str]] = defaultdict(set)
        ids: dict[str, set[str]] = defaultdict(set)
        for ticket in self._group.tickets:
            source_shard, destination_shard = ticket.shards
            accounts[source_shard].add(ticket.transfer.source)
            accounts[destination_shard].add(ticket.transfer.destination)
            ids[source_shard].add(ticket.transfer.id)
        return accounts, ids

    def _absent(self, accounts: Mapping[str, set[str]], locked: Mapping[str, Locked]) -> set[str]:
        """Which accounts do not exist, of those that the lock packets did not bring."""
        missing = {
            shard: names
            for shard, answer in locked.items()
            if (names := accounts[shard] - answer.accounts.keys())
        }
        existing = self._participants.ask(
            list(missing),
            lambda b: b.existing(missing[b.shard], self._lock_deadline()),
            "lock",
        )
        return {name for shard, found in existing.items() for name in missing[shard] - found}

    def _put_off(self, sorted_: Sorted, locked: Mapping[str, Locked]) -> None:
        """See to the tickets that cannot be decided now."""
        for ticket in sorted_.passed_over:
            ticket.skips += 1
        for answer in locked.values():
            if not answer.is_writable:
                shard = next(name for name, other in locked.items() if other is answer)
                self._shards.note(ShardUnavailable(shard, "it is read only"))
        if any(self._has_moved(ticket, locked) for ticket in sorted_.moved):
            self._shards.look_again()
        self._again += sorted_.passed_over + self._after_too_much(sorted_.moved)
        self._delay(self._again)

    def _has_moved(self, ticket: Ticket, locked: Mapping[str, Locked]) -> bool:
        accounts = (ticket.transfer.source, ticket.transfer.destination)
        return any(
            shard in locked and slot_of(account) not in locked[shard].slots
            for shard, account in zip(ticket.shards, accounts, strict=True)
        )

    def _decide(self, ready: list[Ticket], locked: Mapping[str, Locked]) -> Event:
        """Decide what can be decided; says how many shards have something to write."""
        claimed = self._queue.claim_for_writing(ready, str(self._gtrid))
        withdrawn = {id(ticket) for ticket in ready} - {id(ticket) for ticket in claimed}
        self._again += [ticket for ticket in ready if id(ticket) in withdrawn]
        accounts: dict[str, Account] = {}
        for answer in locked.values():
            accounts.update(answer.accounts)
        self._now = now = time.time_ns() // 1000
        self._plan = plan(claimed, accounts, now, str(self._gtrid), lambda: time.sleep(0))
        writers = self._plan.writes.keys()
        if not writers:
            return Event.NOTHING_TO_WRITE
        # The home of several writers stays, for the decision, also when it has no rows to write.
        needed = writers if len(writers) == 1 else writers | {self._gtrid.home}
        idle = self._participants.branches.keys() - needed
        self._participants.release(idle, _RELEASE_TIMEOUT_S)
        return Event.ONE_SHARD_WRITES if len(writers) == 1 else Event.SEVERAL_SHARDS_WRITE

    # --- one shard --------------------------------------------------------------------------

    def _write_alone(self) -> Event:
        writes = self._plan.writes
        answers = self._participants.ask(
            writes,
            lambda b: b.write_unprepared(writes[b.shard], self._write_deadline()),
            "write_alone",
        )
        return Event.ALL_VOTED_YES if answers else Event.VOTE_LOST

    def _commit_alone(self) -> Event:
        answers = self._participants.ask(
            self._plan.writes,
            lambda b: b.commit_alone(self._write_deadline()),
            "commit",
            releases=True,
        )
        return Event.DECIDED if answers else Event.DECISION_UNKNOWN

    # --- several shards ---------------------------------------------------------------------

    def _write_and_prepare(self) -> Event:
        writes = self._plan.writes
        # Whoever has something to write must vote, whether it still has a branch or not.
        votes = self._participants.ask(
            writes, lambda b: b.write(writes[b.shard], self._write_deadline()), "write"
        )
        is_home_here = self._gtrid.home in self._participants.branches
        is_unanimous = votes.keys() == writes.keys() and is_home_here
        return Event.ALL_VOTED_YES if is_unanimous else Event.VOTE_LOST

    def _insert_decision(self) -> Event:
        home, now = self._gtrid.home, self._now
        answers = self._participants.ask(
            [home],
            lambda b: b.decide(self._remote_shards(), now, self._write_deadline()),
            "decide",
            releases=True,
        )
        if answers:
            return Event.DECIDED
        error = self._participants.lost[home]
        if isinstance(error, DuplicateRow):
            self._metrics.conflicts.inc()
        was_refused = error.statement == 0 and not isinstance(error, ConnectionLost)
        return Event.DECISION_REFUSED if was_refused else Event.DECISION_UNKNOWN

    def _remote_shards(self) -> list[str]:
        """The shards that have, or may have, a prepared branch of this group."""
        return [shard for shard in self._plan.writes if shard != self._gtrid.home]

    def _commit_branches(self) -> Event:
        remote = self._remote_shards()
        done = self._participants.ask(
            remote, lambda b: b.commit(self._write_deadline()), "commit", releases=True
        )
        self._finish_later(Phase.COMMITTING, [shard for shard in remote if shard not in done])
        return Event.FINISHED

    def _roll_back_branches(self) -> Event:
        done = self._participants.ask(
            list(self._participants.branches),
            lambda b: b.roll_back(self._write_deadline()),
            "roll_back",
            releases=True,
        )
        # Before the write packets nothing was prepared, and the server forgets it by itself.
        maybe_prepared = self._remote_shards() if len(self._plan.writes) > 1 else []
        self._finish_later(Phase.ABORTING, [name for name in maybe_prepared if name not in done])
        return Event.FINISHED

    def _finish_later(self, phase: Phase, shards: list[str]) -> None:
        if shards:
            self._resolver.take_over(self._gtrid, shards, phase)

    def _leave_to_resolver(self) -> None:
        """The answer to the commit point is lost: what became of it, home will say (rule R1)."""
        if self._is_with_resolver:
            return
        self._is_with_resolver = True
        plan, queue = self._plan, self._queue

        self._halve()
        # What comes after them in their batches on the same accounts is not to overtake them.
        queue.hold_back(plan.tickets)

        def settled(outcome: DecisionOutcome) -> None:
            if outcome is DecisionOutcome.COMMITTED:
                _answer(queue, plan)
            else:
                # Not reopened: only their ids, under the locks, will show that nothing is there.
                queue.put_back(plan.tickets)
            queue.let_go(plan.tickets)

        self._participants.abandon()
        self._resolver.take_over(self._gtrid, self._remote_shards(), Phase.ARBITRATING, settled)

    # --- answer -----------------------------------------------------------------------------

    def _answer(self) -> None:
        _answer(self._queue, self._plan)

    def _run_again(self) -> None:
        """The group has written nothing, or nobody knows: its tickets run again."""
        tickets = list(self._plan.tickets)
        if self._phase is Phase.ABORTED:
            self._queue.reopen(tickets, str(self._gtrid))
            tickets = self._without_suspects(tickets)
        else:
            self._halve()
        if not self._plan.writes:
            _answer(self._queue, self._plan)
        self._delay(tickets)
        self._again += tickets

    def _without_suspects(self, tickets: list[Ticket]) -> list[Ticket]:
        """After a statement was refused, which one member may have caused, the members run in
        smaller groups; one that was alone is answered.
        """
        refused = self._refused()
        if not refused or not tickets:
            return tickets
        return in_smaller_groups(self._queue, self._gtrid, tickets, refused[0])

    def _refused(self) -> list[StatementRefused]:
        """What shards have refused of all that was to be written or committed."""
        wanted = self._plan.writes.keys() | {self._gtrid.home}
        lost = self._participants.lost.items()
        return [e for shard, e in lost if shard in wanted and isinstance(e, StatementRefused)]

    def _halve(self) -> None:
        """If it was the commit that a shard has refused: smaller groups may do."""
        for ticket in self._plan.tickets if self._refused() else ():
            ticket.limit = max(len(self._plan.tickets) // 2, 1)

    def _after_too_much(self, moved: list[Ticket]) -> list[Ticket]:
        """The same for those whose lock packet, or its answer, was too large for their shard."""
        return after_too_much(self._queue, self._gtrid, moved, self._participants.lost)

    def _note_what_blocks(self) -> None:
        """Why those that wait once more have to, if not for locks."""
        planned = set(map(id, self._plan.tickets))
        lost = self._participants.lost
        for ticket in self._again:
            note_what_blocks(ticket, lost, lost if id(ticket) in planned else ticket.shards)

    def _answer_known(self) -> None:
        """Answer the tickets whose transfers have had their outcome before."""
        waiting = answer_known(self._queue, self._shards, self._known, self._write_deadline)
        self._delay(waiting)
        self._again += waiting

    def _delay(self, tickets: list[Ticket]) -> None:
        # One draw for all: they come back together.
        now, drawn = time.monotonic(), random.random()
        for ticket in tickets:
            ticket.not_before = now + pause_after(ticket.skips, lambda: drawn)

    # Each packet has a time of its own, from when it is sent: a shard is not to pay for what was
    # waited for elsewhere (rule R9).

    def _lock_deadline(self) -> float:
        return time.monotonic() + self._timeouts.lock_s

    def _write_deadline(self) -> float:
        return time.monotonic() + self._timeouts.write_s


def _answer(queue: Queue, plan: Plan) -> None:
    """Give the tickets of a group that has committed, or had nothing to write, their answers."""
    if not plan.tickets:
        # None could be decided: all of them wait once more.
        return
    answers = [
        Settled(result, is_replay=False) if isinstance(result, StoredTransfer) else Refused(result)
        for result in plan.results
    ]
    queue.settle(zip(plan.tickets, answers, strict=True))
