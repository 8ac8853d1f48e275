"""A key with another body: in use (409) as long as nothing is settled, reused (422) when an outcome
is recorded for it; at every coordinator, by every protocol, alone and in a batch.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.ids import transfer_id
from tests.cluster import Cluster, wait_until
from tests.contract.begun import Begun
from tests.contract.http import Town, client, in_doubt, is_problem, item, results, visit

IN_USE = "idempotency-key-in-use"
REUSED = "idempotency-key-reused"
UNSETTLED = [("tcc", "trying"), ("saga", "crediting")]
SETTLED = [("tcc", "confirming"), ("saga", "compensating")]


@pytest.fixture
def town(any_cluster: Cluster) -> Town:
    return visit(any_cluster)


@pytest.fixture
def hasty(any_cluster: Cluster, tmp_path: Path) -> Iterator[httpx.Client]:
    """A coordinator of one process that gives up after a second."""
    overrides = {
        "TANDEM_ENGINE_REQUEST_DEADLINE_MS": "1000",
        "TANDEM_ENGINE_BATCH_DEADLINE_MS": "1000",
        "TANDEM_COORDINATOR_WORKERS": "1",
    }
    with (
        any_cluster.coordinator("keys", tmp_path / "log", overrides) as running,
        client(running.url) as api,
    ):
        yield api


def by_batch(api: httpx.Client, item: dict[str, Any]) -> tuple[str, str | None]:
    (result,) = results(api.post("/v1/transfers/batch", json={"transfers": [item]}))
    return result["status"], result.get("reason")


def begun(town: Town, protocol: str, phase: str) -> tuple[Begun, str, str]:
    alice = town.account("s1", funds=50)
    bob = town.name("s2") if phase == "compensating" else town.account("s2")
    return Begun(town, protocol, alice, bob, 4).until(phase), alice, bob


def resolve(town: Town, transfer: Begun) -> None:
    answer = town.api.post(f"/v1/admin/in-doubt/{transfer.gtrid}/resolve")
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("protocol", "phase"), UNSETTLED)
def test_another_body_while_nothing_is_settled(town: Town, protocol: str, phase: str) -> None:
    transfer, alice, bob = begun(town, protocol, phase)
    key = transfer.flight.transfer.key
    changes: list[dict[str, Any]] = [
        {"amount": 5},
        {"metadata": {"a": 1}},
        {"protocol": "xa"},
        {"destination": town.account("s2")},
    ]
    for api in (town.api, town.other):
        for change in changes:
            wish = {"destination": bob, "amount": 4, "protocol": protocol} | change
            answer = town.transfer(alice, key=key, api=api, **wish)
            problem = is_problem(answer, 409, IN_USE, key, alice)
            assert problem["transfer_id"] == transfer.id
            asked = item(alice, bob, 4, key) | {"protocol": protocol} | change
            assert by_batch(api, asked) == ("failed", IN_USE)
        waits = town.transfer(alice, bob, 5, key, api=api, headers={"Prefer": "wait=1"})
        is_problem(waits, 409, IN_USE)
    resolve(town, transfer)
    last = town.transfer(alice, bob, 5, key, protocol=protocol)
    if protocol == "tcc":
        # Nothing has become of the first: the key is free for whoever comes then.
        assert last.status_code == 201, last.text
        assert town.balance(bob) == 5
    else:
        is_problem(last, 422, REUSED, "amount was 4, now 5")
        assert town.balance(bob) == 4


@pytest.mark.parametrize(("protocol", "phase"), SETTLED)
def test_another_body_when_an_outcome_is_recorded(town: Town, protocol: str, phase: str) -> None:
    transfer, alice, bob = begun(town, protocol, phase)
    key = transfer.flight.transfer.key
    for api in (town.api, town.other):
        answer = town.transfer(alice, bob, 5, key, api=api, protocol=protocol)
        is_problem(answer, 422, REUSED, "amount was 4, now 5")
        asked = item(alice, bob, 5, key) | {"protocol": protocol}
        assert by_batch(api, asked) == ("rejected", REUSED)
    resolve(town, transfer)


def test_another_body_when_nothing_comes_of_the_first(town: Town) -> None:
    """It is certain, though the destination's shard has not heard of it yet."""
    transfer, alice, bob = begun(town, "tcc", "cancelling")
    key = transfer.flight.transfer.key
    assert town.transfer(alice, bob, 5, key, protocol="tcc").status_code == 201
    resolve(town, transfer)
    assert (town.balance(alice), town.balance(bob)) == (45, 5)


def test_another_body_while_the_first_waits_in_the_queue(town: Town, hasty: httpx.Client) -> None:
    alice, bob = town.pair(funds=50)
    carol = town.account("s2")
    id_ = transfer_id(alice, "k")
    with ThreadPoolExecutor(1) as pool, town.locked(alice):
        first = pool.submit(town.transfer, alice, bob, 4, "k", api=hasty)
        way = f"/v1/admin/transfers/{id_}"
        wait_until(lambda: hasty.get(way).status_code == 200, 5, "it is not in the queue")
        answer = town.transfer(alice, carol, 5, "k", api=hasty)
        problem = is_problem(answer, 409, IN_USE, alice)
        assert problem["transfer_id"] == id_
        is_problem(first.result(), 503, "account-busy")
    second = town.transfer(alice, carol, 5, "k", api=hasty)
    assert second.status_code == 201, second.text
    is_problem(town.transfer(alice, bob, 4, "k", api=hasty), 422, REUSED)


def test_another_body_while_a_group_is_in_doubt(town: Town, hasty: httpx.Client) -> None:
    alice, bob = town.pair(funds=50)
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        answer = town.transfer(alice, bob, 6, "k", api=hasty)
        assert is_problem(answer, 409, IN_USE)["transfer_id"] == transfer.id
        assert by_batch(hasty, item(alice, bob, 6, "k")) == ("failed", IN_USE)
        transfer.decide()
        # Home has said it, though the branch is not finished.
        is_problem(town.transfer(alice, bob, 6, "k", api=hasty), 422, REUSED, "was 5, now 6")
        transfer.commit()
    is_problem(town.transfer(alice, bob, 6, "k", api=hasty), 422, REUSED, "was 5, now 6")
    assert (town.balance(alice), town.balance(bob)) == (45, 5)
