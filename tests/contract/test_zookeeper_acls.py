"""What a cluster keeps in ZooKeeper belongs to its user: nobody else reads or changes it, and its
password changes without a gap.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import pytest
from kazoo.exceptions import NoAuthError

from coordinator.cluster import ClusterError, protect, publish_map, read_map
from coordinator.cluster.client import Paths, new_client, zookeeper
from coordinator.cluster.election import Member
from coordinator.cluster.session import ClusterSession
from coordinator.settings import Settings
from shard_client.shard_map import ShardAddress, ShardMap
from tests.cluster import Cluster, wait_until

MAP = ShardMap.evenly(1, {"s1": ShardAddress("127.0.0.1", 1, "tandem", "")})


class Keeper:
    """A cluster of its own in the ZooKeeper of another one, without shards."""

    def __init__(self, cluster: Cluster) -> None:
        self._settings = cluster.settings
        self.id = f"acl-{secrets.token_hex(3)}"
        self.paths = Paths(self.id)

    def settings(self, user: str, password: str, previous: str = "") -> Settings:
        keeper = msgspec.structs.replace(
            self._settings.zookeeper, user=user, password=password, previous_password=previous
        )
        own = msgspec.structs.replace(self._settings.cluster, id=self.id)
        return msgspec.structs.replace(self._settings, cluster=own, zookeeper=keeper)

    @contextmanager
    def session(self, name: str, settings: Settings) -> Iterator[ClusterSession]:
        me = Member(name, secrets.token_hex(4), "127.0.0.1:1", 1, time.time_ns() // 1000)
        running = ClusterSession(settings, me, lambda new: None, lambda: None, lambda after_s: None)
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
def keeper(mysql_cluster: Cluster) -> Keeper:
    return Keeper(mysql_cluster)


def all_see(count: int, *sessions: ClusterSession) -> None:
    """Each session has the map, sees a leader and so many members."""

    def do() -> bool:
        return all(
            s.is_connected and s.map.current and s.view.leader and len(s.view.members) == count
            for s in sessions
        )

    wait_until(do, 20, lambda: f"{[(s.view, s.map.complaint) for s in sessions]}")


@pytest.mark.parametrize("other", [("", ""), ("tandem", "wrong"), ("other", "right")])
def test_only_its_user_gets_in(keeper: Keeper, other: tuple[str, str]) -> None:
    own, stranger = keeper.settings("tandem", "right"), keeper.settings(*other)
    publish_map(own, MAP)
    with keeper.session("c1", own) as session:
        all_see(1, session)
        with pytest.raises(ClusterError, match=r"zookeeper\.user and zookeeper\.password"):
            read_map(stranger)
        with pytest.raises(ClusterError, match=r"zookeeper\.user and zookeeper\.password"):
            publish_map(stranger, MAP)
        client = new_client(stranger)
        client.start()
        try:
            for path in (keeper.paths.leader, keeper.paths.epoch, keeper.paths.shard_map):
                with pytest.raises(NoAuthError):
                    client.delete(path)
                with pytest.raises(NoAuthError):
                    client.set(path, b"5")
            with pytest.raises(NoAuthError):
                client.create(keeper.paths.member("intruder"), b"")
        finally:
            client.stop()
            client.close()
        with keeper.session("c2", stranger) as shut_out:
            wait_until(
                lambda: "zookeeper.user" in (shut_out.map.complaint or ""), 10, "it does not say so"
            )
        all_see(1, session)


def test_what_was_open_is_closed(keeper: Keeper) -> None:
    """`protect` is what `tandem shards init` does with what is there."""
    nobody, own = keeper.settings("", ""), keeper.settings("tandem", "right")
    publish_map(nobody, MAP)
    assert not protect(nobody)
    with keeper.session("c1", own) as session:
        all_see(1, session)
        assert protect(own)
        with pytest.raises(ClusterError, match="belongs to another user"):
            read_map(nobody)
        with zookeeper(own) as client:
            for path in (keeper.paths.root, keeper.paths.shard_map, keeper.paths.leader):
                (acl,) = client.get_acls(path)[0]
                assert (acl.id.scheme, acl.id.id.split(":")[0]) == ("digest", "tandem")
            # Other clusters make theirs beside it.
            assert client.get_acls(Paths.top)[0][0].id.id == "anyone"
        all_see(1, session)


def test_the_password_changes_without_a_gap(keeper: Keeper) -> None:
    """As docs/security.md says: coordinators one after the other, `shards init` in between."""
    old = keeper.settings("tandem", "old")
    both = keeper.settings("tandem", "new", "old")
    new = keeper.settings("tandem", "new")
    publish_map(old, MAP)
    protect(old)
    with ExitStack() as stack:
        first = stack.enter_context(keeper.session("c1", old))
        all_see(1, first)
        # The next ones know both; the old one goes on meanwhile.
        with keeper.session("c2", both) as second:
            all_see(2, first, second)
            protect(both)
            all_see(2, first, second)
            first.stop()
            wait_until(lambda: second.leads, 10, "nobody took over")
            with keeper.session("c3", new) as third:
                all_see(2, second, third)
                protect(new)
                all_see(2, second, third)
                second.stop()
                wait_until(lambda: third.leads, 10, "nobody took over")
                all_see(1, third)
    with pytest.raises(ClusterError, match="belongs to another user"):
        read_map(old)
