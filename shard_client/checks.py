"""Is this server what a shard must be: durable, itself, and open to us."""

import re
import time
from contextlib import closing
from typing import NamedTuple

from shard_client.address import Address
from shard_client.connection import ShardConnection
from shard_client.errors import ShardError, ShardUnavailable
from shard_client.statements import CLOCK
from shard_client.variables import misset

# Of the tables in `schema.py`; it is here because checking must not load what makes tables.
# 2: chains over entries. 3: what is held and expected, phases, steps.
SCHEMA_VERSION = 3
_VARIABLES = (
    "SELECT @@version, @@innodb_flush_log_at_trx_commit, @@sync_binlog, @@log_bin,"
    " @@global.read_only, {special}"
)
_CLOCK = f"SELECT {CLOCK}"
_UUID_MYSQL = "@@server_uuid, @@xa_detach_on_prepare"
# MariaDB names a server by a number only; it is not told from its copies.
_UUID_MARIADB = "'', 1"
_VERSION_MYSQL = (8, 0, 30)
_VERSION_MARIADB = (10, 6)


_SLOTS = "SELECT first_slot, last_slot FROM slots ORDER BY first_slot"
_HAS_DATA = "SELECT EXISTS (SELECT 1 FROM accounts)"
_LOOK_TIMEOUT_S = 5.0
_NO_SUCH_DATABASE = 1049


class Identity(NamedTuple):
    """Who a server says it is."""

    cluster: str
    shard: str
    schema_version: int
    server_uuid: str


class ServerCheck(NamedTuple):
    """What is wrong with a server; each problem names the setting and the fix.

    `weak` are those that lessen durability, `problems` those with which it cannot be used. Its
    clock shows `clock_offset_s` more than this machine's monotonic one, both in seconds.
    """

    version: str
    server_uuid: str
    problems: list[str]
    weak: list[str]
    clock_offset_s: float


def read_clock(connection: ShardConnection, deadline: float) -> int:
    """The server's clock, in microseconds since 1970, UTC. Raises ShardError."""
    ((now,),) = connection.rows(_CLOCK, deadline)
    return int(now)


def clock_offset_s(connection: ShardConnection, deadline: float) -> float:
    """By how much the server's clock shows more than this machine's monotonic one, in seconds."""
    asked_at = time.monotonic()
    clock_s = read_clock(connection, deadline) / 1e6
    # It was read somewhere in between.
    return clock_s - (asked_at + time.monotonic()) / 2


def read_identity(connection: ShardConnection, deadline: float) -> Identity | None:
    """The identity of the server behind a connection; None if it has none. Raises ShardError."""
    uuid = "''" if connection.is_mariadb else "@@server_uuid"
    text = f"SELECT cluster_id, shard_id, schema_version, {uuid} FROM shard_identity"
    try:
        rows = connection.rows(text, deadline)
    except ShardError as error:
        if error.code == 1146:
            return None
        raise
    return Identity(*rows[0]) if rows else None


class Holding(NamedTuple):
    """What a server says that it is and owns. An `identity` of None is no shard."""

    identity: Identity | None
    ranges: list[tuple[int, int]]
    has_data: bool


def look(address: Address) -> Holding:
    """Ask a server what it is and owns; one that does not have the database is no shard. Raises
    ShardError.
    """
    deadline = time.monotonic() + _LOOK_TIMEOUT_S
    try:
        connection = ShardConnection(address, _LOOK_TIMEOUT_S, 60)
    except ShardError as error:
        if error.code == _NO_SUCH_DATABASE:
            return Holding(None, [], False)
        raise
    with closing(connection):
        identity = read_identity(connection, deadline)
        if identity is None:
            return Holding(None, [], False)
        ((has_data,),) = connection.rows(_HAS_DATA, deadline)
        return Holding(identity, owned_slots(connection, deadline), bool(has_data))


def owned_slots(connection: ShardConnection, deadline: float) -> list[tuple[int, int]]:
    """The ranges of slots that a shard says it owns. Raises ShardError."""
    return [(first, last) for first, last in connection.rows(_SLOTS, deadline)]


def may_change_own_password(connection: ShardConnection, deadline: float) -> bool:
    """Whether who is logged in here could change the password, as an earlier version left it. That
    there is one that nobody knows, a server does not show. Raises ShardError.
    """
    text = str(connection.rows("SHOW CREATE USER CURRENT_USER()", deadline)[0][0])
    kept = " OR " if connection.is_mariadb else r"PASSWORD REQUIRE CURRENT(?! (OPTIONAL|DEFAULT))"
    return not re.search(kept, text)


