"""What waits to be executed, and which of it may run together.

A ticket is one transfer on its way. Its state changes by compare-and-set under the queue's lock,
so that a transfer that a client was told is withdrawn is never written.
"""

import itertools
import random
import threading
import time
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

from coordinator.callers import Callers
from coordinator.line import Line
from coordinator.telemetry.tracing import Origin
from ledger.model import Refusal, Transfer
from shard_client.transfers import StoredTransfer

# The pause before a transfer that found its accounts taken is tried again, in seconds: random,
# and growing with every try, so that groups that hold what the others need part ways.
_PAUSE_MIN_S = 0.002
_PAUSE_MAX_S = 0.1
# A group costs a shard much the same whether it has one transfer or fifty there. So one that has
# fewer than so many at a shard, on average, waits for company while a young one is at its shards;
# what waits goes together when that one ends.
_SMALL = 100
_YOUNG_S = 0.03
# A group by TC/C or Saga visits its shards more often, and is longer on its way.
_YOUNG_PHASED_S = 0.12
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
_BATCHES_MAX = 500
# And it has no other one beside it, unless that is older than this: such a one waits for a shard.
_LARGE_YOUNG_S = 0.25
_SINGLES_COME_S = 1.0
# So many at most come to their places one by one; of more, all that waits is sorted.
_FEW = 16
# How often is looked whether an account is to be waited for, and when there is none.
_LINE_PAUSE_S = 0.1
_LINE_IDLE_S = 1.0
# So long is a lock in hand, while a group of this process ends that has the other account.
_HEIR_PATIENCE_S = 0.25


# The way of two-phase commit, and of what is on one shard.
ALONE = "xa"

_NUMBER = attrgetter("number")


class State(Enum):
    OPEN = "nothing was written for it"
    SENT = "it may have been written"
    DONE = "it has an answer"


class Settled(NamedTuple):
    """The transfer has its final outcome, and it is durable."""

    stored: StoredTransfer
    is_replay: bool


class Refused(NamedTuple):
    """Refused for good, without a record of its own."""

    refusal: Refusal


class Excuse(Enum):
    """Why nothing has happened."""

    ACCOUNT_BUSY = "account-busy"
    SHARD_UNAVAILABLE = "shard-unavailable"
    INTERNAL_ERROR = "internal-error"
    KEY_IN_USE = "idempotency-key-in-use"


class NotDone(NamedTuple):
    """Nothing has happened by this request; it may be sent again."""

    excuse: Excuse
    detail: str


Answer = Settled | Refused | NotDone

TOO_LATE = NotDone(
    Excuse.ACCOUNT_BUSY, "its accounts stayed locked by other transfers until its deadline"
)
_IN_FRONT = NotDone(Excuse.ACCOUNT_BUSY, "other transfers were in front of it until its deadline")


def in_use(asked: Transfer) -> NotDone:
    """Another request with this key is on its way, and nothing is recorded of it: whatever this one
    asks for, it may be what becomes of the key.
    """
    detail = (
        f"a request with the key {asked.key!r} of {asked.source} is being worked on at this moment"
    )
    return NotDone(Excuse.KEY_IN_USE, detail)


