"""Batches of transfers over HTTP: each item by itself, in order, and safe to send again."""

import itertools
from typing import Any

import httpx
import pytest

from ledger.ids import transfer_id
from tests.cluster import Cluster
from tests.contract.http import Town, is_problem, item, results, visit


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


def send(town: Town, items: list[Any], api: httpx.Client | None = None) -> list[dict[str, Any]]:
    found = results((api or town.api).post("/v1/transfers/batch", json={"transfers": items}))
    assert len(found) == len(items)
    return found


def brief(result: dict[str, Any]) -> tuple[Any, ...]:
    return result["status"], result.get("reason"), result.get("replayed", False)


def test_an_empty_batch(town: Town) -> None:
    assert send(town, []) == []


def test_every_kind_of_item_in_one_batch(town: Town) -> None:
    alice, bob = town.pair(funds=100)
    nobody = town.name()
    used = town.transfer(alice, bob, 1, "used").json()["id"]
    items = [
        item(alice, bob, 60, "a"),
        item(alice, bob, 60, "b"),
        item(bob, alice, 30, "c"),
        item(alice, bob, 60, "d"),
        item(alice, bob, 60, "a"),
        item(alice, bob, 61, "a"),
        item(alice, bob, 1, "used"),
        item(alice, nobody, 1, "e"),
        item(nobody, alice, 1, "f"),
        item(alice, alice, 1, "g"),
        item(alice, bob, 0, "h"),
        None,
        item(alice, bob, 1, "i") | {"currency": "USD"},
    ]
    found = send(town, items)
    assert [brief(result) for result in found] == [
        ("committed", None, False),
        ("rejected", "insufficient-funds", False),
        ("committed", None, False),
        ("committed", None, False),
        ("committed", None, True),
        ("rejected", "idempotency-key-reused", False),
        ("committed", None, True),
        ("rejected", "account-not-found", False),
        ("rejected", "account-not-found", False),
        ("rejected", "same-account", False),
        ("rejected", "malformed", False),
        ("rejected", "malformed", False),
        ("rejected", "currency-mismatch", False),
    ]
    assert found[0]["id"] == found[4]["id"] == transfer_id(alice, "a")
    assert found[6]["id"] == used
    assert (found[10]["id"], found[11]["id"]) == (None, None)
    assert all(result["detail"] for result in found if result["status"] == "rejected")
    assert (town.balance(alice), town.balance(bob)) == (9, 91)
    for result in found[:4]:
        shown = town.other.get(f"/v1/transfers/{result['id']}").json()
        assert shown["status"] == result["status"]


def test_items_that_share_accounts_keep_their_order(town: Town) -> None:
    """Money that runs along a chain of accounts arrives only if each item waits for the last."""
    chain = [town.account(("s1", "s2")[n % 2], funds=100 if n == 0 else 0) for n in range(40)]
    hops = list(itertools.pairwise(chain))
    items = [item(source, bob, 100, "hop") for source, bob in hops]
    assert {brief(result) for result in send(town, items)} == {("committed", None, False)}
    assert [town.balance(name) for name in (chain[0], chain[-1])] == [0, 100]


def test_a_single_transfer_and_a_batch_are_one_thing(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    (result,) = send(town, [item(alice, bob, 5, "k")])
    again = town.transfer(alice, bob, 5, "k", api=town.other)
    assert again.json()["id"] == result["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert brief(send(town, [item(alice, bob, 5, "k")])[0]) == ("committed", None, True)


def test_ten_thousand_items_twice(town: Town) -> None:
    ends = [(town.account("s1", funds=1000), town.account("s2")) for _ in range(10)]
    poor = town.account("s1")
    items: list[Any] = []
    for number in range(10_000):
        alice, bob = ends[number % 10]
        kind = number % 100
        if kind == 97:
            items.append(item(alice, bob, -1, f"k{number}"))
        elif kind == 98:
            items.append(items[number - 10])
        elif kind == 99:
            items.append(item(poor, bob, 5, f"k{number}"))
        else:
            items.append(item(alice, bob, 1, f"k{number}"))
    expected = {
        97: ("rejected", "malformed"),
        99: ("rejected", "insufficient-funds"),
    }
    first = send(town, items)
    moved = 0
    for number, result in enumerate(first):
        status, reason, replayed = brief(result)
        assert (status, reason) == expected.get(number % 100, ("committed", None))
        assert replayed == (number % 100 == 98)
        moved += status == "committed" and not replayed
    assert moved == 9700
    assert sum(town.balance(bob) for _, bob in ends) == 9700
    with town.unchanged(but_decided=True):
        second = send(town, items, town.other)
        for one, other in zip(first, second, strict=True):
            assert (one["id"], *brief(one)[:2]) == (other["id"], *brief(other)[:2])
            assert other.get("replayed", False) == (other["id"] is not None)


def test_one_item_too_many(town: Town) -> None:
    with town.unchanged():
        answer = town.api.post("/v1/transfers/batch", json={"transfers": [None] * 10_001})
        is_problem(answer, 413, "too-large", "10001", "10000")
