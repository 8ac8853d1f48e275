"""Reads of many accounts as they all stood at one moment (rule R10).

One read is on its way at a time in a process; those that wait meanwhile go together in the next
one. It locks the accounts of all, without waiting, and settles each of which no account was locked
by somebody else. The others try again; one that was in vain too often goes alone and waits in line.
"""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from coordinator.phased.courses import as_whole
from coordinator.shards import Shards
from ledger.model import Account
from shard_client import accounts as on_shard
from shard_client.connection import ShardConnection
from shard_client.errors import ALL_SHARDS, ShardError, ShardUnavailable, SlotMoved, TryAgain
from shard_client.phases import PhaseRow, StepRow, read_steps
from shard_client.shard import Shard

_CALL_TIMEOUT_S = 3.0
_TIMEOUT_S = 5.0
_PAUSE_S = 0.02
# Tries without waiting in line for locks.
_TRIES_FREE = 3
# Accounts that are read together at most, by several who ask; one alone may have more.
_TOGETHER_MAX = 1000

# Shard -> its accounts among those that are read.
Places = dict[str, list[str]]


class Moment(NamedTuple):
    """What was seen while all its accounts were locked.

    `busy` accounts were locked by somebody else, and the moment says nothing of them; `rows` are
    the unfinished transfers from the others, `steps` how far these are.
    """

    accounts: dict[str, Account]
    busy: set[str]
    rows: list[PhaseRow]
    steps: list[StepRow]

    def of(self, names: set[str]) -> dict[str, Account] | None:
        """Those of these accounts that exist; None if one of them was busy."""
        if not names.isdisjoint(self.busy):
            return None
        found = {name: self.accounts[name] for name in names & self.accounts.keys()}
        return as_whole(found, [r for r in self.rows if r.transfer.source in names], self.steps)


