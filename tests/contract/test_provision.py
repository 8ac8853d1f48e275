"""Setting up shards, and what becomes of a cluster whose ZooKeeper has lost its data."""

import select
import socket
import socketserver
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from click.testing import CliRunner

from coordinator.cluster import ClusterError, NoMapPublished, read_map
from coordinator.cluster.client import new_client
from coordinator.settings import Settings
from coordinator.shards.provisioning import check_shards, provision, restore_map
from shard_client.admin import make_shard, quoted
from tandem.cli import main
from tests.bank import Bank
from tests.cluster import Cluster
from tests.contract.lone import SERVICE, Lone


def with_shards(settings: Settings, **shards: str) -> Settings:
    return msgspec.structs.replace(settings, shards=shards)


@pytest.fixture
def lost(mysql_cluster: Cluster) -> Iterator[Settings]:
    with _lost(mysql_cluster) as settings:
        yield settings


@contextmanager
def _lost(cluster: Cluster) -> Iterator[Settings]:
    """The settings of a cluster with data whose ZooKeeper has nothing: another place in it."""
    Bank(cluster, 2)
    settings = cluster.settings
    with _empty_zookeeper(settings) as hosts:
        keeper = msgspec.structs.replace(settings.zookeeper, hosts=hosts)
        yield msgspec.structs.replace(settings, zookeeper=keeper)


@contextmanager
def _empty_zookeeper(settings: Settings) -> Iterator[str]:
    """The hosts of the cluster's ZooKeeper, with a place in it where nothing is."""
    chroot = f"/empty-{uuid.uuid4().hex[:8]}"
    client = new_client(settings)
    client.start()
    try:
        client.create(chroot)
        yield settings.zookeeper.hosts + chroot
        client.delete(chroot, recursive=True)
    finally:
        client.stop()
        client.close()


def refused(settings: Settings, call) -> str:
    """Why it is refused; nothing is published then, and the shards own what they did."""
    with pytest.raises(ClusterError) as caught:
        call(settings, lambda _: None)
    with pytest.raises(NoMapPublished):
        read_map(settings)
    return str(caught.value)


# --- a map that is lost -----------------------------------------------------------------------


def test_the_map_comes_back_from_the_shards(any_cluster: Cluster) -> None:
    before = read_map(any_cluster.settings)
    with _lost(any_cluster) as lost:
        made = restore_map(lost, lambda _: None)
        assert read_map(lost).to_json() == made.to_json()
        assert (made.ranges, made.shards) == (before.ranges, before.shards)
        assert made.version > before.version
        with pytest.raises(ClusterError, match="nothing to restore"):
            restore_map(lost, lambda _: None)


def test_no_first_map_where_shards_have_data(lost: Settings) -> None:
    text = refused(lost, provision)
    assert "has data" in text
    assert "restore-map" in text


def test_a_shard_that_is_not_named(lost: Settings) -> None:
    one = with_shards(lost, s1=lost.shards["s1"])
    assert "owns slots 0-2047 and has data" in refused(one, provision)
    assert "slots 2048-4095 by none" in refused(one, restore_map)


def test_shards_that_have_changed_places(lost: Settings) -> None:
    crossed = with_shards(lost, s1=lost.shards["s2"], s2=lost.shards["s1"])
    for call in (provision, restore_map):
        assert "is shard s2 of cluster" in refused(crossed, call)


def test_a_shard_of_another_cluster(lost: Settings) -> None:
    other = msgspec.structs.replace(lost, cluster=msgspec.structs.replace(lost.cluster, id="other"))
    assert f"of cluster {lost.cluster.id} already" in refused(other, restore_map)
    assert f"of cluster {lost.cluster.id} already" in refused(other, provision)


def test_a_server_that_is_no_shard(lost: Settings) -> None:
    host = lost.shards["s2"].rpartition("/")[0]
    vacant = with_shards(lost, s1=lost.shards["s1"], s2=f"{host}/mysql")
    text = refused(msgspec.structs.replace(vacant, mysql=_as_admin(lost)), restore_map)
    assert "the server of shard s2 is no shard" in text


def _as_admin(settings: Settings):
    mysql = settings.mysql
    return msgspec.structs.replace(mysql, user=mysql.admin_user, password=mysql.admin_password)