def verify_identity(
    connection: ShardConnection, cluster: str, server_uuid: str, deadline: float
) -> None:
    """Raise ShardUnavailable unless the server is the shard that it is taken for (rule R3)."""
    found = read_identity(connection, deadline)
    wanted = (cluster, connection.shard, SCHEMA_VERSION)
    if found is None:
        text = "the server has no identity row; run `tandem shards init` if it is a new shard"
    elif found[:3] != wanted:
        text = (
            f"the server is cluster {found.cluster}, shard {found.shard}, schema "
            f"{found.schema_version}; wanted is cluster {wanted[0]}, shard {wanted[1]}, schema "
            f"{wanted[2]}: check its address in the shard map"
        )
    elif server_uuid and found.server_uuid != server_uuid:
        text = (
            f"the server's uuid is {found.server_uuid}, the shard map has {server_uuid}: a copy or "
            "a replacement is not used until the map names it"
        )
    else:
        return
    connection.close()
    raise ShardUnavailable(connection.shard, text)


def check_server(connection: ShardConnection, deadline: float) -> ServerCheck:
    """Check version, durability and privileges, and read the clock. Raises ShardError."""
    special = _UUID_MARIADB if connection.is_mariadb else _UUID_MYSQL
    offset_s = clock_offset_s(connection, deadline)
    row = connection.rows(_VARIABLES.format(special=special), deadline)[0]
    version, flush, sync_binlog, log_bin, read_only, uuid, detach = row
    problems = _version_problems(str(version), connection.is_mariadb)
    if read_only:
        # With super_read_only, which implies it, it comes back by itself.
        problems.append(
            "read_only is ON: the server takes no writes; SET GLOBAL read_only = OFF (on MySQL it "
            "takes super_read_only along)"
        )
    if not detach:
        problems.append(
            "xa_detach_on_prepare is OFF: nobody else could finish a coordinator's branches; "
            "SET PERSIST xa_detach_on_prepare = ON"
        )
    weak = _weak(int(flush), int(sync_binlog), bool(log_bin), is_mariadb=connection.is_mariadb)
    problems += misset(connection, has_binlog=bool(log_bin), deadline=deadline)
    problems += _privilege_problems(connection, deadline)
    return ServerCheck(str(version), str(uuid), problems, weak, offset_s)


def _version_problems(version: str, is_mariadb: bool) -> list[str]:
    numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:3])
    least = _VERSION_MARIADB if is_mariadb else _VERSION_MYSQL
    if numbers >= least:
        return []
    name = "MariaDB" if is_mariadb else "MySQL"
    wanted = ".".join(map(str, least))
    return [f"{name} {version} is too old: XA is crash-safe enough from {wanted}; upgrade it"]


def _weak(flush: int, sync_binlog: int, log_bin: bool, *, is_mariadb: bool) -> list[str]:
    weak = []
    if flush != 1:
        weak.append(
            f"innodb_flush_log_at_trx_commit is {flush}: a crash loses commits; "
            "SET PERSIST innodb_flush_log_at_trx_commit = 1"
        )
    if log_bin and sync_binlog != 1:
        weak.append(
            f"sync_binlog is {sync_binlog}: a crash loses commits; SET PERSIST sync_binlog = 1"
        )
    # On MariaDB XA and binlog are not crash-safe together; what it needs instead is done by R2.
    if not log_bin and not is_mariadb:
        weak.append(
            "log_bin is OFF: a decision could be seen and then lost in a crash; start the server "
            "with log_bin"
        )
    return weak


# What recovery and collection cannot do without, and the server's error if it is missing. The text
# of 1401 talks of data consistency; what is missing is a privilege.
_NEEDED = (
    ("PROCESS", "SELECT 1 FROM information_schema.innodb_trx LIMIT 1", 1227),
    ("XA_RECOVER_ADMIN", "XA RECOVER CONVERT XID", 1401),
)


def _privilege_problems(connection: ShardConnection, deadline: float) -> list[str]:
    """The first privilege that the service's account lacks, with the way to give it."""
    if connection.is_mariadb:
        # It shows an empty list instead of an error.
        grants = " ".join(str(row[0]) for row in connection.rows("SHOW GRANTS", deadline))
        has_process = "PROCESS" in grants or "ALL PRIVILEGES ON *.*" in grants
        return [] if has_process else [_missing("PROCESS")]
    for name, statement, code in _NEEDED:
        try:
            connection.query([statement], deadline)
        except ShardError as error:
            if error.code != code:
                raise
            return [_missing(name)]
    return []


def _missing(privilege: str) -> str:
    return f"{privilege} is missing: GRANT {privilege} ON *.* TO the service user"
