"""Arrow streams that name accounts by the numbers that a ledger group has given them."""

import os
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyarrow import ipc

from tests.cluster import Cluster
from tests.contract.http import Town, is_problem, visit
from tests.contract.test_http_batch_kinds import ARROW, PATH, from_arrow

Items = list[dict[str, Any]]
NO_NUMBER = 2**32 - 2


@pytest.fixture
def town(eventstore_cluster: Cluster) -> Town:
    return visit(eventstore_cluster)


@pytest.fixture
def api(town: Town) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=town.urls[0], timeout=60) as client:
        yield client


def number(town: Town, account: str) -> int:
    found: int = town.api.get(f"/v1/accounts/{account}").json()["number"]
    return found


def row(source: int, destination: int, amount: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": os.urandom(16),
        "source": source,
        "destination": destination,
        "amount": amount,
        "currency": "EUR",
    } | changes


def send(api: httpx.Client, rows: Items) -> httpx.Response:
    kinds = {
        "id": pa.binary(16),
        "source": pa.uint32(),
        "destination": pa.uint32(),
        "amount": pa.int64(),
        "currency": pa.string(),
    }
    columns = {name: pa.array([r[name] for r in rows], kind) for name, kind in kinds.items()}
    batch, sink = pa.record_batch(columns), BytesIO()
    with ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return api.post(PATH, content=sink.getvalue(), headers={"Content-Type": ARROW})


def results(api: httpx.Client, rows: Items) -> Items:
    answer = send(api, rows)
    assert answer.status_code == 200, answer.text
    return from_arrow(answer.content)


def test_money_moves_and_is_shown_by_names(town: Town, api: httpx.Client) -> None:
    alice, bob = town.pair(funds=10)
    rows = [row(number(town, alice), number(town, bob), amount) for amount in (3, 4, 5)]
    found = results(api, rows)
    assert [one["status"] for one in found] == ["committed", "committed", "rejected"]
    assert found[2]["reason"] == "insufficient-funds"
    assert alice in found[2]["detail"]
    for one, asked in zip(found, rows, strict=True):
        assert one["id"].endswith(f"-{asked['id'].hex()}")
        shown = api.get(f"/v1/transfers/{one['id']}").json()
        assert (shown["source"], shown["destination"]) == (alice, bob)
        assert (shown["status"], shown["seq"]) == (one["status"], one["seq"])
    assert (town.balance(alice), town.balance(bob)) == (3, 7)
    again = results(api, rows)
    assert all(one["replayed"] for one in again)
    assert [(one["id"], one.get("detail")) for one in again] == [
        (one["id"], one.get("detail")) for one in found
    ]


def test_an_id_that_comes_again_with_another_body(town: Town, api: httpx.Client) -> None:
    alice, bob = town.pair(funds=10)
    first = row(number(town, alice), number(town, bob), 3)
    (one,) = results(api, [first])
    (other,) = results(api, [first | {"amount": 4}])
    assert (other["status"], other["reason"]) == ("rejected", "idempotency-key-reused")
    assert "amount was 3, now 4" in other["detail"]
    (swapped,) = results(api, [first | {"source": number(town, bob)}])
    assert swapped["reason"] == "idempotency-key-reused"
    assert f"source was {alice}" in swapped["detail"]
    assert one["status"] == "committed"


def test_rows_that_are_wrong_concern_themselves_alone(town: Town, api: httpx.Client) -> None:
    alice, bob = town.pair(funds=10)
    a, b = number(town, alice), number(town, bob)
    rows = [
        row(a, b, 0),
        row(a, b, 1),
        row(a, b, 1, currency="eur"),
        row(NO_NUMBER, b, 1),
        row(a, NO_NUMBER, 1),
        row(a, b, 2),
        row(a, b, 1) | {"amount": None},
    ]
    found = results(api, rows)
    assert [(one["status"], one.get("reason")) for one in found] == [
        ("rejected", "malformed"),
        ("committed", None),
        ("rejected", "malformed"),
        ("rejected", "account-not-found"),
        ("rejected", "account-not-found"),
        ("committed", None),
        ("rejected", "malformed"),
    ]
    assert [one["id"] is None for one in found] == [True, False, True, False, False, False, True]
    assert (town.balance(alice), town.balance(bob)) == (7, 3)


def test_all_rows_are_wrong(town: Town, api: httpx.Client) -> None:
    found = results(api, [row(0, 1, 0), row(0, 1, -1)])
    assert [one["reason"] for one in found] == ["malformed", "malformed"]


def test_a_new_account_has_a_number_at_once(town: Town, api: httpx.Client) -> None:
    alice, bob = town.pair(funds=10)
    assert (
        results(api, [row(number(town, alice), number(town, bob), 1)])[0]["status"] == "committed"
    )
    carol = town.account()
    (one,) = results(api, [row(number(town, alice), number(town, carol), 2)])
    assert one["status"] == "committed"
    assert town.balance(carol) == 2


def test_a_stream_with_an_id_and_names_is_refused_as_a_whole(town: Town, api: httpx.Client) -> None:
    batch = pa.record_batch(
        {
            "id": pa.array([bytes(16)], pa.binary(16)),
            "source": ["a"],
            "destination": ["b"],
            "amount": [1],
            "currency": ["EUR"],
        }
    )
    sink = BytesIO()
    with ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    answer = api.post(PATH, content=sink.getvalue(), headers={"Content-Type": ARROW})
    is_problem(answer, 400, "malformed", "'source' is of type 'string', not uint32")
