"""Reads of many accounts as they all stood at one moment, snapshot reads (rule R10).

One read is on its way at a time in a process; those that wait meanwhile go together in the next
one. It locks the accounts of all, without waiting, and settles each of which no account was locked
by somebody else. The others pause and try again; one whose tries have all failed goes alone and
waits for the locks. Before it does it waits for each of those that were locked, with no lock in its
hand: so nobody waits for long for a read that waits for what is stuck.
"""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from coordinator.engine.in_flight import as_whole, hangs_on_step
from coordinator.shards.registry import Shards
from ledger.model import Account
from shard_client.errors import (
    ALL_SHARDS,
    ShardError,
    ShardUnavailable,
    SlotMoved,
    StatementRefused,
    TryAgain,
    is_busy,
)
from shard_client.node import ReadHold, ShardCalls
from shard_client.records import Held, PhaseRow, StepRow

T = TypeVar("T")

_CALL_TIMEOUT_S = 3.0
_TIMEOUT_S = 5.0
_PAUSE_S = 0.02
# Tries without waiting for locks.
_TRIES_FREE = 3
# So long nobody waits again for an account that was waited for in vain.
_STUCK_S = 0.5
# Accounts that are read together at most; one request has no more.
_TOGETHER_MAX = 1000

_LOCKED = "the accounts stayed locked by transfers"
_IN_FRONT = "other reads of many accounts are in front of this one"

# Shard -> its accounts among those that are read.
AccountsByShard = dict[str, list[str]]
# Those with which a read holds its locks, by their shards.
Holds = dict[str, ReadHold]


class SnapshotRead(NamedTuple):
    """What was seen while all its accounts were locked.

    `busy` accounts were locked by somebody else, and the snapshot says nothing of them; `rows` are
    unfinished transfers, from or to others too, and `steps` how far these are. Of accounts in
    `unknown` it is not known what they have: a shard that has to say it could not be asked.
    """

    accounts: dict[str, Account]
    busy: set[str]
    rows: list[PhaseRow]
    steps: list[StepRow]
    unknown: Mapping[str, ShardError] = MappingProxyType({})

    def of(self, names: set[str]) -> dict[str, Account] | None:
        """Those of these accounts that exist; None if one of them was busy. Raises ShardError if
        one is unknown.
        """
        if not names.isdisjoint(self.busy):
            return None
        for name in names & self.unknown.keys():
            raise self.unknown[name]
        found = {name: self.accounts[name] for name in names & self.accounts.keys()}
        expecting = {name for name, account in found.items() if account.expected}
        rows = [
            row
            for row in self.rows
            if row.transfer.source in names or row.transfer.destination in expecting
        ]
        return as_whole(found, rows, self.steps)


