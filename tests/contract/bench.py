"""A shard's boundary under test: connections, branches and accounts with names of their own."""

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count

import pymysql

from coordinator.engine.planning import Plan, plan
from coordinator.engine.tickets import Latch, Ticket
from coordinator.shards.addresses import service_address
from ledger.ids import slot_of, transfer_id
from ledger.model import Transfer
from shard_client.accounts import open_all
from shard_client.address import Address
from shard_client.branch import Branch
from shard_client.connection import ShardConnection
from shard_client.errors import ShardError
from shard_client.prepared import finish, read_decisions
from shard_client.records import DecisionOutcome, Locked, Terms
from shard_client.shard_map import ShardAddress
from shard_client.xid import Gtrid
from tests.cluster import Cluster, wait_until

COORDINATOR = "tests"
CALL_S = 5.0

LOCKED_ROWS = """
    SELECT l.object_name, l.index_name, l.lock_mode, l.lock_data
      FROM performance_schema.data_locks l
      JOIN performance_schema.threads t ON t.thread_id = l.thread_id
     WHERE t.processlist_id = %s AND l.lock_type = 'RECORD'
"""


def soon() -> float:
    """A deadline that a healthy server keeps with ease."""
    return time.monotonic() + CALL_S


def now() -> int:
    return time.time_ns() // 1000


@cache
def _slots(cluster: Cluster, shard: str) -> list[tuple[int, int]]:
    rows = cluster.rows(shard, "SELECT first_slot, last_slot FROM slots")
    return [(first, last) for first, last in rows]


