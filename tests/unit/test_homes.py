"""Which shard decides for a group."""

from collections import Counter

import pytest

from coordinator.engine.tickets import Group
from coordinator.engine.two_phase_run import Homes
from tests.unit.tickets import ticket


def group(*ends: str) -> Group:
    """Of one transfer for each of these, `12` being one from s1 to s2."""
    tickets = []
    for source, destination in ends:
        made = ticket(f"{source}a", f"{destination}b")
        made.shards = (f"s{source}", f"s{destination}")
        tickets.append(made)
    return Group(tickets)


@pytest.mark.parametrize(("ends", "home"), [("12", "s1"), ("21", "s2"), ("33", "s3")])
def test_the_source_of_a_lone_transfer_is_its_home(ends: str, home: str) -> None:
    homes = Homes()
    assert {homes.of(group(ends)) for _ in range(3)} == {home}


def test_the_busiest_shard_is_home() -> None:
    homes = Homes()
    assert {homes.of(group("12", "32", "21", "22")) for _ in range(3)} == {"s2"}


@pytest.mark.parametrize(
    "ends",
    [["12"] * 2, ["12"] * 20 + ["11"], ["21"] * 20 + ["11"], ["12"] * 9 + ["22"]],
    ids=["equal", "one more at s1", "and from s2", "one more at s2"],
)
def test_shards_that_are_about_as_busy_take_turns(ends: list[str]) -> None:
    homes = Homes()
    assert Counter(homes.of(group(*ends)) for _ in range(10)) == {"s1": 5, "s2": 5}


def test_turns_do_not_depend_on_what_comes_in_between() -> None:
    homes = Homes()
    found = [homes.of(group(*ends)) for _ in range(6) for ends in (["12"] * 2, ["34"] * 2)]
    assert Counter(found) == {"s1": 3, "s2": 3, "s3": 3, "s4": 3}


def test_whoever_is_home_for_others_leaves_its_turn() -> None:
    """Lone transfers from s1 make it home each time; the groups in between go to s2."""
    homes = Homes()
    found = [homes.of(group(*ends)) for _ in range(4) for ends in (["12"], ["12"] * 2)]
    assert Counter(found) == {"s1": 4, "s2": 4}
