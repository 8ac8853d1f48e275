"""A participant in a group: lock, write, prepare, commit, roll back, on one shard.

Each call sends one packet and returns a Reply, so that one thread can have a call under way on
every shard of a group. After an error the connection is closed and the server rolls back what was
not prepared.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

from ledger.model import Account
from shard_client import statements as sql
from shard_client.connection import Lent, Reply, Result, ShardConnection
from shard_client.errors import StatementRefused
from shard_client.node import GroupBranch, Session
from shard_client.records import STAMP_AHEAD_MAX_US, Locked, Writes
from shard_client.transfers import stored_of
from shard_client.xid import xid


class MySqlSession(Lent, Session):
    """See Session. `give` gets the connection in the end."""

    def __init__(
        self,
        connection: ShardConnection,
        gtrid: str,
        *,
        give: Callable[[ShardConnection], None] = ShardConnection.close,
    ) -> None:
        self.connection, self._give = connection, give
        self.shard = connection.shard
        self.gtrid = gtrid
        self._start = "START TRANSACTION"
        self._is_open = False

    def wait_for(self, accounts: Iterable[str], deadline: float) -> Reply[None]:
        statement = sql.listing(self.connection, sql.WAIT_FOR_ACCOUNTS, sorted(accounts))
        packet = [*self._opening(), statement]
        return self.connection.call(packet, deadline, _nothing, waits=True)

    def existing(self, accounts: Iterable[str], deadline: float) -> Reply[set[str]]:
        statement = sql.listing(self.connection, sql.EXISTING_ACCOUNTS, accounts)
        return self.connection.call(
            [statement], deadline, lambda results: {row[0] for row in results[0].rows}
        )

    def roll_back(self, deadline: float) -> Reply[None]:
        return self.connection.call(["ROLLBACK"], deadline, _nothing)

    def fileno(self) -> int | None:
        return self.connection.fileno() if self.connection.is_open else None

    def _opening(self) -> list[str]:
        if self._is_open:
            return []
        self._is_open = True
        return [self._start]


class Branch(MySqlSession, GroupBranch):
    """See GroupBranch. One that is not local is an XA branch."""

    def __init__(
        self,
        connection: ShardConnection,
        gtrid: str,
        *,
        is_local: bool,
        give: Callable[[ShardConnection], None] = ShardConnection.close,
    ) -> None:
        super().__init__(connection, gtrid, give=give)
        self.is_local = is_local
        self.is_prepared = False
        if not is_local:
            self._xid = xid(gtrid, connection.shard)
            self._start = f"XA START {self._xid}"

    def lock(
        self, accounts: Iterable[str], transfers: Iterable[str], deadline: float
    ) -> Reply[Locked]:
        opening, ids, connection = self._opening(), list(transfers), self.connection
        wanted = sorted(accounts)
        locks = sql.listings(connection, sql.LOCK_ACCOUNTS, wanted, sql.ACCOUNT_MAX)
        packet = [*opening, sql.listing(connection, sql.READ_SLOTS, ()), *locks]
        if ids:
            packet.append(sql.listing(connection, sql.FIND_TRANSFERS, ids))

        def parse(results: list[Result]) -> Locked:
            slots, *rest = results[len(opening) :]
            return locked_of(connection, slots, rest[: len(locks)], rest[len(locks) :])

        return connection.call(packet, deadline, parse, is_proven=True)

    def write(self, writes: Writes, deadline: float) -> Reply[None]:
        packet, counts = self._bulk(writes)
        if not self.is_local:
            marker = (self.gtrid, self.shard, self.connection.thread_id)
            packet.append(sql.fill(self.connection, sql.INSERT_MARKER, *marker))
            packet += [f"XA END {self._xid}", f"XA PREPARE {self._xid}"]

        def check(results: list[Result]) -> None:
            self._check_counts(counts, results)
            self.is_prepared = not self.is_local

        return self.connection.call(packet, deadline, check)

    def write_unprepared(self, writes: Writes, deadline: float) -> Reply[None]:
        packet, counts = self._bulk(writes)
        return self.connection.call(
            packet, deadline, lambda results: self._check_counts(counts, results)
        )

    def decide(self, branches: Iterable[str], now: int, deadline: float) -> Reply[None]:
        decision = sql.fill(
            self.connection, sql.INSERT_DECISION, self.gtrid, ",".join(sorted(branches)), now
        )
        return self.connection.call([decision, "COMMIT"], deadline, _nothing)

    def commit_alone(self, deadline: float) -> Reply[None]:
        if self.is_local:
            return self.connection.call(["COMMIT"], deadline, _nothing)
        packet = [f"XA END {self._xid}", f"XA COMMIT {self._xid} ONE PHASE"]
        return self.connection.call(packet, deadline, _nothing)

    def commit(self, deadline: float) -> Reply[None]:
        return self.connection.call([f"XA COMMIT {self._xid}"], deadline, _nothing)

    def roll_back(self, deadline: float) -> Reply[None]:
        if self.is_local or not self._is_open:
            return super().roll_back(deadline)
        ending = [] if self.is_prepared else [f"XA END {self._xid}"]
        return self.connection.call([*ending, f"XA ROLLBACK {self._xid}"], deadline, _nothing)

    def _bulk(self, writes: Writes) -> tuple[list[str], list[int]]:
        """The bulk statements that have rows, and how many rows each must find."""
        packet, counts = [], []
        if writes.transfers:
            transfers = [
                (*row.transfer, row.gtrid, row.status, row.reason, row.detail, row.decided_at)
                for row in writes.transfers
            ]
            packet.append(sql.insert(sql.INSERT_TRANSFERS, transfers))
            counts.append(len(transfers))
        if writes.entries:
            packet.append(sql.insert(sql.INSERT_ENTRIES, writes.entries))
            counts.append(len(writes.entries))
        if writes.accounts:
            packet.append(sql.update_accounts(writes.accounts))
            counts.append(len(writes.accounts))
        return packet, counts

    def _check_counts(self, counts: list[int], results: list[Result]) -> None:
        """Every row must have been found (rule R8): checked before anything is decided."""
        found = [result.found for result in results[: len(counts)]]
        if found != counts:
            self.connection.close()
            text = f"the writes of {self.gtrid} found {found} rows, not {counts}"
            raise StatementRefused(self.shard, text)


def _nothing(_: list[Result]) -> None:
    return None


def locked_of(
    connection: ShardConnection, slots: Result, accounts: list[Result], known: list[Result]
) -> Locked:
    """From READ_SLOTS, and LOCK_ACCOUNTS and FIND_TRANSFERS as often as they were asked. Raises
    ShardUnavailable if they are not whole.
    """
    connection.believe(limit for *_, limit in slots.rows)
    stored = [item for result in known for item in stored_of(connection, result)]
    return Locked(
        slots=slots_of(tuple((first, last) for first, last, *_ in slots.rows)),
        is_writable=not any(read_only for _, _, read_only, *_ in slots.rows),
        accounts=accounts_of(connection.lines(accounts)),
        known={item.transfer.id: item for item in stored},
        latest=latest_of(slots),
    )


def latest_of(slots: Result) -> int:
    """The latest stamp that a shard takes: from its clock, which READ_SLOTS brings."""
    return max((clock for _, _, _, clock, _ in slots.rows), default=0) + STAMP_AHEAD_MAX_US


@lru_cache(maxsize=64)
def slots_of(ranges: tuple[tuple[int, int], ...]) -> frozenset[int]:
    """All slots of these ranges, from the first to the last of each."""
    return frozenset(slot for first, last in ranges for slot in range(first, last + 1))


def accounts_of(lines: Iterable[str]) -> dict[str, Account]:
    """The accounts that LOCK_ACCOUNTS has brought."""
    found = {}
    for line in lines:
        id_, currency, balance, limit, status, count, floor, chain, held, expected = line.split(
            "\t"
        )
        overdraft_limit = int(limit) if limit else None
        found[id_] = Account(
            id_,
            currency,
            int(balance),
            overdraft_limit,
            status,
            int(count),
            int(floor),
            chain,
            int(held),
            int(expected),
        )
    return found
