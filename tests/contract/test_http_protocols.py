"""Transfers by Try-Confirm/Cancel and by Saga over HTTP: the same answers as by two-phase commit,
on both kinds of server, and nothing that is left behind.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.cluster import Cluster, wait_until
from tests.contract.http import Town, is_problem, visit, wish
from tests.contract.stores import Sums

BOTH = pytest.mark.parametrize("protocol", ["tcc", "saga"])


@pytest.fixture
def town(every_cluster: Cluster) -> Town:
    return visit(every_cluster)


def left(town: Town) -> list[tuple]:
    """What is not finished of this town's accounts."""
    return town.store.unfinished(town.prefix)


def tried(town: Town) -> int:
    """How often what this town's phase tables have was tried in vain, at most."""
    query = f"SELECT COALESCE(MAX(attempts), 0) FROM phases WHERE source LIKE '{town.prefix}%'"
    return max(town.rows(shard, query)[0][0] for shard in town.cluster.settings.shards)


def sums(town: Town, account: str) -> Sums:
    return town.store.sums(account)


def entries(town: Town, account: str) -> list[tuple[int, int, str]]:
    found = town.api.get(f"/v1/accounts/{account}/entries").json()["entries"]
    return [(entry["amount"], entry["balance"], entry["counterparty"]) for entry in found]


@BOTH
@pytest.mark.parametrize(("source", "destination"), [("s1", "s2"), ("s2", "s1"), ("s1", "s1")])
def test_a_transfer_is_committed(town: Town, protocol: str, source: str, destination: str) -> None:
    alice, bob = town.account(source, funds=100), town.account(destination)
    answer = town.transfer(alice, bob, 60, "the key", protocol=protocol, metadata={"a": "ü"})
    assert answer.status_code == 201, answer.text
    view = answer.json()
    assert (view["status"], view["protocol"]) == ("committed", protocol)
    for api in (town.api, town.other):
        assert api.get(f"/v1/transfers/{view['id']}").json() == view
    assert sums(town, alice) == (40, 0, 0)
    assert sums(town, bob) == (60, 0, 0)
    assert entries(town, bob) == [(60, 60, alice)]
    assert entries(town, alice)[-1] == (-60, 40, bob)
    again = town.transfer(alice, bob, 60, "the key", protocol=protocol, metadata={"a": "ü"})
    assert again.json() == view
    assert again.headers["Idempotent-Replayed"] == "true"
    wait_until(lambda: not left(town), 10, "something is left in the phase table")


@BOTH
def test_refusals_are_recorded(town: Town, protocol: str) -> None:
    alice, bob = town.pair(funds=10)
    poor = town.transfer(alice, bob, 11, "poor", protocol=protocol)
    is_problem(poor, 422, "insufficient-funds", "10", "11")
    nobody = town.name("s2")
    is_problem(town.transfer(alice, nobody, 3, "none", protocol=protocol), 422, "account-not-found")
    is_problem(town.transfer(town.name("s1"), bob, 1, protocol=protocol), 422, "account-not-found")
    usd = town.account("s2", currency="USD")
    is_problem(town.transfer(alice, usd, 3, "usd", protocol=protocol), 422, "currency-mismatch")
    shut = town.account("s2")
    town.api.patch(f"/v1/accounts/{shut}", json={"status": "closed"})
    is_problem(town.transfer(alice, shut, 3, "shut", protocol=protocol), 422, "account-closed")
    assert sums(town, alice) == (10, 0, 0)
    town.fund(alice, 100)
    town.api.put(f"/v1/accounts/{nobody}", json={"currency": "EUR"})
    for key, to, amount in (("poor", bob, 11), ("none", nobody, 3), ("shut", shut, 3)):
        again = town.transfer(alice, to, amount, key, protocol=protocol)
        assert again.status_code == 422
        assert again.headers["Idempotent-Replayed"] == "true"
    assert (sums(town, bob), sums(town, nobody)) == ((0, 0, 0), (0, 0, 0))
    assert left(town) == []


