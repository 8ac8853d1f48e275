"""Textbook XA: the scheme of the manuals, as a careful programmer would write it with PyMySQL.

One global transaction for each transfer, one statement for each round trip, on sessions that are
open already:

    both shards     XA START
    both shards     SELECT ... FOR UPDATE, UPDATE the account, INSERT the entry
    both shards     XA END, XA PREPARE
    one shard       INSERT the decision (autocommit)
    both shards     XA COMMIT

Fifteen round trips and five flushes for a transfer. Shards are locked in one fixed order, so
there are no deadlocks across shards. There is no HTTP, no idempotency, no record of the transfer
beyond its entries, and there are no secondary indexes: all that favours it. Its threads share one
Python process; they mostly wait for the servers, so the interpreter's lock does not hold them up.
"""

import random
import time
from collections import Counter, defaultdict
from contextlib import suppress
from typing import NamedTuple

import pymysql

from bench.loads.base import AMOUNT_MAX, FUNDS, Scale, Tally, run_together
from bench.oracles import settle
from bench.place import Place, Server
from tandem.local.progress import Report

# Lock wait timeout, deadlock, and what XA makes of them.
_TRY_AGAIN = {1205, 1213, 1613, 1614}
_TRIES_MAX = 20
_INSERT_AT_ONCE = 5000
_TABLES = (
    "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL CHECK (balance >= 0))",
    "CREATE TABLE entries (id BIGINT AUTO_INCREMENT PRIMARY KEY, account BIGINT NOT NULL,"
    " transfer VARCHAR(64) CHARACTER SET ascii NOT NULL, amount BIGINT NOT NULL,"
    " balance BIGINT NOT NULL)",
    "CREATE TABLE decisions (transfer VARCHAR(64) CHARACTER SET ascii PRIMARY KEY,"
    " outcome ENUM('committed') NOT NULL)",
)


class Change(NamedTuple):
    """One side of a transfer; the shard is given by its place in the list of servers."""

    shard: int
    account: int
    amount: int


