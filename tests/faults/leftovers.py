"""Groups whose process has died, made by hand: prepared on one shard, decided on home or not."""

import time
import uuid

from pymysql.cursors import Cursor

from ledger.ids import transfer_id
from shard_client.xid import FORMAT_ID, Gtrid
from tests.bank import Bank, client
from tests.chains import chain_sql
from tests.cluster import Cluster, wait_until

LONG_AGO_MS = 1_700_000_000_000


def prepared(cluster: Cluster, *shards: str) -> list[str]:
    """The gtrids of everything that is prepared on these shards, or on all, ours or not."""
    found = []
    for shard in shards or cluster.settings.shards:
        is_mariadb = "MariaDB" in cluster.rows(shard, "SELECT VERSION()")[0][0]
        statement = "XA RECOVER FORMAT='SQL'" if is_mariadb else "XA RECOVER CONVERT XID"
        for _, length, _, data in cluster.rows(shard, statement):
            # X'...',X'...',1 on MariaDB, 0x... on MySQL.
            digits = data.split("'")[1] if is_mariadb else data[2:]
            found.append(bytes.fromhex(digits)[:length].decode(errors="replace"))
    return found


class Leftover:
    """A group whose coordinator has died with its branch prepared, made by hand."""

    def __init__(
        self, bank: Bank, coordinator: str, time_ms: int = LONG_AGO_MS, cluster_id: str = ""
    ) -> None:
        self.bank = bank
        self.cluster = bank.cluster
        self.source, self.destination = bank.two_across()
        shards = bank.cluster.settings.shards
        with client(bank.cluster.urls[0]) as http:
            self.remote = http.get(f"/v1/accounts/{self.source}").json()["shard"]
        self.home = next(shard for shard in shards if shard != self.remote)
        gtrid = Gtrid(
            cluster_id or bank.cluster.settings.cluster.id,
            self.home,
            coordinator,
            time_ms,
            uuid.uuid4().int >> 64,
        )
        self.gtrid = str(gtrid)
        self.key = uuid.uuid4().hex
        self.id = transfer_id(self.source, self.key)

    def prepare(self) -> None:
        """The debit, in a branch that has voted yes."""
        floor = f"SELECT stamp_floor FROM accounts WHERE id = '{self.source}'"
        self.stamp = self.cluster.rows(self.remote, floor)[0][0]
        xid = f"'{self.gtrid}','{self.remote}',{FORMAT_ID}"
        with self.cluster.sql(self.remote) as connection, connection.cursor() as cursor:
            for statement in (
                f"XA START {xid}",
                "UPDATE accounts SET balance = balance - 5, entry_count = entry_count + 1"
                f" WHERE id = '{self.source}'",
                self._entry("-5", self.source, self.destination, "stamp_floor"),
                _end_chain(self.source),
                "INSERT INTO transfers VALUES ("
                f"'{self.id}', '{self.gtrid}', 'committed', '{self.key}', '{self.source}',"
                f" '{self.destination}', 5, 'EUR', NULL, 'xa', NULL, NULL, 1, {self.stamp})",
                f"INSERT INTO markers VALUES ('{self.gtrid}', '{self.remote}', 0)",
                f"XA END {xid}",
                f"XA PREPARE {xid}",
            ):
                cursor.execute(statement)

    def _entry(self, amount: str, account: str, counterparty: str, stamp: str) -> str:
        transfer, other = f"'{self.id}'", f"'{counterparty}'"
        chain = chain_sql(transfer=transfer, amount=amount, counterparty=other, stamp=stamp)
        return (
            f"INSERT INTO entries SELECT id, entry_count, {transfer}, {amount}, balance, {other},"
            f" {stamp}, {chain} FROM accounts WHERE id = '{account}'"
        )

    def decide(self) -> None:
        """The decision, and the credit, on home; for one that is too young for others to finish."""
        with self.cluster.sql(self.home) as connection, connection.cursor() as cursor:
            self._begin_deciding(cursor)
            self._end_deciding(cursor)

    def prepare_decided(self) -> None:
        """Both. Whoever would be quicker to recover it finds a decision that is being made."""
        with self.cluster.sql(self.home) as connection, connection.cursor() as cursor:
            self._begin_deciding(cursor)
            self.prepare()
            self._end_deciding(cursor)

    def _begin_deciding(self, cursor: Cursor) -> None:
        cursor.execute("START TRANSACTION")
        cursor.execute(
            f"INSERT INTO decisions VALUES ('{self.gtrid}','committed','{self.remote}',0,1)"
        )

    def _end_deciding(self, cursor: Cursor) -> None:
        for statement in (
            "UPDATE accounts SET balance = balance + 5, entry_count = entry_count + 1"
            f" WHERE id = '{self.destination}'",
            self._entry("5", self.destination, self.source, f"GREATEST(stamp_floor, {self.stamp})"),
            _end_chain(self.destination),
            "COMMIT",
        ):
            cursor.execute(statement)

    def roll_back(self) -> None:
        """Away with it, by hand; for one that nobody of ours may touch."""
        xid = f"'{self.gtrid}','{self.remote}',{FORMAT_ID}"
        self.cluster.rows(self.remote, f"XA ROLLBACK {xid}")

    @property
    def is_prepared(self) -> bool:
        return self.gtrid in prepared(self.cluster, self.remote)

    def check(self, *, is_committed: bool) -> None:
        """The transfer has happened as a whole, or not at all, and its accounts are free."""
        with client(self.cluster.urls[0]) as http:
            answer = http.get(f"/v1/transfers/{self.id}")
            assert answer.status_code == (200 if is_committed else 404), answer.text
            moved = 5 if is_committed else 0
            for name, expected in ((self.source, 1000 - moved), (self.destination, 1000 + moved)):
                assert http.get(f"/v1/accounts/{name}").json()["balance"] == expected
        decision = f"SELECT outcome FROM decisions WHERE gtrid = '{self.gtrid}'"
        found = [row[0] for row in self.cluster.rows(self.home, decision)]
        # It may be collected already.
        assert found in ([], ["committed" if is_committed else "aborted"])


def _end_chain(account: str) -> str:
    return (
        "UPDATE accounts SET chain = (SELECT chain FROM entries WHERE account_id = id"
        f" AND number = entry_count) WHERE id = '{account}'"
    )


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def wait_until_finished(*leftovers: Leftover, timeout_s: float = 10.0) -> None:
    for item in leftovers:
        wait_until(lambda item=item: not item.is_prepared, timeout_s, f"{item.gtrid} is in doubt")
