"""Removing the traces of finished groups from a shard: decisions and markers (rule R7).

What may go is decided by the caller, who sees all shards; nothing here looks at another.
"""

import secrets
from collections.abc import Iterable

from shard_client import statements as sql
from shard_client.connection import ShardConnection
from shard_client.records import Decision, DecisionOutcome
from shard_client.transfers import make_durable


def some_decisions(
    home: ShardConnection, after_gtrid: str, limit: int, deadline: float
) -> list[Decision]:
    """The next decisions in the order of their names. Raises ShardError."""
    statement = sql.fill(home, sql.SOME_DECISIONS, after_gtrid).format(limit=limit)
    return [
        Decision(gtrid, DecisionOutcome(outcome), branches.split(",") if branches else [], at)
        for gtrid, outcome, branches, at in home.rows(statement, deadline)
    ]


def drop_decisions(home: ShardConnection, gtrids: Iterable[str], deadline: float) -> None:
    """Raises ShardError; the call may be repeated."""
    home.query([sql.listing(home, sql.DROP_DECISIONS, sorted(gtrids))], deadline)


def marked(connection: ShardConnection, gtrids: Iterable[str], deadline: float) -> set[str]:
    """Those of these groups whose branch on this shard has committed, for good: what was read is
    durable on every kind of server when this returns (rule R2). Raises ShardError.
    """
    rows = connection.rows(sql.listing(connection, sql.SETTLED_MARKERS, gtrids), deadline)
    if rows:
        make_durable(connection, deadline)
    return {row[0] for row in rows}


def some_markers(
    connection: ShardConnection, after_gtrid: str, limit: int, deadline: float
) -> list[str]:
    """The next groups, in the order of their names, whose branch has committed here."""
    statement = sql.fill(connection, sql.SOME_MARKERS, after_gtrid)
    statement = sql.with_share(connection, statement).format(limit=limit)
    return [row[0] for row in connection.rows(statement, deadline)]


def drop_markers(connection: ShardConnection, gtrids: Iterable[str], deadline: float) -> None:
    """Raises ShardError; the call may be repeated."""
    connection.query([sql.listing(connection, sql.DROP_MARKERS, sorted(gtrids))], deadline)


def running(home: ShardConnection, deadline: float) -> frozenset[tuple[int, str]] | None:
    """The transactions that are open on a server now: (session, start). Raises ShardError.

    InnoDB shows a copy of its list, which it renews only when nobody has read it for 0.1 s. So it
    is read from within a transaction: a copy that has it with this very statement is younger than
    the call. None: it has not.
    """
    opening = ["START TRANSACTION", sql.listing(home, sql.READ_SLOTS, ())]
    asking = sql.fill(home, sql.RUNNING, secrets.token_hex(8))
    rows = home.query([*opening, asking, "COMMIT"], deadline)[2].rows
    if not any(is_asking for *_, is_asking in rows):
        return None
    return frozenset(
        (int(session), str(start)) for session, start, _ in rows if session != home.thread_id
    )