class Latch:
    """Opens when it has been counted down to zero."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self._opened = threading.Event()
        if count == 0:
            self._opened.set()

    def count_down(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._opened.set()

    def wait(self, deadline: float) -> bool:
        """Wait until it is open, or the deadline; says whether it is open."""
        return self._opened.wait(max(deadline - time.monotonic(), 0))


class Ticket:
    """One transfer on its way through the coordinator."""

    __slots__ = (
        "answer",
        "asked",
        "batch",
        "caller",
        "deadline",
        "gtrid",
        "has_waited",
        "hindrance",
        "is_pending_told",
        "latch",
        "limit",
        "not_before",
        "number",
        "origin",
        "request_id",
        "shards",
        "skips",
        "state",
        "transfer",
        "waits",
        "way",
    )

    def __init__(
        self,
        transfer: Transfer,
        deadline: float,
        latch: Latch,
        batch: object,
        request_id: str | None = None,
        origin: Origin | None = None,
        default: str = ALONE,
        caller: str = "",
    ) -> None:
        # As it was asked for: without a protocol, if none was named, and with the default then.
        self.asked = transfer
        named = transfer.protocol
        self.transfer = transfer if named else transfer._replace(protocol=default)
        self.deadline = deadline
        self.latch = latch
        # Of the request that it came with; the origin if that is traced.
        self.request_id = request_id
        self.origin = origin
        # Transfers of one batch that share accounts keep their order.
        self.batch = batch
        # With whom it shares its part of the turns and of the room.
        self.caller = caller
        self.state = State.OPEN
        self.answer: Answer | None = None
        # Its turn; those of a batch count up.
        self.number = 0
        self.shards: tuple[str, str] = ("", "")
        # The protocol by which it runs: on one shard nothing has to be agreed upon.
        self.way = ALONE
        # How often it was passed over, and how often one of its accounts was waited for in vain.
        self.skips = 0
        self.waits = 0
        self.not_before = 0.0
        # Why it has to wait once more, if not for the accounts that others have locked.
        self.hindrance: NotDone | None = None
        # How large a group it may be part of: halved when one member may have spoilt the group.
        self.limit = 1 << 30
        # A group by phases could not decide it, as its account lacked what one before it in its
        # batch might bring.
        self.has_waited = False
        # The group that may have written it last: an outcome from there is no replay.
        self.gtrid = ""
        # Its client was told "pending" and may ask or send again.
        self.is_pending_told = False


def too_late(ticket: Ticket) -> NotDone:
    """What a ticket is answered of which nothing was written until its deadline."""
    was_tried = ticket.skips or ticket.waits
    return ticket.hindrance or (TOO_LATE if was_tried else _IN_FRONT)


@dataclass(frozen=True)
class Group:
    """Tickets to be committed together, in their order."""

    tickets: list[Ticket]

    @cached_property
    def way(self) -> str:
        """The protocol by which it runs: that of the first one that is not on one shard."""
        return next((ticket.way for ticket in self.tickets if ticket.way != ALONE), ALONE)

    @cached_property
    def at(self) -> Counter[str]:
        """How many of its tickets are at each of its shards."""
        return Counter(shard for ticket in self.tickets for shard in set(ticket.shards))

    @cached_property
    def accounts(self) -> set[str]:
        return {
            account
            for ticket in self.tickets
            for account in (ticket.transfer.source, ticket.transfer.destination)
        }


class Turn(NamedTuple):
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
        self._small = min(_SMALL, group_max)
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
        self._line_changed = threading.Condition(lock)
        self._waiting: list[Ticket] = []
        # By the groups that run, and by the line: what it keeps is nobody's to try.
        self._claimed: set[str] = set()
        self._blocked = _Blocked()
        self._line = Line()
        # What goes, as soon as it is free, to whoever has waited for another account.
        self._heir: str | None = None
        self._last_single = 0.0
        # The groups that run, and when they were taken.
        self._running: dict[int, tuple[float, Group]] = {}
        # Until then a small group waits for company, and nobody need be woken before it has enough.
        self._in_company_at = 0.0
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
            self._enter(self._without_crowd(tickets) if self._line else tickets)
            self._lacking -= count
            if self._lacking <= 0 or now > self._in_company_at:
                self._changed.notify()

    def _check_room(self, caller: str, count: int) -> None:
        """Raise Overloaded if so many more of a caller may not wait."""
        counts = self._blocked.counts
        kept = sum(counts[account] for account in self._line.stuck()) if self._line else 0
        why = self._callers.no_room(caller, count, self.waiting - kept, kept)
        if why:
            raise Overloaded(why)

    def _enter(self, tickets: Sequence[Ticket]) -> None:
        """Put tickets, which are in order, to their places among those that wait."""
        waiting = self._waiting
        if not waiting or not tickets or waiting[-1].number <= tickets[0].number:
            waiting.extend(tickets)
        elif len(tickets) < _FEW:
            for ticket in tickets:
                insort(waiting, ticket, key=_NUMBER)
        else:
            self._put_back(tickets)

    def _without_crowd(self, tickets: Sequence[Ticket]) -> Sequence[Ticket]:
        """Without those that want an account that others keep locked and too many wait for: these
        are answered.
        """
        counts = self._blocked.counts
        room = {account: self._stuck_max - counts[account] for account in self._line.stuck()}
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
            counts = [self._blocked.counts[account] for account in self._line.stuck()]
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

    def withdraw(self, tickets: Iterable[Ticket], answer: NotDone | None = None) -> None:
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
            self._line_changed.notify_all()
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
                wait_s = self._wait_for_company(group) if group else self._pause()
                if group and not wait_s:
                    self._begin(group)
                    return group
                if self._is_closed and not self._unsettled:
                    return None
                self._in_company_at = time.monotonic() + wait_s if group else 0.0
                self._lacking = self._missing(group) if group else 0
                self._changed.wait(wait_s)

    def _wait_for_company(self, group: Group) -> float:
        """How long a group would better wait for others to join it, in seconds."""
        if not self._is_small(group):
            return self._wait_for_room(group)
        ends = [
            began + (_YOUNG_S if other.way == ALONE else _YOUNG_PHASED_S)
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
            if max(other.at.values()) >= self._small
        )
        return beside[-self._abreast] + _OLD_S - now if len(beside) >= self._abreast else 0.0

    def _is_small(self, group: Group) -> bool:
        """Whether it has room for more, and too few for what it costs its shards."""
        is_full = max(group.at.values()) >= self._at_each
        limit = min(ticket.limit for ticket in group.tickets)
        is_limited = len(group.tickets) >= limit
        return not (is_full or is_limited) and self._missing(group) > 0

    def _missing(self, group: Group) -> int:
        """How many more it takes at least until it has enough for what it costs its shards."""
        return (self._small * len(group.at) - group.at.total() + 1) // 2

    def _begin(self, group: Group) -> None:
        taken, accounts = set(map(id, group.tickets)), group.accounts
        self._waiting = [ticket for ticket in self._waiting if id(ticket) not in taken]
        self._claimed |= accounts
        self._running[id(group)] = (time.monotonic(), group)
        self._in_company_at = 0.0
        self._callers.took(group.tickets[-1].number)
        if self._waiting:
            self._changed.notify()

    def broke(self, group: Group, answer: NotDone) -> None:
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
            if size < self._small or asked * _CALM <= taken <= asked * _CROWDED:
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
            del self._running[id(group)]
            free = group.accounts
            if missed or stuck or self._line:
                self._learn(free, again, missed, stuck)
                free = free - self._line.kept()
            self._claimed -= free
            self._put_back([*again, *self._blocked.release(free)])
            if self._heir and self._heir not in self._claimed:
                self._claimed.add(self._heir)
                self._heir = None
                self._line_changed.notify()
            self._wake()

    # --- in line ----------------------------------------------------------------------------

    def _learn(
        self,
        had: set[str],
        again: Iterable[Ticket],
        missed: Collection[str],
        stuck: Collection[str],
    ) -> None:
        """Accounts that were missed once more, or by one that has missed too often, are kept in
        line; the others that were to be tried are as any other account.
        """
        late = set(stuck)
        for ticket in again if missed else ():
            if ticket.skips > self._skips_max:
                late.update(account for account in _ends(ticket) if account in missed)
        for account in had & self._line.tried():
            if account in missed:
                late.add(account)
            else:
                self._line.drop(account)
        now = time.monotonic()
        for account in late:
            self._line.keep(account, now)
            self._claimed.add(account)
            self._line_changed.notify()

    def take_in_line(self) -> Turn | None:
        """Wait for an account that is to be waited for; None when the queue is closed and empty.

        It is kept until it is given to `had`, `in_vain` or `lost`.
        """
        with self._changed:
            while not (self._is_closed and not self._unsettled):
                if turn := self._next_in_line():
                    return turn
                self._line_changed.wait(_LINE_PAUSE_S if self._line else _LINE_IDLE_S)
            return None

    def _next_in_line(self) -> Turn | None:
        while account := self._line.next(time.monotonic(), self._blocked.counts):
            shard = self._shard_of(account)
            if self._trouble_with(shard) is None:
                self._line.awaited = account
                waiting = itertools.chain(self._blocked.all(), self._waiting)
                first = next((ticket for ticket in waiting if account in _ends(ticket)), None)
                return Turn(account, shard, first)
            # There is no telling now; those who want it are told of the shard.
            self._leave_line(account)
        return None

    def _leave_line(self, account: str) -> None:
        self._line.drop(account)
        self._claimed.discard(account)
        self._put_back(self._blocked.release({account}))
        self._wake()

    def had(self, turn: Turn) -> Group | None:
        """The account is locked by who has waited for it: gives those who want it and can run
        together now, if there are any. Their accounts are claimed as by `take`.
        """
        with self._changed:
            self._leave_line(turn.account)
            candidates = self._candidates(turn.account) or self._heirs(turn.account)
            if not candidates:
                return None
            likes = _of_one_way(candidates, candidates[0].way)
            group = Group(_together(likes, self._at_each))
            self._begin(group)
            return group

    def _heirs(self, account: str) -> list[Ticket]:
        """When the other accounts of those who want this one are all at work in this process: who
        can run when the group that the first of them needs has ended, which is soon.
        """
        first = next((t for t in self._blocked.all() if account in _ends(t)), None)
        if first is None:
            return []
        source, destination = _ends(first)
        other = destination if source == account else source
        if self._line.keeps(other):
            return []
        self._claimed.add(account)
        self._heir = other
        has_come = self._line_changed.wait_for(lambda: self._heir is None, _HEIR_PATIENCE_S)
        self._heir = None
        free = {account, other} if has_come else {account}
        self._claimed -= free
        # Those too that others have put aside since: the one that was awaited may be among them.
        self._put_back(self._blocked.release(free))
        return self._candidates(account) if has_come else []

    def in_vain(self, turn: Turn) -> None:
        """Others have the account locked still."""
        with self._changed:
            self._line.in_vain(turn.account, time.monotonic())
            self._blocked.waited_in_vain(turn.account)
            self._changed.notify()

    def lost(self, turn: Turn) -> None:
        """Whether the account is locked is not known: it is tried as any other one."""
        with self._changed:
            self._leave_line(turn.account)

    def _see_to_line(self, now: float) -> None:
        """Let go of accounts that are to be tried, or forgotten."""
        counts = self._blocked.counts
        free = set(self._line.tries(now, counts))
        for account in self._line.forgotten(now, counts):
            if self._line.keeps(account):
                free.add(account)
            self._line.drop(account)
        self._claimed -= free
        if free:
            self._put_back(self._blocked.release(free))

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
            self._put_back(again)
            self._wake()

    def _wake(self) -> None:
        """One is enough: it wakes the next one if it leaves something that waits."""
        self._in_company_at = 0.0
        if self._is_closed:
            self._changed.notify_all()
        else:
            self._changed.notify()

    def _put_back(self, again: Iterable[Ticket]) -> None:
        self._waiting.extend(ticket for ticket in again if ticket.state is not State.DONE)
        self._waiting.sort(key=_NUMBER)

    def close(self, deadline: float) -> bool:
        """Take nothing more and wait until all is answered, or the deadline; says whether it is."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._line_changed.notify_all()
            return self._changed.wait_for(
                lambda: not self._unsettled,
                max(deadline - time.monotonic(), 0),
            )

    # --- which may run together -------------------------------------------------------------

    def _pick(self) -> Group | None:
        now = time.monotonic()
        if self._line:
            self._see_to_line(now)
        candidates: Sequence[Ticket] = self._candidates()
        if not candidates:
            return None
        if now - self._last_single < _SINGLES_COME_S:
            candidates = self._beside_singles(candidates)
            if not candidates:
                return None
        likes = _of_one_way(candidates, candidates[0].way)
        return Group(_together(_as_slow(likes, self._slow), self._at_each))

    def _beside_singles(self, candidates: Sequence[Ticket]) -> Sequence[Ticket]:
        """While single transfers come: these, or those of batches, whatever is first. Who has sent
        one waits for it, and not for the many of a batch; few of these may come along. Groups of
        many go one after the other: they share one processor, with the single ones too.
        """
        of_batches = [ticket for ticket in candidates if ticket.batch is not None]
        if len(of_batches) <= _BESIDE_SINGLES_MAX:
            return candidates
        young = time.monotonic() - _LARGE_YOUNG_S
        has_large = any(
            began > young and len(group.tickets) > _BESIDE_SINGLES_MAX
            for began, group in self._running.values()
        )
        if candidates[0].batch is None or has_large:
            return [ticket for ticket in candidates if ticket.batch is None]
        return of_batches[:_BATCHES_MAX]

    def _candidates(self, wanted: str | None = None) -> list[Ticket]:
        """Those whose accounts are free in this process and whose shards can be used, in order; and
        which want one account, if it is named.
        """
        now = time.monotonic()
        troubles = _Troubles(self._trouble_with)
        self._slow = self._slow_shards()
        is_crowded = self._is_crowded()
        found: list[Ticket] = []
        held = {place for ticket in self._left.values() for place in _places(ticket)}
        blocked, claimed = self._blocked, self._claimed
        room = _Room(self._at_each)
        kept: list[tuple[Ticket, str]] = []
        gone: set[int] = set()
        for ticket in self._waiting:
            if self._is_over(ticket, now):
                gone.add(id(ticket))
                continue
            transfer = ticket.transfer
            source, destination = transfer.source, transfer.destination
            is_kept = source in claimed or destination in claimed
            if (
                is_kept
                or (wanted is not None and wanted not in (source, destination))
                or ticket.not_before > now
                or (ticket.batch is not None and self._is_behind(ticket, held))
                or self._has_trouble(ticket, troubles)
                or (is_crowded and not self._slow.isdisjoint(ticket.shards))
            ):
                if is_kept:
                    kept.append((ticket, source if source in claimed else destination))
                    gone.add(id(ticket))
                if ticket.batch is not None:
                    held.update(_places(ticket))
                continue
            found.append(ticket)
            if room.takes_last(ticket):
                break
        for ticket, account in kept:
            blocked.add(ticket, account)
        if gone:
            self._waiting = [ticket for ticket in self._waiting if id(ticket) not in gone]
        return found

    def _is_crowded(self) -> bool:
        """Whether enough groups wait for slow shards."""
        waiting = sum(not self._slow.isdisjoint(group.at) for _, group in self._running.values())
        return bool(self._slow) and waiting >= self._slow_max

    def _is_behind(self, ticket: Ticket, held: set[tuple[int, str]]) -> bool:
        """Whether one before it in its batch that wants one of its accounts has to wait."""
        if held and not held.isdisjoint(_places(ticket)):
            return True
        return self._blocked.are_before(ticket)

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
        ticket.way = transfer.protocol if source != destination else ALONE
        for shard in ticket.shards:
            if trouble := troubles[shard]:
                reason, since_s = trouble
                if ticket.state is State.OPEN and since_s > self._shard_patience_s:
                    detail = f"shard {shard} takes no transfers now: {reason}"
                    self._settle(ticket, NotDone(Excuse.SHARD_UNAVAILABLE, detail))
                return True
        return False

    def _pause(self) -> float:
        """How long nothing can change by itself, in seconds."""
        now = time.monotonic()
        pause = 1.0
        if self._waiting:
            later = (t.not_before - now for t in self._waiting if t.not_before > now)
            pause = min(later, default=_PAUSE_MAX_S)
        if self._line:
            next_at = self._line.next_at(self._blocked.counts)
            pause = min(pause, next_at - now) if next_at is not None else pause
        return max(pause, _PAUSE_MIN_S)


