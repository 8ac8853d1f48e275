"""Situations from the trouble reports of systems that do the same job."""

import os
import resource
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from coordinator.cluster import ClusterError, publish_map, read_map
from coordinator.cluster.client import Paths, zookeeper
from coordinator.shards.provisioning import provision, restore_map
from shard_client.shard_map import ShardAddress, ShardMap, SlotRange
from shard_client.xid import FORMAT_ID
from tests.bank import Bank, Load, client, post_one, together, transfer
from tests.cluster import Cluster, wait_until
from tests.faults.conftest import short_cluster
from tests.faults.leftovers import LONG_AGO_MS, Leftover, now_ms, wait_until_finished
from tests.faults.victims import Victim, new_name, started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with short_cluster(tmp_path_factory.mktemp("scenarios"), "mysql") as made:
        yield made


def troubles(cluster: Cluster) -> list[str]:
    return httpx.get(f"{cluster.urls[0]}/readyz", verify=False).json()["troubles"]


def wait_until_well(cluster: Cluster) -> None:
    wait_until(lambda: troubles(cluster) == [], 20, lambda: f"it is not well: {troubles(cluster)}")


# --- in doubt -------------------------------------------------------------------------------


def test_another_coordinator_shows_a_commit_that_takes_long(
    cluster: Cluster, tmp_path: Path
) -> None:
    bank = Bank(cluster, 2)
    source, destination = bank.two_across()
    item = transfer(source, destination, 5, uuid.uuid4().hex)
    victim = Victim(cluster, new_name(), tmp_path, "before-commit@s2=delay:4*1")
    with started([victim]):
        call = victim.call(item)

        def shown() -> list[dict]:
            with client(cluster.urls[0]) as http:
                told = http.get("/v1/admin/in-doubt").json()["branches"]
            return [branch for branch in told if branch["coordinator"] == victim.name]

        wait_until(lambda: len(shown()) == 1, 10, "it is not shown")
        first = shown()[0]
        assert (first["decision"], first["shard"], first["home"]) == ("committed", "s2", "s1")
        wait_until(lambda: shown()[0]["age_seconds"] > first["age_seconds"] + 1, 4, "no older")
        answer = call.wait()
        assert answer is not None
        assert answer.status_code == 201
        wait_until(lambda: shown() == [], 10, "it stays")
    bank.check()


def test_writers_do_not_touch_what_is_in_doubt(cluster: Cluster) -> None:
    """A shard dies and comes back with a branch in doubt, while ten want the same accounts."""
    left = Leftover(Bank(cluster, 2), "zz", now_ms())
    left.prepare()
    left.decide()
    stop = threading.Event()
    codes: list[int] = []

    def write(index: int) -> None:
        with client(cluster.urls[0]) as http:
            while not stop.is_set():
                item = transfer(left.destination, left.source, 1, uuid.uuid4().hex)
                codes.append(post_one(http, item).status_code)

    def disturb() -> None:
        try:
            for _ in range(2):
                cluster.local.stop(left.remote, kill=True)
                cluster.local.start(left.remote)
                # Nobody has written beneath it: its account stands as it stood.
                text = f"SELECT balance FROM accounts WHERE id = '{left.source}'"
                found = cluster.rows(left.remote, text)
                # Looked at after it: what is prepared then was so all the time.
                assert not left.is_prepared or found == [(1000,)]
            wait_until_finished(left, timeout_s=40)
            count = codes.count(201)
            wait_until(lambda: codes.count(201) > count, 20, "nobody gets on afterwards")
        finally:
            stop.set()

    together(11, lambda index: disturb() if index == 10 else write(index))
    assert set(codes) <= {201, 202, 503}
    wait_until_well(cluster)
    left.bank.check()


