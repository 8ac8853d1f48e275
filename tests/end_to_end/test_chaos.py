"""`tandem chaos`: it finds nothing in the product, and finds the bugs that are planted."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster

pytestmark = pytest.mark.alone

TANDEM = [sys.executable, "-c", "from tandem.cli import main; main()"]
GROUP = ("--coordinators", "2")
SMALL = ("--shards", "2", "--coordinators", "2")
TIMEOUT_S = 150
SEEDS = (1, 2, 3)


class Chaos:
    """Runs `tandem chaos`; what it keeps goes to a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        variables = {k: v for k, v in os.environ.items() if not k.startswith("TANDEM_")}
        kept = {k: v for k, v in os.environ.items() if k == "TANDEM_SERVERS"}
        self._environment = {**variables, **kept, "TMPDIR": str(folder)}
        self.folder = folder

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*TANDEM, "chaos", *arguments],
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        done = self(*arguments, "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def chaos(tmp_path: Path) -> Chaos:
    return Chaos(tmp_path)


def ways(told: dict[str, Any]) -> set[str]:
    return {violation["way"] for violation in told["violations"]}


def test_a_short_run_finds_nothing(chaos: Chaos) -> None:
    """All faults, also points within the coordinators; and nothing of it is left over."""
    done = chaos("--seconds", "15", "--seed", "7", "--coordinators", "3", "--shards", "2")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "no violation: every answer was true" in done.stdout
    assert "tandem chaos --seconds 15 --seed 7" in done.stdout.splitlines()[0]
    assert list(chaos.folder.iterdir()) == []


def test_a_short_run_on_a_ledger_group_finds_nothing(chaos: Chaos) -> None:
    code, told = chaos.json("--engine", "eventstore", "--seconds", "10", "--seed", "7", *GROUP)
    assert (code, told["violations"]) == (0, []), told
    assert {name.rpartition(" ")[2] for name in told["tried"]} & {"node", "side"}, told
    assert re.fullmatch(
        r"[1-9][\d,]* commands in [\d,]+ frames", told["measured"]["replayed of s1"]
    )
    assert list(chaos.folder.iterdir()) == []


def test_a_bug_that_is_planted_before_a_ledger_group_is_caught(chaos: Chaos) -> None:
    """Commands that were sent, and whose answer is lost, may have happened: that is no refusal."""
    for seed in SEEDS:
        plant = ("--seconds", "8", "--seed", str(seed), *GROUP, "--plant", "lost-is-refused")
        code, told = chaos.json("--engine", "eventstore", *plant)
        if code == 1:
            break
    assert ways(told) == {"definite-error-took-effect"}, told


@pytest.mark.parametrize("plant", ["commit-without-decision", "collect-early"])
def test_a_planted_bug_is_caught(chaos: Chaos, plant: str) -> None:
    for seed in SEEDS:
        code, told = chaos.json("--seconds", "15", "--seed", str(seed), *SMALL, "--plant", plant)
        if code == 1:
            break
    assert code == 1, told
    assert ways(told) & {"total-changed", "half-a-transfer", "acknowledged-is-lost"}, told
    assert len(list(chaos.folder.glob("tandem-chaos-*/cluster/cluster.json"))) == 1


def test_a_lost_branch_that_is_taken_for_done_is_caught(chaos: Chaos) -> None:
    """A branch that somebody has taken away is unknown to its server (1397): that is no success."""
    for seed in SEEDS:
        lossy = ("--seconds", "4", "--seed", str(seed), *SMALL)
        code, told = chaos.json(*lossy, "--plant", "unknown-is-done")
        if code == 1:
            break
    assert ways(told) == {"loss-not-noticed"}, told
    # The product names each.
    for seed in SEEDS:
        lossy = ("--seconds", "4", "--seed", str(seed), *SMALL)
        code, told = chaos.json(*lossy, "--faults", "losses")
        assert (code, told["violations"]) == (0, []), told
        if int(told["measured"]["branches taken away by hand"]):
            break
    assert int(told["measured"]["branches taken away by hand"]) > 0, told


def test_addresses_alone(chaos: Chaos, mysql_cluster: Cluster) -> None:
    """Nothing is killed, the answers are checked all the same."""
    urls = [word for url in mysql_cluster.urls for word in ("--url", url)]
    code, told = chaos.json("--seconds", "3", "--seed", "1", *urls)
    assert (code, told["violations"], told["tried"]) == (0, [], {})
    assert told["answers"]["201"] > 0
    assert " ".join(urls) in told["again"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--faults", "shards,storms"), "storms"),
        (("--url", "http://127.0.0.1:1", "--faults", "shards"), "leave out --faults"),
        (("--data-dir", "somewhere", "--plant", "collect-early"), "no --data-dir"),
        (("--plant", "more-money"), "collect-early"),
        (("--engine", "eventstore", "--faults", "locks"), "is ever locked"),
        (("--engine", "eventstore", "--protocols", "xa"), "allowed: saga, tcc"),
        (("--engine", "eventstore", "--plant", "collect-early"), "no transfer on eventstore"),
    ],
)
def test_a_wish_that_cannot_be_met(
    chaos: Chaos, arguments: tuple[str, ...], complaint: str
) -> None:
    done = chaos(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert list(chaos.folder.iterdir()) == []
