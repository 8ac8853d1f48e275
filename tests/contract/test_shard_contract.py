"""Both kinds of server, and a ledger group, keep what every kind of shard promises."""

from collections.abc import Iterator, Mapping

import pytest

from coordinator.cluster import read_map
from coordinator.shards.addresses import service_address
from coordinator.shards.group.node import LedgerGroup
from ledger.model import Reason, Transfer
from shard_client.node import ShardNode
from shard_client.records import Decided, StoredTransfer
from shard_client.shard import Limits, Shard
from tests.cluster import Cluster
from tests.contract.calls_contract import CallsContract, CallsGround, soon
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


class GroupGround(CallsGround):
    """A ledger group, which decides transfers itself."""

    protocol = "tcc"

    def commit(self, *transfers: Transfer) -> list[StoredTransfer]:
        return [found.stored for found in self.decide(*transfers) if found.stored]

    def decide(self, *transfers: Transfer) -> list[Decided]:
        assert self.s1.decider is not None
        answers = self.s1.decider.decide(transfers).result(5)
        return [answer for answer in answers if isinstance(answer, Decided)]


class TestLedgerGroup(CallsContract):
    @pytest.fixture
    def ground(self, eventstore_cluster: Cluster) -> Iterator[GroupGround]:
        settings = eventstore_cluster.settings
        ((name, address),) = read_map(settings).shards.items()
        secret = settings.eventstore.secret
        node = LedgerGroup(name, address, settings.cluster.id, secret, connect_timeout_s=2.0)
        node.admit()
        yield GroupGround({name: node})
        node.close()

    def test_what_is_decided_is_decided_once(self, ground: GroupGround) -> None:
        source, destination = ground.open(limit=10), ground.open()
        asked = ground.transfer(source, destination)
        other = asked._replace(amount=8)
        first, again, reused = ground.decide(asked, asked, other)
        assert (first.was_known, again.was_known, reused.was_known) == (False, True, True)
        # Whoever has sent another body is shown the first one, and compares.
        assert first.stored == again.stored == reused.stored
        assert ground.balance(source) == -7
        # What has too little is refused for good, a source that is not there is not recorded.
        too_much, nobody = ground.transfer(source, destination, 4), ground.name()
        refused, unknown = ground.decide(too_much, ground.transfer(nobody, destination))
        assert refused.stored is not None
        assert refused.stored.reason == Reason.INSUFFICIENT_FUNDS
        assert (unknown.stored, unknown.was_known) == (None, False)
        assert unknown.refusal is not None
        assert unknown.refusal.reason == Reason.ACCOUNT_NOT_FOUND

    def test_a_hold_reads_at_one_moment_and_locks_nothing(self, ground: GroupGround) -> None:
        source, destination = ground.open(), ground.open()
        hold = ground.s1.hold(soon())
        ground.commit(ground.transfer(source, destination))
        held = hold.lock([source, destination, ground.name()], soon(), waits=False).get()
        assert held.accounts == {name: ground.account(name) for name in (source, destination)}
        ground.commit(ground.transfer(source, destination))
        hold.release(soon()).get()
        hold.give_back()
        assert ground.balance(source) == -14
