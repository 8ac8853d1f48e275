"""`tandem local` with real servers: up, look, crash and restart its parts, down."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pymysql
import pytest

from shard_client.plain import PlainConnection
from tandem.local.cluster import LocalCluster
from tandem.local.processes import start_mark
from tests.cluster import wait_until

TANDEM = str(Path(sys.executable).with_name("tandem"))
COMMAND_TIMEOUT_S = 200


def tandem(*arguments: str | Path, succeeds: bool = True, **variables: str) -> str:
    """What `tandem local ...` prints; its errors too."""
    done = subprocess.run(
        [TANDEM, "local", *map(str, arguments)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert (done.returncode == 0) is succeeds, done.stdout
    return done.stdout


def processes(folder: Path) -> dict[str, dict[str, Any]]:
    """The cluster's processes by name."""
    told = json.loads(tandem("status", "--json", "--data-dir", folder))
    return {process["name"]: process for process in told["processes"]}


def pids(folder: Path) -> list[int]:
    return [process["pid"] for process in processes(folder).values() if process["pid"]]


def workers(master: int) -> list[int]:
    """The living processes that a coordinator's master started."""
    text = Path(f"/proc/{master}/task/{master}/children").read_text()
    return [int(pid) for pid in text.split()]


def query(dsn: str, statement: str) -> Any:
    """The one value that an administrator's statement gives."""
    account, _, place = dsn.removeprefix("mysql://").rpartition("@")
    user, _, password = account.partition(":")
    host, _, port = place.partition("/")[0].partition(":")
    connection = PlainConnection(host=host, port=int(port), user=user, password=password)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
        return row and row[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running cluster of two shards and two coordinators."""
    folder = tmp_path_factory.mktemp("local") / "data"
    try:
        tandem("up", "--shards", "2", "--data-dir", folder)
        yield folder
    finally:
        LocalCluster(folder).down()


def test_everything_runs_and_answers(folder: Path) -> None:
    told = processes(folder)
    assert list(told) == ["zk", "s1", "s2", "c1", "c2"]
    assert all(process["running"] for process in told.values())
    for name in ("c1", "c2"):
        assert httpx.get(f"{told[name]['url']}/readyz", verify=False).status_code == 200
    for name in ("s1", "s2"):
        durable = "SELECT @@innodb_flush_log_at_trx_commit + @@sync_binlog + @@log_bin"
        assert query(told[name]["dsn"], durable) == 3


def test_a_second_up_keeps_what_runs(folder: Path) -> None:
    before = pids(folder)
    tandem("up", "--data-dir", folder)
    assert pids(folder) == before


def test_nobody_gets_in_without_a_password(folder: Path) -> None:
    dsn = processes(folder)["s1"]["dsn"]
    empty = "SELECT COUNT(*) FROM mysql.user WHERE user = 'root' AND authentication_string = ''"
    assert query(dsn, empty) == 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers are found in /proc")
def test_a_killed_coordinator_leaves_no_worker_and_starts_again(folder: Path) -> None:
    told = processes(folder)
    group = [told["c1"]["pid"], *workers(told["c1"]["pid"])]
    assert len(group) > 2
    tandem("stop", "c1", "--kill", "--data-dir", folder)
    assert [start_mark(pid) for pid in group] == [None] * len(group)
    now = processes(folder)["c1"]
    assert (now["running"], now["pid"]) == (False, None)
    assert httpx.get(f"{told['c2']['url']}/healthz", verify=False).status_code == 200
    tandem("start", "c1", "--data-dir", folder)
    assert httpx.get(f"{told['c1']['url']}/readyz", verify=False).status_code == 200


@pytest.mark.parametrize("how", [["--kill"], []])
def test_a_stopped_shard_keeps_its_data(folder: Path, how: list[str]) -> None:
    shard = processes(folder)["s2"]
    identity = query(shard["dsn"], "SELECT @@server_uuid")
    tandem("stop", "s2", *how, "--data-dir", folder)
    assert start_mark(shard["pid"]) is None
    with pytest.raises(pymysql.OperationalError):
        query(shard["dsn"], "SELECT 1")
    tandem("start", "s2", "--data-dir", folder)
    assert query(shard["dsn"], "SELECT @@server_uuid") == identity


def test_the_log_of_what_does_not_start_is_shown(folder: Path) -> None:
    tandem("stop", "c2", "--data-dir", folder)
    told = tandem(
        *("start", "c2", "--data-dir", folder), succeeds=False, TANDEM_COORDINATOR_WORKERS="0"
    )
    assert "c2 was started, but ended at once" in told
    assert "coordinator.workers" in told
    tandem("start", "c2", "--data-dir", folder)


def test_down_ends_everything_and_up_brings_it_back(folder: Path) -> None:
    before = pids(folder)
    tandem("down", "--data-dir", folder)
    assert [start_mark(pid) for pid in before] == [None] * 5
    told = tandem("up", "--coordinators", "3", "--monitoring", "--data-dir", folder)
    assert list(processes(folder)) == ["zk", "s1", "s2", "c1", "c2", "c3", "prometheus"]
    assert len(pids(folder)) == 7
    assert f"Prometheus: {processes(folder)['prometheus']['url']}" in told


def test_prometheus_watches_every_coordinator(folder: Path) -> None:
    told = processes(folder)["prometheus"]
    assert told["kind"] == "prometheus"

    def healthy() -> list[str]:
        found = httpx.get(f"{told['url']}/api/v1/targets", verify=False).json()["data"][
            "activeTargets"
        ]
        return sorted(t["labels"]["instance"] for t in found if t["health"] == "up")

    wait_until(lambda: healthy() == ["c1", "c2", "c3"], 30, "not every coordinator is watched")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    command = [TANDEM, "local", "run", "--no-demo", "--data-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            assert any("press Ctrl-C" in line for line in running.stdout)
            before = pids(folder)
            running.send_signal(number)
            assert running.wait(COMMAND_TIMEOUT_S) == 0
        finally:
            running.kill()
    assert before
    assert [start_mark(pid) for pid in before] == [None] * len(before)


def test_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    told = tandem(
        *("up", "--shards", "1", "--coordinators", "1", "--data-dir", tmp_path),
        succeeds=False,
        TANDEM_COORDINATOR_WORKERS="0",
    )
    assert "coordinator.workers" in told
    assert pids(tmp_path) == []
    assert LocalCluster(tmp_path).crashed() == {}
