"""Where it is measured: a running cluster, its shards, and how durable they are."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import Cursor

from coordinator.cluster import read_map
from coordinator.settings import load
from shard_client.plain import PlainConnection
from shard_client.shard_map import ShardKind, ShardMap
from tandem.local.cluster import LocalCluster, Options
from tandem.local.coordinators import configuration_file
from tandem.local.errors import LocalError
from tandem.local.progress import Report
from tandem.local.servers import Engine

DURABLE = {"innodb_flush_log_at_trx_commit": 1, "sync_binlog": 1, "log_bin": 1}


@dataclass(frozen=True)
class Server:
    """A shard's server, and its administrator."""

    shard: str
    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)

    def connect(self, database: str | None = None) -> "Connection[Cursor]":
        """A plain session: autocommit, READ COMMITTED."""
        return PlainConnection(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database,
            charset="utf8mb4",
            autocommit=True,
            init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        )

    def rows(self, statement: str, *values: object, database: str | None = None) -> list[Any]:
        """The rows of one statement, on a session of its own in the shard's database."""
        with self.connect(database or self.database) as session, session.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())


@dataclass(frozen=True)
class Place:
    """A running cluster. That of a ledger group has no `servers`, but a `list_folder`."""

    data_dir: str
    urls: list[str]
    # Worker processes of all coordinators; None where that cannot be seen.
    workers: int | None
    servers: list[Server]
    shard_map: ShardMap
    # Process ids: of the shards' servers, and of the coordinators' workers.
    shard_pids: list[int] = field(default_factory=list)
    worker_pids: list[int] = field(default_factory=list)
    list_folder: Path | None = None


@contextmanager
def cluster(
    data_dir: Path | None,
    coordinators: int,
    workers: int,
    report: Report,
    *,
    engine: Engine = "mysql",
    shards: int = 2,
    buffer_pool_mib: int | None = None,
    shard_door: Callable[[str, int], int] = lambda name, port: port,
) -> Iterator[Place]:
    """The cluster in `data_dir`, or one made for the block in a temporary folder.

    `engine` and `shards`, the number of its servers, are those of a new one; `buffer_pool_mib` is
    that of each that is started; `shard_door` is that of LocalCluster. What ran before keeps
    running; what this starts is stopped again, whatever happens. Raises LocalError.
    """
    folder = data_dir or Path(tempfile.mkdtemp(prefix="tandem-bench-"))
    options = [f"--innodb-buffer-pool-size={buffer_pool_mib}M"] if buffer_pool_mib else []
    local = LocalCluster(folder, shard_options=options, shard_door=shard_door)
    ran_before = local.exists() and any(p["running"] for p in local.status()["processes"])
    is_new = not local.exists()
    report(f"Starting a cluster in {folder}")
    try:
        with _workers_of_coordinators(workers):
            local.up(_options(engine, shards, coordinators) if is_new else Options(), report)
        yield _place(local)
    finally:
        if not ran_before:
            local.down(report=report)
        if data_dir is None:
            shutil.rmtree(folder, ignore_errors=True)


def _options(engine: Engine, shards: int, coordinators: int) -> Options:
    # A ledger group is a cluster's only shard.
    return Options(None if engine == "eventstore" else shards, coordinators, engine)


@contextmanager
def _workers_of_coordinators(workers: int) -> Iterator[None]:
    """Coordinators that are started in the block get so many worker processes each."""
    name = "TANDEM_COORDINATOR_WORKERS"
    before = os.environ.get(name)
    os.environ[name] = str(workers)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _place(local: LocalCluster) -> Place:
    status = local.status()
    environment = local.environment()
    settings = load(configuration_file(), {**os.environ, **environment})
    shard_map = read_map(settings)
    servers = [
        Server(
            name,
            address.host,
            address.port,
            address.database,
            settings.mysql.admin_user,
            settings.mysql.admin_password,
        )
        for name, address in sorted(shard_map.shards.items())
        if address.kind is ShardKind.MYSQL
    ]
    nodes = [process["name"] for process in status["processes"] if process["kind"] == "node"]
    if len(servers) < 2 and not nodes:
        raise LocalError(
            f"{local.data_dir} holds {len(servers)} shard; transfers across shards need two. "
            "Choose another folder with --data-dir, or leave it out"
        )
    workers = _workers(_pids(status, "coordinator"))
    return Place(
        str(local.data_dir),
        status["urls"],
        len(workers) or None,
        servers,
        shard_map,
        _pids(status, "mysql"),
        workers,
        local.data_dir / nodes[0] if nodes else None,
    )


def _pids(status: Mapping[str, Any], kind: str) -> list[int]:
    return [p["pid"] for p in status["processes"] if p["kind"] == kind and p["pid"]]


def _workers(masters: list[int]) -> list[int]:
    """The processes that the coordinators' masters have started; none if that cannot be seen."""
    try:
        files = [Path(f"/proc/{pid}/task/{pid}/children") for pid in masters]
        return [int(pid) for file in files for pid in file.read_text().split()]
    except OSError:
        return []


def durability(place: Place) -> dict[str, dict[str, int]]:
    """The durability settings of each shard, as its server has them in force.

    Raises LocalError if one is less than fully durable: figures from it would say nothing.
    """
    found: dict[str, dict[str, int]] = {}
    for server in place.servers:
        (row,) = server.rows("SELECT " + ", ".join(f"@@GLOBAL.{name}" for name in DURABLE))
        found[server.shard] = dict(zip(DURABLE, map(int, row), strict=True))
        if found[server.shard] != DURABLE:
            settings = ", ".join(f"{k}={v}" for k, v in found[server.shard].items())
            needed = ", ".join(f"{k}={v}" for k, v in DURABLE.items())
            raise LocalError(
                f"shard {server.shard} has {settings}; only fully durable shards are measured: "
                f"set {needed}"
            )
    return found
