"""A single shard that no coordinator uses, to be paused and misconfigured by tests."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shard_client.address import Address
from shard_client.admin import Login, make_shard
from shard_client.connection import ShardConnection
from shard_client.plain import PlainConnection
from tandem.local.cluster import LocalCluster, Options
from tandem.local.servers import Engine
from tests.cluster import wait_until

CLUSTER = "lone"
SERVICE = Login("tandem", "secret of a test")
USER, PASSWORD = SERVICE


class Lone:
    """A shard `s1` of the cluster `lone`, which owns all slots."""

    def __init__(self, local: LocalCluster, engine: Engine) -> None:
        self.local = local
        self.engine = engine
        environment = local.environment()
        host, _, rest = environment["TANDEM_SHARDS"].partition("=")[2].partition(":")
        port, _, database = rest.partition("/")
        self.admin_address = Address(
            "s1",
            host,
            int(port),
            database,
            environment["TANDEM_MYSQL_ADMIN_USER"],
            environment["TANDEM_MYSQL_ADMIN_PASSWORD"],
        )
        self.uuid = make_shard(self.admin_address, CLUSTER, [(0, 4095)], SERVICE)
        self.address = self.admin_address._replace(user=USER, password=PASSWORD)

    @property
    def is_mariadb(self) -> bool:
        return self.engine == "mariadb"

    def connect(self, idle_timeout_s: int = 60) -> ShardConnection:
        return ShardConnection(self.address, 2.0, idle_timeout_s)

    def admin(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements as the administrator; gives the rows of the last."""
        where = self.admin_address
        connection = PlainConnection(
            host=where.host,
            port=where.port,
            user=where.user,
            password=where.password,
            database=where.database,
            autocommit=True,
        )
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    @contextmanager
    def variables(self, values: Mapping[str, int | str]) -> Iterator[None]:
        """The server with other global variables for a block."""
        before = {name: self.admin(f"SELECT @@global.{name}")[0][0] for name in values}
        try:
            self.admin(*(f"SET GLOBAL {name} = {value}" for name, value in values.items()))
            yield
        finally:
            self.admin(*(f"SET GLOBAL {name} = {value!r}" for name, value in before.items()))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The server frozen for a block: it answers nothing, but its connections stand."""
        process = next(p for p in self.local.status()["processes"] if p["name"] == "s1")
        with paused(process["pid"]):
            yield


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """A process frozen for a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _is_stopped(pid), 5, "the process cannot be paused")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    """Whether each of a process's threads has come to a stop."""
    states = [
        task.read_text().rpartition(") ")[2][0] for task in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return set(states) == {"T"}


@contextmanager
def lone_server(folder: Path, engine: Engine) -> Iterator[Lone]:
    local = LocalCluster(folder)
    try:
        local.up_servers(Options(shards=1, coordinators=1, engine=engine))
        yield Lone(local, engine)
    finally:
        local.down()
