"""Does a shard do what transfers ask of it: lock, write to every table, commit?"""

from shard_client import statements as sql
from shard_client.connection import ShardConnection
from shard_client.errors import (
    LOCK_WAIT_TIMEOUT,
    ConnectionLost,
    ShardError,
    ShardUnavailable,
)

_WRITTEN = ("transfers", "entries", "decisions", "markers", "phases", "steps")
# Takes the locks of a table that a write takes, and writes no row.
_NO_ROWS = "INSERT INTO {table} SELECT * FROM {table} WHERE FALSE"


def rehearse(connection: ShardConnection, deadline: float) -> None:
    """Do what a transfer does, with no rows but one that is there for it, and commit.

    Raises ShardUnavailable if the server refuses it, and TimedOut. It waits for no row of a
    transfer: so if it waits for a lock, that is on a table as a whole, or on commits.
    """
    packet = [
        "START TRANSACTION",
        sql.listing(connection, sql.READ_SLOTS, ()),
        sql.listing(connection, sql.LOCK_ACCOUNTS, ()),
        *(_NO_ROWS.format(table=table) for table in _WRITTEN),
        # A full disk shows on writing only.
        sql.TOUCH,
        "COMMIT",
    ]
    try:
        connection.query(packet, deadline)
    except (ConnectionLost, ShardUnavailable):
        raise
    except ShardError as error:
        text = f"it refuses what transfers do: {error.text}"
        if error.code == LOCK_WAIT_TIMEOUT:
            text = (
                "somebody has locked a table as a whole, or all commits (LOCK TABLES, FLUSH TABLES "
                "WITH READ LOCK, an ALTER that waits): see SHOW PROCESSLIST there"
            )
        raise ShardUnavailable(connection.shard, text, code=error.code) from error
