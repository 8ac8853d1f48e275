"""Where the naive way runs: ZooKeeper, two Redis nodes, two naive coordinators, all of its own."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis, RedisError

from lab.naive.nodes import new_node, publish
from lab.naive.server import PORT, ZOOKEEPER
from lab.parts import READ_TIMEOUT_S, ReadSum
from lab.result import Deal
from lab.schedule import COORDINATORS, SHARDS
from shard_client.shard_map import ShardAddress, ShardMap
from tandem.local import coordinators, ports, processes, redis, zookeeper
from tandem.local.errors import LocalError
from tandem.local.progress import Report
from tandem.local.servers import PROJECT, find_zookeeper

KEEPER = "zk"
POLL_S = 0.05


@dataclass
class Part:
    """A process of the place, running or not."""

    port: int
    command: Sequence[str]
    environment: Mapping[str, str]
    pid: int = 0
    # See processes.start_mark.
    mark: str = ""


@dataclass
class RedisParts:
    """The processes by name. Threads may share it."""

    folder: Path
    parts: dict[str, Part] = field(default_factory=dict)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def start(self, name: str) -> None:
        with self.turn, processes.uninterrupted():
            part = self.parts[name]
            if not processes.is_running(part.pid or None, part.mark):
                part.pid, part.mark = processes.spawn(
                    part.command, self.log(name), part.environment, self.folder
                )

    def kill(self, name: str) -> None:
        part = self.parts[name]
        with self.turn:
            if processes.is_running(part.pid or None, part.mark):
                processes.kill(part.pid, part.mark)

    def freeze(self, name: str) -> None:
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: int) -> None:
        part = self.parts[name]
        if processes.is_running(part.pid or None, part.mark):
            # It leads a group of its own; see processes.spawn.
            with suppress(ProcessLookupError):
                os.killpg(part.pid, number)

    def not_ready(self, name: str) -> str | None:
        part = self.parts[name]
        if not processes.is_running(part.pid or None, part.mark):
            return "it does not run"
        if name in COORDINATORS:
            return coordinators.is_ready(part.port)
        return redis.is_ready(part.port) if name in SHARDS else zookeeper.is_ready(part.port)

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def await_ready(self, name: str, timeout_s: float, report: Report) -> None:
        """Raises LocalError."""
        give_up = time.monotonic() + timeout_s
        while (why := self.not_ready(name)) is not None:
            report(f"Waiting for {name}: {why}")
            if time.monotonic() > give_up or why == "it does not run":
                told = processes.last_lines(self.log(name))
                raise LocalError(f"{name} of the naive way is not ready: {why}. Its log:\n{told}")
            time.sleep(POLL_S)


class RedisPlace:
    """Two Redis nodes with their coordinators; see parts.Place."""

    can_read_at_once = False
    names = (*SHARDS, *COORDINATORS)

    def __init__(self, parts: RedisParts, shard_map: ShardMap, version: str) -> None:
        self.parts = parts
        self._map = shard_map
        self.versions: Mapping[str, str] = dict.fromkeys(SHARDS, f"Redis {version}")
        self.urls = [coordinators.url(parts.parts[name].port) for name in COORDINATORS]

    def shard_of(self, account: str) -> str:
        return self._map.shard_of(account)

    def fund(self, accounts: Sequence[str], each: int) -> None:
        for shard, held in self._held(accounts).items():
            self._node(shard).mset(dict.fromkeys(held, each))

    def readers(self, accounts: Sequence[str]) -> dict[str, ReadSum]:
        return {
            shard: _reader(self._node(shard), held) for shard, held in self._held(accounts).items()
        }

    def balances(self, accounts: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for shard, held in self._held(accounts).items():
            found |= dict(zip(held, _numbers(self._node(shard), held), strict=True))
        return found

    def unfinished(self) -> str | None:
        """Nothing that it knows of."""
        return None

    def moved(self, accounts: Sequence[str]) -> None:
        return None

    def violations(self, deals: Sequence[Deal]) -> None:
        return None

    def _held(self, accounts: Sequence[str]) -> dict[str, list[str]]:
        return {shard: [a for a in accounts if self.shard_of(a) == shard] for shard in SHARDS}

    def _node(self, shard: str) -> Redis:
        address = self._map.shards[shard]
        return new_node(address.host, address.port, READ_TIMEOUT_S)


def _reader(node: Redis, accounts: Sequence[str]) -> ReadSum:
    def read() -> int | None:
        try:
            return sum(_numbers(node, accounts))
        except RedisError:
            return None

    return read


def _numbers(node: Redis, accounts: Sequence[str]) -> list[int]:
    """The balances, as of one moment of this node."""
    return [int(text or 0) for text in node.mget(accounts)]


@contextmanager
def redis_place(folder: Path, report: Report) -> Iterator[RedisPlace]:
    """A place for the block, with everything ready. Raises LocalError."""
    server, keeper = redis.find_redis(report), find_zookeeper(report)
    names = (KEEPER, *SHARDS, *COORDINATORS)
    with ports.reserved(len(names)) as free:
        port = dict(zip(names, free, strict=True))
        folder.mkdir(parents=True, exist_ok=True)
        parts = RedisParts(folder)
        configuration = zookeeper.configure(folder / KEEPER, port[KEEPER])
        plain = dict(os.environ)
        parts.parts[KEEPER] = Part(
            port[KEEPER],
            zookeeper.command(keeper, configuration),
            {**plain, **keeper.environment},
        )
        for name in SHARDS:
            line = redis.command(server, folder / name, port[name])
            parts.parts[name] = Part(port[name], line, {**plain, **server.environment})
        for name in COORDINATORS:
            parts.parts[name] = _coordinator(port[name], port[KEEPER])
        try:
            yield _started(parts, server.version, report)
        finally:
            for name in names:
                parts.kill(name)


def _coordinator(port: int, keeper: int) -> Part:
    path = os.environ.get("PYTHONPATH")
    own = {
        PORT: str(port),
        ZOOKEEPER: f"{ports.HOST}:{keeper}",
        "PYTHONPATH": f"{PROJECT}{os.pathsep}{path}" if path else str(PROJECT),
    }
    return Part(port, [sys.executable, "-m", "lab.naive"], {**os.environ, **own})


def _started(parts: RedisParts, version: str, report: Report) -> RedisPlace:
    """Servers first, then the map, then the coordinators."""
    report("Starting the naive way's servers")
    for name in (KEEPER, *SHARDS):
        parts.start(name)
    parts.await_ready(KEEPER, zookeeper.START_TIMEOUT_S, report)
    for name in SHARDS:
        parts.await_ready(name, redis.START_TIMEOUT_S, report)
    nodes = {name: ShardAddress(ports.HOST, parts.parts[name].port, "0") for name in SHARDS}
    shard_map = ShardMap.evenly(1, nodes)
    publish(f"{ports.HOST}:{parts.parts[KEEPER].port}", shard_map)
    for name in COORDINATORS:
        parts.start(name)
    for name in COORDINATORS:
        parts.await_ready(name, coordinators.START_TIMEOUT_S, report)
    return RedisPlace(parts, shard_map, version)
