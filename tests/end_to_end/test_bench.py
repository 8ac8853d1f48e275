"""The bench in its short form: that it runs and checks what it has done, not how fast it is."""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import oracles
from bench.loads.base import Scale, Tally
from bench.parts.eventstore_goals import GOALS
from bench.parts.growth import Filled
from bench.parts.smallbank import MIX
from bench.place import Place, Server, cluster, durability
from coordinator.cluster import read_map
from tandem.local.progress import silent
from tandem.local.servers import PROJECT
from tests.cluster import Cluster

pytestmark = pytest.mark.alone

COMMAND_TIMEOUT_S = 200
COPY = "bench_copy"
EVENT_STORE_TIMEOUT_S = 500
PARTS = ("singles", "hot", "latency", "counts", "memory", "smallbank")
ANY_NUMBER = range(1 << 40)


@pytest.fixture(scope="module")
def measured(
    mysql_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """What the bench prints and writes of a running cluster."""
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    folder = str(mysql_cluster.local.data_dir)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--short", "--data-dir", folder, "--json", str(file)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(file.read_text())


def test_it_prints_a_ratio_and_that_the_rules_hold(measured: tuple[str, dict[str, Any]]) -> None:
    printed, document = measured
    assert "Ratio to textbook XA: " in printed
    assert "The bank's rules hold" in printed
    assert document["violations"] == []


def test_the_document_holds_figures_and_settings(measured: tuple[str, dict[str, Any]]) -> None:
    _, document = measured
    assert set(document["loads"]) == {"textbook", "batches"}
    for load in document["loads"].values():
        assert load["transfers_per_s"] > 0
        assert load["total"]["committed"] > 0
    assert document["loads"]["batches"]["ratio"] > 0
    durable = {"innodb_flush_log_at_trx_commit": 1, "sync_binlog": 1, "log_bin": 1}
    assert document["settings"]["durability"] == {"s1": durable, "s2": durable}


def test_a_cluster_that_ran_before_is_left_running_and_clean(
    measured: tuple[str, dict[str, Any]], mysql_cluster: Cluster
) -> None:
    assert all(process["running"] for process in mysql_cluster.local.status()["processes"])
    assert mysql_cluster.rows("s1", "SHOW DATABASES LIKE 'bench\\_textbook%'") == []


def test_parts_in_their_short_form(mysql_cluster: Cluster, tmp_path: Path) -> None:
    folder, file, plot = str(mysql_cluster.local.data_dir), tmp_path / "f.json", tmp_path / "f.png"
    parts = [f"--part={name}" for name in PARTS]
    options = [*parts, "--short", "--shards=2", "--data-dir", folder, "--plot", str(plot)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *options, "--json", str(file)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The bank's rules hold" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    document = json.loads(file.read_text())
    assert document["violations"] == []
    found = {name: part["findings"] for name, part in document["parts"].items()}
    assert set(found) == set(PARTS)
    idle, loaded = found["counts"][:2]
    assert idle["title"] == "2 shards, without a load, each second"
    counted = loaded["figures"]
    for name in ("statements", "redo flushes", "binlog flushes", "round trips"):
        assert 0 < counted[name] < 10
    assert counted["transfers in a group"] >= 1
    assert found["memory"][0]["figures"]["MiB at the end"] > 10
    for part in ("singles", "hot"):
        assert all(finding["figures"]["transfers/s"] > 0 for finding in found[part])
    assert found["latency"][0]["figures"]["lock p99 ms"] > 0
    assert found["latency"][1]["figures"]["lock p99 ms"] > 0
    titles = {finding["title"] for finding in found["smallbank"]}
    assert titles >= {
        f"SmallBank, {kind}: {name}" for kind in ("uniform", "hot spot") for name in MIX
    }


def test_the_event_store_in_its_short_form(tmp_path: Path) -> None:
    """On clusters and nodes of its own; every goal is there, measured or not."""
    file, plot = tmp_path / "f.json", tmp_path / "f.png"
    options = ["--part=eventstore", "--short", "--json", str(file), "--plot", str(plot)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=EVENT_STORE_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The bank's rules hold" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    document = json.loads(file.read_text())
    assert document["violations"] == []
    (part,) = document["parts"].values()
    assert all(finding["figures"] or finding["ratios"] for finding in part["findings"])
    assert [row["load"] for row in part["goals"]] == [goal.load for goal in GOALS]
    for row, goal in zip(part["goals"], GOALS, strict=True):
        measured = bool(goal.finding) and not goal.needs_full
        assert (row["is_met"] is not None) == measured == (not row["not_measured"])
        assert measured <= ((row["ratio"] or 0) > 0)


def test_accounts_filled_in_by_sql_hold_the_rules_and_can_be_used(mysql_cluster: Cluster) -> None:
    with cluster(mysql_cluster.local.data_dir, 1, 1, silent) as place:
        load = Filled(place, Scale(20, 1, 1, 10), secrets.token_hex(4), 400, "filled")
        load.set_up(silent)
        assert durability(place)
        done = load.open().run(0.2)
        assert done.committed > 0
        assert load.violations(done) == []
        fewer = Tally(done.committed - 1)
        assert "are there" in "\n".join(load.violations(fewer))


@pytest.fixture
def copied(measured: tuple[str, dict[str, Any]], mysql_cluster: Cluster) -> Iterator[Place]:
    """The bench's rows on both shards, in databases where they can be damaged."""
    mysql = mysql_cluster.settings.mysql
    shard_map = read_map(mysql_cluster.settings)
    servers = [
        Server(name, a.host, a.port, a.database, mysql.admin_user, mysql.admin_password)
        for name, a in shard_map.shards.items()
    ]
    try:
        for server in servers:
            server.rows(f"CREATE DATABASE {COPY}")
            for table, column in (
                ("accounts", "id"),
                ("entries", "account_id"),
                ("transfers", "source"),
                ("phases", "source"),
            ):
                server.rows(f"CREATE TABLE {COPY}.{table} LIKE {table}")
                server.rows(
                    f"INSERT INTO {COPY}.{table} SELECT * FROM {table}"
                    f" WHERE {column} LIKE 'bench.%'"
                )
        copies = [replace(server, database=COPY) for server in servers]
        yield Place("", [], None, copies, shard_map)
    finally:
        for server in servers:
            server.rows(f"DROP DATABASE IF EXISTS {COPY}")


@pytest.mark.parametrize(
    ("damage", "complaints"),
    [
        ("UPDATE accounts SET balance = balance + 7 LIMIT 1", ["add up to 7", "account bench."]),
        ("DELETE FROM entries WHERE amount > 0 LIMIT 1", ["'credits'", "account bench."]),
        ("DELETE FROM transfers WHERE status = 'committed' LIMIT 1", ["'transfers'"]),
        ("UPDATE accounts SET held = 7 WHERE status = 'open' LIMIT 1", ["holds 7 and expects 0"]),
    ],
)
def test_the_oracles_see_what_is_wrong(copied: Place, damage: str, complaints: list[str]) -> None:
    assert oracles.violations(copied, "bench.", ANY_NUMBER) == []
    copied.servers[0].rows(damage)
    told = "\n".join(oracles.violations(copied, "bench.", ANY_NUMBER))
    for complaint in complaints:
        assert complaint in told
    assert "there" in "\n".join(oracles.violations(copied, "bench.", range(1)))
