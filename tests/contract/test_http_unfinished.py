"""What operators see of transfers by TC/C and Saga that are not finished, and how they finish them:
each phase, left by a coordinator that has died.
"""

from typing import Any

import httpx
import pytest

from coordinator.engine.in_flight import PROTOCOLS
from tests.cluster import Cluster, wait_until
from tests.contract.begun import Begun
from tests.contract.http import Town, is_problem, visit

PHASES = [(p.name, str(phase)) for p in PROTOCOLS.values() for phase in p.source_states]
every_phase = pytest.mark.parametrize(("protocol", "phase"), PHASES)

# What is said to happen next.
NEXT = {
    "trying": "cancels it",
    "confirming": "goes forward in",
    "cancelling": "it is cancelled on s2",
    "crediting": "the credit to account",
    "compensating": "goes backward in",
}
# What becomes of each: its status, what has left the source, what has come to the destination.
ENDS = {
    "trying": ("lapsed", 0, 0),
    "confirming": ("committed", 4, 4),
    "cancelling": ("lapsed", 0, 0),
    "crediting": ("committed", 4, 4),
    "compensating": ("rejected", 0, 0),
}


@pytest.fixture
def town(any_cluster: Cluster) -> Town:
    return visit(any_cluster)


def begun(town: Town, protocol: str, phase: str) -> tuple[Begun, str, str]:
    """A transfer of 4 that is left in this phase, with its accounts, on s1 and s2."""
    alice = town.account("s1", funds=10)
    bob = town.name("s2") if phase == "compensating" else town.account("s2")
    return Begun(town, protocol, alice, bob, 4).until(phase), alice, bob


def listed(api: httpx.Client, gtrid: str) -> list[dict[str, Any]]:
    answer = api.get("/v1/admin/in-doubt")
    assert answer.status_code == 200, answer.text
    return [item for item in answer.json()["unfinished"] if item["gtrid"] == gtrid]


