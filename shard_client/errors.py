"""What can go wrong with a shard, as a coordinator needs to know it.

    ShardError
    |-- TryAgain             locks or ids collided; nothing of this branch is left
    |   |-- SlotMoved        the shard does not own a slot: the map is to be read again
    |   |-- NoneFree         all connections of this process to it are with others
    |   `-- NoTime           the deadline was over before it was asked
    |-- ShardUnavailable     the shard takes no work now: down, read only, full, not itself
    |-- ConnectionLost       no answer: what was sent may or may not have been carried out
    |   |-- TimedOut         not within the time that it was given
    |   `-- Hurried          it had too little time, or waited for locks: no fault of the shard
    |-- ClockAhead           a stamp is too far ahead of the shard's clock; nothing was written
    |-- DuplicateRow         a primary key was there already
    |-- UnknownBranch        XA does not know this XID (any more)
    |-- StatementRefused     one of the statements cannot be carried out as it is
    |   `-- TooLarge         fewer rows at a time may do
    |-- NotSeen              an answer was to have seen a frame (`Since`), and there is none
    |   |-- NotYet           the list, or what reads it, has not come to it by the deadline
    |   |-- NotInList        the list has another frame there
    |   `-- NoList           the shard keeps no list, or the accounts are on several
    `-- ProtocolBug          XA calls in an order that must not occur

Every exception of PyMySQL is translated here and nowhere else.
"""

import logging
from functools import partial
from typing import Any

import pymysql.err

log = logging.getLogger(__name__)

# A row, a table or all commits stayed locked for as long as the session waits.
LOCK_WAIT_TIMEOUT = 1205

# Disk full, out of disk space, error writing a file, table is full.
DISK_FULL = (3, 1021, 1026, 1114)

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


class NoneFree(TryAgain):
    """All connections of this process to the shard are with others."""


class NoTime(TryAgain):
    """The deadline was over before the shard was asked: that says nothing of it, nor of locks."""


class ShardUnavailable(ShardError):
    """The shard takes no work at this time, or would refuse the same again, whoever asks; what was
    asked has not happened.
    """


class ConnectionLost(ShardError):
    """The connection broke or a deadline passed: the outcome is unknown."""


class TimedOut(ConnectionLost):
    """The shard had time enough, and has not answered: it is slow, stuck or unreachable."""


class Hurried(ConnectionLost):
    """The deadline came soon after the packet was sent, or the server was to wait for locks until
    then: that says nothing of the shard.
    """


class ClockAhead(ShardError):
    """A stamp is too far ahead of the shard's clock: one of the two clocks is wrong. Nothing was
    written, and the shard itself is none the worse for it.
    """


class DuplicateRow(ShardError):
    """A row with this primary key exists."""


class UnknownBranch(ShardError):
    """The server does not know the XID: never prepared, finished, or another session's."""


class StatementRefused(ShardError):
    """The server cannot carry out a statement: a check, a trigger, a value out of range."""


class TooLarge(StatementRefused):
    """It is more at a time than the server takes, or than it answers: fewer may do."""


class NotSeen(ShardError):
    """A frame that an answer was to have seen is not in what the shard can answer of."""


class NotYet(NotSeen):
    """Its list, or what reads it, has not come to that frame by the deadline."""


class NotInList(NotSeen):
    """Its list has another frame there, for good."""


class NoList(NotSeen):
    """It keeps no list; or no one list has all that was asked for."""


class ProtocolBug(ShardError):
    """XA was called in the wrong state; the connection must not be used again."""


def is_busy(error: ShardError) -> bool:
    """Whether others have the same locked, or were faster; anything else is the shard's."""
    return isinstance(error, TryAgain | DuplicateRow) and not isinstance(
        error, SlotMoved | NoneFree | NoTime
    )