class _Blocked:
    """Tickets that want an account of a group that runs, by that account: nobody need look at them
    before it is free.
    """

    def __init__(self) -> None:
        self._by_account: defaultdict[str, list[Ticket]] = defaultdict(list)
        # The accounts of those without an answer, by identity, and how many want each: what has
        # its answer stays till its account is free, and takes no room.
        self._open: dict[int, str] = {}
        self.counts: Counter[str] = Counter()
        # The numbers of those of a batch that want one account, in order.
        self._places: dict[tuple[int, str], list[int]] = {}

    @property
    def count(self) -> int:
        """How many are here that have no answer."""
        return len(self._open)

    def answered(self, ticket: Ticket) -> None:
        """A ticket, whether it is here or not, has its answer."""
        account = self._open.pop(id(ticket), None)
        if account is not None:
            self._uncount(account)

    def _uncount(self, account: str) -> None:
        self.counts[account] -= 1
        if not self.counts[account]:
            del self.counts[account]

    def all(self) -> Iterator[Ticket]:
        """Those that have no answer."""
        every = itertools.chain.from_iterable(self._by_account.values())
        return (ticket for ticket in every if ticket.state is not State.DONE)

    def waited_in_vain(self, account: str) -> None:
        """Count it for those that this account keeps, and forget those that have their answers."""
        for ticket in self.release({account}):
            if ticket.state is not State.DONE:
                ticket.waits += 1
                self.add(ticket, account)

    def add(self, ticket: Ticket, account: str) -> None:
        self._by_account[account].append(ticket)
        self._open[id(ticket)] = account
        self.counts[account] += 1
        for place in _places(ticket) if ticket.batch is not None else ():
            insort(self._places.setdefault(place, []), ticket.number)

    def are_before(self, ticket: Ticket) -> bool:
        """Whether one is here that is before it in its batch and wants one of its accounts."""
        if not self._places:
            return False
        found = map(self._places.get, _places(ticket))
        return any(numbers is not None and numbers[0] < ticket.number for numbers in found)

    def release(self, accounts: set[str]) -> list[Ticket]:
        """Give back those that these accounts have kept."""
        free = [
            ticket
            for account in accounts & self._by_account.keys()
            for ticket in self._by_account.pop(account)
        ]
        for ticket in free:
            self.answered(ticket)
            for place in _places(ticket) if ticket.batch is not None else ():
                numbers = self._places[place]
                del numbers[bisect_left(numbers, ticket.number)]
                if not numbers:
                    del self._places[place]
        return free


