"""Whose clock is wrong, by what most of them say; and that no server is asked for local time."""

import re
from pathlib import Path

import pytest

from coordinator.shards.clocks import judge

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("skews", [{}, {"s1": 4.9}, {"s1": -3.0, "s2": 3.0}])
def test_clocks_that_are_looked_after(skews: dict[str, float]) -> None:
    assert judge(skews) == (None, {})


@pytest.mark.parametrize("skew", [3600.0, -3600.0, 31_536_000.0])
def test_the_odd_one_among_shards(skew: float) -> None:
    ours, theirs = judge({"s1": 0.2, "s2": skew})
    assert ours is None
    assert theirs.keys() == {"s2"}
    assert ("ahead of" if skew > 0 else "behind") in theirs["s2"]


@pytest.mark.parametrize("skew", [3600.0, -3600.0])
def test_this_machine_is_the_odd_one(skew: float) -> None:
    ours, theirs = judge({"s1": skew, "s2": skew + 1})
    assert ours is not None
    assert "s1, s2, which agree" in ours
    assert ("behind" if skew > 0 else "ahead of") in ours
    assert theirs == {}


def test_this_machine_and_a_shard() -> None:
    ours, theirs = judge({"s1": 3600.0, "s2": 3600.5, "s3": -60.0})
    assert ours is not None
    assert theirs == {"s3": "its clock is 3660.5 s behind most others; set it by NTP"}


@pytest.mark.parametrize(
    "skews",
    [
        {"s1": 60.0},
        {"s1": 60.0, "s2": -60.0},
        {"s1": 0.0, "s2": 3600.0, "s3": 3600.0},
    ],
)
def test_nobody_is_blamed_without_a_majority(skews: dict[str, float]) -> None:
    ours, theirs = judge(skews)
    assert ours is not None
    assert "which is right is not known" in ours
    assert theirs == {}


def test_servers_are_never_asked_for_local_time() -> None:
    """It comes twice when summer time ends, and CURRENT_TIMESTAMP depends on the session's zone."""
    local = re.compile(r"\b(NOW|SYSDATE|CURDATE|CURTIME|UNIX_TIMESTAMP|LOCALTIME)\(|CURRENT_TIME")
    sources = [p for f in ("shard_client", "coordinator") for p in (PROJECT / f).rglob("*.py")]
    assert len(sources) > 50
    found = [
        f"{path.name}: {line.strip()}"
        for path in sources
        for line in path.read_text().splitlines()
        if local.search(line.partition("#")[0])
    ]
    assert found == []
