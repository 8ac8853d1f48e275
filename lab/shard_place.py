"""Where Tandem's protocols run: a cluster with two MySQL shards."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from coordinator.cluster import read_map
from coordinator.settings import Settings
from lab.parts import READ_TIMEOUT_S, ReadSum
from lab.schedule import COORDINATORS, SHARDS
from lab.service_place import COORDINATOR, ServicePlace
from shard_client.plain import PlainConnection
from shard_client.shard_map import ShardAddress
from tandem.chaos.history import Order
from tandem.chaos.workload import CURRENCY, Wire
from tandem.local.cluster import LocalCluster, Options
from tandem.local.errors import LocalError
from tandem.local.progress import Report

SUM = "SELECT COALESCE(SUM(balance), 0) FROM accounts WHERE id IN %s"
BALANCES = "SELECT id, balance FROM accounts WHERE id IN %s"
# What each transfer has put on each account of these, in all; what was booked back counts too.
MOVED = """\
SELECT transfer_id, account_id, SUM(amount) FROM entries
WHERE account_id IN %s GROUP BY transfer_id, account_id"""


class ShardPlace(ServicePlace):
    """Two shards; see parts.Place."""

    names = (*SHARDS, *COORDINATORS)

    def __init__(self, local: LocalCluster, wire: Wire) -> None:
        super().__init__(local, wire)
        self._map = read_map(self.settings)
        self.versions: Mapping[str, str] = {
            name: f"MySQL {self._rows(name, 'SELECT VERSION()', None)[0][0]}"
            for name in self._map.shards
        }

    def shard_of(self, account: str) -> str:
        return self._map.shard_of(account)

    def readers(self, accounts: Sequence[str]) -> dict[str, ReadSum]:
        return {
            shard: SumReader(
                self.settings, address, [a for a in accounts if self.shard_of(a) == shard]
            )
            for shard, address in self._map.shards.items()
        }

    def balances(self, accounts: Sequence[str]) -> dict[str, int]:
        return {
            account: int(balance)
            for shard in self._map.shards
            for account, balance in self._rows(shard, BALANCES, [list(accounts)])
        }

    def moved(self, accounts: Sequence[str]) -> dict[tuple[str, str], int]:
        """What each transfer has put on each account, by (transfer, account), from the entries."""
        return {
            (transfer, account): int(amount)
            for shard in self._map.shards
            for transfer, account, amount in self._rows(shard, MOVED, [list(accounts)])
        }

    def check_protocol(self, protocol: str) -> None:
        """Raises LocalError if the coordinators do not know it."""
        order = Order("protocol", "nobody", "nobody-else", 1, CURRENCY)
        reply = self._wire.send(
            "POST",
            f"{self.urls[0]}/v1/transfers",
            order.body | {"protocol": protocol},
            {"Idempotency-Key": order.key},
        )
        if reply.status == 400:
            raise LocalError(
                f'the coordinators do not know the protocol "{protocol}": '
                f"{reply.body['detail']}; leave it out of --ways"
            )

    def _rows(self, shard: str, statement: str, values: object) -> Sequence[Any]:
        address = self._map.shards[shard]
        with _connect(self.settings, address) as session, session.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())


class SumReader:
    """Reads what one shard holds, as any client of the database could: READ COMMITTED."""

    def __init__(self, settings: Settings, address: ShardAddress, accounts: list[str]) -> None:
        self._settings = settings
        self._address = address
        self._accounts = accounts
        self._session: Connection[Cursor] | None = None

    def __call__(self) -> int | None:
        try:
            if self._session is None:
                self._session = _connect(self._settings, self._address)
            with self._session.cursor() as cursor:
                cursor.execute(SUM, [self._accounts])
                return int(cursor.fetchall()[0][0])
        except (pymysql.MySQLError, OSError):
            self._forget()
            return None

    def _forget(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(pymysql.MySQLError, OSError):
                session.close()


def _connect(settings: Settings, address: ShardAddress) -> "Connection[Cursor]":
    return PlainConnection(
        host=address.host,
        port=address.port,
        database=address.database,
        user=settings.mysql.admin_user,
        password=settings.mysql.admin_password,
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=READ_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S * 10,
        init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    )


@contextmanager
def shard_place(folder: Path, wire: Wire, report: Report) -> Iterator[ShardPlace]:
    """A place for the block, with everything ready. Raises LocalError, ClusterError."""
    local = LocalCluster(folder, coordinator_environment=COORDINATOR)
    try:
        local.up(Options(len(SHARDS), len(COORDINATORS)), report)
        yield ShardPlace(local, wire)
    finally:
        local.down(kill=True)
