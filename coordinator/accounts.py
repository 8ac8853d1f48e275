"""Accounts on whichever shards they are: opening, changing, reading, reading many at one moment."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from coordinator.phased.courses import as_whole
from coordinator.shards import Shards
from ledger.model import Account, Entry, Refusal, Status
from shard_client import accounts as on_shard
from shard_client.accounts import AccountState, Terms
from shard_client.connection import ShardConnection
from shard_client.errors import ALL_SHARDS, ShardError, ShardUnavailable, SlotMoved, TryAgain
from shard_client.phases import StepRow, read_steps
from shard_client.shard import Shard

T = TypeVar("T")

_CALL_TIMEOUT_S = 3.0
_TRIES = 5
_PAUSE_S = 0.02
# Accounts that are opened in one transaction at most.
_OPEN_MAX = 2000
# One moment over many accounts: how long it is tried, and how often without waiting in line.
_MOMENT_TIMEOUT_S = 5.0
_MOMENT_TRIES_FREE = 3


class Opened(NamedTuple):
    """An account after it was to be opened; `is_new` if this call has opened it."""

    state: AccountState
    shard: str
    is_new: bool


class Accounts:
    """What callers do with accounts. Every method raises ShardError when a shard does not do its
    part; nothing has happened then, or what has can be repeated.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        # A moment holds locks on several shards: one at a time is enough (rule R10).
        self._moment = threading.Lock()

    def open_all(self, terms: Sequence[Terms]) -> list[Opened | ShardError]:
        """Open accounts; a result for each, in order. Those that exist are left as they are."""
        places: dict[str, dict[str, Terms]] = defaultdict(dict)
        for item in terms:
            places[self._shards.shard_of(item.id)].setdefault(item.id, item)
        found: dict[str, Opened | ShardError] = {}
        for shard, wanted in places.items():
            items = list(wanted.values())
            for start in range(0, len(items), _OPEN_MAX):
                found.update(self._open_some(shard, items[start : start + _OPEN_MAX]))
        results: list[Opened | ShardError] = []
        for item in terms:
            result = found[item.id]
            results.append(result)
            if isinstance(result, Opened):
                found[item.id] = result._replace(is_new=False)
        return results

    def _open_some(self, shard: str, terms: list[Terms]) -> dict[str, Opened | ShardError]:
        def open_(connection: ShardConnection, deadline: float) -> dict[str, Opened | ShardError]:
            now = time.time_ns() // 1000
            states, new = on_shard.open_all(connection, terms, now, deadline)
            return {name: Opened(state, shard, name in new) for name, state in states.items()}

        try:
            return self._on(shard, open_)
        except ShardError as error:
            return {item.id: error for item in terms}

    def get(self, account: str) -> tuple[AccountState, str] | None:
        """An account and its shard; None if it does not exist."""
        shard = self._shards.shard_of(account)
        found = self._on(shard, lambda c, deadline: on_shard.read(c, [account], deadline))
        return (found[account], shard) if account in found else None

    def set_status(self, account: str, status: Status) -> tuple[AccountState | Refusal | None, str]:
        """Change an account's status; None if it does not exist; and its shard."""
        shard = self._shards.shard_of(account)
        now = time.time_ns() // 1000
        changed = self._on(
            shard, lambda c, deadline: on_shard.set_status(c, account, status, now, deadline)
        )
        return changed, shard

    def entries(
        self, account: str, after: int | None, limit: int, *, newest_first: bool
    ) -> list[Entry] | None:
        """A page of an account's statement; None if it does not exist."""

        def read(connection: ShardConnection, deadline: float) -> list[Entry] | None:
            if account not in on_shard.read(connection, [account], deadline):
                return None
            return on_shard.statement(
                connection, account, after, limit, deadline, newest_first=newest_first
            )

        return self._on(self._shards.shard_of(account), read)

    def balance_at(self, account: str, at: int) -> tuple[Account, int] | None:
        """An account and its balance at a stamp, for good; None if it does not exist."""
        return self._on(
            self._shards.shard_of(account),
            lambda c, deadline: on_shard.balance_at(c, account, at, deadline),
        )

    def _on(self, shard: str, call: Callable[[ShardConnection, float], T]) -> T:
        """Do something on a shard that may be repeated, repeating it while locks collide."""
        for attempt in range(_TRIES):
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            try:
                with self._shards[shard].connection(deadline) as connection:
                    return call(connection, deadline)
            except ShardError as error:
                self._shards.note(error)
                if isinstance(error, SlotMoved):
                    self._shards.look_again()
                may_repeat = not isinstance(error, ShardUnavailable)
                if not may_repeat or attempt == _TRIES - 1 or error.code == 1205:
                    raise
            time.sleep(_PAUSE_S * random.random() * 2**attempt)
        raise AssertionError("unreachable")

    # --- one moment -------------------------------------------------------------------------

    def at_one_moment(self, accounts: Iterable[str]) -> dict[str, Account]:
        """Those of these accounts that exist, as they all stood at one moment (rule R10).

        Raises TryAgain if they stay too busy.
        """
        places: dict[str, list[str]] = defaultdict(list)
        for account in sorted(set(accounts)):
            places[self._shards.shard_of(account)].append(account)
        give_up = time.monotonic() + _MOMENT_TIMEOUT_S
        if not self._moment.acquire(timeout=_MOMENT_TIMEOUT_S):
            raise TryAgain(ALL_SHARDS, "other reads of many accounts are in front of this one")
        try:
            attempt = 0
            while True:
                found = self._try_moment(places, in_line=attempt >= _MOMENT_TRIES_FREE)
                if found is not None:
                    return found
                attempt += 1
                if time.monotonic() > give_up:
                    raise TryAgain(ALL_SHARDS, "the accounts stayed locked by transfers")
                time.sleep(_PAUSE_S * random.random() * 2 ** min(attempt, 4))
        finally:
            self._moment.release()

    def _try_moment(
        self, places: dict[str, list[str]], *, in_line: bool
    ) -> dict[str, Account] | None:
        """Lock all, read all, let all go; None if an account was locked by somebody else."""
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        names = sorted(places)
        shards: dict[str, Shard] = {}
        connections: dict[str, ShardConnection] = {}
        try:
            for name in names:
                shards[name] = self._shards[name]
                connections[name] = shards[name].take(deadline)
            held = self._hold_all(places, connections, deadline, in_line=in_line)
            found = self._as_whole(held, connections, deadline)
            replies = [on_shard.release(connections[name], deadline) for name in names]
            for reply in replies:
                reply.get()
            if not self._is_complete(places, connections, found, deadline):
                return None
            return found
        except BaseException as error:
            for connection in connections.values():
                connection.close()
            if not isinstance(error, ShardError):
                raise
            self._shards.note(error)
            if isinstance(error, SlotMoved):
                self._shards.look_again()
            if isinstance(error, ShardUnavailable):
                raise
            return None
        finally:
            for name, connection in connections.items():
                shards[name].give(connection)

    def _hold_all(
        self,
        places: dict[str, list[str]],
        connections: dict[str, ShardConnection],
        deadline: float,
        *,
        in_line: bool,
    ) -> list[on_shard.Held]:
        """Lock and read on all shards: at once without waiting, or in line, one by one in the
        global order of shards and accounts, so that nobody waits in a circle.
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

    def _as_whole(
        self,
        held: list[on_shard.Held],
        connections: dict[str, ShardConnection],
        deadline: float,
    ) -> dict[str, Account]:
        """All accounts, showing no transfer on one side only."""
        found = {name: account for some in held for name, account in some.accounts.items()}
        rows = [row for some in held for row in some.phases]
        asked: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            asked[self._shards.shard_of(row.transfer.destination)].append(row.transfer.id)
        held_too = [name for name in asked if name in connections]
        replies = [read_steps(connections[name], asked[name], deadline) for name in held_too]
        steps = [step for reply in replies for step in reply.get()]
        for name in asked.keys() - held_too:
            steps += self._steps_beside(name, asked[name], deadline)
        return as_whole(found, rows, steps)

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

    def _is_complete(
        self,
        places: dict[str, list[str]],
        connections: dict[str, ShardConnection],
        found: dict[str, Account],
        deadline: float,
    ) -> bool:
        """Whether the accounts that are missing do not exist, rather than being locked."""
        for name, accounts in places.items():
            missing = [account for account in accounts if account not in found]
            if missing and on_shard.read(connections[name], missing, deadline):
                return False
        return True
