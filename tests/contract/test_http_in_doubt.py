"""Transfers whose coordinator has died: what clients are told until they are settled."""

import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.cluster import Cluster, wait_until
from tests.contract.http import InDoubt, Town, client, in_doubt, is_problem, visit, wish


@pytest.fixture
def town(any_cluster: Cluster) -> Town:
    return visit(any_cluster)


@pytest.fixture
def hasty(any_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A coordinator that gives up after half a second."""
    overrides = {
        "TANDEM_ENGINE_REQUEST_DEADLINE_MS": "500",
        "TANDEM_ENGINE_BATCH_DEADLINE_MS": "500",
        "TANDEM_COORDINATOR_WORKERS": "1",
    }
    log = tmp_path_factory.mktemp("hasty") / "log"
    with (
        any_cluster.coordinator("hasty", log, overrides) as running,
        client(running.url) as api,
    ):
        yield api


def statuses(town: Town, transfer: str) -> list[object]:
    """What every coordinator says of a transfer: its status, or the code of the answer."""
    answers = [api.get(f"/v1/transfers/{transfer}") for api in (town.api, town.other)]
    return [a.json()["status"] if a.status_code == 200 else a.status_code for a in answers]


def test_it_is_pending_then_committed(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        assert statuses(town, transfer.id) == ["pending", "pending"]
        transfer.decide()
        # Its branch is not finished, but nothing can change the outcome any more.
        assert statuses(town, transfer.id) == ["committed", "committed"]
        decided = town.api.get(f"/v1/transfers/{transfer.id}").json()
        assert town.balance(bob) == 5
        transfer.commit()
        assert statuses(town, transfer.id) == ["committed", "committed"]
        assert town.other.get(f"/v1/transfers/{transfer.id}").json() == decided
        replayed = town.transfer(alice, bob, 5, "k")
        assert replayed.json() == decided
        assert replayed.headers["Idempotent-Replayed"] == "true"
    assert (town.balance(alice), town.balance(bob)) == (0, 5)


def test_it_is_pending_then_not_there(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    with town.unchanged(), in_doubt(town, alice, bob, 5, "k") as transfer:
        assert statuses(town, transfer.id) == ["pending", "pending"]
        transfer.roll_back()
        assert statuses(town, transfer.id) == [404, 404]
    answer = town.transfer(alice, bob, 5, "k")
    assert answer.status_code == 201
    assert "Idempotent-Replayed" not in answer.headers


def test_its_key_is_answered_pending(town: Town, hasty: httpx.Client) -> None:
    alice, bob = town.pair(funds=5)
    items = {"transfers": [wish(alice, bob, 5) | {"idempotency_key": "k"}]}
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        answer = town.transfer(alice, bob, 5, "k", api=hasty)
        assert answer.status_code == 202
        assert answer.json() == {"id": transfer.id, "status": "pending"}
        assert answer.headers["Location"] == f"/v1/transfers/{transfer.id}"
        batch = hasty.post("/v1/transfers/batch", json=items).json()
        assert batch == {"results": [{"id": transfer.id, "status": "pending"}]}
        location = hasty.get(answer.headers["Location"])
        assert (location.status_code, location.json()["status"]) == (200, "pending")
        # Another key of the same account did nothing at all, and is told so.
        is_problem(town.transfer(alice, bob, 5, "other", api=hasty), 503, "account-busy")
        transfer.decide()
        transfer.commit()
        assert hasty.get(answer.headers["Location"]).json()["status"] == "committed"
    assert (town.balance(alice), town.balance(bob)) == (0, 5)


def finish_soon(transfer: InDoubt, after_s: float = 1.0) -> threading.Thread:
    """Finish a transfer in a while; the thread is to be joined."""

    def finish() -> None:
        time.sleep(after_s)
        transfer.decide()
        transfer.commit()

    thread = threading.Thread(target=finish)
    thread.start()
    return thread


def test_a_reader_may_prefer_to_wait(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        address = f"/v1/transfers/{transfer.id}"
        began = time.monotonic()
        assert town.api.get(address, headers={"Prefer": "wait=1"}).json()["status"] == "pending"
        assert 1 <= time.monotonic() - began < 4
        thread = finish_soon(transfer)
        answer = town.api.get(address, headers={"Prefer": "respond-async, wait=20"})
        thread.join()
        assert answer.json()["status"] == "committed"
        assert time.monotonic() - began < 15


def test_a_sender_may_prefer_to_wait(town: Town, hasty: httpx.Client) -> None:
    alice, bob = town.pair(funds=5)
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        thread = finish_soon(transfer, 1.5)
        headers = {"Prefer": "wait=20"}
        answer = town.transfer(alice, bob, 5, "k", api=hasty, headers=headers)
        thread.join()
        assert answer.status_code == 201, answer.text
        assert answer.headers["Idempotent-Replayed"] == "true"


def test_others_go_on_around_it(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    carol, dave = town.pair(funds=5)
    with in_doubt(town, alice, bob, 5, "k"):
        assert town.transfer(carol, dave, 5).status_code == 201
        assert town.balance(alice) == 5


def test_balances_never_show_one_side(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    query = {"account": [alice, bob]}
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        transfer.decide()
        # The credit stands, the debit is still in its branch: no moment can be told now.
        is_problem(town.api.get("/v1/balances", params=query), 503, "account-busy")
        transfer.commit()
        wait_until(lambda: town.api.get("/v1/balances", params=query).status_code == 200, 5, "busy")
    found = town.other.get("/v1/balances", params=query).json()["balances"]
    assert [balance["balance"] for balance in found] == [0, 5]
