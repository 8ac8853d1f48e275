"""The shard map in ZooKeeper: reading it, publishing it, and keeping the one in force at hand."""

import logging
from collections.abc import Callable

from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError, NoNodeError

from coordinator.cluster.client import ClusterError, Paths, zookeeper
from coordinator.settings import Settings
from shard_client.shard_map import BrokenShardMap, ShardMap

log = logging.getLogger(__name__)


class NoMapPublished(ClusterError):
    """ZooKeeper has no shard map of this cluster."""


def read_map(settings: Settings) -> ShardMap:
    """The published shard map. Raises NoMapPublished, ClusterError, BrokenShardMap."""
    with zookeeper(settings) as client:
        return ShardMap.from_json(_read(client, settings.cluster.id)[0])


def _read(client: KazooClient, cluster: str) -> tuple[bytes, int]:
    try:
        data, stat = client.get(Paths(cluster).shard_map)
    except NoNodeError as error:
        raise NoMapPublished(
            f"no shard map is published for cluster {cluster}: run `tandem shards init` if it is "
            "new, `tandem shards restore-map` if it was there before"
        ) from error
    return data, stat.version


def publish_map(settings: Settings, new: ShardMap) -> None:
    """Publish a shard map whose version is above that of the one in force.

    Raises ClusterError if somebody else has published meanwhile, or the version is not above.
    """
    path = Paths(settings.cluster.id).shard_map
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


class MapInForce:
    """The current shard map: one immutable value, replaced as a whole.

    A broken or an older one is reported and ignored; the last good one stays in force, also
    while ZooKeeper is away.
    """

    def __init__(self, on_change: Callable[[ShardMap], None]) -> None:
        self.current: ShardMap | None = None
        self.complaint: str | None = "the shard map was not read yet"
        self._on_change = on_change

    def take(self, data: bytes | None) -> None:
        """Look at what ZooKeeper has; None is nothing."""
        if data is None:
            self.complain(
                "no shard map is published: run `tandem shards init`, or, if it is lost, "
                "`tandem shards restore-map`"
            )
            return
        try:
            new = ShardMap.from_json(data)
        except BrokenShardMap as error:
            self.complain(f"the shard map in ZooKeeper is broken and not used: {error}")
            return
        current = self.current
        if current and new.version < current.version:
            self.complain(
                f"the shard map in ZooKeeper has version {new.version}, below {current.version}, "
                "which stays in force"
            )
            return
        self.complaint = None
        if current is None or new.version > current.version:
            self._on_change(new)
            self.current = new
            extra = {"event": "map.in_force", "version": new.version}
            log.info("shard map version %d is in force", new.version, extra=extra)

    def complain(self, text: str) -> None:
        """Note why the map cannot be read, until one is."""
        if self.complaint != text:
            log.warning("%s", text, extra={"event": "map.unusable"})
        self.complaint = text
