"""What can go wrong with a shard, as a coordinator needs to know it.

    ShardError
    |-- TryAgain             locks or ids collided; nothing of this branch is left
    |   `-- SlotMoved        the shard does not own a slot: the map is to be read again
    |-- ShardUnavailable     the shard takes no work now: down, read only, full, not itself
    |-- ConnectionLost       no answer: what was sent may or may not have been carried out
    |   |-- TimedOut         not within the time that it was given
    |   `-- Hurried          it had too little time, or waited for locks: no fault of the shard
    |-- DuplicateRow         a primary key was there already
    |-- UnknownBranch        XA does not know this XID (any more)
    |-- StatementRefused     one of the statements cannot be carried out as it is
    `-- ProtocolBug          XA calls in an order that must not occur

Every exception of PyMySQL is translated here and nowhere else.
"""

from functools import partial
from typing import Any

import pymysql.err

# A row, a table or all commits stayed locked for as long as the session waits.
LOCK_WAIT_TIMEOUT = 1205

# In the place of a shard's name when no single one is meant.
ALL_SHARDS = "*"


class ShardError(Exception):
    """A shard did not do what it was asked.

    `code` is the server's or driver's error number, 0 if there is none; `statement` counts the
    statements of the packet from 0 and is None if the packet as a whole failed.
    """

    def __init__(
        self, shard: str, text: str, *, code: int = 0, statement: int | None = None
    ) -> None:
        where = f"shard {shard}: " if shard != ALL_SHARDS else ""
        super().__init__(f"{where}{text}" + (f" (error {code})" if code else ""))
        self.shard = shard
        self.text = text
        self.code = code
        self.statement = statement

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it can pass from one process to another."""
        again = partial(type(self), code=self.code, statement=self.statement)
        return again, (self.shard, self.text)


class TryAgain(ShardError):
    """Locks or ids collided; the branch is rolled back and its transfers can run again."""


class SlotMoved(TryAgain):
    """The shard does not own an account's slot (any more): the map is to be read again."""


class ShardUnavailable(ShardError):
    """The shard takes no work at this time; what was asked has not happened."""


class ConnectionLost(ShardError):
    """The connection broke or a deadline passed: the outcome is unknown."""


class TimedOut(ConnectionLost):
    """The shard had time enough, and has not answered: it is slow, stuck or unreachable."""


class Hurried(ConnectionLost):
    """The deadline came soon after the packet was sent, or the server was to wait for locks until
    then: that says nothing of the shard.
    """


class DuplicateRow(ShardError):
    """A row with this primary key exists."""


class UnknownBranch(ShardError):
    """The server does not know the XID: never prepared, finished, or another session's."""


class StatementRefused(ShardError):
    """The server cannot carry out a statement: a check, a trigger, a value out of range."""


class ProtocolBug(ShardError):
    """XA was called in the wrong state; the connection must not be used again."""


_MEANING: dict[int, type[ShardError]] = {
    # Locks; 3572 is NOWAIT on MySQL. MariaDB says 1205 for it.
    LOCK_WAIT_TIMEOUT: TryAgain,
    1213: TryAgain,
    1020: TryAgain,
    3572: TryAgain,
    1613: TryAgain,
    1614: TryAgain,
    1402: TryAgain,
    # What was to be found was not (`EXPECT_FOUND`): somebody else has been faster.
    1242: TryAgain,
    1062: DuplicateRow,
    1397: UnknownBranch,
    1398: ProtocolBug,
    1399: ProtocolBug,
    1400: ProtocolBug,
    1440: ProtocolBug,
    # Read only, full, out of resources, no access, no such database, XA not permitted.
    **dict.fromkeys(
        (3, 1021, 1026, 1030, 1037, 1038, 1040, 1041, 1044, 1045, 1049, 1114, 1129, 1130, 1142),
        ShardUnavailable,
    ),
    **dict.fromkeys((1053, 1180, 1203, 1226, 1227, 1290, 1401, 1792, 1836, 3032), ShardUnavailable),
    # The session is over: killed, timed out, gone.
    **dict.fromkeys(
        (0, 1158, 1159, 1160, 1161, 1317, 1927, 2006, 2013, 2014, 4031), ConnectionLost
    ),
    1143: ShardUnavailable,
    2003: ShardUnavailable,
}


def translate(shard: str, error: Exception, statement: int | None = None) -> ShardError:
    """What an exception of the driver means."""
    if isinstance(error, ShardError):
        return error
    code, text = 0, str(error)
    if isinstance(error, pymysql.err.MySQLError) and len(error.args) >= 2:
        code, text = error.args[0], str(error.args[1])
    default = StatementRefused if isinstance(error, pymysql.err.MySQLError) else ConnectionLost
    return _MEANING.get(code, default)(shard, text, code=code, statement=statement)
