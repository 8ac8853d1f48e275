"""Recovery by others: the leader finishes what processes that are gone have left, whoever leads."""

import os
import signal
import threading
import time
import uuid
from pathlib import Path

import httpx

from coordinator.wiring import WorkerProcess
from ledger.ids import transfer_id
from shard_client.xid import Gtrid
from tests.bank import Bank, Load, client, post_one, transfer
from tests.cluster import Cluster, wait_until
from tests.faults.conftest import SHORT
from tests.faults.leftovers import (
    LONG_AGO_MS,
    Leftover,
    now_ms,
    wait_until_finished,
)


def state(url: str) -> dict:
    with client(url) as http:
        answer = http.get("/v1/admin/cluster")
    assert answer.status_code == 200, answer.text
    return answer.json()


def leader(url: str) -> tuple[str, int] | None:
    """Name and term of the coordinator that leads, as the one at `url` sees it."""
    leads = [(c["id"], c["epoch"]) for c in state(url)["coordinators"] if c["leader"]]
    assert len(leads) <= 1
    return leads[0] if leads else None


def wait_for_leader(url: str, *, other_than: str = "") -> tuple[str, int]:
    def found() -> bool:
        now = leader(url)
        return now is not None and now[0] != other_than

    wait_until(found, 15, f"nobody leads but {other_than}")
    now = leader(url)
    assert now is not None
    return now


def in_doubt(url: str) -> dict[str, dict]:
    with client(url) as http:
        told = http.get("/v1/admin/in-doubt").json()
    assert told["unreachable"] == []
    return {item["gtrid"]: item for item in told["branches"]}


def test_leader_finishes_what_nobody_comes_back_for(servers: Cluster) -> None:
    decided, undecided = (Leftover(Bank(servers, 2), "zz", LONG_AGO_MS) for _ in range(2))
    foreign = Leftover(Bank(servers, 2), "c1", LONG_AGO_MS, "another")
    foreign.prepare()
    try:
        decided.prepare_decided()
        undecided.prepare()
        wait_until_finished(decided, undecided)
        decided.check(is_committed=True)
        undecided.check(is_committed=False)
        assert foreign.is_prepared
        assert foreign.gtrid not in in_doubt(servers.urls[0])
    finally:
        foreign.roll_back()


def test_in_doubt_view(servers: Cluster) -> None:
    """What is in doubt is shown with its age and what happens next; resolving it is at once."""
    url = servers.urls[0]
    decided, undecided = (Leftover(Bank(servers, 2), "zz", now_ms()) for _ in range(2))
    for item in (decided, undecided):
        item.prepare()
    decided.decide()
    seen = in_doubt(url)
    for item, decision in ((decided, "committed"), (undecided, None)):
        told = seen[item.gtrid]
        assert (told["shard"], told["home"], told["coordinator"]) == (item.remote, item.home, "zz")
        assert told["decision"] == decision
        assert 0 <= told["age_seconds"] < 15
        assert 0 < told["next_in_seconds"] <= 15.5
    assert "commits it" in seen[decided.gtrid]["next"]
    assert "obeys" in seen[undecided.gtrid]["next"]
    counts = {shard["id"]: shard["in_doubt"] for shard in state(url)["shards"]}
    assert counts[decided.remote] >= 1
    age = seen[decided.gtrid]["age_seconds"]
    wait_until(lambda: in_doubt(url)[decided.gtrid]["age_seconds"] > age, 5, "its age stands still")
    with client(url) as http:
        for item, outcome in ((decided, "committed"), (undecided, "aborted")):
            answer = http.post(f"/v1/admin/in-doubt/{item.gtrid}/resolve")
            assert answer.status_code == 200, answer.text
            told = answer.json()
            assert (told["outcome"], told["finished"]) == (outcome, [item.remote])
            assert told["unfinished"] == []
            # To say it again changes nothing.
            again = http.post(f"/v1/admin/in-doubt/{item.gtrid}/resolve").json()
            assert (again["outcome"], again["finished"]) == (outcome, [])
        nobody = Gtrid(servers.settings.cluster.id, "s1", "zz", LONG_AGO_MS, 1)
        assert http.post(f"/v1/admin/in-doubt/{nobody}/resolve").status_code == 404
        answer = http.post("/v1/admin/in-doubt/nonsense/resolve")
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed")
    decided.check(is_committed=True)
    undecided.check(is_committed=False)