class _Troubles(dict[str, tuple[str, float] | None]):
    """What `trouble_with` says of each shard at one moment: asked once, not for every ticket."""

    def __init__(self, trouble_with: Callable[[str], tuple[str, float] | None]) -> None:
        super().__init__()
        self._trouble_with = trouble_with

    def __missing__(self, shard: str) -> tuple[str, float] | None:
        self[shard] = self._trouble_with(shard)
        return self[shard]


class _Room:
    """The room of a group: for so many tickets at each shard."""

    def __init__(self, at_each: int) -> None:
        self._at_each = at_each
        self._taken: defaultdict[str, int] = defaultdict(int)

    def takes_last(self, ticket: Ticket) -> bool:
        """Give a ticket its room; says whether it has taken the last that a shard had."""
        source, destination = ticket.shards
        taken = self._taken
        taken[source] += 1
        if destination != source:
            taken[destination] += 1
        return taken[source] >= self._at_each or taken[destination] >= self._at_each


def _of_one_way(candidates: Sequence[Ticket], way: str) -> Sequence[Ticket]:
    """Those that can run by this protocol in one group, in their order.

    By two-phase commit a group is decided as a whole, one transfer after the other. By the others
    all that leave an account are tried before any arrives: an account pays with what it has before
    the group, and one that lacks what a batch is to bring it waits. It comes in a later group then.
    What else a batch of theirs has within one shard, or by the other one of them, goes with them:
    it may have to come between.
    """
    if way == ALONE and all(ticket.way == ALONE for ticket in candidates):
        return candidates
    phased = [ticket for ticket in candidates if ticket.way != ALONE] if way != ALONE else []
    mixed = {id(ticket.batch) for ticket in phased if ticket.batch is not None}
    chosen: list[Ticket] = []
    receiving: set[tuple[int, str]] = set()
    held: set[tuple[int, str]] = set()
    for ticket in candidates:
        keys = _places(ticket)
        goes = ticket.way == way or (id(ticket.batch) in mixed and not _is_agreed_upon(ticket))
        can_pay = way == ALONE or not ticket.has_waited or keys[0] not in receiving
        if goes and can_pay and held.isdisjoint(keys):
            chosen.append(ticket)
            # Within one shard it arrives at once.
            if ticket.batch is not None and ticket.way != ALONE:
                receiving.add(keys[1])
        elif ticket.batch is not None:
            held.update(keys)
    return chosen


