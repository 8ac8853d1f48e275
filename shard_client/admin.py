"""Making a MySQL server into a shard, as its administrator. Everything here may be repeated.

Its users get only what they need: whoever steals their passwords cannot change history.
"""

import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from ledger.errors import Bug
from shard_client.address import Address
from shard_client.checks import SCHEMA_VERSION, read_identity
from shard_client.connection import ShardConnection, known_variables
from shard_client.errors import ShardError, ShardUnavailable
from shard_client.plain import PlainConnection
from shard_client.schema import accounts, tables
from shard_client.session import opening
from shard_client.statements import fill
from shard_client.tls import context_of

_TIMEOUT_S = 20.0

# An account's terms: who has opened it has given them for good.
_MAY_NOT_CHANGE = {"id", "currency", "overdraft_limit", "created_at"}
_CHANGEABLE = ", ".join(c.name for c in accounts.columns if c.name not in _MAY_NOT_CHANGE)
# What a coordinator does to each table, and no more: history is added to and never changed, so
# neither can whoever has stolen a coordinator's password. (A locking read takes SELECT and, with
# FOR UPDATE, the right to update some column.)
_SERVICE = {
    "shard_identity": "SELECT, UPDATE (touched)",
    "slots": "SELECT",
    "accounts": f"SELECT, INSERT, UPDATE ({_CHANGEABLE})",
    "entries": "SELECT, INSERT",
    "transfers": "SELECT, INSERT",
    # Not only of `seen`: MariaDB asks it for every column that an upsert names.
    "decisions": "SELECT, INSERT, UPDATE, DELETE",
    "markers": "SELECT, INSERT, DELETE",
    "phases": "SELECT, INSERT, UPDATE, DELETE",
    # What a step has done stays: it is what keeps it from being done again.
    "steps": "SELECT, INSERT, UPDATE (state, stamp)",
}
_AUDITOR = dict.fromkeys(_SERVICE, "SELECT")
# To list branches of others; and to see who is still at work on a decision.
_LIST_PREPARED, _SEE_TRANSACTIONS = "XA_RECOVER_ADMIN", "PROCESS"
_NO_SUCH_GRANT = 1141


class Login(NamedTuple):
    """A user of the servers, from any host."""

    name: str
    password: str


def make_shard(
    admin: Address,
    cluster: str,
    ranges: Sequence[tuple[int, int]],
    service: Login,
    auditor: Login | None = None,
) -> str:
    """Create database, tables, identity, slots and the users on a server.

    `admin` is the address with the administrator's name; `service` is the coordinators' user,
    `auditor` one that can only read. Gives the server's uuid ("" on MariaDB). A server that is a
    shard already is left as it is, apart from its users' passwords and privileges. Raises
    ShardUnavailable if it cannot be reached or is another shard.
    """
    if admin.database is None:
        raise Bug(f"a shard is to be made at {admin.host}:{admin.port}, in no database")
    deadline = time.monotonic() + _TIMEOUT_S
    with closing(ShardConnection(admin._replace(database=None), 5.0, 60)) as bare:
        bare.query([f"CREATE DATABASE IF NOT EXISTS {quoted(admin.database)}"], deadline)
        _, settings = opening(known_variables[bare.server_version], 60, "READ COMMITTED")
    _create_tables(admin, settings)
    with closing(ShardConnection(admin, 5.0, 60)) as connection:
        uuid = _claim(connection, cluster, ranges, deadline)
        _create_user(connection, service, _SERVICE, {_LIST_PREPARED, _SEE_TRANSACTIONS}, deadline)
        if auditor:
            _create_user(connection, auditor, _AUDITOR, {_LIST_PREPARED}, deadline)
    for login in filter(None, (service, auditor)):
        _revoke_all_tables(admin, login, deadline)
    return uuid


def quoted(name: str) -> str:
    """The name of a database in a statement."""
    return "`" + name.replace("`", "``") + "`"


