"""What cannot be done now: accounts that are locked, shards that take no work, full queues."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.cluster import Cluster, wait_until
from tests.contract.http import Town, client, execute, is_problem, item, results, visit


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


@pytest.fixture(scope="module")
def hasty(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A coordinator of one process that gives up after half a second, with a short queue."""
    overrides = {
        "TANDEM_ENGINE_REQUEST_DEADLINE_MS": "500",
        "TANDEM_ENGINE_BATCH_DEADLINE_MS": "500",
        "TANDEM_ENGINE_QUEUE_MAX": "3",
        "TANDEM_COORDINATOR_WORKERS": "1",
    }
    log = tmp_path_factory.mktemp("hasty") / "log"
    with (
        cluster.coordinator("hasty", log, overrides) as running,
        client(running.url) as api,
    ):
        yield api


# --- a locked account -----------------------------------------------------------------------


@pytest.mark.parametrize("which", ["source", "destination"])
@pytest.mark.parametrize("shards", [("s1", "s2"), ("s1", "s1")])
def test_a_locked_account_is_busy_at_the_deadline(
    town: Town, hasty: httpx.Client, which: str, shards: tuple[str, str]
) -> None:
    alice, bob = town.account(shards[0], funds=5), town.account(shards[1])
    with town.unchanged(), town.locked(alice if which == "source" else bob):
        began = time.monotonic()
        problem = is_problem(town.transfer(alice, bob, 5, "k", api=hasty), 503, "account-busy")
        assert time.monotonic() - began < 3
        is_problem(town.api.get(f"/v1/transfers/{problem['transfer_id']}"), 404, "not-found")
    # Nothing has happened, so that the same key commits, and is no replay.
    answer = town.transfer(alice, bob, 5, "k", api=hasty)
    assert answer.status_code == 201
    assert "Idempotent-Replayed" not in answer.headers


def test_a_locked_account_in_a_batch_concerns_its_items_alone(
    town: Town, hasty: httpx.Client
) -> None:
    alice, bob = town.pair(funds=5)
    carol, dave = town.pair(funds=5)
    items = [item(alice, bob, 5, "k"), item(carol, dave, 5, "k")]
    with town.locked(alice):
        found = results(hasty.post("/v1/transfers/batch", json={"transfers": items}))
    assert [(r["status"], r.get("reason")) for r in found] == [
        ("failed", "account-busy"),
        ("committed", None),
    ]
    again = results(hasty.post("/v1/transfers/batch", json={"transfers": items}))
    assert [(r["status"], r.get("replayed", False)) for r in again] == [
        ("committed", False),
        ("committed", True),
    ]


def test_a_key_that_is_in_use(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    count = 6  # More than there are worker processes, each of which knows its own requests.
    with ThreadPoolExecutor(count) as pool:
        with town.locked(alice):
            waiting = [pool.submit(town.transfer, alice, bob, 5, "k") for _ in range(count)]
            # All but one request of each process are answered while the account is locked.
            wait_until(lambda: sum(f.done() for f in waiting) >= count - 2, 4, "none was refused")
            for answer in (future.result() for future in waiting if future.done()):
                problem = is_problem(answer, 409, "idempotency-key-in-use", alice)
                assert problem["transfer_id"]
        answers = [future.result() for future in waiting]
    committed = [answer for answer in answers if answer.status_code == 201]
    assert committed
    assert len({answer.content for answer in committed}) == 1
    assert (town.balance(alice), town.balance(bob)) == (0, 5)


def test_reads_of_a_locked_account(town: Town) -> None:
    alice = town.account(funds=5)
    with town.locked(alice):
        assert town.balance(alice) == 5
        assert town.api.get(f"/v1/accounts/{alice}/entries").status_code == 200
        # Neither of these may be answered without the account's lock.
        is_problem(town.api.get(f"/v1/accounts/{alice}/balance"), 503, "account-busy")
        is_problem(town.api.get("/v1/balances", params={"account": alice}), 503, "account-busy")
    assert town.api.get("/v1/balances", params={"account": alice}).status_code == 200


# --- a full queue ---------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_into_the_queue(town: Town, hasty: httpx.Client) -> None:
    alice, bob = town.pair(funds=5)
    items = [item(alice, bob, 1, f"k{number}") for number in range(4)]
    with town.unchanged():
        answer = hasty.post("/v1/transfers/batch", json={"transfers": items})
        is_problem(answer, 429, "overloaded")
    found = results(hasty.post("/v1/transfers/batch", json={"transfers": items[:3]}))
    assert {result["status"] for result in found} == {"committed"}


def test_a_full_queue_refuses_at_once(town: Town, hasty: httpx.Client) -> None:
    alice, bob = town.pair(funds=100)

    def send(number: int) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        answer = town.transfer(alice, bob, 1, f"k{number}", api=hasty)
        return answer, time.monotonic() - began

    # Each on a connection of its own, and so a caller of its own: for these there is three times
    # the room.
    with town.unchanged(), town.locked(alice), ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(send, range(40)))
    refused = [took for answer, took in answers if answer.status_code == 429]
    assert refused
    assert min(refused) < 0.4
    for answer, _ in answers:
        if answer.status_code == 429:
            is_problem(answer, 429, "overloaded")
        else:
            is_problem(answer, 503, "account-busy")
    assert town.transfer(alice, bob, 1, "k0", api=hasty).status_code == 201


