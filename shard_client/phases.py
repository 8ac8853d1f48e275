"""One shard's part in TC/C and Saga: the phase table of transfers that start here, the steps of
those that end here, and the local transactions that take both further.

What a phase and a state mean, the protocol knows; here they are text.
"""

import time
from collections import defaultdict
from collections.abc import Iterable

from ledger.model import Account
from shard_client import statements as sql
from shard_client.branch import MySqlSession, locked_of
from shard_client.connection import Reply, Result, ShardConnection
from shard_client.node import LocalTransaction
from shard_client.records import (
    Attempt,
    Found,
    LocalWrites,
    PhaseRow,
    StepRow,
    Unfinished,
    Wanted,
)
from shard_client.transfers import make_durable
from shard_client.xid import Gtrid

# Phases that are read at once: few enough not to keep others in the process waiting.
_PAGE = 250


def standing_of(lines: Iterable[str]) -> dict[Attempt, str]:
    """The phases that LOCK_STANDING has brought."""
    found = {}
    for line in lines:
        id_, gtrid, phase = line.split("\t")
        found[id_, gtrid] = phase
    return found


def steps_of(lines: Iterable[str]) -> dict[Attempt, StepRow]:
    """The steps that LOCK_STEPS has brought."""
    found = {}
    for line in lines:
        id_, gtrid, account, amount, state, is_empty, stamp, reason, detail = line.split("\t")
        found[id_, gtrid] = StepRow(
            id_,
            gtrid,
            account,
            int(amount),
            state,
            int(is_empty),
            int(stamp),
            reason or None,
            detail or None,
        )
    return found


class MySqlLocalTransaction(MySqlSession, LocalTransaction):
    """See LocalTransaction."""

    def lock(self, wanted: Wanted, deadline: float) -> Reply[Found]:
        connection = self.connection
        asked: dict[str, tuple[str, set[str], int]] = {
            "accounts": (sql.LOCK_ACCOUNTS, wanted.accounts, sql.ACCOUNT_MAX),
            "phases": (sql.LOCK_PHASES, wanted.phases, 1),
            "standing": (sql.LOCK_STANDING, wanted.standing, sql.STANDING_MAX),
            "steps": (sql.LOCK_STEPS, wanted.steps, sql.STEP_MAX),
            "transfers": (sql.FIND_TRANSFERS, wanted.transfers, 1),
        }
        packet = [*self._opening(), sql.listing(connection, sql.READ_SLOTS, ())]
        names: list[str] = []
        for name, (statement, ids, row_max) in asked.items():
            statements = sql.listings(connection, statement, sorted(ids), row_max)
            packet += statements
            names += [name] * len(statements)

        def parse(results: list[Result]) -> Found:
            slots, *rest = results[-len(names) - 1 :]
            found: dict[str, list[Result]] = defaultdict(list)
            for name, result in zip(names, rest, strict=True):
                found[name].append(result)
            return _found(connection, slots, found)

        return connection.call(packet, deadline, parse, is_proven=True, may_wait=True)

    def commit(self, writes: LocalWrites, deadline: float) -> Reply[None]:
        packet = [*self._opening()]
        # Before the phase rows: whoever looks at what is not committed sees the one or the other.
        if writes.transfers:
            transfers = [
                (*row.transfer, row.gtrid, row.status, row.reason, row.detail, row.decided_at)
                for row in writes.transfers
            ]
            packet.append(sql.insert(sql.INSERT_TRANSFERS, transfers))
        packet += self._changes(writes)
        if writes.entries:
            packet.append(sql.insert(sql.INSERT_ENTRIES, writes.entries))
        if writes.begun:
            rows = [(*row.transfer, *row[1:]) for row in writes.begun]
            packet.append(sql.insert(sql.INSERT_PHASES, rows))
        if writes.new_steps:
            packet.append(sql.insert(sql.INSERT_STEPS, writes.new_steps))
        if writes.accounts:
            packet.append(sql.join(sql.UPDATE_HOLDINGS, map(_holding, writes.accounts.values())))
            packet.append(sql.EXPECT_FOUND.format(count=len(writes.accounts)))
        if writes.rests_on_reading and not self.connection.is_durable_before_visible:
            packet.append(sql.TOUCH)
        return self.connection.call([*packet, "COMMIT"], deadline, lambda _: None)

    def _changes(self, writes: LocalWrites) -> list[str]:
        """Changed rows, many with one statement: those of a group change alike."""
        alike: dict[tuple[str, tuple[object, ...]], list[str]] = defaultdict(list)
        for step in writes.next_steps:
            alike[sql.UPDATE_STEPS, (step.state, step.stamp, step.gtrid)].append(step.transfer)
        for (transfer, gtrid), was, state in writes.changed:
            if state:
                alike[sql.UPDATE_PHASES, (*state, gtrid, was)].append(transfer)
            else:
                alike[sql.DROP_PHASES, (gtrid, was)].append(transfer)
        packet = []
        for (statement, values), ids in alike.items():
            # The ids first: a value may hold braces.
            listed = sql.listing(self.connection, statement, sorted(ids))
            packet.append(sql.fill(self.connection, listed, *values))
            packet.append(sql.EXPECT_FOUND.format(count=len(ids)))
        return packet


