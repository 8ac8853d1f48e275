"""The laboratory: the naive way loses money, two-phase commit and event sourcing do not, and the
page says so.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lab.redis_place import RedisPlace, redis_place
from lab.schedule import of_group, schedule
from lab.shard_place import ShardPlace
from tandem.chaos.history import Order
from tandem.chaos.workload import Wire, account_names
from tandem.local.errors import LocalError
from tandem.local.progress import silent
from tandem.local.redis import is_ready
from tandem.local.servers import PROJECT
from tests.cluster import Cluster, wait_until

pytestmark = pytest.mark.alone

LAB = [sys.executable, "-m", "lab"]
TIMEOUT_S = 300
SEED, SECONDS = 1, 8.0


class Ran:
    """One short run."""

    def __init__(self, folder: Path) -> None:
        variables = {k: v for k, v in os.environ.items() if not k.startswith("TANDEM_")}
        kept = {k: v for k, v in os.environ.items() if k == "TANDEM_SERVERS"}
        (folder / "tmp").mkdir()
        done = subprocess.run(
            [
                *(*LAB, "--ways", "naive,xa,eventstore", "--seed", f"{SEED}"),
                *("--seconds", f"{SECONDS}", "--report", "page.html", "--json", "found.json"),
            ],
            env={
                **variables,
                **kept,
                "PYTHONPATH": str(PROJECT),
                "TMPDIR": str(folder / "tmp"),
            },
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.folder = folder
        self.printed = done.stdout
        self.found = json.loads((folder / "found.json").read_text())
        self.ways: dict[str, Any] = {o["way"]: o for o in self.found["outcomes"]}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("lab"))


def test_the_naive_way_loses_or_doubles_money(ran: Ran) -> None:
    naive = ran.ways["naive"]
    assert naive["verdict"]["accounts_wrong"] > 0
    assert naive["verdict"]["too_little"] + naive["verdict"]["too_much"] > 0
    assert naive["unanswered"] == 0
    assert naive["locks"] is naive["violations"] is naive["service"] is None


@pytest.mark.parametrize("way", ["xa", "eventstore"])
def test_two_phase_commit_and_event_sourcing_lose_nothing(ran: Ran, way: str) -> None:
    found = ran.ways[way]
    total = ran.found["accounts"] * ran.found["each"]
    assert found["verdict"] == {
        "before": total,
        "after": total,
        **dict.fromkeys(("accounts_wrong", "too_much", "too_little"), 0),
        **dict.fromkeys(("missing", "doubled", "torn", "unasked"), 0),
    }
    assert found["violations"] == []
    assert found["unanswered"] == 0
    assert found["service"]["reads"] > found["service"]["unanswered"]
    assert found["service"]["missing_most"] == found["service"]["extra_most"] == 0
    assert found["plain"]["wrong_since_s"] is None


def test_locks_are_held_by_shards_and_money_is_between_them_never_in_a_group(ran: Ran) -> None:
    assert ran.ways["xa"]["locks"]["count"] > 0
    assert ran.ways["eventstore"]["locks"] is None
    assert ran.ways["eventstore"]["plain"]["wrong_share"] == 0


@pytest.mark.parametrize("way", ["naive", "xa", "eventstore"])
def test_money_moved_and_the_faults_were_done(ran: Ran, way: str) -> None:
    found = ran.ways[way]
    assert found["committed"] > 100
    assert found["rate"] > 0
    done = [(fault["kind"], fault["part"]) for fault in found["faults"]]
    faults = schedule(SEED, SECONDS)
    faults = of_group(faults) if way == "eventstore" else faults
    planned = [(fault.kind, fault.part) for fault in faults]
    # Where a part takes long to come back, no time is left for the later ones.
    assert done
    assert done == planned[: len(done)]
    assert found["answers"]["201"] >= found["committed"]
    assert found["plain"]["reads"] > found["plain"]["unanswered"]


def test_it_prints_a_table_and_leaves_nothing_behind(ran: Ran) -> None:
    assert re.search(r"every cent is where the answers say +NO +yes +yes", ran.printed)
    assert "page.html" in ran.printed
    assert sorted(path.name for path in ran.folder.iterdir()) == ["found.json", "page.html", "tmp"]
    assert list((ran.folder / "tmp").iterdir()) == []


def test_the_page_stands_alone_and_has_the_figures(ran: Ran) -> None:
    told = (ran.folder / "page.html").read_text()
    assert told.count("<svg") == 4
    assert f"{ran.ways['xa']['rate']:,.0f} transfers/s" in told
    assert f"--seed={SEED}" in told
    assert re.findall(r"https?:|//\w|@import|\bsrc=|<link|<script|url\((?!#)", told) == []


# The naive way by itself


@pytest.fixture
def naive(tmp_path: Path) -> Iterator[RedisPlace]:
    with redis_place(tmp_path / "naive", silent) as place:
        yield place


@pytest.fixture
def wire() -> Iterator[Wire]:
    with closing(Wire(2)) as made:
        yield made


def send(wire: Wire, place: RedisPlace, order: Order) -> int:
    headers = {"Idempotency-Key": order.key}
    return wire.send("POST", f"{place.urls[0]}/v1/transfers", order.body, headers).status


def test_two_plain_updates(naive: RedisPlace, wire: Wire) -> None:
    """The money moves; the same request again moves it again; a lost node takes it away."""
    first, second = account_names("lab", 2)
    assert (naive.shard_of(first), naive.shard_of(second)) == ("s1", "s2")
    naive.fund([first, second], 100)
    order = Order("rent", first, second, 30, "EUR")
    assert send(wire, naive, order) == 201
    assert naive.balances([first, second]) == {first: 70, second: 130}
    assert send(wire, naive, order) == 201
    assert naive.balances([first, second]) == {first: 40, second: 160}
    assert send(wire, naive, order._replace(amount=41)) == 422

    reads = naive.readers([first, second])
    naive.parts.kill("s2")
    assert send(wire, naive, order) == 500
    assert (reads["s1"](), reads["s2"]()) == (10, None)
    # Its own side first: nothing has happened.
    assert send(wire, naive, Order("back", second, first, 1, "EUR")) == 503

    naive.parts.start("s2")
    wait_until(lambda: is_ready(naive.parts.parts["s2"].port) is None, 30, "s2 does not come back")
    # The node has kept what it had; the 30 are nowhere.
    assert naive.balances([first, second]) == {first: 10, second: 160}


def test_a_protocol_that_the_coordinators_refuse(mysql_cluster: Cluster, wire: Wire) -> None:
    place = ShardPlace(mysql_cluster.local, wire)
    place.check_protocol("xa")
    with pytest.raises(LocalError, match="leave it out of --ways"):
        place.check_protocol("barter")
