"""Does a shard do what transfers ask of it: lock, write to every table, commit?"""

from shard_client import statements as sql
from shard_client.connection import ShardConnection
from shard_client.errors import (
    LOCK_WAIT_TIMEOUT,
    ConnectionLost,
    ShardError,
    ShardUnavailable,
    TimedOut,
)
from shard_client.remedies import explained

# Takes the locks of a table that a write takes, and writes no row.
_NO_ROWS = "INSERT INTO {table} SELECT * FROM {table} WHERE FALSE"
_WRITTEN = ("transfers", "entries", "decisions", "markers", "phases", "steps")

_COMMITS_NOTHING = (
    "it answers, but what is written there is not committed: its disk may be full, its error log "
    "says so"
)
_IS_LOCKED = (
    "somebody has locked a table as a whole, or all tables (LOCK TABLES, FLUSH TABLES WITH READ "
    "LOCK, an ALTER that waits): SHOW PROCESSLIST there shows who"
)


def rehearse(connection: ShardConnection, deadline: float) -> None:
    """Do what a group of transfers does, with no rows: where a disk is full, to undo rows can bring
    a server down. Raises ShardUnavailable if the server does not do that, and ConnectionLost.

    No row of a transfer is waited for: whatever lock is waited for is on a table as a whole, or
    belongs to a look before this one that hangs in its commit.
    """
    packet = [
        "START TRANSACTION",
        sql.listing(connection, sql.READ_SLOTS, ()),
        sql.listing(connection, sql.LOCK_ACCOUNTS, ()),
        *(_NO_ROWS.format(table=table) for table in _WRITTEN),
        "ROLLBACK",
    ]
    try:
        # The one row that is there for being written and committed.
        connection.query([*packet, sql.TOUCH], deadline)
    except ShardError as error:
        text = _meaning(error, is_writing=(error.statement or 0) >= len(packet))
        if text is None:
            raise
        raise ShardUnavailable(connection.shard, text, code=error.code) from error


def _meaning(error: ShardError, *, is_writing: bool) -> str | None:
    """What is wrong with a shard that has failed so; None: what the error says."""
    is_locked = error.code == LOCK_WAIT_TIMEOUT
    if is_writing and (is_locked or isinstance(error, TimedOut)):
        return _COMMITS_NOTHING
    if is_locked:
        return _IS_LOCKED
    if isinstance(error, ConnectionLost):
        return None
    if isinstance(error, ShardUnavailable):
        return explained(error)
    return f"it refuses what transfers do: {error.text}"
