"""A way to a server that can be made slow, silent or short while it is in use."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import httpx
import msgspec

from coordinator.cluster import read_map
from coordinator.cluster.shard_map import publish_map
from shard_client.shard_map import ShardAddress, ShardMap
from tests.cluster import Cluster, wait_until

Mode = Literal["pass", "drip", "delay", "freeze", "cut"]

_PIECE = 1 << 16
_LOOK_S = 0.01


class Proxy:
    """Listens at `port` of 127.0.0.1 and passes on what comes, to and from the server at `target`.

    `drip`: the server's answers come byte by byte, one every `every_s`; `delay`: each piece towards
    the server is `every_s` late; `freeze`: nothing passes; `cut`: connections end at the next byte.
    """

    def __init__(self, target: int) -> None:
        self.mode: Mode = "pass"
        self.every_s = 0.5
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.mode = "cut"
        self.cut_all()
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def cut_all(self) -> None:
        """End all connections that there are; new ones may be made."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _end(*pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((client, server))
            self._start(self._pump, client, server, self._to_server)
            self._start(self._pump, server, client, self._to_client)

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        send: Callable[[socket.socket, bytes], None],
    ) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE):
                while self.mode == "freeze":
                    time.sleep(_LOOK_S)
                if self.mode == "cut":
                    break
                send(sink, data)
        _end(source, sink)
        source.close()

    def _to_server(self, server: socket.socket, data: bytes) -> None:
        if self.mode == "delay":
            time.sleep(self.every_s)
        server.sendall(data)

    def _to_client(self, client: socket.socket, data: bytes) -> None:
        sent = 0
        while self.mode == "drip" and sent < len(data):
            client.sendall(data[sent : sent + 1])
            sent += 1
            time.sleep(self.every_s)
        client.sendall(data[sent:])


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(cluster: Cluster, shard: str) -> Iterator[Proxy]:
    """For a block, all coordinators of a cluster reach a shard through a proxy."""
    before = read_map(cluster.settings)
    with Proxy(before.shards[shard].port) as proxy:
        there = msgspec.structs.replace(before.shards[shard], port=proxy.port)
        _publish(cluster, before, before.version + 1, before.shards | {shard: there})
        try:
            yield proxy
        finally:
            proxy.mode = "pass"
            _publish(cluster, before, before.version + 2, before.shards)


def _publish(
    cluster: Cluster, before: ShardMap, version: int, shards: dict[str, ShardAddress]
) -> None:
    """Publish a map, and wait until all who take transfers have it in force."""
    publish_map(cluster.settings, ShardMap(version, shards, before.ranges))
    complaint = f"map {version} and its shards are not in use everywhere"
    wait_until(lambda: all(_uses(url, version) for url in cluster.urls), 30, complaint)


def _uses(url: str, version: int) -> bool:
    """Whether a coordinator's worker uses this map, and every shard of it."""
    view = httpx.get(f"{url}/v1/admin/cluster", timeout=10, verify=False).json()
    return view["shard_map_version"] == version and all(s["reachable"] for s in view["shards"])