class _Request:
    """Accounts that somebody waits for."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.tries = 0
        self.found: dict[str, Account] | None = None
        # The shard that cannot be used, and why.
        self.error: ShardUnavailable | None = None

    @property
    def is_settled(self) -> bool:
        return self.found is not None or self.error is not None


class Moments:
    """See the module."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._changed = threading.Condition()
        # A moment holds locks on several shards: one at a time is enough.
        self._is_reading = False
        # Those that wait for their turn.
        self._waiting: list[_Request] = []

    def read(self, accounts: Iterable[str]) -> dict[str, Account]:
        """Those of these accounts that exist, as they all stood at one moment.

        Raises TryAgain if they stay too busy, and other ShardErrors.
        """
        request = _Request(set(accounts))
        give_up = time.monotonic() + _TIMEOUT_S
        while self._is_its_turn(request, give_up):
            self._run(request)
            if not request.is_settled and time.monotonic() > give_up:
                raise TryAgain(ALL_SHARDS, "the accounts stayed locked by transfers")
            if not request.is_settled:
                time.sleep(_PAUSE_S * random.random() * 2 ** min(request.tries, 4))
        if request.error:
            raise ShardUnavailable(request.error.shard, request.error.text)
        assert request.found is not None
        return request.found

    def _is_its_turn(self, request: _Request, give_up: float) -> bool:
        """Wait until no read is on its way, and begin one; False if this is settled by then."""
        left_s = max(give_up - time.monotonic(), 0)
        with self._changed:
            self._waiting.append(request)
            self._changed.wait_for(lambda: request.is_settled or not self._is_reading, left_s)
            self._waiting.remove(request)
            if request.is_settled:
                return False
            if self._is_reading:
                text = "other reads of many accounts are in front of this one"
                raise TryAgain(ALL_SHARDS, text)
            self._is_reading = True
            return True

    def _together_with(self, first: _Request) -> list[_Request]:
        """What is read next: this request, and others that wait and do not stand in line."""
        if first.tries >= _TRIES_FREE:
            return [first]
        taken, count = [first], len(first.names)
        with self._changed:
            for request in self._waiting:
                fits = count + len(request.names) <= _TOGETHER_MAX
                if request.tries < _TRIES_FREE and fits:
                    taken.append(request)
                    count += len(request.names)
        return taken

    def _run(self, request: _Request) -> None:
        """Read once, and let the next one have its turn."""
        try:
            self._try(self._together_with(request))
        finally:
            with self._changed:
                self._is_reading = False
                self._changed.notify_all()

    def _try(self, requests: list[_Request]) -> None:
        """Read for all of these, and settle those that have what they need."""
        places: Places = defaultdict(list)
        for account in sorted(set(chain.from_iterable(request.names for request in requests))):
            places[self._shards.shard_of(account)].append(account)
        in_line = requests[0].tries >= _TRIES_FREE
        for request in requests:
            request.tries += 1
        try:
            moment = self._see(places, in_line=in_line)
        except ShardError as error:
            self._shards.note(error)
            if isinstance(error, SlotMoved):
                self._shards.look_again()
            if isinstance(error, ShardUnavailable):
                for request in requests:
                    if not request.names.isdisjoint(places[error.shard]):
                        request.error = error
            return
        for request in requests:
            request.found = moment.of(request.names)

    def _see(self, places: Places, *, in_line: bool) -> Moment:
        """Lock all, read all, let all go. Raises ShardError."""
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        names = sorted(places)
        shards: dict[str, Shard] = {}
        connections: dict[str, ShardConnection] = {}
        try:
            for name in names:
                shards[name] = self._shards[name]
                connections[name] = shards[name].take(deadline)
            held = _hold_all(places, connections, deadline, in_line=in_line)
            accounts = {name: account for some in held for name, account in some.accounts.items()}
            rows = [row for some in held for row in some.phases]
            steps = self._steps(rows, connections, deadline)
            replies = [on_shard.release(connections[name], deadline) for name in names]
            for reply in replies:
                reply.get()
            busy = _busy(places, connections, accounts, deadline)
            return Moment(accounts, busy, rows, steps)
        except BaseException:
            for connection in connections.values():
                connection.close()
            raise
        finally:
            for name, connection in connections.items():
                shards[name].give(connection)

    def _steps(
        self, rows: list[PhaseRow], connections: dict[str, ShardConnection], deadline: float
    ) -> list[StepRow]:
        """How far these transfers are on the shards of their destinations."""
        asked: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            asked[self._shards.shard_of(row.transfer.destination)].append(row.transfer.id)
        held_too = [name for name in asked if name in connections]
        replies = [read_steps(connections[name], asked[name], deadline) for name in held_too]
        steps = [step for reply in replies for step in reply.get()]
        for name in asked.keys() - held_too:
            steps += self._steps_beside(name, asked[name], deadline)
        return steps

    def _steps_beside(self, shard: str, transfers: list[str], deadline: float) -> list[StepRow]:
        """How far transfers are on a shard of which nothing else is read. If it cannot be asked,
        they count as not there: nobody sees here that they are.
        """
        try:
            with self._shards[shard].connection(deadline) as connection:
                return read_steps(connection, transfers, deadline).get()
        except ShardError as error:
            self._shards.note(error)
            return []


def _hold_all(
    places: Places, connections: dict[str, ShardConnection], deadline: float, *, in_line: bool
) -> list[on_shard.Held]:
    """Lock and read on all shards: at once without waiting, or in line, one by one in the global
    order of shards and accounts, so that nobody waits in a circle.
    """
    if in_line:
        return [
            on_shard.hold(connections[name], places[name], deadline, in_line=True).get()
            for name in sorted(places)
        ]
    replies = [
        on_shard.hold(connections[name], names, deadline, in_line=False)
        for name, names in places.items()
    ]
    return [reply.get() for reply in replies]


def _busy(
    places: Places,
    connections: dict[str, ShardConnection],
    found: dict[str, Account],
    deadline: float,
) -> set[str]:
    """The accounts that are missing because somebody else has them locked: they do exist."""
    busy: set[str] = set()
    for name, accounts in places.items():
        missing = [account for account in accounts if account not in found]
        if missing:
            busy |= on_shard.read(connections[name], missing, deadline).keys()
    return busy
