"""Both kinds of server keep what every kind of shard promises."""

from collections.abc import Iterator, Mapping

import pytest

from coordinator.cluster import read_map
from coordinator.shards.addresses import service_address
from shard_client.node import ShardNode
from shard_client.shard import Limits, Shard
from tests.cluster import Cluster
from tests.contract.shard_contract import ShardContract


class _Servers(ShardContract):
    @pytest.fixture
    def cluster_id(self, cluster: Cluster) -> str:
        return cluster.settings.cluster.id

    @pytest.fixture
    def nodes(self, cluster: Cluster) -> Iterator[Mapping[str, ShardNode]]:
        settings, limits = cluster.settings, Limits(2.0, 60, 12, 4, 4)
        made = {
            name: Shard(
                service_address(settings, name, where),
                settings.cluster.id,
                where.server_uuid,
                limits,
                refuse_weak_durability=False,
            )
            for name, where in read_map(settings).shards.items()
        }
        for node in made.values():
            node.admit()
        yield made
        for node in made.values():
            node.close()


class TestMySql(_Servers):
    @pytest.fixture
    def cluster(self, mysql_cluster: Cluster) -> Cluster:
        return mysql_cluster


class TestMariaDb(_Servers):
    @pytest.fixture
    def cluster(self, mariadb_cluster: Cluster) -> Cluster:
        return mariadb_cluster
