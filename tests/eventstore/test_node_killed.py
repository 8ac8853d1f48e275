"""Nodes that are killed at every operation on files: see killed.py."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.eventstore.killed import DEAR, WISHES


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.eventstore.killed", str(tmp_path_factory.mktemp("k"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_point_was_reached(lives: list[dict[str, Any]]) -> None:
    first = [life for life in lives if len(life["points"]) == 1]
    assert [life["points"] for life in first] == [[n] for n in range(1, len(first) + 1)]
    assert [life["killed"] for life in first] == [True] * (len(first) - 1) + [False]
    assert len(first) > 60
    assert sum(life["killed"] for life in lives) > len(first) + 20


def test_what_was_answered_stays(lives: list[dict[str, Any]]) -> None:
    """Whatever was done or refused, and told, is answered as what was there before."""
    for life in lives:
        for key, code in life["answered"]:
            assert code in ("DONE", "FUNDS", "REPLAYED"), life
            assert life["said"][key] == "REPLAYED", life


def test_every_transfer_has_happened_once(lives: list[dict[str, Any]]) -> None:
    paid = sum(each.amount for each in WISHES)
    for life in lives:
        # The dear one was asked for first, when there was nothing: it is refused for good.
        assert life["said"].keys() == {DEAR.key, *(each.key for each in WISHES)}
        assert life["balances"] == [-paid, paid], life
