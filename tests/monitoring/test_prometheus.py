"""A real Prometheus beside a real cluster of two coordinators with two workers each.

One story is told while it watches: transfers all the time; a worker is killed, then the leader,
then a shard; all come back; a transfer by Saga is held up. The tests look at what Prometheus has
seen.
"""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tandem.local import ports, processes, prometheus
from tandem.local.cluster import LocalCluster, Options
from tandem.local.servers import find_prometheus
from tests.bank import Bank, Load
from tests.cluster import Cluster, wait_until
from tests.contract.begun import Begun
from tests.contract.http import visit
from tests.faults.conftest import SHORT
from tests.faults.leftovers import LONG_AGO_MS, Leftover, wait_until_finished
from tests.monitoring.shipped import (
    ALERTS,
    BOARDS,
    PROMETHEUS,
    RECORDED,
    is_of_groups,
    panels,
)

SETTINGS = SHORT | {
    "TANDEM_COORDINATOR_WORKERS": "2",
    # Nobody leads for at least two thirds of it: longer than from a scrape to the end of the next
    # evaluation.
    "TANDEM_ZOOKEEPER_SESSION_TIMEOUT_S": "4",
}
WORKERS = 2
STEP_S = 1

# A metric or a recorded rule with its matchers.
SELECTOR = re.compile(r"((?:coordinator_|tandem:)[\w:]+(?:\{[^}]*\})?|up\{[^}]*\})")