# What the numbers mean that a statement of ours can get. A number that the server would give again,
# whatever the transfer, is ShardUnavailable; one that a single row may have caused is
# StatementRefused, so that it cannot take a shard away from the others.
_NUMBERS: dict[type[ShardError], tuple[int, ...]] = {
    TryAgain: (
        # Locks; 3572 is NOWAIT on MySQL, MariaDB says 1205 for it. 1689: an ALTER was in front.
        *(LOCK_WAIT_TIMEOUT, 1213, 1020, 3572, 1689),
        # The branch was rolled back, or its server cannot finish it just now.
        *(1402, 1613, 1614, 3101, 3197),
        # The table was altered meanwhile.
        *(1412, 1615),
        # What was to be found was not (`EXPECT_FOUND`): somebody else has been faster.
        1242,
    ),
    DuplicateRow: (1022, 1062, 1586),
    UnknownBranch: (1397,),
    # The last ones: settings of a transaction were to change within it.
    ProtocolBug: (1398, 1399, 1400, 1440, 1179, 1568, 1694, 1695, 1766),
    TooLarge: (
        # max_allowed_packet: of the packet, of what a function makes; group_concat_max_len.
        *(1153, 1162, 1301, 1260),
        # max_binlog_cache_size, the write set of a replication group, the lock table.
        *(1197, 1705, 3100, 1206),
        # Memory of sorting, parsing, the range optimizer; the stack.
        *(1038, 3170, 3171, 3186, 1119, 1436),
    ),
    ShardUnavailable: (
        # Files, disks, memory, damaged tables and pages.
        *(3, 1016, 1017, 1021, 1024, 1026, 1030, 1032, 1033, 1034, 1035, 1036, 1037, 1041, 1114),
        *(1135, 1194, 1195, 1296, 1297, 1459, 1467, 1637, 1707, 1712, 1713, 1808, 1810, 1811),
        *(1812, 1814, 1815, 1877, 1878, 1932, 3000, 3015, 3044, 3185, 3675, 3985, 4081, 4082),
        # The binary log, and groups of replicas.
        *(1180, 1181, 1182, 1534, 1593, 1598, *range(1661, 1669), 1785, 1837, 1844, 1950),
        *(3098, 3781, 3782, 3783, *range(3796, 3802), 4049, 1047),
        # Read only, for one reason or another; offline; about to end.
        *(1053, 1099, 1100, 1192, 1207, 1223, 1290, 1792, 1836, 1874, 1881, 3032, 3168, 3989),
        # Nobody may come in, or not so often.
        *(1040, 1042, 1043, 1129, 1130, 1203, 1226, 2003),
        # The user: password, privileges, what watches over it; 1401 is XA_RECOVER_ADMIN.
        *(1044, 1045, 1142, 1143, 1227, 1251, 1370, 1401, 1410, 1419, 1449, 1698, 1820, 1862),
        *(3118, 3159, 3164, 3879, 3891, 3955, 4151, 6038),
        # Not the tables that were made: a table, column or index is missing or was added.
        *(1046, 1049, 1054, 1136, 1146, 1176, 1235, 1286, 1288, 1305, 1348, 1356, 1364, 1471),
        *(3105, 3161),
        # A variable that this server does not have, or not so.
        *(1193, 1229, 1231, 1232, 1238, 1298, 1621),
        # max_join_size; safe updates; max_execution_time and max_statement_time.
        *(1104, 1175, 3024, 1969),
    ),
    # The session is over: killed, timed out, gone.
    ConnectionLost: (
        *(0, 1152, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 2006, 2013, 2014, 3169, 4031),
    ),
    # What a row may have caused: a check, a trigger, a value out of range, a text. The first two: a
    # session, or a grant, that is to be taken away is gone.
    StatementRefused: (
        *(1094, 1141),
        *(1048, 1064, 1264, 1265, 1267, 1292, 1300, 1365, 1366, 1406, 1451, 1452, 1526, 1644),
        *(1690, 3140, 3141, 3150, 3157, 3665, 3666, 3669, 3819, 4025, 4037, 4038, 4078, 4174),
    ),
}
_MEANING = {number: kind for kind, numbers in _NUMBERS.items() for number in numbers}
# The numbers that the table does not have are told once of each shard.
_told: set[tuple[str, int]] = set()


def translate(shard: str, error: Exception, statement: int | None = None) -> ShardError:
    """What an exception of the driver means. What a number means that is not in the table, nobody
    knows: it is taken for refused, which undoes the branch before its decision, and after it says
    nothing of what has happened; and it is logged.
    """
    if isinstance(error, ShardError):
        return error
    code, text = 0, str(error)
    if not isinstance(error, pymysql.err.MySQLError):
        return ConnectionLost(shard, text, statement=statement)
    if len(error.args) >= 2:
        code, text = error.args[0], str(error.args[1])
    if code not in _MEANING and (shard, code) not in _told:
        _told.add((shard, code))
        extra = {"event": "shard.unknown_error", "shard": shard, "code": code}
        log.error("shard %s: unknown error %d: %s", shard, code, text, extra=extra)
    return _MEANING.get(code, StatementRefused)(shard, text, code=code, statement=statement)
