"""Accounts on whichever shards they are: opening, changing, reading."""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

from coordinator.shards.registry import Shards
from ledger.model import Refusal, Status
from shard_client.errors import (
    ALL_SHARDS,
    ClockAhead,
    ConnectionLost,
    NoList,
    NotSeen,
    ShardError,
    ShardUnavailable,
)
from shard_client.node import ShardCalls, refuse_since
from shard_client.records import (
    AccountState,
    BalanceThen,
    Since,
    Statement,
    Terms,
    TrialBalance,
)

T = TypeVar("T")

_CALL_TIMEOUT_S = 3.0
# The read side may have others to make first, of some seconds each.
_TRIAL_TIMEOUT_S = 60.0
_TRIES = 5
_PAUSE_S = 0.02
# Accounts that are opened in one transaction at most.
_OPEN_MAX = 2000


class Opened(NamedTuple):
    """An account after it was to be opened; `is_new` if this call has opened it."""

    state: AccountState
    shard: str
    is_new: bool


class Accounts:
    """What callers do with accounts. Every method raises ShardError when a shard does not do its
    part; nothing has happened then, or what has can be repeated. `since` is a frame that it is
    enough to have seen: see ShardCalls.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def open_all(self, terms: Sequence[Terms]) -> list[Opened | ShardError]:
        """Open accounts; a result for each, in order. Those that exist are left as they are."""
        by_shard: dict[str, dict[str, Terms]] = defaultdict(dict)
        for item in terms:
            by_shard[self._shards.shard_of(item.id)].setdefault(item.id, item)
        found: dict[str, Opened | ShardError] = {}
        for shard, wanted in by_shard.items():
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
        def open_(calls: ShardCalls, deadline: float) -> dict[str, Opened | ShardError]:
            now = time.time_ns() // 1000
            states, new = calls.open_accounts(terms, now, deadline)
            return {name: Opened(state, shard, name in new) for name, state in states.items()}

        try:
            return self._on(shard, open_)
        except ShardError as error:
            return {item.id: error for item in terms}

    def get(self, account: str, since: Since | None = None) -> tuple[AccountState, str] | None:
        """An account and its shard; None if it does not exist."""
        shard = self._shards.shard_of(account)
        found = self._read([account], shard, since)
        return (found[account], shard) if account in found else None

    def of_one_frame(
        self, accounts: Collection[str], since: Since | None = None
    ) -> dict[str, AccountState] | None:
        """Those of these accounts that exist, all as of one frame. None if no one list has them
        all: then they are to be locked, to be seen at one moment; or NoList if `since` is given.
        """
        shards = {self._shards.shard_of(account) for account in accounts}
        if self._shards.map.has_groups and len(shards) == 1:
            return self._read(list(accounts), shards.pop(), since)
        refuse_since(since)
        return None

    def _read(
        self, accounts: Sequence[str], shard: str, since: Since | None
    ) -> dict[str, AccountState]:
        return self._on(
            shard, lambda calls, deadline: calls.read_accounts(accounts, deadline, since)
        )

    def set_status(self, account: str, status: Status) -> tuple[AccountState | Refusal | None, str]:
        """Change an account's status; None if it does not exist; and its shard."""
        shard = self._shards.shard_of(account)
        now = time.time_ns() // 1000
        changed = self._on(
            shard, lambda calls, deadline: calls.change_status(account, status, now, deadline)
        )
        return changed, shard

    def entries(
        self,
        account: str,
        after: int | None,
        limit: int,
        *,
        newest_first: bool,
        since: Since | None = None,
    ) -> Statement | None:
        """A page of an account's statement; None if it does not exist."""
        return self._on(
            self._shards.shard_of(account),
            lambda calls, deadline: calls.entries(
                account, after, limit, deadline, newest_first=newest_first, since=since
            ),
        )

    def balance_at(self, account: str, at: int, since: Since | None = None) -> BalanceThen | None:
        """An account and its balance at a stamp, for good; None if it does not exist."""
        return self._on(
            self._shards.shard_of(account),
            lambda calls, deadline: calls.balance_at(account, at, deadline, since),
        )

    def trial_balance(self, at: int | None, since: Since | None = None) -> TrialBalance:
        """What all accounts had at a stamp, for good; None: now. Raises NoList unless one list has
        all accounts. It reads all entries, so it takes its time, and is not tried again.
        """
        first, *others = self._shards.map.shards
        if others:
            raise NoList(ALL_SHARDS, "the accounts are on several shards, and no one list has all")
        deadline = time.monotonic() + _TRIAL_TIMEOUT_S
        return self._shards[first].reads.trial_balance(at, deadline, since)

    def _on(self, shard: str, call: Callable[[ShardCalls, float], T]) -> T:
        """Do something on a shard that may be repeated, repeating it while locks collide."""
        lost: ConnectionLost | None = None
        tries = 0
        while True:
            tries += 1
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            try:
                return call(self._shards[shard].reads, deadline)
            except ShardError as error:
                if isinstance(error, ConnectionLost):
                    lost = error
                may_repeat = not isinstance(error, ShardUnavailable | ClockAhead | NotSeen)
                if not may_repeat or tries == _TRIES or error.code == 1205:
                    # Of a try before nobody knows whether it has happened.
                    raise (lost or error) from None
            time.sleep(_PAUSE_S * random.random() * 2 ** (tries - 1))
