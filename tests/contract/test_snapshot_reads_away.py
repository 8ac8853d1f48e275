"""Reads of one moment while transfers by TC/C and Saga are on their way, and with a shard away that
alone could say how far they are: no balance goes back, and what cannot be known is told so.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import msgspec
import pytest

from coordinator.cluster import read_map
from coordinator.services.snapshot_reads import SnapshotReads
from coordinator.shards.registry import Shards
from shard_client.errors import ShardUnavailable
from shard_client.shard_map import ShardMap
from tests.cluster import Cluster
from tests.contract.begun import Begun
from tests.contract.http import Town, visit


@pytest.fixture
def town(any_cluster: Cluster) -> Town:
    return visit(any_cluster)


@contextmanager
def without(cluster: Cluster, away: str) -> Iterator[SnapshotReads]:
    """Reads of a process that cannot reach this shard."""
    known = read_map(cluster.settings)
    # Nothing listens on port 1.
    there = dict(known.shards)
    there[away] = msgspec.structs.replace(there[away], port=1)
    shards = Shards(cluster.settings)
    shards.use_map(ShardMap(known.version, there, known.ranges))
    shards.admit_all()
    shards.start()
    try:
        yield SnapshotReads(shards)
    finally:
        shards.stop()


def balances(api: httpx.Client, *accounts: str) -> list[int]:
    answer = api.get("/v1/balances", params={"account": accounts})
    assert answer.status_code == 200, answer.text
    return [item["balance"] for item in answer.json()["balances"]]


def resolve(town: Town, transfer: Begun) -> None:
    answer = town.api.post(f"/v1/admin/in-doubt/{transfer.gtrid}/resolve")
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("protocol", "phase", "more", "seen"),
    [
        ("tcc", "trying", 0, [50, 0]),
        ("tcc", "trying", 1, [50, 0]),
        ("tcc", "confirming", 0, [46, 4]),
        ("saga", "crediting", 0, [50, 0]),
        ("saga", "crediting", 1, [46, 4]),
    ],
)
def test_both_are_seen_as_at_one_moment_however_they_are_read(
    town: Town, protocol: str, phase: str, more: int, seen: list[int]
) -> None:
    """Together, one by one, and after each other; `more` visits after it came to its phase."""
    alice, bob = town.account("s1", funds=50), town.account("s2")
    transfer = Begun(town, protocol, alice, bob, 4).until(phase)
    for _ in range(more):
        transfer.visit()
    for api in (town.api, town.other):
        assert balances(api, alice, bob) == seen
        assert balances(api, alice) == seen[:1]
        assert balances(api, bob) == seen[1:]
        assert balances(api, bob, alice) == seen[::-1]
    resolve(town, transfer)


@pytest.mark.parametrize("credited", [False, True])
def test_a_source_whose_credit_cannot_be_looked_for(town: Town, credited: bool) -> None:
    alice, bob = town.account("s1", funds=50), town.account("s2")
    carol = town.account("s1", funds=7)
    transfer = Begun(town, "saga", alice, bob, 4).until("crediting")
    if credited:
        transfer.visit()
    with without(town.cluster, "s2") as snapshot_reads:
        with pytest.raises(ShardUnavailable, match="shard s2"):
            snapshot_reads.read([alice])
        with pytest.raises(ShardUnavailable, match="shard s2"):
            snapshot_reads.read([carol, alice])
        assert snapshot_reads.read([carol])[carol].balance == 7
    resolve(town, transfer)


def test_a_destination_whose_payment_cannot_be_looked_for(town: Town) -> None:
    alice, bob = town.account("s1", funds=50), town.account("s2")
    carol = town.account("s2", funds=7)
    transfer = Begun(town, "tcc", alice, bob, 4).until("confirming")
    with without(town.cluster, "s1") as snapshot_reads:
        with pytest.raises(ShardUnavailable, match="shard s1"):
            snapshot_reads.read([bob])
        assert snapshot_reads.read([carol])[carol].balance == 7
    resolve(town, transfer)


@pytest.mark.parametrize(("protocol", "phase"), [("tcc", "confirming"), ("saga", "compensating")])
def test_a_source_whose_transfer_has_its_outcome(town: Town, protocol: str, phase: str) -> None:
    """Whatever the other shard would say: it is known."""
    alice = town.account("s1", funds=50)
    bob = town.name("s2") if phase == "compensating" else town.account("s2")
    transfer = Begun(town, protocol, alice, bob, 4).until(phase)
    with without(town.cluster, "s2") as snapshot_reads:
        expected = 46 if phase == "confirming" else 50
        assert snapshot_reads.read([alice])[alice].balance == expected
    resolve(town, transfer)
