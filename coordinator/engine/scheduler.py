"""What waits to be executed, and which of it may run together.

A ticket is one transfer on its way. Its state changes by compare-and-set under the queue's lock,
so that a transfer that a client was told is withdrawn is never written.
"""

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from coordinator.engine.batch_order import BatchOrder
from coordinator.engine.fairness import Callers
from coordinator.engine.grouping import (
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    Room,
    as_slow,
    of_one_protocol,
    together,
)
from coordinator.engine.lock_waits import LockWaits
from coordinator.engine.tickets import (
    XA,
    Answer,
    Group,
    NotExecuted,
    NotExecutedReason,
    State,
    Ticket,
    ends,
    too_crowded,
    too_late,
)
from coordinator.engine.waiting import NUMBER, Blocked, Waiting

# A group costs a shard much the same whether it has one transfer or fifty there. So one that has
# fewer than so many at a shard, on average, lingers while one that has recently begun is at its
# shards; what waits goes together when that one ends.
_FILLED = 100
_RECENT_S = 0.03
# A group by TC/C or Saga goes to its shards more often, and is longer on its way.
_RECENT_PHASED_S = 0.12
# Two groups of different processes that want one account cost the later one another round. When
# others had locked more than the first part of the accounts of a large group, fewer large ones run
# at once, down to one, since each costs its shards the same; then they are smaller, down to the
# least size. It goes the other way again while it is less than the second part.
_CROWDED = 0.12
_CALM = 0.06
_LEAST = 250
_ABREAST_MAX = 64
# One that is longer on its way does not count among those that run: it may be stuck.
_OLD_S = 0.5
# So many of batches at most come into one group with single transfers, whose clients wait for each.
_BESIDE_SINGLES_MAX = 100
# A group of batches is no larger while single transfers come, as far as the last of them is ago:
# they would wait for its processor time.
_BATCHES_MAX = 125
# And it has no other one beside it, unless that is older than this: such a one waits for a shard.
# After it batches rest for as long as it took, but no longer than this.
_LARGE_RECENT_S = 0.25
_SINGLES_COME_S = 0.25
# How often is looked whether an account is to be waited for, and when there is none.
_LOOK_EVERY_S = 0.1
_LOOK_IDLE_S = 1.0
# So long is a lock in hand, while a group of this process ends that has the other account.
_HEIR_PATIENCE_S = 0.25


class LockWait(NamedTuple):
    """An account that was found locked too often, to be waited for; and one that wants it."""

    account: str
    shard: str
    ticket: Ticket | None


class Overloaded(Exception):
    """There is no room, and the text says for whom; nothing was taken."""


class InUse(Exception):
    """A transfer with this id is being worked on in this process; nothing was taken."""

    def __init__(self, ticket: Ticket) -> None:
        super().__init__(ticket.transfer.id)
        self.ticket = ticket


class Closed(Exception):
    """The queue takes nothing more: the process is about to end."""


