"""Which Redis node has which account: the map in ZooKeeper, and a connection to each node."""

from kazoo.client import KazooClient
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shard_client.shard_map import ShardMap

MAP_PATH = "/lab/naive/map"
# As long as Tandem gives a shard to write.
ANSWER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 1.0
ZOOKEEPER_TIMEOUT_S = 15.0


def new_node(host: str, port: int, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> Redis:
    """A client of a node. Nothing is sent twice: the client's own retries, which it makes unless it
    is told not to, would move money twice by themselves.
    """
    return Redis(
        host=host,
        port=port,
        decode_responses=True,
        socket_timeout=answer_timeout_s,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


class Nodes:
    """The nodes that the map in ZooKeeper names; it is followed as it changes."""

    def __init__(self, zookeeper_hosts: str) -> None:
        """Raises KazooTimeoutError if no ZooKeeper answers."""
        self._clients: dict[tuple[str, int], Redis] = {}
        self._zookeeper = KazooClient(zookeeper_hosts)
        self._zookeeper.start(timeout=ZOOKEEPER_TIMEOUT_S)
        self._zookeeper.DataWatch(MAP_PATH, self._take)

    def _take(self, data: bytes | None, stat: object) -> None:
        if data:
            self._map = ShardMap.from_json(data)

    def of(self, account: str) -> Redis:
        """A client of the node that has the account."""
        address = self._map.shards[self._map.shard_of(account)]
        place = address.host, address.port
        if place not in self._clients:
            self._clients[place] = new_node(*place)
        return self._clients[place]


def publish(zookeeper_hosts: str, shard_map: ShardMap) -> None:
    """Put the map where coordinators look for it."""
    client = KazooClient(zookeeper_hosts)
    client.start(timeout=ZOOKEEPER_TIMEOUT_S)
    try:
        client.create(MAP_PATH, shard_map.to_json(), makepath=True)
    finally:
        client.stop()
        client.close()