class Prometheus:
    """A running server under test."""

    def __init__(self, port: int) -> None:
        self._http = httpx.Client(base_url=prometheus.url(port), timeout=30, verify=False)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: object) -> Any:
        told = self._http.get(f"/api/v1/{path}", params=params).json()
        assert told["status"] == "success", (params, told)
        return told["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Series with their last `value`, or their `values` if a range is asked for."""
        return self.get("query", query=query)["result"]

    def value(self, query: str) -> float | None:
        found = self.ask(query)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def over(self, query: str, since: float) -> list[float]:
        """All numbers that a query has given since then, one per second and series."""
        told = self.get("query_range", query=query, start=since, end=time.time(), step=STEP_S)
        samples = (float(value) for series in told["result"] for _, value in series["values"])
        return [value for value in samples if value == value]

    def firing(self, name: str, **labels: str) -> dict[str, Any] | None:
        wanted = {"alertname": name, **labels}.items()
        alerts = self.get("alerts")["alerts"]
        found = (a for a in alerts if a["state"] == "firing" and wanted <= a["labels"].items())
        return next(found, None)

    def await_value(self, query: str, wanted: float, timeout_s: float = 30) -> None:
        def there() -> bool:
            return self.value(query) == wanted

        wait_until(there, timeout_s, f"{query} is not {wanted}", every_s=0.1)

    def await_alert(self, name: str, **labels: str) -> dict[str, str]:
        """Its annotations while it fires."""
        found: list[dict[str, Any]] = []

        def fires() -> bool:
            if alert := self.firing(name, **labels):
                found.append(alert)
            return bool(found)

        wait_until(fires, 30, f"{name} does not fire", every_s=0.1)
        return found[0]["annotations"]

    def await_end(self, name: str) -> None:
        wait_until(lambda: not self.firing(name), 30, f"{name} still fires", every_s=0.1)


class Story(NamedTuple):
    """What was done, and what it was done to."""

    cluster: Cluster
    prometheus: Prometheus
    began: float
    killed_leader: str
    # Alert -> its annotations while it fired.
    fired: dict[str, dict[str, str]]
    load: Load
    bank: Bank


def hastened(folder: Path) -> Path:
    """A copy of the product's configuration that scrapes and fires at once."""
    shutil.copytree(PROMETHEUS, folder)
    for file in (folder / "prometheus.yml", *(folder / "rules").glob("*.yml")):
        text = re.sub(r"(scrape|evaluation)_interval: \w+", r"\1_interval: 1s", file.read_text())
        file.write_text(re.sub(r"^( +for): \w+$", r"\1: 0s", text, flags=re.MULTILINE))
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("watched")
    local = LocalCluster(folder / "cluster", coordinator_environment=SETTINGS)
    try:
        local.up(Options(shards=2, coordinators=2))
        yield Cluster(local)
    finally:
        local.down()


@pytest.fixture(scope="module")
def server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    home = folder / "home"
    prometheus.configure(home, hastened(folder / "configuration"))
    told = cluster.local.status()["processes"]
    prometheus.watch(home, {p["name"]: p["port"] for p in told if p["kind"] == "coordinator"})
    log = folder / "log"
    with ports.reserved(1, beyond=20_000) as (port,):
        line = prometheus.command(find_prometheus(print), home, port)
        process = processes.spawn(line, log, dict(os.environ), folder)
        try:
            ready = f"Prometheus is not ready; see {log}"
            wait_until(lambda: prometheus.is_ready(port) is None, 30, ready)
            with closing(Prometheus(port)) as server:
                yield server
        finally:
            processes.stop([(*process, 15.0)])


def workers(cluster: Cluster, name: str) -> list[int]:
    master = cluster.pid(name)
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def leader(server: Prometheus) -> str:
    """Waits until exactly one leads."""
    server.await_value("sum(coordinator_is_leader)", 1)
    (found,) = server.ask("topk(1, coordinator_is_leader)")
    return found["metric"]["instance"]


def go_through_phases(cluster: Cluster, server: Prometheus) -> dict[str, str]:
    """TC/C and Saga come to every end, and one of them is held up until it is an alert."""
    town = visit(cluster)
    alice, bob = town.pair(funds=100)
    nobody = town.name("s2")
    for protocol in ("tcc", "saga"):
        for _ in range(10):
            assert town.transfer(alice, bob, 1, protocol=protocol).status_code == 201
        assert town.transfer(alice, nobody, 1, protocol=protocol).status_code == 422
    ended = "sum by (protocol) (increase(coordinator_course_seconds_count[1m])) > 0"
    wait_until(lambda: len(server.ask(ended)) == 2, 30, "no course is seen", every_s=0.1)
    with town.locked(bob):
        # Somebody takes it over at once.
        late = Begun(town, "saga", alice, bob, 5, LONG_AGO_MS)
        annotations = server.await_alert("TransferUnfinished", shard="s1")
        query = 'max(coordinator_unfinished_transfers{protocol="saga", phase="crediting"})'
        server.await_value(query, 1)
    server.await_end("TransferUnfinished")
    wait_until(lambda: town.balance(bob) == 25, 10, f"{late.id} has not arrived")
    return annotations


@pytest.fixture(scope="module")
def story(cluster: Cluster, server: Prometheus) -> Story:
    began = time.time()
    fired: dict[str, dict[str, str]] = {}
    server.await_value(f'count(up{{job="tandem"}} == 1 and coordinator_workers == {WORKERS})', 2)
    bank = Bank(cluster, 40)
    leftover = Leftover(bank, "gone")
    load = Load(bank, cluster.urls)
    with load.running(4):
        load.wait_for("201", 50)
        first = leader(server)
        (other,) = {"c1", "c2"} - {first}

        victim = workers(cluster, other)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in workers(cluster, other), 10, "the worker lives")
        server.await_value(f'coordinator_workers{{instance="{other}"}}', WORKERS)

        cluster.local.stop(first, kill=True)
        fired["NoLeader"] = server.await_alert("NoLeader")
        fired["CoordinatorDown"] = server.await_alert("CoordinatorDown", instance=first)
        server.await_end("NoLeader")
        assert leader(server) == other
        cluster.local.start(first)
        server.await_end("CoordinatorDown")
        # Somebody leads now who finishes it.
        leftover.prepare()
        wait_until_finished(leftover)

        fired["TransferUnfinished"] = go_through_phases(cluster, server)

        cluster.local.stop("s2", kill=True)
        fired["ShardDown"] = server.await_alert("ShardDown", shard="s2")
        load.wait_for("503", 10)
        cluster.local.start("s2")
        server.await_end("ShardDown")
        load.wait_for("201", load.counts["201"] + 50)
    return Story(cluster, server, began, first, fired, load, bank)


def test_alerts_of_the_failover_say_what_is_wrong(story: Story) -> None:
    assert story.killed_leader in story.fired["CoordinatorDown"]["summary"]
    assert "No coordinator leads" in story.fired["NoLeader"]["summary"]
    assert "s2" in story.fired["ShardDown"]["summary"]
    assert "from shard s1 is unfinished for" in story.fired["TransferUnfinished"]["summary"]
    assert "error" not in str([alert["summary"] for alert in story.fired.values()])


