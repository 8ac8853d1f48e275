"""A connection to ZooKeeper for a moment, and where things are in it."""

from collections.abc import Iterator
from contextlib import contextmanager

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError

from coordinator.settings import Settings

_CONNECT_TIMEOUT_S = 10.0


class ClusterError(Exception):
    """ZooKeeper does not have, or does not do, what is needed; the text says what to do."""


class Paths:
    """Where a cluster keeps what."""

    def __init__(self, cluster: str) -> None:
        self.root = f"/tandem/{cluster}"
        self.members = f"{self.root}/members"
        self.leader = f"{self.root}/leader"
        self.epoch = f"{self.root}/epoch"
        self.hand_over = f"{self.root}/hand-over"
        self.shard_map = f"{self.root}/shard-map"

    def member(self, name: str) -> str:
        return f"{self.members}/{name}"


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