class Textbook:
    """The load; its accounts are numbered from 0 on each shard, in a database of their own."""

    def __init__(self, place: Place, scale: Scale, run: str) -> None:
        self.title = f"textbook XA, {scale.threads} threads"
        self._servers = place.servers
        self._per_shard = max(scale.accounts // len(place.servers), 1)
        self._threads = scale.threads
        self._run = run
        self._database = f"bench_textbook_{run}"

    def set_up(self, report: Report) -> None:
        for server in self._servers:
            report(f"Making the accounts of textbook XA: {self._per_shard:,} on {server.shard}")
            with server.connect() as session, session.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {self._database}")
                cursor.execute(f"USE {self._database}")
                for table in _TABLES:
                    cursor.execute(table)
                for first in range(0, self._per_shard, _INSERT_AT_ONCE):
                    numbers = range(first, min(first + _INSERT_AT_ONCE, self._per_shard))
                    rows = ",".join(f"({number},{FUNDS})" for number in numbers)
                    cursor.execute(f"INSERT INTO accounts VALUES {rows}")

    def open(self) -> "TextbookRunner":
        drivers = [
            Driver(self._servers, self._database, self._per_shard, f"{self._run}-{number}")
            for number in range(self._threads)
        ]
        return TextbookRunner(drivers)

    def violations(self, total: Tally) -> list[str]:
        found = settle(self._servers)
        for server in self._servers:
            found += [f"textbook XA, {server.shard}: {text}" for text in self._shard(server)]
        found += [f"textbook XA: {text}" for text in self._across(total)]
        if not found:
            for server in self._servers:
                server.rows(f"DROP DATABASE {self._database}")
        return found

    def _shard(self, server: Server) -> list[str]:
        """Is every balance what the account began with and the sum of its entries, and the
        balance in its last entry?
        """
        wrong = server.rows(
            "SELECT a.id, a.balance, COALESCE(e.total, 0), l.balance FROM accounts a"
            " LEFT JOIN (SELECT account, SUM(amount) AS total, MAX(id) AS last FROM entries"
            "   GROUP BY account) e ON e.account = a.id"
            " LEFT JOIN entries l ON l.id = e.last"
            " WHERE a.balance <> %s + COALESCE(e.total, 0) OR a.balance <> COALESCE(l.balance, %s)"
            " LIMIT 10",
            FUNDS,
            FUNDS,
            database=self._database,
        )
        return [
            f"account {id_} has {balance}, its entries add {total}, the last says {last}"
            for id_, balance, total, last in wrong
        ]

    def _across(self, total: Tally) -> list[str]:
        """Is all money still there, and has every decided transfer both entries, others none?"""
        money = 0
        decided: set[str] = set()
        entries: dict[str, list[int]] = defaultdict(list)
        for server in self._servers:
            read = server.rows
            money += int(read("SELECT SUM(balance) FROM accounts", database=self._database)[0][0])
            decisions = read("SELECT transfer FROM decisions", database=self._database)
            decided.update(transfer for (transfer,) in decisions)
            for transfer, amount in read(
                "SELECT transfer, amount FROM entries", database=self._database
            ):
                entries[transfer].append(amount)
        expected = FUNDS * self._per_shard * len(self._servers)
        found = [f"all balances add up to {money}, not {expected}"] if money != expected else []
        whole = {t for t, amounts in entries.items() if len(amounts) == 2 and not sum(amounts)}
        found += [f"transfer {t} has entries {entries[t]}" for t in sorted(entries.keys() - whole)]
        found += [f"transfer {t}: decision without entries" for t in sorted(decided - whole)]
        found += [f"transfer {t}: entries without decision" for t in sorted(whole - decided)]
        if len(decided) != total.committed:
            found.append(f"{total.committed} transfers were counted, {len(decided)} are there")
        return found


class TextbookRunner:
    """Threads, each with a driver of its own."""

    def __init__(self, drivers: list["Driver"]) -> None:
        self.drivers = drivers

    def run(self, seconds: float) -> Tally:
        return run_together([driver.run for driver in self.drivers], seconds, Tally())

    def close(self) -> None:
        for driver in self.drivers:
            driver.close()


class Driver:
    """One thread's way of making transfers: a session for the branches on each shard, and one for
    decisions.
    """

    def __init__(self, servers: list[Server], database: str, accounts: int, name: str) -> None:
        self._branches = [server.connect(database).cursor() for server in servers]
        self._decisions = [server.connect(database).cursor() for server in servers]
        self._accounts = accounts
        self._name = name
        self._random = random.Random(name)
        self._count = 0
        # How long each transfer has held its locks, in seconds.
        self.holds: list[float] = []

    def run(self, until: float) -> Tally:
        """One random transfer after the other; counts those that have committed."""
        tally = Tally()
        while time.monotonic() < until:
            self.once(tally)
        return tally

    def once(self, tally: Tally) -> None:
        """One random transfer, until it has committed."""
        self._until_done(self._choose(), tally.other)
        tally.committed += 1

    def close(self) -> None:
        for cursor in self._branches + self._decisions:
            cursor.connection.close()

    def _choose(self) -> list[Change]:
        """Two random accounts on two random shards, in the order in which all lock them."""
        shards = self._random.sample(range(len(self._branches)), 2)
        amount = self._random.randint(1, AMOUNT_MAX)
        accounts = (self._random.randrange(self._accounts) for _ in shards)
        return sorted(map(Change, shards, accounts, (-amount, amount)))

    def _until_done(self, changes: list[Change], other: Counter[str]) -> None:
        for _ in range(_TRIES_MAX):
            self._count += 1
            try:
                self._transfer(changes, f"bench-{self._name}-{self._count}")
            except pymysql.MySQLError as error:
                if error.args[0] not in _TRY_AGAIN:
                    raise
                other["tried again"] += 1
            else:
                return
        raise RuntimeError(f"the transfer {changes} found its rows locked {_TRIES_MAX} times")

    def _transfer(self, changes: list[Change], transfer: str) -> None:
        """One transfer in one global transaction. Raises what the servers raise; nothing has
        happened then, unless it was raised by the decision or a commit, which is not retried.
        """
        xids = {change.shard: f"'{transfer}','{change.shard}'" for change in changes}
        begun: list[int] = []
        try:
            for shard, xid in xids.items():
                self._branches[shard].execute(f"XA START {xid}")
                begun.append(shard)
            locking = time.monotonic()
            for change in changes:
                self._write(change, transfer)
            for shard, xid in xids.items():
                self._branches[shard].execute(f"XA END {xid}")
                self._branches[shard].execute(f"XA PREPARE {xid}")
        except BaseException:
            for shard in begun:
                self._roll_back(shard, xids[shard])
            raise
        decision = "INSERT INTO decisions VALUES (%s, 'committed')"
        self._decisions[changes[0].shard].execute(decision, transfer)
        for shard, xid in xids.items():
            self._branches[shard].execute(f"XA COMMIT {xid}")
        self.holds.append(time.monotonic() - locking)

    def _write(self, change: Change, transfer: str) -> None:
        cursor = self._branches[change.shard]
        cursor.execute("SELECT balance FROM accounts WHERE id = %s FOR UPDATE", change.account)
        row = cursor.fetchone()
        assert row is not None
        balance = row[0] + change.amount
        cursor.execute("UPDATE accounts SET balance = %s WHERE id = %s", (balance, change.account))
        cursor.execute(
            "INSERT INTO entries (account, transfer, amount, balance) VALUES (%s, %s, %s, %s)",
            (change.account, transfer, change.amount, balance),
        )

    def _roll_back(self, shard: int, xid: str) -> None:
        cursor = self._branches[shard]
        # It may have ended: prepared, or marked to be rolled back.
        with suppress(pymysql.MySQLError):
            cursor.execute(f"XA END {xid}")
        cursor.execute(f"XA ROLLBACK {xid}")
