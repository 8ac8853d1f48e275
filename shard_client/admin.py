"""Making a MySQL server into a shard, as its administrator. Everything here may be repeated."""

import time
from collections.abc import Sequence

from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from shard_client.checks import read_identity
from shard_client.connection import Address, ShardConnection
from shard_client.errors import ShardUnavailable
from shard_client.schema import SCHEMA_VERSION, tables
from shard_client.statements import fill

_TIMEOUT_S = 20.0

_GRANTS = ("GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO {user}",)
# To list and finish branches of others, and to see who is still at work on a decision.
_GRANTS_MYSQL = ("GRANT XA_RECOVER_ADMIN, PROCESS ON *.* TO {user}",)
_GRANTS_MARIADB = ("GRANT PROCESS ON *.* TO {user}",)


def make_shard(
    admin: Address,
    cluster: str,
    ranges: Sequence[tuple[int, int]],
    service_user: str,
    service_password: str,
) -> str:
    """Create database, tables, identity, slots and the coordinators' user on a server.

    `admin` is the address with the administrator's name. Gives the server's uuid ("" on MariaDB).
    A server that is a shard already is left as it is, apart from its user's password and grants.
    Raises ShardUnavailable if it cannot be reached or is another shard.
    """
    assert admin.database is not None
    deadline = time.monotonic() + _TIMEOUT_S
    bare = ShardConnection(admin._replace(database=None), 5.0, 60)
    bare.query([f"CREATE DATABASE IF NOT EXISTS `{admin.database}`"], deadline)
    _create_user(bare, admin.database, service_user, service_password, deadline)
    bare.close()
    _create_tables(admin)
    connection = ShardConnection(admin, 5.0, 60)
    try:
        return _claim(connection, cluster, ranges, deadline)
    finally:
        connection.close()


def _create_user(
    connection: ShardConnection, database: str, user: str, password: str, deadline: float
) -> None:
    name = connection.literal(user) + "@'%'"
    special = _GRANTS_MARIADB if connection.is_mariadb else _GRANTS_MYSQL
    secret = fill(connection, "IDENTIFIED BY %s", password)
    connection.query(
        [
            f"CREATE USER IF NOT EXISTS {name} {secret}",
            f"ALTER USER {name} {secret}",
            *(g.format(database=f"`{database}`", user=name) for g in (*_GRANTS, *special)),
        ],
        deadline,
    )


def _create_tables(admin: Address) -> None:
    url = URL.create(
        "mysql+pymysql", admin.user, admin.password, admin.host, admin.port, admin.database
    )
    engine = create_engine(url, poolclass=NullPool)
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
    assert found is not None
    if found[:2] != (cluster, connection.shard):
        raise ShardUnavailable(
            connection.shard,
            f"the server is shard {found.shard} of cluster {found.cluster} already; "
            "nothing was changed on it",
        )
    return found.server_uuid
