"""What keeps the accounts of a cluster under test, looked at from behind: MySQL shards by SQL, a
ledger group by questions to its node and its read side.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pymysql

from eventstore.client import Client
from eventstore.wire.questions import Accounts, AccountsAre, Describe, Description, Lag, LagIs
from ledger.ids import slot_of
from shard_client.shard_map import ShardAddress, ShardKind
from tests.cluster import Cluster

PATIENCE_S = 10.0

# What is kept, by names of its parts.
Kept = dict[str, list[tuple]]


class Sums(NamedTuple):
    """What an account has."""

    balance: int
    held: int
    expected: int


class MySqlStore:
    """The databases of MySQL shards."""

    # That of transfers which name none is the first.
    protocols = ("xa", "tcc", "saga")

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.shards = set(cluster.settings.shards)
        self._sessions = {shard: cluster.sql(shard) for shard in self.shards}
        self._ranges = {
            shard: self.rows(shard, "SELECT first_slot, last_slot FROM slots")
            for shard in self.shards
        }

    def rows(self, shard: str, statement: str) -> list[tuple]:
        try:
            return self._ask(shard, statement)
        except (pymysql.err.OperationalError, pymysql.err.InterfaceError):
            # Another test has restarted the shard since.
            self._sessions[shard] = self._cluster.sql(shard)
            return self._ask(shard, statement)

    def _ask(self, shard: str, statement: str) -> list[tuple]:
        with self._sessions[shard].cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def shard_of(self, account: str) -> str:
        slot = slot_of(account)
        return next(
            shard
            for shard, ranges in self._ranges.items()
            if any(first <= slot <= last for first, last in ranges)
        )

    def sums(self, account: str) -> Sums:
        query = f"SELECT balance, held, expected FROM accounts WHERE id = '{account}'"
        return Sums(*self.rows(self.shard_of(account), query)[0])

    def unfinished(self, prefix: str) -> list[tuple]:
        """The transfers by TC/C and Saga from accounts with this prefix that are not finished."""
        query = f"SELECT transfer_id, phase FROM phases WHERE source LIKE '{prefix}%'"
        return [row for shard in self.shards for row in self.rows(shard, query)]

    def snapshot(self, prefix: str, accounts: Sequence[str]) -> Kept:
        """The rows of accounts with this prefix, and how many rows there are at all."""
        mine = {
            "accounts": "id LIKE '{0}%'",
            "entries": "account_id LIKE '{0}%'",
            "transfers": "source LIKE '{0}%'",
        }
        found: Kept = {}
        for shard in self.shards:
            for table, where in mine.items():
                rows = where.format(prefix)
                found[f"{shard} {table}"] = self.rows(
                    shard, f"SELECT * FROM {table} WHERE {rows} ORDER BY 1, 2"
                ) + self.rows(shard, f"SELECT COUNT(*) FROM {table}")
        return found


class GroupStore:
    """A ledger group, which is its cluster's only shard: all accounts are on it."""

    protocols = ("tcc", "saga")

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.shards = set(cluster.settings.shards)
        (self._shard,) = self.shards
        self._connect()

    def _connect(self) -> None:
        """Connect to its node and its read side."""
        address = ShardAddress.parse(self._cluster.settings.shards[self._shard])
        self._node = self._client(address.host, address.port)
        reads = self._node.connect().reads
        assert reads is not None, "the node has named no read side"
        self._reads = self._client(*reads)
        self._reads.connect()

    def _client(self, host: str, port: int) -> Client:
        settings = self._cluster.settings
        return Client(host, port, settings.eventstore.secret.encode(), settings.cluster.id)

    def rows(self, shard: str, statement: str) -> list[tuple]:
        raise AssertionError(f"{shard} is a ledger group and has no rows: {statement}")

    def shard_of(self, account: str) -> str:
        return self._shard

    def sums(self, account: str) -> Sums:
        ((found,),) = self._accounts([account], self._describe().answerable.seq)
        return Sums(found.account.balance, found.account.held, found.account.expected)

    def unfinished(self, prefix: str) -> list[tuple]:
        """None ever is: what a group decides is over."""
        return []

    def snapshot(self, prefix: str, accounts: Sequence[str]) -> Kept:
        """These accounts, and how many there are of all that is kept."""
        node = self._describe()
        found = self._accounts(accounts, node.answerable.seq)
        return {
            "commands": [(node.commands,)],
            "counts": [(node.accounts, node.transfers)],
            "entries": [(self._reads.ask(Lag(), LagIs, PATIENCE_S).entries,)],
            "accounts": found,
        }

    def _describe(self) -> Description:
        if not (self._node.is_alive and self._reads.is_alive):
            # Another test has restarted one of them.
            self._connect()
        return self._node.ask(Describe(), Description, PATIENCE_S)

    def _accounts(self, names: Sequence[str], min_seq: int) -> list[tuple]:
        question = Accounts(list(names), min_seq)
        return [(dated,) for dated in self._reads.ask(question, AccountsAre, PATIENCE_S).accounts]


def store_of(cluster: Cluster) -> MySqlStore | GroupStore:
    return GroupStore(cluster) if is_group(cluster) else MySqlStore(cluster)


def is_group(cluster: Cluster) -> bool:
    """Whether its accounts are in a ledger group, and not on MySQL shards."""
    addresses = map(ShardAddress.parse, cluster.settings.shards.values())
    return any(address.kind is ShardKind.LEDGER for address in addresses)