def test_a_branch_committed_by_hand(cluster: Cluster, tmp_path: Path) -> None:
    """The coordinator that comes to commit it finds it done: success, one effect."""
    bank = Bank(cluster, 2)
    source, destination = bank.two_across()
    # Nobody takes it for dead meanwhile.
    victim = Victim(
        cluster,
        new_name(),
        tmp_path,
        "before-commit@s2=freeze*1",
        TANDEM_ZOOKEEPER_SESSION_TIMEOUT_S="30",
        TANDEM_MYSQL_IDLE_TIMEOUT_S="60",
    )
    with started([victim]):
        call = victim.call(transfer(source, destination, 5, uuid.uuid4().hex))
        victim.wait_frozen()
        (gtrid,) = victim.in_doubt()
        cluster.rows("s2", f"XA COMMIT '{gtrid}','s2',{FORMAT_ID}")
        victim.thaw()
        answer = call.wait()
        assert answer is not None
        assert answer.status_code == 201
    assert bank.balances() == {source: 995, destination: 1005}
    bank.check()


def test_foreign_branches_do_not_disturb_recovery(cluster: Cluster) -> None:
    """Names that are no text, another's, and ours but of another cluster."""
    left = Leftover(Bank(cluster, 2), "zz", LONG_AGO_MS)
    another = Leftover(Bank(cluster, 2), "c1", LONG_AGO_MS, "another")
    tag = uuid.uuid4().hex[:8]
    binary = [f"X'00ff80c3{tag}',X'fe0027',{FORMAT_ID}", f"X'c3{tag}',X'',131077", f"'{tag}','',1"]
    for xid in binary:
        marker = f"INSERT INTO markers VALUES ('{uuid.uuid4().hex}', 'x', 0)"
        statements = (f"XA START {xid}", marker, f"XA END {xid}", f"XA PREPARE {xid}")
        with cluster.sql(left.remote) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    another.prepare()
    try:
        left.prepare()
        wait_until_finished(left)
        left.check(is_committed=False)
        assert another.is_prepared
    finally:
        # It fails if anybody else has finished one.
        for xid in binary:
            cluster.rows(left.remote, f"XA ROLLBACK {xid}")
        another.roll_back()


# --- the shard map, and who a shard is ------------------------------------------------------


@contextmanager
def published(cluster: Cluster, new: ShardMap) -> Iterator[None]:
    """Another shard map for a block; the old one is in force again afterwards."""
    old = read_map(cluster.settings)
    publish_map(cluster.settings, new)
    try:
        yield
    finally:
        publish_map(cluster.settings, ShardMap(new.version + 1, old.shards, old.ranges))
        wait_until_well(cluster)


def test_one_shards_address_points_to_another(cluster: Cluster) -> None:
    """It is not used and says so, and nothing is decided on it."""
    left = Leftover(Bank(cluster, 2), "zz", LONG_AGO_MS)
    current = read_map(cluster.settings)
    one, two = current.shards["s1"], current.shards["s2"]
    swapped = {"s1": two, "s2": one}
    with published(cluster, ShardMap(current.version + 1, swapped, current.ranges)):
        named = "check its address in the shard map"
        noticed = lambda: sum(named in text for text in troubles(cluster)) == 2  # noqa: E731
        wait_until(noticed, 10, "nobody notices")
        left.prepare()
        with client(cluster.urls[0]) as http:
            answer = post_one(http, transfer(left.source, left.destination, 1, uuid.uuid4().hex))
            assert (answer.status_code, answer.json()["type"]) == (
                503,
                "/problems/shard-unavailable",
            )
        assert left.is_prepared
        for shard in ("s1", "s2"):
            text = f"SELECT COUNT(*) FROM decisions WHERE gtrid = '{left.gtrid}'"
            assert cluster.rows(shard, text) == [(0,)]
    wait_until_finished(left)
    left.check(is_committed=False)


def test_a_shard_is_replaced_by_an_empty_server(cluster: Cluster) -> None:
    bank = Bank(cluster, 4)
    current = read_map(cluster.settings)
    where = current.shards["s2"]
    cluster.rows("s2", "CREATE DATABASE vacant")
    cluster.rows("s2", "GRANT ALL ON vacant.* TO tandem")
    empty = ShardAddress(where.host, where.port, "vacant", where.server_uuid)
    shards = {"s1": current.shards["s1"], "s2": empty}
    with published(cluster, ShardMap(current.version + 1, shards, current.ranges)):
        noticed = lambda: any("no identity row" in text for text in troubles(cluster))  # noqa: E731
        wait_until(noticed, 10, "nobody notices")
        with client(cluster.urls[0]) as http:
            there = bank.accounts[0::2]
            item = transfer(there[0], there[1], 1, uuid.uuid4().hex)
            assert post_one(http, item).status_code == 201
            item = transfer(there[0], bank.accounts[1], 1, uuid.uuid4().hex)
            assert post_one(http, item).status_code == 503
    cluster.rows("s2", "DROP DATABASE vacant")
    bank.check()