class Bench:
    """One test's hold on the shards of a cluster. Whatever it leaves prepared is finished."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.prefix = secrets.token_hex(4)
        self._numbers = count()
        self._connections: list[ShardConnection] = []
        self._gtrids: list[Gtrid] = []
        self._tags = {shard: self._tag(shard) for shard in cluster.settings.shards}

    def _tag(self, shard: str) -> str:
        """What in braces makes an account one of this shard's."""
        ranges = _slots(self.cluster, shard)
        return next(
            f"{{{self.prefix}{n}}}"
            for n in count()
            if any(first <= slot_of(f"{self.prefix}{n}") <= last for first, last in ranges)
        )

    # --- connections ------------------------------------------------------------------------

    def address(self, shard: str) -> Address:
        host, _, rest = self.cluster.settings.shards[shard].partition(":")
        port, _, database = rest.partition("/")
        where = ShardAddress(host, int(port), database)
        return service_address(self.cluster.settings, shard, where)

    def connect(self, shard: str = "s1") -> ShardConnection:
        connection = ShardConnection(self.address(shard), 2.0, 60)
        self._connections.append(connection)
        return connection

    @contextmanager
    def admin(self, shard: str = "s1") -> Iterator["pymysql.cursors.Cursor"]:
        """The administrator in a transaction that is undone at the end."""
        connection = self.cluster.sql(shard)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                cursor.execute("BEGIN")
                yield cursor
        finally:
            connection.rollback()
            connection.close()

    # --- accounts ---------------------------------------------------------------------------

    def name(self, shard: str = "s1") -> str:
        """The next name of an account on a shard; later names sort behind."""
        return f"{self.prefix}.{next(self._numbers):06d}.{self._tags[shard]}"

    def accounts(self, number: int, shard: str = "s1", limit: int | None = None) -> list[str]:
        """Open so many accounts, without limit so that money can be moved at once."""
        names = [self.name(shard) for _ in range(number)]
        connection = self.connect(shard)
        open_all(connection, [Terms(name, "EUR", limit) for name in names], now(), soon())
        connection.close()
        return names

    def balances(self, names: Iterable[str]) -> dict[str, int]:
        """As committed, on whatever shard."""
        ids = ",".join(f"'{name}'" for name in names)
        found: dict[str, int] = {}
        for shard in self.cluster.settings.shards:
            query = f"SELECT id, balance FROM accounts WHERE id IN ({ids})"
            found.update(self.cluster.rows(shard, query))
        return found

    # --- groups -----------------------------------------------------------------------------

    def gtrid(self, home: str = "s1", cluster: str = "", coordinator: str = COORDINATOR) -> Gtrid:
        name = cluster or self.cluster.settings.cluster.id
        made = Gtrid(name, home, coordinator, time.time_ns() // 1_000_000, secrets.randbits(64))
        self._gtrids.append(made)
        return made

    def branch(self, shard: str, gtrid: Gtrid) -> Branch:
        return Branch(self.connect(shard), str(gtrid), is_local=shard == gtrid.home)

    def transfer(self, source: str, destination: str, *, amount: int = 7) -> Transfer:
        key = f"k{next(self._numbers)}"
        id_ = transfer_id(source, key)
        return Transfer(id_, key, source, destination, amount, "EUR", None, "xa", now())

    def ticket(self, transfer: Transfer) -> Ticket:
        made = Ticket(transfer, soon(), Latch(1), None)
        shards = [self._shard_of(name) for name in (transfer.source, transfer.destination)]
        made.shards = (shards[0], shards[1])
        return made

    def _shard_of(self, account: str) -> str:
        return next(shard for shard, tag in self._tags.items() if account.endswith(tag))

    def plan(self, gtrid: Gtrid, transfers: Sequence[Transfer], *locked: Locked) -> Plan:
        """What a group writes, by the money rules, so that the books stay right."""
        accounts = {id_: item for answer in locked for id_, item in answer.accounts.items()}
        return plan([self.ticket(item) for item in transfers], accounts, now(), str(gtrid))

    def prepare(self, gtrid: Gtrid, transfer: Transfer) -> dict[str, Branch]:
        """A group of one transfer across both shards, up to its commit point."""
        branches = {shard: self.branch(shard, gtrid) for shard in ("s1", "s2")}
        ends = (transfer.source, transfer.destination)
        locked = {}
        for shard, branch in branches.items():
            mine = [name for name in ends if self._shard_of(name) == shard]
            locked[shard] = branch.lock(mine, [transfer.id], soon()).get()
            assert sorted(locked[shard].accounts) == sorted(mine)
        made = self.plan(gtrid, [transfer], *locked.values())
        for shard, branch in branches.items():
            branch.write(made.writes[shard], soon()).get()
        return branches

    def across(self) -> tuple[Gtrid, Transfer]:
        """A new group's name and a transfer for it, from s1, its home, to s2."""
        (source,), (destination,) = self.accounts(1, "s1"), self.accounts(1, "s2")
        return self.gtrid(), self.transfer(source, destination)

    # --- what is locked ---------------------------------------------------------------------

    def free_of(self, names: Sequence[str], shard: str = "s1") -> set[str]:
        """Those of these accounts that nobody has locked."""
        ids = ",".join(f"'{name}'" for name in names)
        with self.admin(shard) as cursor:
            cursor.execute(
                f"SELECT id FROM accounts FORCE INDEX (PRIMARY) WHERE id IN ({ids})"
                " FOR UPDATE SKIP LOCKED"
            )
            return {row[0] for row in cursor.fetchall()}

    def locks_of(self, connection: ShardConnection) -> list[tuple[str, str, str, str]]:
        """(table, index, mode, row) of every row lock of a session; MySQL alone shows them."""
        with self.admin(connection.shard) as cursor:
            cursor.execute(LOCKED_ROWS, [connection.thread_id])
            return [(t, i, m, str(d)) for t, i, m, d in cursor.fetchall()]

    # --- the end ----------------------------------------------------------------------------

    def end_session(self, *connections: ShardConnection) -> None:
        """Close connections and wait until their servers have noticed."""
        for connection in connections:
            connection.close()
        for shard in {connection.shard for connection in connections}:
            ids = [str(c.thread_id) for c in connections if c.shard == shard]
            query = f"SELECT 1 FROM information_schema.processlist WHERE id IN ({','.join(ids)})"
            self._wait_until_none(shard, query)

    def _wait_until_none(self, shard: str, query: str) -> None:
        with self.admin(shard) as cursor:
            wait_until(lambda: not cursor.execute(query), 5, f"{query} still finds something")

    def close(self) -> None:
        self.end_session(*self._connections)
        for shard in self._tags:
            watching = self.connect(shard)
            by_text = "FORMAT='SQL'" if watching.is_mariadb else "CONVERT XID"
            if watching.rows(f"XA RECOVER {by_text}", soon()):
                for gtrid in self._gtrids:
                    self._finish(gtrid, shard)
        for connection in self._connections:
            connection.close()

    def _finish(self, gtrid: Gtrid, shard: str) -> None:
        """Finish what a test has left prepared."""
        home = gtrid.home if gtrid.home in self._tags else "s1"
        decision = read_decisions(self.connect(home), [str(gtrid)], soon()).get(str(gtrid))
        with suppress(ShardError):
            outcome = decision or DecisionOutcome.ABORTED
            finish(self.connect(shard), [(str(gtrid), outcome)], soon())