def _create_user(
    connection: ShardConnection,
    login: Login,
    privileges: dict[str, str],
    everywhere: set[str],
    deadline: float,
) -> None:
    name = _name(connection, login)
    # MariaDB lists prepared branches to everybody.
    special = everywhere - {_LIST_PREPARED} if connection.is_mariadb else everywhere
    connection.query(
        [
            *_identified(connection, name, login.password),
            *(f"GRANT {privileges[t.name]} ON {t.name} TO {name}" for t in tables.sorted_tables),
            *(f"GRANT {privilege} ON *.* TO {name}" for privilege in sorted(special)),
        ],
        deadline,
    )


def _identified(connection: ShardConnection, name: str, password: str) -> list[str]:
    """Statements that let a user log in with `password`, and keep it from changing that: whoever
    has stolen it could else lock the coordinators out. They may be run while it is at work.

    A server lets everybody change the own password. So each user has another one as well, which
    nobody knows: on MySQL that one is the first, which alone counts when it is to be changed; on
    MariaDB it is the one that is changed, and the other stays.
    """
    # Its end is what rules for passwords may ask for.
    unknown = secrets.token_urlsafe(32) + "-aA1!"
    if connection.is_mariadb:
        ways = fill(
            connection,
            "IDENTIFIED VIA mysql_native_password USING PASSWORD(%s)"
            " OR mysql_native_password USING PASSWORD(%s)",
            unknown,
            password,
        )
        return [f"CREATE USER IF NOT EXISTS {name} {ways}", f"ALTER USER {name} {ways}"]
    known = fill(connection, "IDENTIFIED BY %s", password)
    other = fill(connection, "IDENTIFIED BY %s", unknown)
    return [
        f"CREATE USER IF NOT EXISTS {name} {known}",
        f"ALTER USER {name} {known} PASSWORD REQUIRE CURRENT",
        f"ALTER USER {name} {other} RETAIN CURRENT PASSWORD",
    ]


def _name(connection: ShardConnection, login: Login) -> str:
    return connection.literal(login.name) + "@'%'"


def _revoke_all_tables(admin: Address, login: Login, deadline: float) -> None:
    """Take back what an earlier version granted on the whole database."""
    with closing(ShardConnection(admin, 5.0, 60)) as connection:
        name = _name(connection, login)
        given = "SELECT, INSERT, UPDATE, DELETE"
        try:
            database = quoted(admin.database or "")
            connection.query([f"REVOKE {given} ON {database}.* FROM {name}"], deadline)
        except ShardError as error:
            if error.code != _NO_SUCH_GRANT:
                raise


def _create_tables(admin: Address, settings: str) -> None:
    def connect() -> PlainConnection:
        return PlainConnection(
            host=admin.host,
            port=admin.port,
            user=admin.user,
            password=admin.password,
            database=admin.database,
            init_command=settings,
            ssl=context_of(admin.tls) if admin.tls.verifies else None,
        )

    engine = create_engine("mysql+pymysql://", creator=connect, poolclass=NullPool)
    try:
        tables.create_all(engine)
    finally:
        engine.dispose()


def _claim(
    connection: ShardConnection, cluster: str, ranges: Sequence[tuple[int, int]], deadline: float
) -> str:
    """Write identity and slots, unless they are there."""
    found = read_identity(connection, deadline)
    if found is None:
        slots = ",".join(f"({first},{last})" for first, last in ranges)
        identity = "INSERT INTO shard_identity VALUES (1, %s, %s, %s, 0)"
        connection.query(
            [
                "START TRANSACTION",
                fill(connection, identity, cluster, connection.shard, SCHEMA_VERSION),
                f"INSERT INTO slots (first_slot, last_slot) VALUES {slots}",
                "COMMIT",
            ],
            deadline,
        )
        found = read_identity(connection, deadline)
        if found is None:
            raise ShardUnavailable(connection.shard, "the identity that was written is gone")
    if found[:2] != (cluster, connection.shard):
        raise ShardUnavailable(
            connection.shard,
            f"the server is shard {found.shard} of cluster {found.cluster} already; "
            "nothing was changed on it",
        )
    return found.server_uuid