def test_a_refused_credit_is_compensated(town: Town) -> None:
    alice = town.account("s1", funds=10)
    nobody = town.name("s2")
    town.transfer(alice, nobody, 4, protocol="saga")
    # The history says what has happened: the money has left and has come back.
    assert entries(town, alice)[1:] == [(-4, 6, nobody), (4, 10, nobody)]


@BOTH
def test_another_body_with_the_same_key(town: Town, protocol: str) -> None:
    alice, bob = town.pair(funds=10)
    assert town.transfer(alice, bob, 1, "k", protocol=protocol).status_code == 201
    another = next(each for each in town.store.protocols if each != protocol)
    other = town.transfer(alice, bob, 1, "k", protocol=another)
    is_problem(other, 422, "idempotency-key-reused", f"protocol was {protocol}, now {another}")
    # Without a protocol it is the same wish.
    unnamed = town.transfer(alice, bob, 1, "k")
    assert unnamed.json()["protocol"] == protocol
    assert unnamed.headers["Idempotent-Replayed"] == "true"


@BOTH
def test_one_key_at_once_has_one_effect(town: Town, protocol: str) -> None:
    alice, bob = town.pair(funds=100)

    def send(api: httpx.Client) -> httpx.Response:
        return town.transfer(alice, bob, 7, "k", protocol=protocol, api=api)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, [town.api, town.other] * 8))
    assert {answer.status_code for answer in answers} <= {201, 202, 409}
    wait_until(lambda: sums(town, bob) == (7, 0, 0), 10, "it has not arrived")
    assert sums(town, alice) == (93, 0, 0)


def test_all_protocols_on_the_same_accounts(town: Town) -> None:
    """A->B and B->A at once, by all protocols: nothing hangs, nothing is lost."""
    alice, bob = town.account("s1", funds=1000), town.account("s2", funds=1000)

    def send(number: int) -> int:
        way = (alice, bob) if number % 2 else (bob, alice)
        protocol = town.store.protocols[number % len(town.store.protocols)]
        api = (town.api, town.other)[number % 4 // 2]
        for _ in range(20):
            answer = town.transfer(*way, number % 7 + 1, f"k{number}", protocol=protocol, api=api)
            if answer.status_code != 503:
                return answer.status_code
        return answer.status_code

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(send, range(240))) == {201}
    # What is decided is 201, also when its credit has to wait for a locked account for long.
    wait_until(lambda: not left(town), 10, "something is left in the phase table")
    (left_a, *rest_a), (left_b, *rest_b) = sums(town, alice), sums(town, bob)
    assert left_a + left_b == 2000
    assert rest_a == rest_b == [0, 0]


@BOTH
def test_a_batch_keeps_its_order(town: Town, protocol: str) -> None:
    """What arrives can be paid on by the next item, and not before."""
    a, b, c = town.account("s1", funds=10), town.account("s2"), town.account("s1")
    d = town.account("s2")
    items: list[dict[str, Any]] = [
        wish(b, a, 1) | {"idempotency_key": "too early"},
        wish(a, b, 10) | {"idempotency_key": "1"},
        wish(b, c, 10) | {"idempotency_key": "2"},
        wish(c, d, 10) | {"idempotency_key": "3"},
        wish(d, a, 4) | {"idempotency_key": "4", "protocol": town.default},
        wish(a, d, 4) | {"idempotency_key": "5"},
        wish(a, d, 1) | {"idempotency_key": "too much"},
    ]
    batch = {"transfers": [{"protocol": protocol} | item for item in items]}
    for is_replay in (False, True):
        answer = town.api.post("/v1/transfers/batch", json=batch)
        assert answer.status_code == 200
        results = answer.json()["results"]
        assert [result["status"] for result in results] == [
            "rejected", *["committed"] * 5, "rejected",
        ]  # fmt: skip
        assert {result.get("replayed", False) for result in results} == {is_replay}
    assert [sums(town, name)[0] for name in (a, b, c, d)] == [0, 0, 0, 10]