def test_a_slot_moves_while_a_coordinator_holds_an_old_map(cluster: Cluster) -> None:
    """The shard's own table counts: the map is read again, and no account is taken for missing."""
    bank = Bank(cluster, 2)
    source, destination = bank.two_across()
    current = read_map(cluster.settings)
    slots = {shard: cluster.rows(shard, "SELECT * FROM slots") for shard in ("s1", "s2")}
    cluster.rows("s2", "DELETE FROM slots")
    try:
        with client(cluster.urls[0]) as http:
            answer = post_one(http, transfer(source, destination, 1, uuid.uuid4().hex))
            assert answer.status_code == 503, answer.text
            assert "not found" not in answer.text
        # Now the map says so too: all of it is on s1.
        ranges = [SlotRange(first, last, "s1") for first, last, _ in current.ranges]
        for first, last in slots["s2"]:
            cluster.rows("s1", f"INSERT INTO slots VALUES ({first}, {last})")
        new = ShardMap(current.version + 1, current.shards, ranges)
        with published(cluster, new), client(cluster.urls[0]) as http:

            def is_missing() -> bool:
                item = transfer(source, destination, 1, uuid.uuid4().hex)
                return post_one(http, item).status_code == 422

            # On s1 there really is no such account: nobody debits the copy on s2.
            wait_until(is_missing, 10, "the new map is not in force")
    finally:
        cluster.rows("s1", f"DELETE FROM slots WHERE first_slot = {slots['s2'][0][0]}")
        for first, last in slots["s2"]:
            cluster.rows("s2", f"INSERT INTO slots VALUES ({first}, {last})")
    with client(cluster.urls[0]) as http:
        item = transfer(source, destination, 1, uuid.uuid4().hex)
        wait_until(lambda: post_one(http, item).status_code == 201, 10, "it is not back")
    bank.check()


@pytest.mark.parametrize("text", [b"nonsense", b'{"version": 99, "shards": {}, "slots": []}'])
def test_a_broken_map_is_reported_and_not_used(cluster: Cluster, text: bytes) -> None:
    bank = Bank(cluster, 2)
    with zookeeper(cluster.settings) as keeper:
        path = Paths(cluster.settings.cluster.id).shard_map
        good, _ = keeper.get(path)
        keeper.set(path, text)
        try:
            wait_until(lambda: any("broken" in t for t in troubles(cluster)), 10, "unnoticed")
            with client(cluster.urls[0]) as http:
                item = transfer(*bank.two_across(), 1, uuid.uuid4().hex)
                assert post_one(http, item).status_code == 201
        finally:
            keeper.set(path, good)
    wait_until_well(cluster)
    bank.check()


def test_an_older_map_is_reported_and_not_used(cluster: Cluster) -> None:
    current = read_map(cluster.settings)
    newer = ShardMap(current.version + 1, current.shards, current.ranges)
    publish_map(cluster.settings, newer)

    def shown() -> int:
        told = httpx.get(f"{cluster.urls[0]}/v1/admin/cluster", verify=False).json()
        return int(told["shard_map_version"])

    wait_until(lambda: shown() == newer.version, 10, "the new map is not in force")
    with zookeeper(cluster.settings) as keeper:
        keeper.set(Paths(cluster.settings.cluster.id).shard_map, current.to_json())
        try:
            wait_until(lambda: any("below" in t for t in troubles(cluster)), 10, "unnoticed")
            assert shown() == newer.version
        finally:
            keeper.set(Paths(cluster.settings.cluster.id).shard_map, newer.to_json())
    wait_until_well(cluster)