def test_a_slot_that_two_claim(lost: Settings, mysql_cluster: Cluster) -> None:
    mysql_cluster.rows("s2", "INSERT INTO slots VALUES (7, 7)")
    try:
        assert "slots 7-7 by s1 and s2" in refused(lost, restore_map)
        good, odd = check_shards(mysql_cluster.settings)
        assert good.problems == []
        assert "it owns slots 7-7, 2048-4095, the shard map gives it slots 2048-4095" in str(odd)
    finally:
        mysql_cluster.rows("s2", "DELETE FROM slots WHERE first_slot = 7")


def test_the_command(
    lost: Settings, mysql_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in mysql_cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TANDEM_ZOOKEEPER_HOSTS", lost.zookeeper.hosts)
    ran = CliRunner().invoke(main, ["shards", "restore-map"])
    assert ran.exit_code == 0, ran.output
    assert "is published, as the shards say" in ran.output
    again = CliRunner().invoke(main, ["shards", "restore-map"])
    assert again.exit_code == 1
    # The audit reads what it has restored, and what it cannot read is no violation.
    monkeypatch.setenv("TANDEM_ZOOKEEPER_HOSTS", "127.0.0.1:1")
    monkeypatch.setattr("coordinator.cluster.client._CONNECT_TIMEOUT_S", 0.2)
    assert CliRunner().invoke(main, ["audit"]).exit_code == 3
    assert CliRunner().invoke(main, ["audit", "--ahead"]).exit_code == 3


# --- addresses and names ----------------------------------------------------------------------


@pytest.fixture
def new(lone: Lone, mysql_cluster: Cluster) -> Iterator[Settings]:
    """The settings of a cluster that is to be set up, without shards yet."""
    settings = mysql_cluster.settings
    where = lone.admin_address
    mysql = msgspec.structs.replace(
        settings.mysql,
        user=SERVICE.name,
        password=SERVICE.password,
        admin_user=where.user,
        admin_password=where.password,
        audit_user="",
        weak_durability="flag",
    )
    with _empty_zookeeper(settings) as hosts:
        keeper = msgspec.structs.replace(settings.zookeeper, hosts=hosts)
        yield msgspec.structs.replace(settings, mysql=mysql, zookeeper=keeper, shards={})


def test_a_database_by_any_name_at_an_ipv6_address(lone: Lone, new: Settings) -> None:
    """Set up, published, checked, set up again."""
    where, database = lone.admin_address, "a.b-c$d ü`e"
    with _relay(where.host, where.port) as port:
        named = with_shards(new, s1=f"[::1]:{port}/{database}")
        try:
            provision(named, lambda _: None)
            (found,) = check_shards(named)
            assert (found.reachable, found.problems) == (True, [])
            assert found.address == f"[::1]:{port}/{database}"
            provision(named, lambda _: None)
            assert read_map(named).version == 1
        finally:
            lone.admin(f"DROP DATABASE {quoted(database)}")


@contextmanager
def _relay(host: str, port: int) -> Iterator[int]:
    """A port of ::1 behind which the server is, for a block."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, port)) as other:
                ends = {self.request: other, other: self.request}
                while True:
                    for end in select.select(list(ends), [], [])[0]:
                        data = end.recv(65536)
                        if not data:
                            return
                        ends[end].sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6
        daemon_threads = True

    with Server(("::1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_half_done_setup_is_done_again(lone: Lone, new: Settings) -> None:
    """One server of two was made a shard, and nothing was published: nothing stands in the way."""
    where = lone.admin_address
    both = with_shards(
        new, s1=f"{where.host}:{where.port}/half1", s2=f"{where.host}:{where.port}/half2"
    )
    first = [(0, 2047)]
    try:
        make_shard(where._replace(database="half1"), new.cluster.id, first, SERVICE)
        alone = with_shards(new, s1=both.shards["s1"])
        assert "would get slots 0-4095" in refused(alone, provision)
        provision(both, lambda _: None)
        assert read_map(both).ranges_of("s1") == first
    finally:
        lone.admin("DROP DATABASE IF EXISTS half1", "DROP DATABASE IF EXISTS half2")
