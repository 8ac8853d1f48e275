"""Single transfers over HTTP: every row of the table of answers that needs nothing held or broken,
and what became of a transfer afterwards.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from ledger.ids import transfer_id
from tests.cluster import Cluster
from tests.contract.http import Town, is_problem, placeless, visit, wish


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


MOST = 2**63 - 1


def shown(town: Town, transfer: str) -> dict[str, Any]:
    """A transfer as every coordinator shows it."""
    answers = [api.get(f"/v1/transfers/{transfer}") for api in (town.api, town.other)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    found: dict[str, Any] = answers[0].json()
    return found


# --- 201 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "destination"), [("s1", "s2"), ("s2", "s1"), ("s1", "s1"), ("s2", "s2")]
)
def test_a_transfer_is_committed(town: Town, source: str, destination: str) -> None:
    alice, bob = town.account(source, funds=100), town.account(destination)
    metadata = {"b": [1, 2.5, None, True], "a": {"text": "für ☕ '\"\\ %s {0} \x00 😀"}}
    answer = town.transfer(alice, bob, 60, "the key", metadata=metadata, protocol=town.default)
    assert answer.status_code == 201
    assert "Idempotent-Replayed" not in answer.headers
    view = answer.json()
    created, committed = view.pop("created_at"), view.pop("committed_at")
    assert placeless(view) == wish(alice, bob, 60) | {
        "id": transfer_id(alice, "the key"),
        "status": "committed",
        "protocol": town.default,
        "metadata": metadata,
    }
    assert created <= committed
    assert shown(town, view["id"]) == answer.json()
    assert (town.balance(alice), town.balance(bob)) == (40, 60)


def test_metadata_and_protocol_are_optional(town: Town) -> None:
    view = town.transfer(*town.pair(funds=1), 1).json()
    assert (view["metadata"], view["protocol"]) == (None, town.default)


@pytest.mark.parametrize("key", ["k", "x" * 128, "a key, with: \"all\" 'kinds' ; %s {} \\"])
def test_keys_that_are_allowed(town: Town, key: str) -> None:
    alice, bob = town.pair(funds=2)
    assert town.transfer(alice, bob, 1, key).json()["id"] == transfer_id(alice, key)


def test_down_to_the_overdraft_limit(town: Town) -> None:
    alice, bob = town.account("s1", overdraft_limit=50), town.account("s2")
    assert town.transfer(alice, bob, 50).status_code == 201
    is_problem(town.transfer(alice, bob, 1), 422, "insufficient-funds", "-50", "-51")
    assert (town.balance(alice), town.balance(bob)) == (-50, 50)


def test_the_largest_amount(town: Town) -> None:
    issuer, bob = town.account("s1", overdraft_limit=None), town.account("s2")
    assert town.transfer(issuer, bob, MOST).json()["amount"] == MOST
    assert (town.balance(issuer), town.balance(bob)) == (-MOST, MOST)
    is_problem(town.transfer(issuer, bob, 1), 422, "balance-overflow", issuer)
    other = town.account(overdraft_limit=None)
    is_problem(town.transfer(other, bob, 1), 422, "balance-overflow", bob)


# --- the same again -------------------------------------------------------------------------


def test_the_same_again_is_replayed(town: Town) -> None:
    alice, bob = town.pair(funds=100)
    metadata = {"b": 1, "a": [1.0, "x"]}
    first = town.transfer(alice, bob, 60, "k", metadata=metadata)
    with town.unchanged(but_decided=True):
        for api in (town.api, town.other):
            # The same object, its fields in another order.
            again = town.transfer(alice, bob, 60, "k", api=api, metadata=dict(metadata))
            assert again.status_code == 201
            assert again.headers["Idempotent-Replayed"] == "true"
            assert again.content == first.content


@pytest.mark.parametrize("status", ["frozen", "closed"])
def test_a_replay_does_not_depend_on_how_things_are_now(town: Town, status: str) -> None:
    alice, bob = town.pair(funds=5)
    first = town.transfer(alice, bob, 5, "k")
    town.api.patch(f"/v1/accounts/{alice}", json={"status": status})
    assert town.transfer(alice, bob, 5, "k").content == first.content


def test_an_omitted_field_is_its_default(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    first = town.transfer(alice, bob, 5, "k", metadata=None, protocol=town.default)
    assert town.transfer(alice, bob, 5, "k").content == first.content


def test_a_key_belongs_to_its_source(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    assert town.transfer(alice, bob, 5, "k").status_code == 201
    back = town.transfer(bob, alice, 5, "k")
    assert back.status_code == 201
    assert "Idempotent-Replayed" not in back.headers


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"amount": 6}, "amount was 5, now 6"),
        ({"currency": "USD"}, "currency was EUR, now USD"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"destination": "somebody-else"}, "destination"),
    ],
    ids=["amount", "currency", "metadata", "destination"],
)
@pytest.mark.parametrize("is_refused", [False, True])
def test_the_same_key_with_another_body(
    town: Town, other: dict[str, Any], named: str, is_refused: bool
) -> None:
    alice, bob = town.pair(funds=0 if is_refused else 5)
    first = town.transfer(alice, bob, 5, "k")
    with town.unchanged(but_decided=True):
        for api in (town.api, town.other):
            body = wish(alice, bob, 5) | other
            again = api.post("/v1/transfers", json=body, headers={"Idempotency-Key": "k"})
            problem = is_problem(again, 422, "idempotency-key-reused", named, alice)
            assert problem["transfer_id"] == transfer_id(alice, "k")
    assert town.transfer(alice, bob, 5, "k").status_code == first.status_code


@pytest.mark.parametrize("count", [24])
def test_the_same_key_many_times_at_once(town: Town, count: int) -> None:
    alice, bob = town.pair(funds=100)

    def send(index: int) -> httpx.Response:
        return town.transfer(alice, bob, 1, "k", api=(town.api, town.other)[index % 2])

    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(send, range(count)))
    committed = [answer for answer in answers if answer.status_code == 201]
    assert [a for a in committed if "Idempotent-Replayed" not in a.headers]
    assert len({answer.content for answer in committed}) == 1
    for answer in answers:
        if answer.status_code != 201:
            is_problem(answer, 409, "idempotency-key-in-use", alice)
    assert (town.balance(alice), town.balance(bob)) == (99, 1)


def test_one_answer_at_most_is_the_first(town: Town) -> None:
    """Of requests with one key at once, all but one are told that they are replays."""
    for _ in range(5):
        alice, bob = town.pair(funds=1)

        def send(api: httpx.Client, ends: tuple[str, str] = (alice, bob)) -> httpx.Response:
            return town.transfer(*ends, 1, "k", api=api)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(send, [town.api, town.other] * 4))
        first = [
            answer
            for answer in answers
            if answer.status_code == 201 and "Idempotent-Replayed" not in answer.headers
        ]
        assert len(first) == 1


# --- 422 ------------------------------------------------------------------------------------

Refused = Callable[[Town], tuple[str, str, dict[str, Any]]]


def frozen_source(town: Town) -> tuple[str, str, dict[str, Any]]:
    alice, bob = town.pair(funds=10)
    town.api.patch(f"/v1/accounts/{alice}", json={"status": "frozen"})
    return alice, bob, {}


def closed_source(town: Town) -> tuple[str, str, dict[str, Any]]:
    alice, bob = town.pair()
    town.api.patch(f"/v1/accounts/{alice}", json={"status": "closed"})
    return alice, bob, {}


def closed_destination(town: Town) -> tuple[str, str, dict[str, Any]]:
    alice, bob = town.pair(funds=10)
    town.api.patch(f"/v1/accounts/{bob}", json={"status": "closed"})
    return alice, bob, {}


def other_destination_currency(town: Town) -> tuple[str, str, dict[str, Any]]:
    return town.account("s1", funds=10), town.account("s2", currency="USD"), {}


def no_destination(town: Town) -> tuple[str, str, dict[str, Any]]:
    return town.account("s1", funds=10), town.name("s2"), {}


def no_destination_here(town: Town) -> tuple[str, str, dict[str, Any]]:
    return town.account("s1", funds=10), town.name("s1"), {}


def same_account(town: Town) -> tuple[str, str, dict[str, Any]]:
    alice = town.account(funds=10)
    return alice, alice, {}


REFUSED = {
    "poor": (lambda t: (*t.pair(funds=9), {}), "insufficient-funds"),
    "poor, one shard": (lambda t: (t.account("s1"), t.account("s1"), {}), "insufficient-funds"),
    "frozen source": (frozen_source, "account-frozen"),
    "closed source": (closed_source, "account-closed"),
    "closed destination": (closed_destination, "account-closed"),
    "currency of the transfer": (
        lambda t: (*t.pair(funds=10), {"currency": "USD"}),
        "currency-mismatch",
    ),
    "currency of the destination": (other_destination_currency, "currency-mismatch"),
    "no destination": (no_destination, "account-not-found"),
    "no destination, one shard": (no_destination_here, "account-not-found"),
    "same account": (same_account, "same-account"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_for_good(town: Town, make: Refused, reason: str) -> None:
    alice, bob, body = make(town)
    before = {name: town.balance(name) for name in {alice}}
    answer = town.transfer(alice, bob, 10, "k", **body)
    problem = is_problem(answer, 422, reason)
    transfer = problem["transfer_id"]
    assert transfer == transfer_id(alice, "k")

    view = shown(town, transfer)
    assert (view["status"], view["reason"]) == ("rejected", reason)
    assert view["detail"]
    assert view["detail"] in problem["detail"]
    assert "committed_at" not in view
    with town.unchanged(but_decided=True):
        for api in (town.api, town.other):
            again = town.transfer(alice, bob, 10, "k", api=api, **body)
            assert (again.status_code, again.json()) == (422, problem)
    assert {name: town.balance(name) for name in {alice}} == before
    entries = town.api.get(f"/v1/accounts/{alice}/entries").json()["entries"]
    assert transfer not in {entry["transfer_id"] for entry in entries}


def test_a_frozen_account_may_be_credited(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    town.api.patch(f"/v1/accounts/{bob}", json={"status": "frozen"})
    assert town.transfer(alice, bob, 5).status_code == 201


def test_a_refused_key_is_used_up(town: Town) -> None:
    alice, bob = town.pair()
    first = town.transfer(alice, bob, 5, "k")
    is_problem(first, 422, "insufficient-funds", "5")
    town.fund(alice, 100)
    with town.unchanged(but_decided=True):
        for api in (town.api, town.other):
            assert town.transfer(alice, bob, 5, "k", api=api).json() == first.json()
    assert town.transfer(alice, bob, 5, "another").status_code == 201


def test_a_source_that_does_not_exist_leaves_its_key_free(town: Town) -> None:
    alice, bob = town.name("s1"), town.account("s2")
    with town.unchanged(but_decided=True):
        for _ in range(2):
            problem = is_problem(town.transfer(alice, bob, 5, "k"), 422, "account-not-found", alice)
    is_problem(town.api.get(f"/v1/transfers/{problem['transfer_id']}"), 404, "not-found")
    town.api.put(f"/v1/accounts/{alice}", json={"currency": "EUR", "overdraft_limit": 5})
    answer = town.transfer(alice, bob, 5, "k")
    assert answer.status_code == 201
    assert "Idempotent-Replayed" not in answer.headers


# --- asking ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transfer",
    [
        "x",
        "000-" + "0" * 32,
        "fff-" + "F" * 32,
        "zzz-" + "0" * 32,
        "000-" + "0" * 33,
        "batch",
        "%00",
        "'",
        "000-" + "0" * 32 + "%0A",
    ],
)
def test_a_transfer_that_is_not_there(town: Town, transfer: str) -> None:
    for api in (town.api, town.other):
        is_problem(api.get(f"/v1/transfers/{transfer}"), 404, "not-found")