# --- a shard that takes no work -------------------------------------------------------------


def troubles(town: Town) -> list[str]:
    """What the processes of both coordinators complain of; asked often, to meet each of them."""
    return [
        trouble
        for url in town.urls
        for _ in range(8)
        for trouble in httpx.get(f"{url}/readyz", verify=False).json()["troubles"]
    ]


def test_a_read_only_shard_concerns_its_own_accounts_alone(town: Town, cluster: Cluster) -> None:
    alice, bob = town.pair(funds=10)
    carol, dave = town.account("s1", funds=10), town.account("s1")
    new = town.name("s2")
    try:
        execute(cluster, "s2", "SET GLOBAL read_only = ON")
        with town.unchanged():
            for source, destination in ((alice, bob), (bob, alice)):
                answer = town.transfer(source, destination, 5, "k")
                is_problem(answer, 503, "shard-unavailable", "s2")
            answer = town.api.put(f"/v1/accounts/{new}", json={"currency": "EUR"})
            is_problem(answer, 503, "shard-unavailable", "s2")
        assert town.transfer(carol, dave, 5, "k").status_code == 201
        items = [item(alice, bob, 5, "b"), item(carol, dave, 5, "b")]
        found = results(town.api.post("/v1/transfers/batch", json={"transfers": items}))
        assert [(r["status"], r.get("reason")) for r in found] == [
            ("failed", "shard-unavailable"),
            ("committed", None),
        ]
        ready = town.api.get("/readyz")
        assert ready.status_code == 200
    finally:
        execute(cluster, "s2", "SET GLOBAL read_only = OFF")
    wait_until(lambda: not troubles(town), 15, "the shard is not taken into use again")
    answer = town.transfer(alice, bob, 5, "k")
    assert answer.status_code == 201
    assert "Idempotent-Replayed" not in answer.headers


# --- no shard map ---------------------------------------------------------------------------


def test_a_coordinator_without_a_shard_map(cluster: Cluster, tmp_path: Path) -> None:
    """As after `tandem shards init` was forgotten: it lives, is not ready, and says why."""
    overrides = {"TANDEM_CLUSTER_ID": "nowhere", "TANDEM_COORDINATOR_WORKERS": "1"}
    with cluster.coordinator("lost", tmp_path / "log", {}) as running:
        running.stop()
        running._environment.update(overrides)
        running.start(wait=False)
        with client(running.url) as api:

            def lives() -> bool:
                try:
                    return api.get("/healthz").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(lives, 30, "it does not start")
            ready = api.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["ready"] is False
            assert "tandem shards init" in ready.json()["reasons"][0]
            body = {"source": "a", "destination": "b", "amount": 1, "currency": "EUR"}
            for answer in (
                api.post("/v1/transfers", json=body, headers={"Idempotency-Key": "k"}),
                api.put("/v1/accounts/a", json={"currency": "EUR"}),
                api.get("/v1/accounts/a"),
                api.get("/v1/balances?account=a"),
                api.get("/v1/transfers/000-" + "0" * 32),
            ):
                is_problem(answer, 503, "shard-unavailable", "shard map")