def _holding(account: Account) -> tuple[object, ...]:
    id_, _, balance, _, _, count, floor, chain, held, expected = account
    return id_, balance, count, floor, chain, held, expected


def _found(connection: ShardConnection, slots: Result, rest: dict[str, list[Result]]) -> Found:
    locked = locked_of(connection, slots, rest["accounts"], rest["transfers"])
    phases = (PhaseRow.from_row(row) for result in rest["phases"] for row in result.rows)
    return Found(
        locked,
        {row.attempt: row for row in phases},
        standing_of(connection.lines(rest["standing"])),
        steps_of(connection.lines(rest["steps"])),
    )


# --- looking on -----------------------------------------------------------------------------


def list_unfinished(connection: ShardConnection, cluster: str, deadline: float) -> list[Unfinished]:
    """What the phase table of this shard has, group by group. Raises ShardError."""
    found = []
    for gtrid, *rest in connection.rows(sql.COUNT_PHASES, deadline):
        name = Gtrid.parse(gtrid)
        if name and name.cluster == cluster:
            found.append(Unfinished(name, *rest))
    return found


def read_steps(
    connection: ShardConnection, transfers: Iterable[str], deadline: float
) -> Reply[list[StepRow]]:
    """How far transfers are on this shard, their destination's; see `make_durable`."""
    statements = sql.listings(connection, sql.READ_STEPS, list(transfers), sql.STEP_MAX)
    return connection.call(
        statements, deadline, lambda results: list(steps_of(connection.lines(results)).values())
    )


def read_phases(
    connection: ShardConnection, gtrids: Iterable[str], timeout_s: float
) -> list[PhaseRow]:
    """The unfinished transfers of these groups; what is returned is durable. The table is read
    once, in pages, each of which may take so long. Raises ShardError.
    """
    wanted = set(gtrids)
    found: list[PhaseRow] = []
    last = ("", "")
    while True:
        text = sql.fill(connection, sql.SOME_PHASES, last[0], *last).format(limit=_PAGE)
        rows = connection.rows(text, time.monotonic() + timeout_s)
        page = [PhaseRow.from_row(row) for row in rows]
        found += [row for row in page if row.gtrid in wanted]
        if len(page) < _PAGE:
            break
        last = page[-1].attempt
    if found:
        make_durable(connection, time.monotonic() + timeout_s)
    return found


def phases_to(
    connection: ShardConnection, accounts: Iterable[str], deadline: float
) -> Reply[list[PhaseRow]]:
    """The unfinished transfers from this shard to these accounts, as last committed."""
    statement = sql.listing(connection, sql.PHASES_TO, accounts)
    return connection.call(
        [statement], deadline, lambda results: [PhaseRow.from_row(row) for row in results[0].rows]
    )


def phases_of(
    connection: ShardConnection, transfers: Iterable[str], deadline: float
) -> list[PhaseRow]:
    """The unfinished attempts at these transfers, as last committed. Raises ShardError."""
    statement = sql.listing(connection, sql.PHASES_OF, transfers)
    return [PhaseRow.from_row(row) for row in connection.rows(statement, deadline)]
