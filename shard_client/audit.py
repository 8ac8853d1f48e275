"""One shard at one moment, streamed: what the audit reads."""

from collections.abc import Iterator
from itertools import chain, groupby
from typing import NamedTuple

import pymysql
from pymysql.cursors import SSCursor

from ledger.audit import Line, Record
from ledger.model import Account, Entry
from shard_client.connection import Address, Row
from shard_client.errors import translate

# A reader that waits for a slower shard must not be hung up on by the server.
_PATIENCE_S = 3600

_BEGIN = (
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    f"SET SESSION net_write_timeout={_PATIENCE_S}, wait_timeout={_PATIENCE_S}",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT",
)
_HISTORIES = """
    SELECT a.id, a.currency, a.balance, a.overdraft_limit, a.status, a.entry_count, a.stamp_floor,
           e.account_id, e.number, e.transfer_id, e.amount, e.balance, e.counterparty, e.stamp
      FROM accounts a LEFT JOIN entries e ON e.account_id = a.id
     ORDER BY a.id, e.number
"""
_ORPHANS = """
    SELECT DISTINCT e.account_id FROM entries e LEFT JOIN accounts a ON a.id = e.account_id
     WHERE a.id IS NULL
"""
# Entries and transfers in one stream, in the order of the transfers' ids.
_BY_TRANSFER = """
    SELECT transfer_id AS id, 0 AS is_record, account_id AS a, counterparty AS b, amount, stamp,
           '' AS status, '' AS gtrid
      FROM entries {entries}
    UNION ALL
    SELECT id, 1, source, destination, amount, decided_at, status, gtrid
      FROM transfers {transfers}
     ORDER BY id
"""
_GROUPS = """
    SELECT gtrid, 'decision' AS kind, branches FROM decisions WHERE outcome = 'committed'
    UNION ALL
    SELECT gtrid, 'marker', shard FROM markers
     ORDER BY gtrid
"""


class TransferLines(NamedTuple):
    """What one shard holds of one transfer."""

    id: str
    records: list[Record]
    lines: list[Line]


class GroupRow(NamedTuple):
    """On the home: a committed decision and the shards of its branches. Elsewhere: a marker."""

    gtrid: str
    is_decision: bool
    shards: tuple[str, ...]
    found_on: str


class Snapshot:
    """A shard as it is at the moment in which this is made. One stream at a time."""

    def __init__(self, address: Address) -> None:
        self.shard = address.shard
        try:
            self._connection = pymysql.connect(
                host=address.host,
                port=address.port,
                user=address.user,
                password=address.password,
                database=address.database,
                charset="utf8mb4",
                connect_timeout=5,
                autocommit=True,
                cursorclass=SSCursor,
            )
            for statement in _BEGIN:
                with self._connection.cursor() as cursor:
                    cursor.execute(statement)
        except pymysql.err.MySQLError as error:
            raise translate(address.shard, error) from error

    def close(self) -> None:
        self._connection.close()

    def slots(self) -> list[tuple[int, int]]:
        rows = self._stream("SELECT first_slot, last_slot FROM slots ORDER BY first_slot")
        return [(first, last) for first, last in rows]

    def histories(self) -> Iterator[tuple[Account, Iterator[Entry]]]:
        """Every account with its entries, in their order. Entries are to be read before the next
        account is.
        """
        for _, rows in groupby(self._stream(_HISTORIES), key=lambda row: row[0]):
            account, entries = _history(rows)
            yield account, entries

    def orphans(self) -> list[str]:
        """Accounts that entries name, but that do not exist."""
        return [row[0] for row in self._stream(_ORPHANS)]

    def by_transfer(self) -> Iterator[TransferLines]:
        """What this shard holds of each transfer, in the order of their ids."""
        return self._by_transfer(_BY_TRANSFER.format(entries="", transfers=""))

    def of_transfer(self, transfer: str) -> list[TransferLines]:
        """What this shard holds of one transfer; slow."""
        name = self._connection.escape(transfer)
        where = {"entries": f"WHERE transfer_id = {name}", "transfers": f"WHERE id = {name}"}
        return list(self._by_transfer(_BY_TRANSFER.format(**where)))

    def groups(self) -> Iterator[GroupRow]:
        """Committed decisions and markers, in the order of their gtrids."""
        for gtrid, kind, shards in self._stream(_GROUPS):
            names = tuple(shards.split(",")) if shards else ()
            yield GroupRow(gtrid, kind == "decision", names, self.shard)

    def _by_transfer(self, statement: str) -> Iterator[TransferLines]:
        for id_, rows in groupby(self._stream(statement), key=lambda row: row[0]):
            found = TransferLines(id_, [], [])
            for _, is_record, a, b, amount, stamp, status, gtrid in rows:
                if is_record:
                    found.records.append(Record(self.shard, status, a, b, amount, gtrid))
                else:
                    found.lines.append(Line(self.shard, a, amount, b, stamp))
            yield found

    def _stream(self, statement: str) -> Iterator[Row]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
                yield from cursor
        except pymysql.err.MySQLError as error:
            raise translate(self.shard, error) from error


def _history(rows: Iterator[Row]) -> tuple[Account, Iterator[Entry]]:
    """One account with its entries; one without any has a single row of NULLs."""
    first = next(rows)
    entries = (Entry(*row[7:]) for row in chain([first], rows) if row[7] is not None)
    return Account(*first[:7]), entries
