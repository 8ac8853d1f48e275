"""A MySQL shard's books at one moment, read in pages or streams.

Large tables are read in pages, in the order of their primary keys. A page travels as one JSON text
that the server has made: the driver would take longer to decode its rows one by one than the server
to read them.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import chain, groupby
from typing import Any, TypeVar

import msgspec
import pymysql
from pymysql.cursors import Cursor, SSCursor

from ledger.model import Account, Entry
from ledger.transfer_audit import Line, PhaseLine, Record, StepLine, Traces
from shard_client.address import Address
from shard_client.audit_statements import (
    ACCOUNTS,
    AHEAD,
    BEGIN,
    BY_TRANSFER,
    ENDS,
    ENTRIES,
    GROUPS,
    ISOLATION,
    PAGE_OF,
    PATIENCE_S,
    PHASES,
    REFUNDED,
    STEPS,
    TRANSFERS,
)
from shard_client.books import Books, GroupRow, PhaseOf, StepOf, Terms, TransferRow
from shard_client.connection import Row
from shard_client.errors import ShardUnavailable, translate
from shard_client.plain import PlainConnection
from shard_client.records import STAMP_AHEAD_MAX_US
from shard_client.session import ASK, PROOF, ROWS_MAX, known_of, opening
from shard_client.statements import CLOCK
from shard_client.tls import context_of

T = TypeVar("T")

# Some 700 kB, below the packet that any server takes by default; larger pages are not faster. What
# does not fit is read in smaller ones, which grow again.
_PAGE = 2000


class Snapshot(Books):
    """See Books. Streams come one at a time; pages go together."""

    def __init__(self, address: Address) -> None:
        self.shard = address.shard
        try:
            self._connection = PlainConnection(
                host=address.host,
                port=address.port,
                user=address.user,
                password=address.password,
                database=address.database,
                charset="utf8mb4",
                connect_timeout=5,
                autocommit=True,
                ssl=context_of(address.tls) if address.tls.verifies else None,
            )
            with self._connection.cursor() as cursor:
                for statement in ASK:
                    cursor.execute(statement)
                known = known_of(cursor.fetchall())
                if not known:
                    raise self._not_whole("it does not list its variables")
                for statement in (*opening(known, PATIENCE_S, ISOLATION), BEGIN):
                    cursor.execute(statement)
        except pymysql.err.MySQLError as error:
            raise translate(address.shard, error) from error

    def close(self) -> None:
        self._connection.close()

    # --- pages ------------------------------------------------------------------------------

    def accounts(self) -> Iterator[Account]:
        return self._paged("accounts", ACCOUNTS, ["id"], Account)

    def account(self, id_: str) -> Account | None:
        here = f"id = {self._connection.escape(id_)}"
        return next(self._paged("accounts", ACCOUNTS, ["id"], Account, here), None)

    def entries(self, account: str | None = None, stamps: range | None = None) -> Iterator[Entry]:
        where = ["TRUE"]
        if account is not None:
            where.append(f"account_id = {self._connection.escape(account)}")
        if stamps is not None:
            where.append(f"stamp >= {stamps.start} AND stamp < {stamps.stop}")
        key = ["account_id", "number"]
        return self._paged("entries", ENTRIES, key, Entry, " AND ".join(where))

    def transfers(self) -> Iterator[TransferRow]:
        return self._paged("transfers", TRANSFERS, ["id"], TransferRow)

    def phases(self, source: str | None = None) -> Iterator[PhaseOf]:
        here = "TRUE" if source is None else f"source = {self._connection.escape(source)}"
        return self._paged("phases", PHASES, ["transfer_id", "gtrid"], PhaseOf, here)

    def steps(self, account: str | None = None, state: str = "") -> Iterator[StepOf]:
        # The table has no index by account: the others are passed over.
        escape = self._connection.escape
        here = "TRUE"
        if account is not None:
            here = f"account = {escape(account)} AND state = {escape(state)}"
        return self._paged("steps", STEPS, ["transfer_id", "gtrid"], StepOf, here)

    def _paged(
        self,
        table: str,
        columns: dict[str, str],
        key: list[str],
        kind: type[T],
        where: str = "TRUE",
    ) -> Iterator[T]:
        """The rows of a table in the order of its primary key, whose columns come first."""
        position: tuple[Any, ...] | None = None
        size = _PAGE
        while True:
            behind = f"({where}) AND ({self._behind(key, position)})"
            rows = self._page(table, columns, key, kind, behind, size)
            if rows is None and size == 1:
                raise self._not_whole(
                    f"a row of {table} behind {position or 'the beginning'} does not fit into a "
                    f"text, or is NULL; max_allowed_packet is {self._packet_max()}"
                )
            if rows is None:
                size //= 2
                continue
            yield from rows
            if len(rows) < size:
                return
            position = tuple(rows[-1][: len(key)])  # type: ignore[index]
            size = min(size + size // 4 + 1, _PAGE)

    def _page(
        self,
        table: str,
        columns: dict[str, str],
        key: list[str],
        kind: type[T],
        where: str,
        size: int,
    ) -> list[T] | None:
        """At most `size` rows; None if not all of them are in the text in which they came."""
        values = ", ',', ".join(how.format(name) for name, how in columns.items())
        statement = PAGE_OF.format(
            values=values,
            columns=", ".join(columns),
            table=table,
            where=where,
            key=", ".join(key),
            limit=size,
        )
        ((count, text),) = self._rows(statement)
        decode = msgspec.json.Decoder(list[kind]).decode  # type: ignore[valid-type]
        try:
            rows: list[T] = sorted(decode(text or "[]"))
        except msgspec.DecodeError:
            # It ends before its end.
            return None
        return rows if len(rows) == count else None

    def _behind(self, key: list[str], position: tuple[Any, ...] | None) -> str:
        """What tells the rows behind a position, so that both servers find them by the key."""
        if position is None:
            return "TRUE"
        values = [self._connection.escape(value) for value in position]
        if len(key) == 1:
            return f"{key[0]} > {values[0]}"
        first, second = zip(key, values, strict=True)
        return f"({first[0]} = {first[1]} AND {second[0]} > {second[1]}) OR {first[0]} > {first[1]}"

    # --- streams ----------------------------------------------------------------------------

    def clock(self) -> int:
        ((now,),) = self._rows(f"SELECT {CLOCK}")
        return int(now)

    def ahead(self) -> Iterator[tuple[str, int]]:
        latest = self.clock() + STAMP_AHEAD_MAX_US
        yield from self._stream(AHEAD.format(latest=latest))

    def slots(self) -> list[tuple[int, int]]:
        rows = self._rows("SELECT first_slot, last_slot FROM slots ORDER BY first_slot")
        return [(first, last) for first, last in rows]

    def refunded(self, transfers: Collection[str]) -> dict[str, Terms]:
        rows = self._rows(REFUNDED.format(ids=self._listed(transfers)))
        return {id_: Terms(*terms) for id_, *terms in rows}

    def by_transfer(self, parts: Iterable[int], of: int) -> Iterator[Traces]:
        listed = ",".join(map(str, parts))
        where = f"CRC32({{0}}) MOD {of} IN ({listed})"
        others = where.format("transfer_id")
        return self._by_transfer(others, where.format("id"), others)

    def of_transfers(
        self, transfers: Collection[str], accounts: Collection[str]
    ) -> Iterator[Traces]:
        ids, places = self._listed(transfers), self._listed(accounts)
        lines = f"account_id IN ({places}) AND transfer_id IN ({ids})"
        return self._by_transfer(lines, f"id IN ({ids})", f"transfer_id IN ({ids})")

    def ends_of(self, transfers: Collection[str]) -> set[str]:
        rows = self._rows(ENDS.format(ids=self._listed(transfers)))
        return {account for ends in rows for account in ends}

    def groups(self) -> Iterator[GroupRow]:
        for gtrid, kind, shards in self._stream(GROUPS):
            names = tuple(shards.split(",")) if shards else ()
            yield GroupRow(gtrid, kind == "decision", names, self.shard)

    def _by_transfer(self, entries: str, transfers: str, others: str) -> Iterator[Traces]:
        statement = BY_TRANSFER.format(entries=entries, transfers=transfers, others=others)
        for id_, rows in groupby(self._stream(statement), key=lambda row: row[0]):
            found = Traces(id_, [], [], [], [])
            for _, kind, a, b, amount, stamp, status, currency, gtrid, protocol, phase in rows:
                if kind == "line":
                    found.lines.append(Line(self.shard, a, amount, b, stamp, currency))
                    continue
                terms = (status, a, b, amount, currency, gtrid, protocol)
                if kind == "record":
                    found.records.append(Record(self.shard, *terms))
                elif kind == "phase":
                    found.phases.append(PhaseLine(self.shard, *terms, phase))
                else:
                    found.steps.append(StepLine(self.shard, a, amount, gtrid, status))
            yield found

    def _listed(self, ids: Collection[str]) -> str:
        return ",".join(map(self._connection.escape, ids)) or "''"

    def _stream(self, statement: str) -> Iterator[Row]:
        try:
            with self._connection.cursor(SSCursor) as cursor:
                cursor.execute(statement)
                yield from cursor
        except pymysql.err.MySQLError as error:
            raise translate(self.shard, error) from error
        self._check_whole()

    def _rows(self, statement: str) -> list[Row]:
        rows = self._asked(statement)
        self._check_whole()
        return rows

    def _check_whole(self) -> None:
        """Raise ShardUnavailable if the session may have cut what was read."""
        limits = self._asked(PROOF)
        if limits != [(ROWS_MAX,)]:
            raise self._not_whole(f"sql_select_limit is {[*chain(*limits)] or 0} in its session")

    def _asked(self, statement: str) -> list[Row]:
        try:
            with self._connection.cursor(Cursor) as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        except pymysql.err.MySQLError as error:
            raise translate(self.shard, error) from error

    def _packet_max(self) -> int:
        return int(self._asked("SELECT @@max_allowed_packet")[0][0])

    def _not_whole(self, why: str) -> ShardUnavailable:
        return ShardUnavailable(self.shard, f"it cannot be read as a whole: {why}")