def resolve(api: httpx.Client, gtrid: str) -> dict[str, Any]:
    answer = api.post(f"/v1/admin/in-doubt/{gtrid}/resolve", timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def way(api: httpx.Client, transfer: str) -> dict[str, Any]:
    answer = api.get(f"/v1/admin/transfers/{transfer}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stages(told: dict[str, Any]) -> list[str]:
    return [part["stage"] for part in told["parts"]]


def amounts(told: dict[str, Any]) -> list[list[int]]:
    return [[entry["amount"] for entry in part["entries"]] for part in told["parts"]]


def sums(town: Town, account: str) -> tuple[int, int, int]:
    query = f"SELECT balance, held, expected FROM accounts WHERE id = '{account}'"
    return town.rows(town.shard_of(account), query)[0]


# --- seen and finished ----------------------------------------------------------------------


@every_phase
def test_it_is_listed_with_what_happens_next(town: Town, protocol: str, phase: str) -> None:
    transfer, alice, bob = begun(town, protocol, phase)
    for api in (town.api, town.other):
        (item,) = listed(api, transfer.gtrid)
        assert (item["protocol"], item["phase"], item["shard"]) == (protocol, phase, "s1")
        assert (item["transfer"], item["transfers"]) == (transfer.id, 1)
        assert item["coordinator"] == "zz"
        assert 0 <= item["age_seconds"] < 15
        # Nobody knows this coordinator: the leader waits for its grace time.
        assert "it is not known whether coordinator zz lives; the leader, c" in item["next"]
        assert NEXT[phase] in item["next"]
        assert item["next_in_seconds"] <= 15 + 5
        accounts = (alice, bob)
        assert phase in ("trying", "cancelling") or any(name in item["next"] for name in accounts)
        reason = "account-not-found" if phase == "compensating" else None
        assert item["reason"] == reason
    resolve(town.api, transfer.gtrid)


@every_phase
def test_it_is_finished_when_that_is_asked_for(town: Town, protocol: str, phase: str) -> None:
    transfer, alice, bob = begun(town, protocol, phase)
    told = resolve(town.other, transfer.gtrid)
    status, left, come = ENDS[phase]
    assert told == {
        "gtrid": transfer.gtrid,
        "outcome": None,
        "finished": ["s1"],
        "unfinished": [],
        "transfers": [{"id": transfer.id, "status": status, "phase": None, "reason": None}],
    }
    assert listed(town.api, transfer.gtrid) == []
    assert sums(town, alice) == (10 - left, 0, 0)
    if phase != "compensating":
        assert sums(town, bob) == (come, 0, 0)
    answer = town.api.get(f"/v1/transfers/{transfer.id}")
    assert (answer.json()["status"] if answer.status_code == 200 else None) == (
        None if status == "lapsed" else status
    )
    # There is nothing left to finish.
    again = town.api.post(f"/v1/admin/in-doubt/{transfer.gtrid}/resolve")
    is_problem(again, 404, "not-found", transfer.gtrid)


@pytest.mark.parametrize(("protocol", "phase"), [("saga", "crediting"), ("tcc", "confirming")])
def test_what_cannot_be_finished_is_told_with_its_cause(
    town: Town, protocol: str, phase: str
) -> None:
    """An outcome is not overridden: as long as the destination is locked, it goes on trying."""
    transfer, _, bob = begun(town, protocol, phase)
    with town.locked(bob):
        told = resolve(town.api, transfer.gtrid)
        why = f"account {bob} is locked by other transfers"
        assert told["finished"] == []
        assert told["unfinished"] == [{"shard": "s1", "reason": why}]
        status = "committed" if phase == "confirming" else "pending"
        (one,) = told["transfers"]
        assert one == {"id": transfer.id, "status": status, "phase": phase, "reason": why}
        assert listed(town.other, transfer.gtrid)
    wait_until(lambda: sums(town, bob) == (4, 0, 0), 15, "it has not arrived")
    wait_until(lambda: not listed(town.api, transfer.gtrid), 15, "it is still listed")


def test_a_group_is_counted_by_its_phases(town: Town) -> None:
    """A row for each phase, with one of its transfers; a shard counts its transfers."""
    transfer, *_ = begun(town, "saga", "crediting")
    shards = {s["id"]: s["unfinished"] for s in town.api.get("/v1/admin/cluster").json()["shards"]}
    assert shards["s1"] >= 1
    assert all(isinstance(count, int) for count in shards.values())
    resolve(town.api, transfer.gtrid)


# --- a transfer's way -----------------------------------------------------------------------

ON_THE_WAY = {
    "trying": ("pending", "none", ["reserved", "nothing"], [[], []]),
    "confirming": ("committed", "committed", ["committed", "reserved"], [[-4], []]),
    "crediting": ("pending", "none", ["committed", "nothing"], [[-4], []]),
    "compensating": ("rejected", "aborted", ["committed", "undone"], [[-4], []]),
}


@pytest.mark.parametrize(("protocol", "phase"), [p for p in PHASES if p[1] in ON_THE_WAY])
def test_it_is_followed_to_its_end(town: Town, protocol: str, phase: str) -> None:
    transfer, alice, bob = begun(town, protocol, phase)
    told = way(town.api, transfer.id)
    assert (told["protocol"], told["phase"], told["home"]) == (protocol, phase, "s1")
    found = (told["status"], told["decision"], stages(told), amounts(told))
    assert found == ON_THE_WAY[phase]
    assert [part["accounts"] for part in told["parts"]] == [[alice], [bob]]
    resolve(town.api, transfer.gtrid)
    if phase == "trying":
        answer = town.api.get(f"/v1/admin/transfers/{transfer.id}")
        is_problem(answer, 404, "not-found", transfer.id)
        return
    told = way(town.other, transfer.id)
    assert told["phase"] is None
    if phase == "compensating":
        assert (told["status"], told["reason"]) == ("rejected", "account-not-found")
        assert (stages(told), amounts(told)) == (["undone", "undone"], [[-4, 4], []])
    else:
        assert (told["status"], told["decision"]) == ("committed", "committed")
        assert (stages(told), amounts(told)) == (["committed", "committed"], [[-4], [4]])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_others_that_came_between_do_not_hide_its_entries(town: Town, protocol: str) -> None:
    """The entries of one transfer are stamped at different times, with others between."""
    transfer, alice, bob = begun(town, protocol, "confirming" if protocol == "tcc" else "crediting")
    for _ in range(3):
        assert town.transfer(alice, bob, 1).status_code == 201
    resolve(town.api, transfer.gtrid)
    assert town.transfer(alice, bob, 1).status_code == 201
    told = way(town.api, transfer.id)
    assert amounts(told) == [[-4], [4]]
    assert told["parts"][1]["entries"][0]["balance"] == 7


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refusals_and_transfers_within_a_shard_are_followed(town: Town, protocol: str) -> None:
    alice, bob = town.pair(funds=10)
    carol = town.account("s1")
    poor = town.transfer(alice, bob, 11, protocol=protocol).json()["transfer_id"]
    told = way(town.api, poor)
    assert (told["status"], told["reason"]) == ("rejected", "insufficient-funds")
    assert (stages(told), told["phase"]) == (["committed"], None)
    nobody = town.transfer(alice, town.name("s2"), 3, protocol=protocol).json()["transfer_id"]
    told = way(town.api, nobody)
    assert (told["status"], told["reason"]) == ("rejected", "account-not-found")
    assert amounts(told) == [[-3, 3] if protocol == "saga" else [], []]
    within = town.transfer(alice, carol, 2, protocol=protocol).json()["id"]
    told = way(town.other, within)
    assert (told["status"], told["protocol"], told["phase"]) == ("committed", protocol, None)
    assert (told["decision"], amounts(told)) == ("not-kept", [[-2, 2]])