def test_step_down(servers: Cluster, tmp_path: Path) -> None:
    """Leadership moves at once, in a later term, and back; nobody waits for a session's end."""
    url = servers.urls[0]
    with servers.coordinator("c8", tmp_path / "c8.log", SHORT) as other:
        for _ in range(2):
            name, epoch = wait_for_leader(url)
            begun = time.monotonic()
            with client(other.url) as http:
                answer = http.post("/v1/admin/leader/step-down")
            assert answer.status_code == 200, answer.text
            told = answer.json()
            assert (told["old"]["coordinator"], told["old"]["epoch"]) == (name, epoch)
            assert told["new"]["coordinator"] == {"c1": "c8", "c8": "c1"}[name]
            assert told["new"]["epoch"] > epoch
            assert time.monotonic() - begun < 1.5
            after = told["new"]["coordinator"], told["new"]["epoch"]
            wait_until(lambda after=after: leader(url) == after, 5, "they see different leaders")


def test_sigterm_hands_over(servers: Cluster, tmp_path: Path) -> None:
    """A leader that is told to end has a successor before its session could have run out."""
    url = servers.urls[0]
    with servers.coordinator("c8", tmp_path / "c8.log", SHORT) as other:
        if wait_for_leader(url)[0] != "c8":
            with client(url) as http:
                http.post("/v1/admin/leader/step-down")
        assert wait_for_leader(url)[0] == "c8"
        begun = time.monotonic()
        other.process.terminate()
        wait_for_leader(url, other_than="c8")
        assert time.monotonic() - begun < 1.5


def test_frozen_leader(servers: Cluster, tmp_path: Path) -> None:
    """Frozen past its session it is replaced; thawed it finds the later term and does not lead."""
    url = servers.urls[0]
    bank = Bank(servers, 8)
    with servers.coordinator("c8", tmp_path / "c8.log", SHORT) as other:
        if wait_for_leader(url)[0] != "c8":
            with client(url) as http:
                http.post("/v1/admin/leader/step-down")
        _, epoch = wait_for_leader(url, other_than="c1")
        os.killpg(other.process.pid, signal.SIGSTOP)
        try:
            new, later = wait_for_leader(url, other_than="c8")
            assert (new, later > epoch) == ("c1", True)
            members = lambda: {c["id"] for c in state(url)["coordinators"]}  # noqa: E731
            wait_until(lambda: members() == {"c1"}, 5, "the frozen one is still a member")
        finally:
            os.killpg(other.process.pid, signal.SIGCONT)
        wait_until(lambda: members() == {"c1", "c8"}, 10, "the thawed one is no member again")
        obeys = lambda: leader(other.url) == leader(url) == (new, later)  # noqa: E731
        wait_until(obeys, 5, "the thawed one sees another leader")
        with client(other.url) as http:
            item = transfer(*bank.two_across(), 1, uuid.uuid4().hex)
            assert post_one(http, item).status_code == 201
    bank.check()