class Queue:
    """Transfers that wait, in the order of their turns.

    A group has at most `group_max` of them at each shard, and fewer where others are at the same
    accounts. Of those who want an account that others keep locked `stuck_max` may wait. `shard_of`
    says where an account is; `trouble_with` why a shard cannot be used and since how many seconds,
    or None. What touches one of the `slow_shards` runs apart from all else, in at most `slow_max`
    groups at a time: they are not to have all who run groups.
    """

    def __init__(
        self,
        *,
        waiting_max: int,
        group_max: int,
        skips_max: int,
        stuck_max: int,
        shard_patience_s: float,
        shard_of: Callable[[str], str],
        trouble_with: Callable[[str], tuple[str, float] | None],
        slow_shards: Callable[[], set[str]] = set,
        slow_max: int = 1,
    ) -> None:
        self._callers = Callers(waiting_max)
        self._group_max = group_max
        self._filled = min(_FILLED, group_max)
        # How many a group may have at each shard now, and how many large ones may be there.
        self._at_each = group_max
        self._abreast = _ABREAST_MAX
        self._skips_max = skips_max
        self._stuck_max = stuck_max
        self._shard_patience_s = shard_patience_s
        self._shard_of = shard_of
        self._trouble_with = trouble_with
        self._slow_shards = slow_shards
        self._slow_max = slow_max
        # Those that keep groups waiting, as they were when candidates were last looked for.
        self._slow: set[str] = set()
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._lock_waits_changed = threading.Condition(lock)
        self._waiting = Waiting()
        # By the groups that run, and by the lock waits: what they keep is nobody's to try.
        self._claimed: set[str] = set()
        self._blocked = Blocked()
        self._lock_waits = LockWaits()
        # What goes, as soon as it is free, to whoever has waited for another account.
        self._heir: str | None = None
        self._last_single = 0.0
        # Until then no large group of batches begins while single transfers come.
        self._rest_until = 0.0
        # The groups that run, and when they were taken.
        self._running: dict[int, tuple[float, Group]] = {}
        # Until then an under-filled group lingers, and nobody need be woken before it has enough.
        self._lingers_until = 0.0
        self._lacking = 0
        # Several of one id come from batches; they wait for each other.
        self._by_id: dict[str, list[Ticket]] = {}
        self._unsettled = 0
        self._is_closed = False
        # Those whose groups have left them to be finished later, with what they keep waiting.
        self._left: dict[int, Ticket] = {}

    # --- in ---------------------------------------------------------------------------------

    def put(self, tickets: Sequence[Ticket], *, alone: bool = False) -> None:
        """Take tickets, all or none. Raises Overloaded, Closed, and with `alone` InUse if one of
        their transfers is here already.
        """
        with self._changed:
            if self._is_closed:
                raise Closed
            if not tickets:
                return
            caller, is_batch = tickets[0].caller, tickets[0].batch is not None
            count = len(tickets)
            self._check_room(caller, count)
            for ticket in tickets if alone else ():
                if at_work := self.find(ticket.transfer.id):
                    raise InUse(at_work)
            turns = self._callers.turns(caller, count, is_batch=is_batch)
            for ticket, turn in zip(tickets, turns, strict=True):
                ticket.number = turn
                self._by_id.setdefault(ticket.transfer.id, []).append(ticket)
            self._unsettled += count
            now = time.monotonic()
            if not is_batch:
                self._last_single = now
            self._waiting.enter(self._without_crowd(tickets) if self._lock_waits else tickets)
            self._lacking -= count
            if self._lacking <= 0 or now > self._lingers_until:
                self._changed.notify()

    def _check_room(self, caller: str, count: int) -> None:
        """Raise Overloaded if so many more of a caller may not wait."""
        counts = self._blocked.counts
        kept = (
            sum(counts[account] for account in self._lock_waits.stuck()) if self._lock_waits else 0
        )
        why = self._callers.no_room(caller, count, self.waiting - kept, kept)
        if why:
            raise Overloaded(why)

    def _without_crowd(self, tickets: Sequence[Ticket]) -> Sequence[Ticket]:
        """Without those that want an account that others keep locked and too many wait for: these
        are answered.
        """
        counts = self._blocked.counts
        room = {account: self._stuck_max - counts[account] for account in self._lock_waits.stuck()}
        kept = []
        for ticket in tickets:
            wanted = {ticket.transfer.source, ticket.transfer.destination} & room.keys()
            crowded = next((account for account in wanted if room[account] <= 0), None)
            if crowded:
                self._settle(ticket, too_crowded(crowded, self._stuck_max))
                continue
            for account in wanted:
                room[account] -= 1
            kept.append(ticket)
        return kept

    def find(self, transfer: str) -> Ticket | None:
        """The ticket of a transfer that is being worked on in this process, best one that may have
        been written.
        """
        tickets = self._by_id.get(transfer, [])
        return next((t for t in tickets if t.state is State.SENT), next(iter(tickets), None))

    @property
    def waiting(self) -> int:
        """How many tickets wait for a group."""
        return len(self._waiting) + self._blocked.count

    @property
    def stuck(self) -> tuple[int, int]:
        """How many accounts others keep locked, and how many tickets wait for them."""
        with self._changed:
            counts = [self._blocked.counts[account] for account in self._lock_waits.stuck()]
        return len(counts), sum(counts)

    @property
    def callers(self) -> int:
        """How many callers have tickets without an answer."""
        return self._callers.count

    @property
    def unsettled(self) -> int:
        """How many tickets have no answer yet."""
        return self._unsettled

    # --- states -----------------------------------------------------------------------------

    def withdraw(self, tickets: Iterable[Ticket], answer: NotExecuted | None = None) -> None:
        """Answer those of which nothing was written, that they are too late if nothing else; the
        others stay on their way.
        """
        with self._changed:
            for ticket in tickets:
                if ticket.state is State.OPEN:
                    self._settle(ticket, answer or too_late(ticket))

    def claim_for_writing(self, tickets: Sequence[Ticket], gtrid: str) -> list[Ticket]:
        """Those that may be written now, by the group `gtrid`: neither withdrawn nor too late.

        The caller holds the locks of their accounts and has not found their ids: whatever groups
        have tried before have written nothing. So one that is too late is answered so, also if its
        client was told "pending" meanwhile; it is not written behind the client's back.

        From here until they are answered or reopened their client is never told that nothing has
        happened (rule R5).
        """
        now = time.monotonic()
        kept = []
        with self._changed:
            for ticket in tickets:
                if ticket.state is not State.DONE and ticket.deadline <= now:
                    self._settle(ticket, too_late(ticket))
                elif ticket.state is not State.DONE:
                    ticket.state = State.SENT
                    ticket.gtrid = gtrid
                    kept.append(ticket)
        return kept

    def reopen(self, tickets: Iterable[Ticket], gtrid: str) -> None:
        """The group `gtrid`, which was to write these, is known to have been undone."""
        with self._changed:
            for ticket in tickets:
                if ticket.state is State.SENT and ticket.gtrid == gtrid:
                    ticket.state = State.OPEN

    def settle(self, answers: Iterable[tuple[Ticket, Answer]]) -> None:
        """Give tickets their answers. The first one of each holds."""
        with self._changed:
            for ticket, answer in answers:
                self._settle(ticket, answer)

    def _settle(self, ticket: Ticket, answer: Answer) -> None:
        if ticket.state is State.DONE:
            return
        ticket.state, ticket.answer = State.DONE, answer
        self._blocked.answered(ticket)
        self._callers.answered(ticket.caller)
        self._unsettled -= 1
        if self._is_closed and not self._unsettled:
            self._changed.notify_all()
            self._lock_waits_changed.notify_all()
        likes = self._by_id[ticket.transfer.id]
        likes.remove(ticket)
        if not likes:
            del self._by_id[ticket.transfer.id]
        ticket.latch.count_down()

    # --- out --------------------------------------------------------------------------------

    def take(self) -> Group | None:
        """Wait for a group that may run now; None when the queue is closed and empty.

        Its accounts are claimed until it is given to `finished`.
        """
        with self._changed:
            while True:
                group = self._pick()
                wait_s = self._linger_s(group) if group else self._pause()
                if group and not wait_s:
                    self._begin(group)
                    return group
                if self._is_closed and not self._unsettled:
                    return None
                self._lingers_until = time.monotonic() + wait_s if group else 0.0
                self._lacking = self._missing(group) if group else 0
                self._changed.wait(wait_s)

    def _linger_s(self, group: Group) -> float:
        """How long a group would better wait for others to join it, in seconds."""
        if not self._is_under_filled(group):
            return self._wait_for_room(group)
        ends = [
            began + (_RECENT_S if other.protocol == XA else _RECENT_PHASED_S)
            for began, other in self._running.values()
            if not group.at.keys().isdisjoint(other.at)
        ]
        return max(max(ends, default=0.0) - time.monotonic(), 0.0)

    def _wait_for_room(self, group: Group) -> float:
        """How long a large group would better wait for those at its shards to end."""
        now = time.monotonic()
        beside = sorted(
            began
            for began, other in self._running.values()
            if now - began < _OLD_S and not group.at.keys().isdisjoint(other.at)
            if max(other.at.values()) >= self._filled
        )
        return beside[-self._abreast] + _OLD_S - now if len(beside) >= self._abreast else 0.0

    def _is_under_filled(self, group: Group) -> bool:
        """Whether it has room for more, and too few for what it costs its shards."""
        is_full = max(group.at.values()) >= self._at_each
        limit = min(ticket.limit for ticket in group.tickets)
        is_limited = len(group.tickets) >= limit
        return not (is_full or is_limited) and self._missing(group) > 0

    def _missing(self, group: Group) -> int:
        """How many more it takes at least until it has enough for what it costs its shards."""
        return (self._filled * len(group.at) - group.at.total() + 1) // 2

    def _begin(self, group: Group) -> None:
        self._waiting.remove(group.tickets)
        self._claimed |= group.accounts
        self._running[id(group)] = (time.monotonic(), group)
        self._lingers_until = 0.0
        self._callers.took(group.tickets[-1].number)
        if self._waiting:
            self._changed.notify()

    def broke(self, group: Group, answer: NotExecuted) -> None:
        """Running a group has failed, perhaps before it began. If it still has its claims, it lets
        go of them; those of which nothing was written get this answer, the others wait once more.
        """
        with self._changed:
            if id(group) not in self._running:
                return
            self.withdraw(group.tickets, answer)
            self.finished(group, group.tickets)

    def met_others(self, group: Group, taken: int, asked: int) -> None:
        """Of the accounts that a group has asked for, others had locked so many."""
        size = max(group.at.values())
        with self._changed:
            if size < self._filled or asked * _CALM <= taken <= asked * _CROWDED:
                return
            if taken < asked * _CALM:
                if self._group_max > self._at_each <= size:
                    self._at_each = min(self._at_each + self._at_each // 8, self._group_max)
                else:
                    self._abreast = min(self._abreast + 1, _ABREAST_MAX)
            elif self._abreast > 1:
                self._abreast = max(min(self._abreast, len(self._running)) // 2, 1)
            else:
                # By its own size: of those of one time, each would halve the room again.
                self._at_each = min(self._at_each, max(size // 2, _LEAST))

    def finished(
        self,
        group: Group,
        again: Sequence[Ticket],
        missed: Collection[str] = (),
        stuck: Collection[str] = (),
    ) -> None:
        """A group has run; those of `again` wait once more, at their old places. Others had the
        accounts locked that it has `missed`, and had those that are `stuck` locked for long.
        """
        with self._changed:
            began, _ = self._running.pop(id(group))
            self._rest(group, began)
            free = group.accounts
            if missed or stuck or self._lock_waits:
                self._learn(free, again, missed, stuck)
                free = free - self._lock_waits.kept()
            self._claimed -= free
            self._waiting.put_back([*again, *self._blocked.release(free)])
            if self._heir and self._heir not in self._claimed:
                self._claimed.add(self._heir)
                self._heir = None
                self._lock_waits_changed.notify()
            self._wake()

    # --- lock waits ----------------------------------------------------------------------------

    def _learn(
        self,
        had: set[str],
        again: Iterable[Ticket],
        missed: Collection[str],
        stuck: Collection[str],
    ) -> None:
        """Accounts that were missed once more, or by one that has missed too often, are to be
        waited for; the others that were to be tried are as any other account.
        """
        late = set(stuck)
        for ticket in again if missed else ():
            if ticket.skips > self._skips_max:
                late.update(account for account in ends(ticket) if account in missed)
        for account in had & self._lock_waits.tried():
            if account in missed:
                late.add(account)
            else:
                self._lock_waits.drop(account)
        now = time.monotonic()
        for account in late:
            self._lock_waits.keep(account, now)
            self._claimed.add(account)
            self._lock_waits_changed.notify()

    def take_lock_wait(self) -> LockWait | None:
        """Wait for an account that is to be waited for; None when the queue is closed and empty.

        It is kept until it is given to `had`, `timed_out` or `lost`.
        """
        with self._changed:
            while not (self._is_closed and not self._unsettled):
                if lock_wait := self._next_lock_wait():
                    return lock_wait
                self._lock_waits_changed.wait(_LOOK_EVERY_S if self._lock_waits else _LOOK_IDLE_S)
            return None

    def _next_lock_wait(self) -> LockWait | None:
        while account := self._lock_waits.next(time.monotonic(), self._blocked.counts):
            shard = self._shard_of(account)
            if self._trouble_with(shard) is None:
                self._lock_waits.awaited = account
                waiting = itertools.chain(self._blocked.all(), self._waiting)
                first = next((ticket for ticket in waiting if account in ends(ticket)), None)
                return LockWait(account, shard, first)
            # There is no telling now; those who want it are told of the shard.
            self._end_lock_wait(account)
        return None

    def _end_lock_wait(self, account: str) -> None:
        self._lock_waits.drop(account)
        self._claimed.discard(account)
        self._waiting.put_back(self._blocked.release({account}))
        self._wake()

    def had(self, lock_wait: LockWait) -> Group | None:
        """The account is locked by who has waited for it: gives those who want it and can run
        together now, if there are any. Their accounts are claimed as by `take`.
        """
        with self._changed:
            self._end_lock_wait(lock_wait.account)
            account = lock_wait.account
            candidates = self._candidates(self._waiting, account) or self._heirs(account)
            if not candidates:
                return None
            likes = of_one_protocol(candidates, candidates[0].protocol)
            group = Group(together(likes, self._at_each))
            self._begin(group)
            return group

    def _heirs(self, account: str) -> list[Ticket]:
        """When the other accounts of those who want this one are all at work in this process: who
        can run when the group that the first of them needs has ended, which is soon.
        """
        first = next((t for t in self._blocked.all() if account in ends(t)), None)
        if first is None:
            return []
        source, destination = ends(first)
        other = destination if source == account else source
        if self._lock_waits.keeps(other):
            return []
        self._claimed.add(account)
        self._heir = other
        has_come = self._lock_waits_changed.wait_for(lambda: self._heir is None, _HEIR_PATIENCE_S)
        self._heir = None
        free = {account, other} if has_come else {account}
        self._claimed -= free
        # Those too that others have put aside since: the one that was awaited may be among them.
        self._waiting.put_back(self._blocked.release(free))
        return self._candidates(self._waiting, account) if has_come else []

    def timed_out(self, lock_wait: LockWait) -> None:
        """Others have the account locked still."""
        with self._changed:
            self._lock_waits.timed_out(lock_wait.account, time.monotonic())
            self._blocked.lock_timed_out(lock_wait.account)
            self._changed.notify()

    def lost(self, lock_wait: LockWait) -> None:
        """Whether the account is locked is not known: it is tried as any other one."""
        with self._changed:
            self._end_lock_wait(lock_wait.account)

    def _check_lock_waits(self, now: float) -> None:
        """Let go of accounts that are to be tried, or forgotten."""
        counts = self._blocked.counts
        free = set(self._lock_waits.tries(now, counts))
        for account in self._lock_waits.forgotten(now, counts):
            if self._lock_waits.keeps(account):
                free.add(account)
            self._lock_waits.drop(account)
        self._claimed -= free
        if free:
            self._waiting.put_back(self._blocked.release(free))

    def hold_back(self, tickets: Iterable[Ticket]) -> None:
        """These are left to be finished later, though their group ends: what comes after them in
        their batches on the same accounts waits until `let_go`.
        """
        with self._changed:
            of_batches = [ticket for ticket in tickets if ticket.batch is not None]
            self._left.update((id(ticket), ticket) for ticket in of_batches)

    def let_go(self, tickets: Iterable[Ticket]) -> None:
        """These are finished, or run again."""
        with self._changed:
            for ticket in tickets:
                self._left.pop(id(ticket), None)
            self._wake()

    def put_back(self, again: Iterable[Ticket]) -> None:
        """Tickets of a group that has been settled after it was finished wait once more."""
        with self._changed:
            self._waiting.put_back(again)
            self._wake()

    def _wake(self) -> None:
        """One is enough: it wakes the next one if it leaves something that waits."""
        self._lingers_until = 0.0
        if self._is_closed:
            self._changed.notify_all()
        else:
            self._changed.notify()

    def close(self, deadline: float) -> bool:
        """Take nothing more and wait until all is answered, or the deadline; says whether it is."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._lock_waits_changed.notify_all()
            return self._changed.wait_for(
                lambda: not self._unsettled,
                max(deadline - time.monotonic(), 0),
            )

    # --- which may run together -------------------------------------------------------------

    def _pick(self) -> Group | None:
        now = time.monotonic()
        if self._lock_waits:
            self._check_lock_waits(now)
        if now - self._last_single < _SINGLES_COME_S:
            candidates = self._beside_singles(now)
        else:
            candidates = self._candidates(self._waiting)
        if not candidates:
            return None
        likes = of_one_protocol(candidates, candidates[0].protocol)
        return Group(together(as_slow(likes, self._slow), self._at_each))

    def _beside_singles(self, now: float) -> list[Ticket]:
        """While single transfers come: these, or those of batches, whatever is first. Who has sent
        one waits for it, and not for the many of a batch; few of these may come along. Groups of
        many go one after the other, with rests: they share one processor, with the single ones too.
        """
        lanes = self._waiting
        singles = self._candidates(lanes.singles)
        if not lanes.of_batches:
            return singles
        if len(lanes.of_batches) > _BESIDE_SINGLES_MAX and self._is_taken_by_many(now):
            return singles
        is_first = bool(singles) and singles[0].number <= lanes.of_batches[0].number
        most = _BESIDE_SINGLES_MAX + 1 if is_first else _BATCHES_MAX
        some = self._candidates(lanes.of_batches, most=most)
        if len(some) <= _BESIDE_SINGLES_MAX:
            return sorted([*singles, *some], key=NUMBER)
        return singles if is_first else some

    def _is_taken_by_many(self, now: float) -> bool:
        """Whether a large group of batches runs, or they rest after one."""
        recent = now - _LARGE_RECENT_S
        running = self._running.values()
        return now < self._rest_until or any(began > recent and _is_many(g) for began, g in running)

    def _rest(self, group: Group, began: float) -> None:
        """After a large group of batches single transfers have the processor for as long."""
        if _is_many(group):
            now = time.monotonic()
            self._rest_until = now + min(now - began, _LARGE_RECENT_S)

    def _candidates(
        self, tickets: Iterable[Ticket], wanted: str | None = None, most: int | None = None
    ) -> list[Ticket]:
        """Those of some that wait whose accounts are free in this process and whose shards can be
        used, in order; which want one account, if it is named; and so many at most.
        """
        now = time.monotonic()
        troubles = _Troubles(self._trouble_with)
        self._slow = self._slow_shards()
        is_crowded = self._is_crowded()
        found: list[Ticket] = []
        order = BatchOrder(self._left.values())
        blocked, claimed = self._blocked, self._claimed
        room = Room(self._at_each)
        kept: list[tuple[Ticket, str]] = []
        gone: list[Ticket] = []
        for ticket in tickets:
            if self._is_over(ticket, now):
                gone.append(ticket)
                continue
            transfer = ticket.transfer
            source, destination = transfer.source, transfer.destination
            is_kept = source in claimed or destination in claimed
            if (
                is_kept
                or (wanted is not None and wanted not in (source, destination))
                or ticket.not_before > now
                or (
                    ticket.batch is not None
                    and ((order and order.blocks(ticket)) or blocked.are_before(ticket))
                )
                or self._has_trouble(ticket, troubles)
                or (is_crowded and not self._slow.isdisjoint(ticket.shards))
            ):
                if is_kept:
                    kept.append((ticket, source if source in claimed else destination))
                    gone.append(ticket)
                if ticket.batch is not None:
                    order.hold(ticket)
                continue
            found.append(ticket)
            if room.takes_last(ticket) or len(found) == most:
                break
        for ticket, account in kept:
            blocked.add(ticket, account)
        if gone:
            self._waiting.remove(gone)
        return found

    def _is_crowded(self) -> bool:
        """Whether enough groups wait for slow shards."""
        waiting = sum(not self._slow.isdisjoint(group.at) for _, group in self._running.values())
        return bool(self._slow) and waiting >= self._slow_max

    def _is_over(self, ticket: Ticket, now: float) -> bool:
        """Whether a ticket has its answer; gives it one if its time has run out."""
        if ticket.state is State.OPEN and ticket.deadline <= now:
            self._settle(ticket, too_late(ticket))
        return ticket.state is State.DONE

    def _has_trouble(self, ticket: Ticket, troubles: "_Troubles") -> bool:
        """Whether a shard of the ticket cannot be used; after some patience, answers it."""
        transfer = ticket.transfer
        source, destination = self._shard_of(transfer.source), self._shard_of(transfer.destination)
        ticket.shards = (source, destination)
        ticket.protocol = transfer.protocol if source != destination else XA
        for shard in ticket.shards:
            if trouble := troubles[shard]:
                reason, since_s = trouble
                if ticket.state is State.OPEN and since_s > self._shard_patience_s:
                    detail = f"shard {shard} takes no transfers now: {reason}"
                    self._settle(ticket, NotExecuted(NotExecutedReason.SHARD_UNAVAILABLE, detail))
                return True
        return False

    def _pause(self) -> float:
        """How long nothing can change by itself, in seconds."""
        now = time.monotonic()
        pause = 1.0
        if self._waiting:
            later = (t.not_before - now for t in self._waiting if t.not_before > now)
            pause = min(later, default=PAUSE_MAX_S)
            if self._rest_until > now:
                pause = min(pause, self._rest_until - now)
        if self._lock_waits:
            next_at = self._lock_waits.next_at(self._blocked.counts)
            pause = min(pause, next_at - now) if next_at is not None else pause
        return max(pause, PAUSE_MIN_S)


def _is_many(group: Group) -> bool:
    """Whether more of batches are in it than may be beside single transfers."""
    return sum(ticket.batch is not None for ticket in group.tickets) > _BESIDE_SINGLES_MAX


class _Troubles(dict[str, tuple[str, float] | None]):
    """What `trouble_with` says of each shard at one moment: asked once, not for every ticket."""

    def __init__(self, trouble_with: Callable[[str], tuple[str, float] | None]) -> None:
        super().__init__()
        self._trouble_with = trouble_with

    def __missing__(self, shard: str) -> tuple[str, float] | None:
        self[shard] = self._trouble_with(shard)
        return self[shard]
