"""What tests need of a running cluster: its addresses, its databases, further coordinators."""

import os
import random
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pymysql
from pymysql.constants import CLIENT

from coordinator import settings
from coordinator.wiring import WorkerProcess
from shard_client.plain import PlainConnection
from tandem.local import ports, processes
from tandem.local.cluster import LocalCluster, Options
from tests.warm import Forked, start


class Cluster:
    """A local cluster under test."""

    def __init__(self, local: LocalCluster) -> None:
        self.local = local
        self.environment = local.environment()
        self.urls: list[str] = local.urls()
        self.settings = settings.load(environ={}, defaults=self.environment)

    def sql(self, shard: str) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
        """A connection to a shard as its administrator, autocommit on."""
        address = self.settings.shards[shard]
        host, _, rest = address.partition(":")
        port, _, database = rest.partition("/")
        return PlainConnection(
            host=host,
            port=int(port),
            user=self.settings.mysql.admin_user,
            password=self.settings.mysql.admin_password,
            database=database,
            autocommit=True,
            client_flag=CLIENT.MULTI_STATEMENTS,
        )

    def rows(self, shard: str, statement: str) -> list[tuple]:
        with self.sql(shard) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def pid(self, name: str) -> int:
        """The process id of a part of the cluster."""
        return next(p["pid"] for p in self.local.status()["processes"] if p["name"] == name)

    @contextmanager
    def process(self) -> Iterator[WorkerProcess]:
        """A coordinator's process inside the test's own, for a block."""
        environment = self.environment | {"TANDEM_COORDINATOR_ID": "inside"}
        loaded = settings.load(environ={}, defaults=environment)
        running = WorkerProcess(loaded, time.time_ns() // 1_000_000)
        running.start(10)
        try:
            yield running
        finally:
            running.stop(10)

    @contextmanager
    def coordinator(
        self,
        name: str,
        log: Path,
        overrides: Mapping[str, str] = {},
        *,
        trust: ssl.SSLContext | None = None,
    ) -> Iterator["Coordinator"]:
        """A further coordinator, with settings of its own, for a block. `trust` is for calling one
        that speaks TLS.
        """
        running = Coordinator(self.environment, name, log, overrides, trust)
        try:
            running.start()
            yield running
        finally:
            running.stop()


@contextmanager
def started(folder: Path, engine: str) -> Iterator[Cluster]:
    """A new cluster for a block: two shards of this kind, or a ledger group, two coordinators."""
    local = LocalCluster(folder / "cluster")
    shards = None if engine == "eventstore" else 2
    try:
        local.up(Options(shards=shards, coordinators=2, engine=engine))
        yield Cluster(local)
    finally:
        local.down()


class Coordinator:
    """One coordinator process under a test's control, in a process group of its own."""

    _module = "coordinator"

    def __init__(
        self,
        environment: Mapping[str, str],
        name: str,
        log: Path,
        overrides: Mapping[str, str],
        trust: ssl.SSLContext | None = None,
    ) -> None:
        # Kept from others that start something at this moment, until it listens for the first time.
        self._reserved = ExitStack()
        self.port = self._reserved.enter_context(reserved_port())
        self._trust = trust or False
        scheme = "https" if trust else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._log = log
        kept = {k: v for k, v in environment.items() if k not in ("TANDEM_URL", "TANDEM_SHARDS")}
        self._environment = {
            **os.environ,
            **kept,
            "TANDEM_COORDINATOR_ID": name,
            "TANDEM_COORDINATOR_LISTEN": f"127.0.0.1:{self.port}",
            **overrides,
        }
        self.process: Forked | None = None

    def start(self, *, wait: bool = True) -> None:
        self.process = start(self._module, self._log, self._environment)
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        wait_until(self.is_ready, 60, f"{self.url} is not ready; see {self._log}")
        self._reserved.close()

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "it ended: " + self._log.read_text()[-2000:]
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, verify=self._trust).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End it as a crash would: master and workers at once."""
        self._reserved.close()
        assert self.process is not None
        processes.kill(self.process.pid, processes.start_mark(self.process.pid) or "")
        self.process.wait(30)
        assert processes.session(self.process.pid) == [], "something of it survives SIGKILL"

    def stop(self) -> None:
        self._reserved.close()
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def reserved_port() -> Iterator[int]:
    """For a block, a port that systems give to no outgoing connection, and that local clusters take
    last.
    """
    beyond = random.randrange(20_000, 30_000, ports.STEP)
    with ports.reserved(1, beyond=beyond) as (port,):
        yield port


def free_port() -> int:
    """Such a port, which nobody keeps."""
    with reserved_port() as port:
        return port


def wait_until(
    condition, timeout_s: float, complaint: str | Callable[[], str], *, every_s: float = 0.02
) -> None:
    """Wait for an event that can only be asked for; fail with the complaint if it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(complaint if isinstance(complaint, str) else complaint())
        time.sleep(every_s)