def test_nothing_fires_that_did_not_happen(story: Story) -> None:
    query = 'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[10m]))'
    names = {series["metric"]["alertname"] for series in story.prometheus.ask(query)}
    assert names >= set(story.fired)
    assert not names & {"MissingBranch", "DurabilityLowered", "QueueNearlyFull"}


def test_all_is_quiet_again(story: Story) -> None:
    """But for what looks back on minutes or hours."""
    for alert in ALERTS:
        if "ratio_rate" not in alert.expression:
            story.prometheus.await_end(alert.name)


def test_every_rule_is_evaluated_without_error(story: Story) -> None:
    groups = story.prometheus.get("rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == {alert.name for alert in ALERTS} | set(RECORDED)
    assert {
        name: rule.get("lastError") for name, rule in rules.items() if rule["health"] != "ok"
    } == {}


OF_SERVERS = [board for board in BOARDS if board.stem != "ledger-groups"]


@pytest.mark.parametrize("board", OF_SERVERS, ids=lambda file: file.stem)
def test_every_panel_has_data(story: Story, board: Path) -> None:
    asked = [(p["title"], t["expr"]) for p in panels(board) for t in p["targets"]]
    assert [each for each in asked if not story.prometheus.over(each[1], story.began)] == []


def test_every_alert_has_its_inputs(story: Story) -> None:
    expressions = {alert.name: alert.expression for alert in ALERTS} | RECORDED
    for name, expression in expressions.items():
        asked = SELECTOR.findall(expression) or ['{__name__=~"coordinator_.+"}']
        for selector in asked:
            if is_of_groups(selector):
                continue  # This cluster has none.
            assert story.prometheus.over(selector, story.began), f"{name}: {selector}"


def test_counters_never_go_back(story: Story) -> None:
    """Within a life of a coordinator, at every scrape; whoever was killed begins once at zero."""
    names = '{__name__=~"coordinator_.+_(total|count|sum|bucket)"}[10m]'
    lives = {
        series["metric"]["instance"]: dict(series["values"])
        for series in story.prometheus.ask("coordinator_start_time_seconds[10m]")
    }
    assert {name: len(set(life.values())) for name, life in lives.items()} == {
        name: 2 if name == story.killed_leader else 1 for name in lives
    }
    reset: set[str] = set()
    for series in story.prometheus.ask(names):
        instance = series["metric"]["instance"]
        before, life = 0.0, None
        for at, text in series["values"]:
            if lives[instance][at] == life:
                assert float(text) >= before, (series["metric"], at)
            elif float(text) < before:
                reset.add(instance)
            before, life = float(text), lives[instance][at]
    assert reset == {story.killed_leader}


def test_a_restart_is_no_negative_increase(story: Story) -> None:
    over = int(time.time() - story.began) + 1
    for name in ("transfers_total", "http_requests_total", "lock_hold_seconds_count"):
        increases = story.prometheus.over(f"increase(coordinator_{name}[5s])", story.began)
        assert increases
        assert min(increases) >= 0
    # What was counted before the restart is in the sum.
    query = f'sum(increase(coordinator_transfers_total{{outcome="committed"}}[{over}s]))'
    last = 'sum(coordinator_transfers_total{outcome="committed"})'
    assert story.prometheus.value(query) > story.prometheus.value(last)


def test_gauges_are_true_again(story: Story) -> None:
    for query, wanted in {
        "sum(coordinator_is_leader)": 1,
        "sum(coordinator_workers)": 2 * WORKERS,
        "sum(coordinator_shard_up)": 4,
        "sum(coordinator_zookeeper_connected)": 2,
        "count(count by (__name__) (coordinator_leader_epoch))": 1,
        "max(coordinator_leader_epoch) - min(coordinator_leader_epoch)": 0,
        "max(coordinator_in_doubt_branches)": 0,
        "max(coordinator_missing_branches)": 0,
        "max(coordinator_unfinished_transfers)": 0,
        "max(coordinator_unfinished_oldest_seconds)": 0,
        'sum(up{job="tandem"})': 2,
    }.items():
        story.prometheus.await_value(query, wanted)
    (info,) = story.prometheus.ask(f'coordinator_info{{instance="{story.killed_leader}"}}')
    assert info["metric"]["coordinator"] == story.killed_leader
    assert info["metric"]["cluster"] == story.cluster.settings.cluster.id


def test_money_is_right(story: Story) -> None:
    story.load.check_answers()
    story.bank.check()
