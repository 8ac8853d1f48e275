"""The metrics of real workers: killed ones lose nothing, and what is shown is true."""

import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from coordinator.cluster import read_map
from tests.bank import Bank, client, post_one
from tests.cluster import Cluster, Coordinator, wait_until

SETTINGS = {
    "TANDEM_COORDINATOR_WORKERS": "2",
    "TANDEM_ZOOKEEPER_SESSION_TIMEOUT_S": "2",
    "TANDEM_ENGINE_SWEEP_INTERVAL_MS": "200",
}


class Metered:
    """A coordinator of two workers whose metrics are read."""

    def __init__(self, coordinator: Coordinator, bank: Bank, folder: Path) -> None:
        self.coordinator = coordinator
        self.bank = bank
        self._folder = folder

    def scrape(self) -> dict[str, float]:
        with client(self.coordinator.url) as http:
            answer = http.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        return {series: float(value) for series, _, value in (x.rpartition(" ") for x in lines)}

    def transfer(self, count: int) -> None:
        """Across two shards; each on a connection of its own, so that every worker gets some."""
        source, destination = self.bank.two_across()
        for _ in range(count):
            with client(self.coordinator.url) as http:
                item = self.bank.random_item(random.Random()) | {
                    "source": source,
                    "destination": destination,
                    "amount": 1,
                }
                assert post_one(http, item).status_code == 201

    def workers(self) -> list[int]:
        assert self.coordinator.process
        master = self.coordinator.process.pid
        return [int(x) for x in Path(f"/proc/{master}/task/{master}/children").read_text().split()]

    def folders(self) -> list[Path]:
        return sorted(self._folder.glob("tandem-metrics-*"))


COMMITTED = 'coordinator_transfers_total{outcome="committed",protocol="xa"}'


@pytest.fixture(scope="module")
def metered(mysql_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metered]:
    folder = tmp_path_factory.mktemp("metrics")
    settings = SETTINGS | {"TMPDIR": str(folder)}
    with mysql_cluster.coordinator("m1", folder / "m1.log", settings) as coordinator:
        yield Metered(coordinator, Bank(mysql_cluster, 4), folder)


def counters(found: dict[str, float]) -> dict[str, float]:
    return {s: v for s, v in found.items() if re.search(r"_(total|count|sum|bucket)(\{|$)", s)}


def test_every_metric_of_the_design_is_there(metered: Metered) -> None:
    metered.transfer(4)
    text = httpx.get(f"{metered.coordinator.url}/metrics", verify=False).text
    families = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    names = """
        transfers_total transfer_seconds phase_seconds group_size lock_hold_seconds
        deferred_transfers_total in_doubt_branches in_doubt_oldest_seconds recovery_seconds
        recovered_branches_total decision_conflicts_total xa_errors_total is_leader leader_epoch
        elections_total failover_seconds shard_map_version shard_up
        sweep_last_success_timestamp_seconds
    """
    assert families >= {f"coordinator_{name}" for name in names.split()}


def test_counters_add_up_over_workers_and_outlive_them(metered: Metered) -> None:
    before = metered.scrape()
    metered.transfer(20)
    counted = metered.scrape()
    assert counted[COMMITTED] - before.get(COMMITTED, 0) == 20
    victim = metered.workers()[0]
    os.kill(victim, signal.SIGKILL)

    (folder,) = metered.folders()

    def replaced() -> bool:
        is_buried = not list(folder.glob(f"*_{victim}.db"))
        now = metered.scrape()
        last = counters(counted)
        assert {s: now.get(s) for s in last if now.get(s, -1) < last[s]} == {}
        counted.update(now)
        return is_buried and now["coordinator_workers"] == 2

    wait_until(replaced, 30, "no new worker counts")
    metered.transfer(5)
    now = metered.scrape()
    assert now[COMMITTED] - before.get(COMMITTED, 0) == 25
    assert now["coordinator_queue_limit"] == 40_000
    # What the dead one has counted is in the one place for all that have ended.
    assert (folder / "counter_ended.db").exists()


def test_a_killed_coordinator_begins_at_zero_and_cleans_up(metered: Metered) -> None:
    metered.transfer(3)
    (left,) = metered.folders()
    metered.coordinator.kill()
    metered.coordinator.start()
    assert metered.scrape()[COMMITTED] == 0
    (folder,) = metered.folders()
    assert folder != left
    metered.transfer(2)
    assert metered.scrape()[COMMITTED] == 2


def test_gauges_are_true(metered: Metered, mysql_cluster: Cluster) -> None:
    def leaders() -> float:
        urls = [*mysql_cluster.urls, metered.coordinator.url]
        found = [httpx.get(f"{url}/metrics", verify=False).text for url in urls]
        return sum(float(re.search(r"^coordinator_is_leader (\S+)", t, re.M)[1]) for t in found)

    wait_until(lambda: leaders() == 1, 15, "not exactly one leads")
    now = metered.scrape()
    for shard in mysql_cluster.settings.shards:
        assert now[f'coordinator_shard_up{{shard="{shard}"}}'] == 1
        assert now[f'coordinator_in_doubt_branches{{shard="{shard}"}}'] == 0
    assert now["coordinator_shard_map_version"] == read_map(mysql_cluster.settings).version
    assert now["coordinator_zookeeper_connected"] == 1
    assert now["coordinator_leader_epoch"] >= 1


def test_it_leaves_no_folder_behind(mysql_cluster: Cluster, tmp_path: Path) -> None:
    settings = SETTINGS | {"TMPDIR": str(tmp_path)}
    with mysql_cluster.coordinator("m2", tmp_path / "m2.log", settings):
        assert len(list(tmp_path.glob("tandem-metrics-*"))) == 1
    assert list(tmp_path.glob("tandem-metrics-*")) == []