def test_zookeeper_loses_its_data(cluster: Cluster) -> None:
    """Coordinators that run find it again, though it knows nothing of what they have seen; they
    keep their map, and elect a leader.
    """
    bank = Bank(cluster, 2)
    url = cluster.urls[0]
    cluster.local.stop("zk", kill=True)
    shutil.rmtree(cluster.local.data_dir / "zk" / "data")
    cluster.local.start("zk")
    with client(url) as http:
        assert post_one(http, transfer(*bank.two_across(), 1, uuid.uuid4().hex)).status_code == 201

    def leads() -> bool:
        told = httpx.get(f"{url}/v1/admin/cluster", verify=False).json()
        return any(c["leader"] for c in told["coordinators"]) and told["zookeeper"] == "connected"

    wait_until(leads, 60, "nobody leads")
    # Nobody but the shards can say what they own.
    with pytest.raises(ClusterError, match="restore-map"):
        provision(cluster.settings, lambda text: None)
    restore_map(cluster.settings, lambda text: None)
    cluster.local.stop("c1")
    cluster.local.start("c1")
    wait_until_well(cluster)
    bank.check()


# --- servers and clients that fail ----------------------------------------------------------


def test_a_shard_that_cannot_write_any_more(cluster: Cluster) -> None:
    """Its files may not grow: the server ends in the middle of a write. Nothing is lost."""
    bank = Bank(cluster, 20)
    load = Load(bank, cluster.urls)
    pid = cluster.pid("s2")
    with load.running(8):
        load.wait_for("201", 100)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        gone = lambda: not _lives(pid)  # noqa: E731
        wait_until(gone, 20, "it lives without writing")
        load.wait_for("503", load.counts["503"] + 10)
        on_s1 = bank.accounts[0::2]
        with client(cluster.urls[0]) as http:
            answers = [
                post_one(http, transfer(source, destination, 1, uuid.uuid4().hex))
                for source, destination in pairwise(on_s1)
            ]
        cluster.local.start("s2")
        # Only a branch in doubt whose home is s2 keeps accounts of s1 locked.
        busy = [answer for answer in answers if answer.status_code not in (201, 422)]
        assert len(busy) < len(answers), busy[0].text
        assert all(answer.json()["type"] == "/problems/account-busy" for answer in busy)
        load.wait_for("201", load.counts["201"] + 50)
    wait_until_well(cluster)
    load.check_answers()
    bank.check()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_clients_that_hang_up_and_clients_that_are_slow(cluster: Cluster) -> None:
    """More of them than there are threads; no thread is lost, and what was sent is as recorded."""
    bank = Bank(cluster, 2)
    source, destination = bank.two_across()
    host, port = httpx.URL(cluster.urls[0]).host, httpx.URL(cluster.urls[0]).port or 80
    body = (
        f'{{"source":"{source}","destination":"{destination}","amount":1,"currency":"EUR"}}'
    ).encode()
    keys = [uuid.uuid4().hex for _ in range(100)]
    slow = []
    try:
        for index, key in enumerate(keys):
            head = (
                f"POST /v1/transfers HTTP/1.1\r\nHost: {host}\r\nIdempotency-Key: {key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode()
            connection = socket.create_connection((host, port), timeout=10)
            if index % 2:
                connection.sendall(head + body)
                connection.close()
            else:
                connection.sendall(head + body[:10])
                slow.append(connection)
        # Half of the threads wait for the rest of a body; the others serve.
        with client(cluster.urls[0]) as http:
            begun = time.monotonic()
            for _ in range(5):
                item = transfer(destination, source, 1, uuid.uuid4().hex)
                assert post_one(http, item).status_code == 201
            assert time.monotonic() - begun < 20
        for connection in slow[:10]:
            connection.sendall(body[10:])
            assert connection.recv(20).startswith(b"HTTP/1.1 201")
    finally:
        for connection in slow:
            with closing(connection):
                pass
    bank.check()
    with client(cluster.urls[0]) as http:
        for key in keys:
            answer = post_one(http, transfer(source, destination, 1, key))
            assert answer.status_code == 201, answer.text
    bank.check()
    assert os.path.exists(f"/proc/{cluster.pid('c1')}")
