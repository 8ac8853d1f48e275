"""The calls of a MySQL shard: each takes a connection, asks, and gives it back."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Concatenate, ParamSpec, TypeVar

from ledger.model import Entry, Refusal, Status
from shard_client import accounts, collect, phases, prepared, transfers
from shard_client.connection import Lent, ShardConnection
from shard_client.node import ReadHold, Reply, ShardCalls, refuse_since
from shard_client.records import (
    AccountState,
    BalanceThen,
    Decision,
    DecisionOutcome,
    Held,
    Look,
    PhaseRow,
    PreparedBranch,
    Since,
    Statement,
    StepRow,
    StoredTransfer,
    Terms,
    Undecided,
    Unfinished,
)

P = ParamSpec("P")
T = TypeVar("T")


class MySqlCalls(ShardCalls):
    """See ShardCalls. `connection` lends a connection for a block, by a deadline; what the block
    raises closes it.
    """

    def __init__(
        self, cluster: str, connection: Callable[[float], AbstractContextManager[ShardConnection]]
    ) -> None:
        self._cluster = cluster
        self._connection = connection

    def _ask(
        self,
        by: float,
        function: Callable[Concatenate[ShardConnection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What a function says of a connection that is had by then."""
        with self._connection(by) as connection:
            return function(connection, *args, **kwargs)

    # --- transfers --------------------------------------------------------------------------

    def find_transfers(
        self, ids: Sequence[str], deadline: float
    ) -> dict[str, StoredTransfer | Undecided]:
        return self._ask(deadline, transfers.probe, ids, deadline)

    # --- accounts ---------------------------------------------------------------------------

    def open_accounts(
        self, terms: Sequence[Terms], now: int, deadline: float
    ) -> tuple[dict[str, AccountState], set[str]]:
        return self._ask(deadline, accounts.open_all, terms, now, deadline)

    def change_status(
        self, account: str, status: Status, now: int, deadline: float
    ) -> AccountState | Refusal | None:
        return self._ask(deadline, accounts.set_status, account, status, now, deadline)

    def read_accounts(
        self, names: Sequence[str], deadline: float, since: Since | None = None
    ) -> dict[str, AccountState]:
        refuse_since(since)
        return self._ask(deadline, accounts.read, names, deadline)

    def entries(
        self,
        account: str,
        after: int | None,
        limit: int,
        deadline: float,
        *,
        newest_first: bool,
        since: Since | None = None,
    ) -> Statement | None:
        refuse_since(since)
        with self._connection(deadline) as connection:
            if account not in accounts.read(connection, [account], deadline):
                return None
            return Statement(
                accounts.statement(
                    connection, account, after, limit, deadline, newest_first=newest_first
                )
            )

    def balance_at(
        self, account: str, at: int, deadline: float, since: Since | None = None
    ) -> BalanceThen | None:
        refuse_since(since)
        found = self._ask(deadline, accounts.balance_at, account, at, deadline)
        return BalanceThen(*found) if found else None

    def entry_of(self, account: str, transfer: str, stamp: int, deadline: float) -> Entry | None:
        return self._ask(deadline, accounts.entry_of, account, transfer, stamp, deadline)

    def entries_of(
        self, account: str, transfer: str, since: Iterable[int], deadline: float
    ) -> list[Entry]:
        return self._ask(deadline, accounts.entries_of, account, transfer, since, deadline)

    def wait_until_free(self, account: str, deadline: float) -> None:
        with self._connection(deadline) as connection:
            accounts.hold(connection, [account], deadline, waits=True).get()
            accounts.release(connection, deadline).get()

    # --- what is in doubt -------------------------------------------------------------------

    def list_prepared(self, deadline: float) -> list[PreparedBranch]:
        return self._ask(deadline, prepared.list_prepared, self._cluster, deadline)

    def arbitrate(
        self, gtrids: Iterable[str], now: int, deadline: float
    ) -> dict[str, DecisionOutcome]:
        return self._ask(deadline, prepared.arbitrate, gtrids, now, deadline)

    def read_decisions(self, gtrids: Iterable[str], deadline: float) -> dict[str, DecisionOutcome]:
        return self._ask(deadline, prepared.read_decisions, gtrids, deadline)

    def finish(self, branches: Iterable[tuple[str, DecisionOutcome]], deadline: float) -> None:
        self._ask(deadline, prepared.finish, branches, deadline)

    def branch_status(self, gtrids: Iterable[str], deadline: float) -> dict[str, Look]:
        return self._ask(deadline, prepared.look, self._cluster, gtrids, deadline)

    def end_sessions_of(self, gtrids: Iterable[str], deadline: float) -> bool:
        return self._ask(deadline, prepared.end_sessions_of, self._cluster, gtrids, deadline)

    # --- TC/C and Saga ----------------------------------------------------------------------

    def list_unfinished(self, deadline: float) -> list[Unfinished]:
        return self._ask(deadline, phases.list_unfinished, self._cluster, deadline)

    def read_phases(self, gtrids: Iterable[str], timeout_s: float) -> list[PhaseRow]:
        by = time.monotonic() + timeout_s
        return self._ask(by, phases.read_phases, gtrids, timeout_s)

    def phases_of(self, ids: Iterable[str], deadline: float) -> list[PhaseRow]:
        return self._ask(deadline, phases.phases_of, ids, deadline)

    def phases_to(self, names: Iterable[str], deadline: float) -> list[PhaseRow]:
        with self._connection(deadline) as connection:
            return phases.phases_to(connection, names, deadline).get()

    def read_steps(self, ids: Iterable[str], deadline: float) -> list[StepRow]:
        with self._connection(deadline) as connection:
            return phases.read_steps(connection, ids, deadline).get()

    # --- purge ------------------------------------------------------------------------------

    def some_decisions(self, after_gtrid: str, limit: int, deadline: float) -> list[Decision]:
        return self._ask(deadline, collect.some_decisions, after_gtrid, limit, deadline)

    def drop_decisions(self, gtrids: Iterable[str], deadline: float) -> None:
        self._ask(deadline, collect.drop_decisions, gtrids, deadline)

    def marked(self, gtrids: Iterable[str], deadline: float) -> set[str]:
        return self._ask(deadline, collect.marked, gtrids, deadline)

    def some_markers(self, after_gtrid: str, limit: int, deadline: float) -> list[str]:
        return self._ask(deadline, collect.some_markers, after_gtrid, limit, deadline)

    def drop_markers(self, gtrids: Iterable[str], deadline: float) -> None:
        self._ask(deadline, collect.drop_markers, gtrids, deadline)

    def running(self, deadline: float) -> frozenset[tuple[int, str]] | None:
        return self._ask(deadline, collect.running, deadline)


class MySqlHold(Lent, ReadHold):
    """See ReadHold. `give` gets the connection in the end."""

    def __init__(
        self, connection: ShardConnection, give: Callable[[ShardConnection], None]
    ) -> None:
        self.connection, self._give = connection, give

    def lock(self, names: Sequence[str], deadline: float, *, waits: bool) -> Reply[Held]:
        return accounts.hold(self.connection, names, deadline, waits=waits)

    def read_accounts(self, names: Sequence[str], deadline: float) -> dict[str, AccountState]:
        return accounts.read(self.connection, names, deadline)

    def phases_to(self, names: Iterable[str], deadline: float) -> list[PhaseRow]:
        return phases.phases_to(self.connection, names, deadline).get()

    def read_steps(self, ids: Iterable[str], deadline: float) -> list[StepRow]:
        return phases.read_steps(self.connection, ids, deadline).get()

    def release(self, deadline: float) -> Reply[None]:
        return accounts.release(self.connection, deadline)
