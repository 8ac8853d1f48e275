"""What a cluster keeps in ZooKeeper belongs to its user: nobody else reads or changes it, and its
password changes without a gap.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from coordinator.cluster import ClusterError, protect, publish_map, read_map
from coordinator.cluster.client import Paths, new_client, zookeeper
from coordinator.cluster.election import Member
from coordinator.cluster.session import ClusterSession
from coordinator.settings import Settings
from shard_client.shard_map import ShardAddress, ShardMap
from tests.cluster import Cluster, wait_until

MAP = ShardMap.evenly(1, {"s1": ShardAddress("127.0.0.1", 1, "tandem", "")})


class Keeper:
    """A cluster of its own in the ZooKeeper of another one, without shards, below a path of its own
    that is not there yet.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._settings = cluster.settings
        self.id = f"acl-{secrets.token_hex(3)}"
        self.paths = Paths(self.id)

    def settings(self, user: str, password: str, previous: str = "") -> Settings:
        keeper = msgspec.structs.replace(
            self._settings.zookeeper,
            hosts=f"{self._settings.zookeeper.hosts}/{self.id}",
            user=user,
            password=password,
            previous_password=previous,
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


def owners(client: KazooClient, path: str) -> list[str]:
    """Whose a node is, without passwords."""
    return [f"{acl.id.scheme}:{acl.id.id.partition(':')[0]}" for acl in client.get_acls(path)[0]]


def replaced(settings: Settings, cluster: str) -> Settings:
    """The same for another cluster."""
    own = msgspec.structs.replace(settings.cluster, id=cluster)
    return msgspec.structs.replace(settings, cluster=own)


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
        assert "can be changed by others" in (session.trouble or "")
        assert Paths.top in (session.trouble or "")
        assert protect(own)
        wait_until(lambda: session.trouble is None, 10, "it is still told")
        with pytest.raises(ClusterError, match="belongs to another user"):
            read_map(nobody)
        with zookeeper(own) as client:
            for path in (Paths.top, keeper.paths.root, keeper.paths.shard_map, keeper.paths.leader):
                assert owners(client, path) == ["digest:tandem"]
        all_see(1, session)


def test_the_whole_path_belongs_to_its_user(keeper: Keeper) -> None:
    """From the first node that is made, and before `tandem shards init` says so."""
    own = keeper.settings("tandem", "right")
    with keeper.session("c1", own) as session:
        wait_until(lambda: session.leads, 10, "nobody leads")
        publish_map(own, MAP)
        all_see(1, session)
        assert session.trouble is None
        with zookeeper(own) as client:
            # Also what leads to it, and was not there.
            for path in ("/", *keeper.paths.fixed):
                if client.exists(path):
                    assert owners(client, path) == ["digest:tandem"], path
    stranger = new_client(keeper.settings("other", "right"))
    stranger.start()
    try:
        for path in (Paths.top, keeper.paths.root):
            for harm in (
                lambda path=path: stranger.create(f"{path}/more"),
                lambda path=path: stranger.set_acls(path, OPEN_ACL_UNSAFE),
                lambda path=path: stranger.delete(path, recursive=True),
            ):
                with pytest.raises(NoAuthError):
                    harm()
    finally:
        stranger.stop()
        stranger.close()
    # Another cluster of another user finds no place there, and is told so.
    with pytest.raises(ClusterError, match=r"zookeeper\.user"):
        publish_map(replaced(keeper.settings("other", "right"), "beside"), MAP)


def test_what_was_there_first_is_taken_back_or_named(keeper: Keeper) -> None:
    """Somebody has made the tree before us, with nodes of his own, and could go on changing it."""
    own = keeper.settings("tandem", "right")
    theirs = make_digest_acl("tandem", "guessed", all=True)
    intruder = KazooClient(own.zookeeper.hosts, auth_data=[("digest", "tandem:guessed")])
    intruder.start_async().wait(10)
    try:
        intruder.ensure_path("/")
        shared = [*OPEN_ACL_UNSAFE, theirs]
        for path in (Paths.top, keeper.paths.root, keeper.paths.members):
            intruder.create(path, acl=shared)
        for path in (keeper.paths.leader, keeper.paths.member("intruder"), keeper.paths.epoch):
            intruder.create(path, b"?", acl=[theirs])
        publish_map(own, MAP)
        with keeper.session("c1", own) as session:
            wait_until(
                lambda: "can be changed by others" in (session.trouble or ""), 10, "not told"
            )
            told: list[str] = []
            assert protect(own, told.append)
            assert len(told) == 3
            assert any(keeper.paths.member("intruder") in line for line in told)
            all_see(1, session)
            wait_until(lambda: session.trouble is None, 10, lambda: str(session.trouble))
        with zookeeper(own) as client:
            for path in keeper.paths.fixed:
                assert not client.exists(path) or owners(client, path) == ["digest:tandem"], path
        for path in (Paths.top, keeper.paths.root, keeper.paths.members):
            with pytest.raises(NoAuthError):
                intruder.create(f"{path}/more")
    finally:
        intruder.stop()
        intruder.close()


@pytest.mark.parametrize("node", ["top", "root"])
def test_what_belongs_to_another_user_is_refused_by_name(keeper: Keeper, node: str) -> None:
    """Also if it lets us do everything: it is his to change."""
    own, other = keeper.settings("tandem", "right"), keeper.settings("other", "right")
    both = [make_digest_acl(user, "right", all=True) for user in ("tandem", "other")]
    path = str(getattr(keeper.paths, node))
    with zookeeper(other) as client:
        client.ensure_path("/", acl=OPEN_ACL_UNSAFE)
        if node == "root":
            client.ensure_path(Paths.top, acl=OPEN_ACL_UNSAFE)
        client.create(path, acl=both)
    with keeper.session("c1", own) as session:
        named = f"{path} in ZooKeeper belongs to digest:other, not to tandem"
        wait_until(lambda: named in (session.map.complaint or ""), 10, "it is not named")
        assert not session.leads
        assert session.view.members == ()
    with zookeeper(other) as client:
        client.set_acls(path, [both[1]])
    with keeper.session("c1", own) as session:
        wait_until(lambda: "another user" in (session.map.complaint or ""), 10, "it is not named")
    with pytest.raises(ClusterError, match="belongs to another user"):
        protect(own)


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