def _as_slow(candidates: Sequence[Ticket], slow: set[str]) -> Sequence[Ticket]:
    """Those that wait for the same slow shards as the first, and have nobody of their own batch
    before them who is left out.
    """
    if not slow:
        return candidates
    waits_for = slow.intersection(candidates[0].shards)
    chosen: list[Ticket] = []
    held: set[tuple[int, str]] = set()
    for ticket in candidates:
        if slow.intersection(ticket.shards) == waits_for and held.isdisjoint(_places(ticket)):
            chosen.append(ticket)
        elif ticket.batch is not None:
            held.update(_places(ticket))
    return chosen


def _is_agreed_upon(ticket: Ticket) -> bool:
    """Whether it runs by two-phase commit across shards."""
    return ticket.way == ALONE and ticket.shards[0] != ticket.shards[1]


def _ends(ticket: Ticket) -> tuple[str, str]:
    return ticket.transfer.source, ticket.transfer.destination


def _places(ticket: Ticket) -> list[tuple[int, str]]:
    """A ticket's accounts within its batch."""
    batch = id(ticket.batch)
    return [(batch, ticket.transfer.source), (batch, ticket.transfer.destination)]


def _together(candidates: Sequence[Ticket], group_max: int) -> list[Ticket]:
    """Which candidates to commit together with the first of them.

    Transfers across shards share one global transaction, and those within one of its shards ride
    along. A first one within one shard that no other leaves takes only its likes: they cost one
    local transaction. What is left out touches other shards, or comes after all that is chosen,
    so no order among shared accounts is lost.
    """
    first = candidates[0]
    crossing = {shard for t in candidates if t.shards[0] != t.shards[1] for shard in t.shards}
    shards = crossing if crossing.intersection(first.shards) else set(first.shards)
    chosen: list[Ticket] = []
    room = _Room(group_max)
    limit = candidates[0].limit
    for ticket in candidates:
        if shards.issuperset(ticket.shards):
            limit = min(limit, ticket.limit)
            if len(chosen) >= limit:
                break
            chosen.append(ticket)
            if room.takes_last(ticket):
                break
    return chosen


def too_crowded(account: str, limit: int) -> NotDone:
    """What is told of a transfer that is one too many for an account."""
    detail = f"account {account} stays locked, and {limit} transfers wait for it in this process"
    return NotDone(Excuse.ACCOUNT_BUSY, detail)


def pause_after(skips: int, chance: Callable[[], float] = random.random) -> float:
    """How long to leave a transfer alone that was passed over `skips` times, in seconds."""
    pause: float = min(_PAUSE_MIN_S * 2 ** min(skips, 10), _PAUSE_MAX_S)
    return pause * chance()