@BOTH
def test_a_large_batch(town: Town, protocol: str) -> None:
    many = [town.account(shard, funds=2500) for shard in ("s1", "s2") * 20]
    items = [
        wish(many[n % 40], many[(n * 7 + 1) % 40], n % 5 + 1)
        | {"idempotency_key": f"k{n}", "protocol": protocol}
        for n in range(2000)
    ]
    answer = town.api.post("/v1/transfers/batch", json={"transfers": items}, timeout=60)
    assert {r["status"] for r in answer.json()["results"]} == {"committed"}
    wait_until(lambda: not left(town), 10, "something is left in the phase table")
    found = [sums(town, name) for name in many]
    assert sum(balance for balance, _, _ in found) == 100_000
    assert {rest for _, *rest in map(tuple, found) for rest in [tuple(rest)]} == {(0, 0)}


@BOTH
def test_money_is_seen_on_one_side_only_never(town: Town, protocol: str) -> None:
    """`GET /v1/balances` shows no transfer's one side without the other."""
    alice, bob = town.account("s1", funds=500), town.account("s2", funds=500)
    stop = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not stop.is_set():
            answer = town.other.get(f"/v1/balances?account={alice}&account={bob}")
            if answer.status_code == 200:
                seen.append(sum(item["balance"] for item in answer.json()["balances"]))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for number in range(60):
            way = (alice, bob) if number % 2 else (bob, alice)
            assert town.transfer(*way, 9, protocol=protocol).status_code in (201, 503)
    finally:
        stop.set()
        watcher.join()
    assert set(seen) == {1000}


@BOTH
def test_a_locked_destination_is_waited_for_or_given_up(town: Town, protocol: str) -> None:
    alice, bob = town.pair(funds=10)
    with town.locked(bob):
        answer = town.transfer(alice, bob, 4, "k", protocol=protocol)
        if protocol == "tcc":
            # Nothing was reserved for good: the same key may be sent again.
            is_problem(answer, 503, "account-busy")
            assert sums(town, alice) == (10, 0, 0)
        else:
            # The debit has happened; the credit is repeated until it is answered.
            assert answer.status_code == 202
            assert sums(town, alice) == (6, 0, 0)
            wait_until(lambda: tried(town) > 0, 10, "the phase table does not count its attempts")
    if protocol == "saga":
        wait_until(lambda: sums(town, bob) == (4, 0, 0), 15, "the credit did not come")
    again = town.transfer(alice, bob, 4, "k", protocol=protocol, headers={"Prefer": "wait=10"})
    assert again.status_code == 201
    assert (sums(town, alice), sums(town, bob)) == ((6, 0, 0), (4, 0, 0))
    wait_until(lambda: not left(town), 15, "something is left in the phase table")


def test_a_first_step_that_the_database_refuses_has_not_happened(town: Town) -> None:
    alice, bob = town.pair(funds=10)
    trigger = f"poison_{town.prefix}"
    town.rows(
        "s1",
        f"CREATE TRIGGER {trigger} BEFORE INSERT ON entries FOR EACH ROW"
        f" IF NEW.account_id = '{alice}' THEN SIGNAL SQLSTATE '45000'"
        " SET MESSAGE_TEXT = 'poisoned'; END IF",
    )
    try:
        answer = town.transfer(alice, bob, 4, "k", protocol="saga")
    finally:
        town.rows("s1", f"DROP TRIGGER {trigger}")
    is_problem(answer, 500, "internal-error", "poisoned")
    assert (sums(town, alice), sums(town, bob)) == ((10, 0, 0), (0, 0, 0))
    assert town.transfer(alice, bob, 4, "k", protocol="saga").status_code == 201
    assert (sums(town, alice), sums(town, bob)) == ((6, 0, 0), (4, 0, 0))