class _Request:
    """Accounts that somebody waits for."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.tries = 0
        # It is part of the read that is on its way.
        self.is_taken = False
        self.found: dict[str, Account] | None = None
        # Which of its accounts others had locked when it was tried last.
        self.busy: set[str] = set()
        # Why a shard cannot be used, or asked this.
        self.error: ShardError | None = None
        # Why it has no answer so far, and whether for what others do.
        self.delay = _IN_FRONT
        self.is_kept_by_others = True

    @property
    def waits_for_locks(self) -> bool:
        """Whether it waits for locks, and so for itself."""
        return self.tries >= _TRIES_FREE


class SnapshotReads:
    """See the module."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._changed = threading.Condition()
        # A read holds locks on several shards: one at a time is enough.
        self._is_reading = False
        self._has_waited = False
        # Those that wait for their turn, or to be taken along.
        self._waiting: list[_Request] = []
        # One feels whether accounts are free, at a time; until when those that are not are left.
        self._feeling = threading.Lock()
        self._stuck: dict[str, float] = {}

    def read(self, accounts: Iterable[str]) -> dict[str, Account]:
        """Those of these accounts that exist, as they all stood at one moment.

        Raises TryAgain if they stay too busy, and ShardUnavailable.
        """
        request = _Request(set(accounts))
        give_up = time.monotonic() + _TIMEOUT_S
        while True:
            if self._is_worth_a_try(request, give_up) and self._take_turn(request, give_up):
                self._run(request)
            if request.found is not None:
                return request.found
            if error := request.error:
                # Several may have the same one.
                raise ShardUnavailable(error.shard, error.text, code=error.code) from error
            if time.monotonic() > give_up:
                kind = TryAgain if request.is_kept_by_others else ShardUnavailable
                raise kind(ALL_SHARDS, request.delay)
            time.sleep(_PAUSE_S * random.random() * 2 ** min(request.tries, 4))

    def _is_worth_a_try(self, request: _Request, give_up: float) -> bool:
        """Whether what was locked is free by now, before a request holds locks while it waits. It
        waits for one at a time, and holds none meanwhile.
        """
        if not request.waits_for_locks:
            return True
        if not self._feeling.acquire(blocking=False):
            return False
        try:
            now = time.monotonic()
            self._stuck = {name: until for name, until in self._stuck.items() if until > now}
            if not request.busy.isdisjoint(self._stuck):
                return False
            for account in sorted(request.busy):
                if time.monotonic() > give_up:
                    return False
                if not self._can_be_had(account):
                    self._stuck[account] = time.monotonic() + _STUCK_S
                    return False
            return True
        finally:
            self._feeling.release()

    def _can_be_had(self, account: str) -> bool:
        """Wait, for up to a second, until an account is not locked. If its shard cannot tell, the
        try will.
        """
        shard, deadline = self._shards.shard_of(account), time.monotonic() + _CALL_TIMEOUT_S
        try:
            self._shards[shard].reads.wait_until_free(account, deadline)
        except TryAgain as error:
            return isinstance(error, SlotMoved)
        except ShardError:
            pass
        return True

    def _take_turn(self, request: _Request, give_up: float) -> bool:
        """Wait for the turn of this request, and take it. False if it was taken along by another,
        settled or in vain, or the time is over.
        """
        tries = request.tries

        def has_run() -> bool:
            return request.tries > tries and not request.is_taken

        with self._changed:
            self._waiting.append(request)
            try:
                self._changed.wait_for(
                    lambda: has_run() or self._may_run(request), give_up - time.monotonic()
                )
            finally:
                if request in self._waiting:
                    self._waiting.remove(request)
            # It is being read, though its time is over: its answer is about to come.
            self._changed.wait_for(lambda: not request.is_taken)
            if has_run():
                return False
            if not self._may_run(request):
                # Somebody may have let it go first.
                self._changed.notify_all()
                return False
            self._is_reading = True
            return True

    def _may_run(self, request: _Request) -> bool:
        """After one that waited for locks the others come first: those may be long."""
        if self._is_reading or not (request.waits_for_locks and self._has_waited):
            return not self._is_reading
        return all(other.waits_for_locks for other in self._waiting)

    def _run(self, request: _Request) -> None:
        """Read once, and let the next one have its turn."""
        taken = [request]
        try:
            taken += self._others(request)
            left = taken
            while left:
                left = self._try(left, waits=request.tries > _TRIES_FREE)
        finally:
            with self._changed:
                for one in taken:
                    one.is_taken = False
                self._is_reading = False
                self._has_waited = request.tries > _TRIES_FREE
                self._changed.notify_all()

    def _others(self, first: _Request) -> list[_Request]:
        """Who goes along with this one: those that wait for a read, and not for locks. They are
        taken then, and so is this one.
        """
        taken: list[_Request] = []
        with self._changed:
            names = set(first.names)
            for request in self._waiting if not first.waits_for_locks else ():
                if not request.waits_for_locks and len(names | request.names) <= _TOGETHER_MAX:
                    taken.append(request)
                    names |= request.names
            for request in [first, *taken]:
                request.is_taken, request.tries = True, request.tries + 1
            self._waiting = [request for request in self._waiting if not request.is_taken]
        return taken

    def _try(self, requests: list[_Request], *, waits: bool) -> list[_Request]:
        """Read for all of these, and settle those that have what they need. When a shard does not
        do its part, those that do not need it are left: to be read again, at once.
        """
        by_shard: AccountsByShard = defaultdict(list)
        for account in sorted(set(chain.from_iterable(request.names for request in requests))):
            by_shard[self._shards.shard_of(account)].append(account)
        try:
            snapshot = self._see(by_shard, waits=waits)
        except ShardError as error:
            self._shards.note(error)
            spoilt = by_shard.get(error.shard, [])
            left = [request for request in requests if request.names.isdisjoint(spoilt)]
            for request in requests:
                if request not in left and isinstance(error, ShardUnavailable | StatementRefused):
                    request.error = error
                elif request not in left:
                    request.is_kept_by_others = is_busy(error)
                    request.delay = _LOCKED if is_busy(error) else str(error)
            return left if spoilt else []
        for request in requests:
            request.delay, request.is_kept_by_others = _LOCKED, True
            request.busy = request.names & snapshot.busy
            try:
                request.found = snapshot.of(request.names)
            except ShardUnavailable as error:
                request.error = error
            except ShardError as error:
                request.delay, request.is_kept_by_others = str(error), is_busy(error)
        return []

    def _see(self, by_shard: AccountsByShard, *, waits: bool) -> SnapshotRead:
        """Lock all, read all, let all go. Raises ShardError."""
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        names = sorted(by_shard)
        holds: Holds = {}
        try:
            for name in names:
                holds[name] = self._shards[name].hold(deadline)
            held = _hold_all(by_shard, holds, deadline, waits=waits)
            accounts = {name: account for some in held for name, account in some.accounts.items()}
            leaving = [row for some in held for row in some.phases]
            arriving, unknown = self._arriving(accounts, holds, deadline)
            rows = list({row.attempt: row for row in [*leaving, *arriving]}.values())
            steps = self._steps(rows, unknown, holds, deadline)
            replies = [holds[name].release(deadline) for name in names]
            for reply in replies:
                reply.get()
            busy = _busy(by_shard, holds, accounts, deadline)
        except BaseException:
            for hold in holds.values():
                hold.abandon()
            raise
        for hold in holds.values():
            hold.give_back()
        return SnapshotRead(accounts, busy, rows, steps, unknown)

    def _arriving(
        self, accounts: dict[str, Account], holds: Holds, deadline: float
    ) -> tuple[list[PhaseRow], dict[str, ShardError]]:
        """The unfinished transfers to those of these accounts that expect some, from all shards:
        what is paid there counts here, though it has not been received. And what is unknown.
        """
        names = [account.id for account in accounts.values() if account.expected]
        if not names:
            return [], {}
        said, away = self._ask(
            {shard.id for shard in self._shards.all()},
            lambda _, shard: shard.phases_to(names, deadline),
            holds,
        )
        rows = [row for some in said.values() for row in some]
        return rows, {name: error for error in away.values() for name in names}

    def _steps(
        self,
        rows: list[PhaseRow],
        unknown: dict[str, ShardError],
        holds: Holds,
        deadline: float,
    ) -> list[StepRow]:
        """How far these transfers are on the shards of their destinations. Where one cannot be
        asked, a credit that others have seen is not taken for one that is not there: the accounts
        that hang on it are added to what is unknown.
        """
        asked: dict[str, list[PhaseRow]] = defaultdict(list)
        for row in rows:
            shard = self._shards.shard_of(row.transfer.destination)
            if shard in holds or hangs_on_step(row):
                asked[shard].append(row)
        said, away = self._ask(
            asked,
            lambda name, shard: shard.read_steps(
                [row.transfer.id for row in asked[name]], deadline
            ),
            holds,
        )
        for shard, error in away.items():
            unknown.update((row.transfer.source, error) for row in asked[shard])
        return [step for some in said.values() for step in some]

    def _ask(
        self,
        shards: Iterable[str],
        call: Callable[[str, ReadHold | ShardCalls], T],
        holds: Holds,
    ) -> tuple[dict[str, T], dict[str, ShardError]]:
        """What shards say; and why those cannot be asked that hold nothing of this read. One that
        does spoils the read: raises ShardError.
        """
        said: dict[str, T] = {}
        away: dict[str, ShardError] = {}
        for name in sorted(shards):
            if name in holds:
                said[name] = call(name, holds[name])
                continue
            try:
                said[name] = call(name, self._shards[name].reads)
            except ShardError as error:
                away[name] = error
        return said, away


def _hold_all(
    by_shard: AccountsByShard, holds: Holds, deadline: float, *, waits: bool
) -> list[Held]:
    """Lock and read on all shards: at once without waiting, or with it, one by one in the global
    order of shards and accounts, so that nobody waits in a circle.
    """
    if waits:
        return [
            holds[name].lock(by_shard[name], deadline, waits=True).get()
            for name in sorted(by_shard)
        ]
    replies = [holds[name].lock(names, deadline, waits=False) for name, names in by_shard.items()]
    return [reply.get() for reply in replies]


def _busy(
    by_shard: AccountsByShard,
    holds: Holds,
    found: dict[str, Account],
    deadline: float,
) -> set[str]:
    """The accounts that are missing because somebody else has them locked: they do exist."""
    busy: set[str] = set()
    for name, accounts in by_shard.items():
        missing = [account for account in accounts if account not in found]
        if missing:
            busy |= holds[name].read_accounts(missing, deadline).keys()
    return busy
