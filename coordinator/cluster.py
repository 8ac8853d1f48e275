"""ZooKeeper: where the shard map is, and a watcher that keeps the current one at hand."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import WatchedEvent

from coordinator.settings import Settings
from shard_client.shard_map import BrokenShardMap, ShardMap

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 10.0


class ClusterError(Exception):
    """ZooKeeper does not have, or does not do, what is needed; the text says what to do."""


def _map_path(cluster: str) -> str:
    return f"/tandem/{cluster}/shard-map"


@contextmanager
def zookeeper(settings: Settings) -> Iterator[KazooClient]:
    """A connected client for a block. Raises ClusterError if no server answers."""
    client = KazooClient(settings.zookeeper.hosts, timeout=settings.zookeeper.session_timeout_s)
    try:
        client.start(timeout=_CONNECT_TIMEOUT_S)
    except KazooTimeoutError as error:
        client.stop()
        client.close()
        raise ClusterError(
            f"ZooKeeper at {settings.zookeeper.hosts} does not answer: is it running, and is "
            "zookeeper.hosts right?"
        ) from error
    try:
        yield client
    except KazooException as error:
        raise ClusterError(f"ZooKeeper refused: {error!r}") from error
    finally:
        client.stop()
        client.close()


def read_map(settings: Settings) -> ShardMap:
    """The published shard map. Raises ClusterError, BrokenShardMap."""
    with zookeeper(settings) as client:
        return ShardMap.from_json(_read(client, settings.cluster.id)[0])


def _read(client: KazooClient, cluster: str) -> tuple[bytes, int]:
    try:
        data, stat = client.get(_map_path(cluster))
    except NoNodeError as error:
        raise ClusterError(
            f"no shard map is published for cluster {cluster}: run `tandem shards init`"
        ) from error
    return data, stat.version


def publish_map(settings: Settings, new: ShardMap) -> None:
    """Publish a shard map whose version is above that of the one in force.

    Raises ClusterError if somebody else has published meanwhile, or the version is not above.
    """
    path = _map_path(settings.cluster.id)
    with zookeeper(settings) as client:
        try:
            client.create(path, new.to_json(), makepath=True)
            return
        except NodeExistsError:
            data, version = _read(client, settings.cluster.id)
        current = ShardMap.from_json(data)
        if new.version <= current.version:
            raise ClusterError(
                f"shard map {new.version} is not newer than {current.version}, which is in force"
            )
        # Only over the node that was read: a change in between is refused, not overwritten.
        client.set(path, new.to_json(), version=version)


class MapWatcher:
    """Keeps the current shard map: one immutable value, replaced as a whole.

    A broken or an older one is reported and ignored; the last good one stays in force, also
    while ZooKeeper is away.
    """

    def __init__(self, settings: Settings, on_change: Callable[[ShardMap], None]) -> None:
        self.current: ShardMap | None = None
        self.complaint: str | None = "the shard map was not read yet"
        self._cluster = settings.cluster.id
        self._on_change = on_change
        self._changed = threading.Event()
        self._has_map = threading.Event()
        self._stopping = False
        self._client = KazooClient(
            settings.zookeeper.hosts,
            timeout=settings.zookeeper.session_timeout_s,
            connection_retry={"max_tries": -1, "max_delay": 5.0},
            command_retry={"max_tries": 3, "max_delay": 1.0},
        )
        self._thread = threading.Thread(target=self._run, name="map-watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch, in the background. To be called after a fork, never before."""
        # Listeners only set the event: kazoo calls them on threads that must not block.
        self._client.add_listener(lambda state: self._changed.set())
        self._client.start_async()
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        return bool(self._client.connected)

    def wait_for_map(self, deadline: float) -> bool:
        """Wait until a first map is in force, or the deadline; says whether one is."""
        return self._has_map.wait(max(deadline - time.monotonic(), 0))

    def look_again(self) -> None:
        """Read the map soon: a shard has said that a slot is not its own."""
        self._changed.set()

    def stop(self) -> None:
        self._stopping = True
        self._changed.set()
        self._thread.join(timeout=2)
        # kazoo's stop can hang when the connection is half open; the process goes anyway.
        stopper = threading.Thread(target=self._leave, daemon=True)
        stopper.start()
        stopper.join(timeout=2)

    def _leave(self) -> None:
        self._client.stop()
        self._client.close()

    def _run(self) -> None:
        while not self._stopping:
            self._changed.wait(timeout=5)
            self._changed.clear()
            if self._stopping or not self._client.connected:
                continue
            try:
                data, _ = self._client.get(_map_path(self._cluster), watch=self._on_event)
                self._take(ShardMap.from_json(data))
            except BrokenShardMap as error:
                self._complain(f"the shard map in ZooKeeper is broken and not used: {error}")
            except NoNodeError:
                self._complain("no shard map is published: run `tandem shards init`")
            except (KazooException, KazooTimeoutError) as error:
                log.info("ZooKeeper did not answer: %r", error)
            except Exception:
                log.exception("watching the shard map met a bug and goes on")

    def _on_event(self, event: WatchedEvent) -> None:
        self._changed.set()

    def _take(self, new: ShardMap) -> None:
        current = self.current
        if current and new.version < current.version:
            self._complain(
                f"the shard map in ZooKeeper has version {new.version}, below {current.version}, "
                "which stays in force"
            )
            return
        self.complaint = None
        if current is None or new.version > current.version:
            log.info("shard map version %d is in force", new.version)
            self.current = new
            self._on_change(new)
            self._has_map.set()

    def _complain(self, text: str) -> None:
        if self.complaint != text:
            log.warning("%s", text)
        self.complaint = text