class Watcher:
    """Counts how many processes lead at the same moment, all the time."""

    def __init__(self, *processes: WorkerProcess) -> None:
        self._processes = processes
        self._stop = threading.Event()
        self.most = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self.most = max(self.most, sum(p.cluster.leads for p in self._processes))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def test_zookeeper_away_and_back(servers: Cluster) -> None:
    """Transfers go on with the last map; nobody leads then, and one does afterwards."""
    bank = Bank(servers, 20)
    late = Leftover(Bank(servers, 2), "zz", LONG_AGO_MS)
    keeper = next(p for p in servers.local.status()["processes"] if p["name"] == "zk")
    with servers.process() as one, servers.process() as two:
        watcher = Watcher(one, two)
        load = Load(bank, servers.urls)
        try:
            with load.running(8):
                load.wait_for("201", 50)
                os.kill(keeper["pid"], signal.SIGSTOP)
                wait_until(lambda: _is_away(servers), 20, "it is not missed")
                load.wait_for("201", load.counts["201"] + 100)
                os.kill(keeper["pid"], signal.SIGCONT)
                wait_until(lambda: not _is_away(servers), 20, "ZooKeeper is not found again")
                load.wait_for("201", load.counts["201"] + 50)
                servers.local.stop("zk", kill=True)
                # Nobody can be known to lead: what is past its grace time is finished all the same.
                late.prepare()
                wait_until_finished(late, timeout_s=20)
                servers.local.start("zk")
                wait_until(lambda: not _is_away(servers), 20, "ZooKeeper is not found again")
                wait_for_leader(servers.urls[0])
        finally:
            watcher.stop()
            servers.local.start("zk")
        assert watcher.most <= 1
    late.check(is_committed=False)
    assert set(load.counts) == {"201"} or set(load.counts) == {"201", "422"}, load.counts
    load.check_answers()
    bank.check()


def _is_away(cluster: Cluster) -> bool:
    return state(cluster.urls[0])["zookeeper"] == "away"


def test_shard_killed_with_branches_in_doubt(servers: Cluster) -> None:
    """After its restart they are there, their accounts are locked, and they are finished."""
    item = Leftover(Bank(servers, 2), "zz", now_ms())
    item.prepare()
    item.decide()
    servers.local.stop(item.remote, kill=True)
    servers.local.start(item.remote)
    assert item.is_prepared
    with client(servers.urls[0]) as http:
        told = post_one(http, transfer(item.source, item.destination, 1, uuid.uuid4().hex))
        assert told.status_code in (201, 503), told.text
    wait_until_finished(item, timeout_s=30)
    with client(servers.urls[0]) as http:
        assert http.get(f"/v1/transfers/{item.id}").json()["status"] == "committed"


def test_traces_are_collected(servers: Cluster) -> None:
    """Decisions and markers go when all is finished; not before."""
    bank = Bank(servers, 10)
    load = Load(bank, servers.urls)
    with load.running(4):
        load.wait_for("201", 50)
    undecided = Leftover(Bank(servers, 2), "zz", LONG_AGO_MS)
    undecided.prepare()
    wait_until_finished(undecided)

    def left() -> int:
        return sum(
            servers.rows(shard, f"SELECT COUNT(*) FROM {table}")[0][0]
            for shard in servers.settings.shards
            for table in ("decisions", "markers")
        )

    wait_until(lambda: left() == 0, 20, lambda: f"{left()} traces are left")
    load.check_answers()
    bank.check()


def test_transfer_id_is_found_after_its_traces_are_collected(servers: Cluster) -> None:
    bank = Bank(servers, 2)
    item = transfer(*bank.two_across(), 1, uuid.uuid4().hex)
    with client(servers.urls[0]) as http:
        assert post_one(http, item).status_code == 201
        shards = servers.settings.shards
        count = "SELECT COUNT(*) FROM decisions"
        wait_until(lambda: all(servers.rows(s, count) == [(0,)] for s in shards), 20, "kept")
        again = post_one(http, item)
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
        id_ = transfer_id(item["source"], item["idempotency_key"])
        assert http.get(f"/v1/transfers/{id_}").json()["status"] == "committed"


def test_readyz_says_nothing_is_wrong(servers: Cluster) -> None:
    answer = httpx.get(f"{servers.urls[0]}/readyz", verify=False)
    assert (answer.status_code, answer.json()["troubles"]) == (200, [])
