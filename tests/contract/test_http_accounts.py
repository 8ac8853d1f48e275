"""Accounts over HTTP: opening, changing, reading."""

from typing import Any

import httpx
import pytest

from tests.cluster import Cluster
from tests.contract.http import Town, is_problem, placeless, results, visit


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


def put(town: Town, name: str, **terms: Any) -> httpx.Response:
    return town.api.put(f"/v1/accounts/{name}", json={"currency": "EUR", **terms})


def patch(town: Town, name: str, status: str) -> httpx.Response:
    return town.api.patch(f"/v1/accounts/{name}", json={"status": status})


# --- opening --------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["s1", "s2"])
def test_an_account_is_opened(town: Town, shard: str) -> None:
    name = town.name(shard)
    answer = put(town, name, overdraft_limit=50)
    assert answer.status_code == 201
    view = answer.json()
    assert (
        view.items()
        >= {
            "id": name,
            "currency": "EUR",
            "balance": 0,
            "available": 0,
            "overdraft_limit": 50,
            "status": "open",
            "shard": town.shard_of(name),
        }.items()
    )
    assert view["created_at"] == view["updated_at"]
    for api in (town.api, town.other):
        assert placeless(api.get(f"/v1/accounts/{name}").json()) == placeless(view)


@pytest.mark.parametrize(
    ("terms", "limit"), [({}, 0), ({"overdraft_limit": 0}, 0), ({"overdraft_limit": None}, None)]
)
def test_the_overdraft_limit_is_zero_unless_given(
    town: Town, terms: dict[str, Any], limit: int | None
) -> None:
    assert put(town, town.name(), **terms).json()["overdraft_limit"] == limit


def test_opening_again_with_the_same_terms_changes_nothing(town: Town) -> None:
    name = town.account(funds=7)
    with town.unchanged(but_decided=True):
        answer = put(town, name)
        assert answer.status_code == 200
        shown = town.other.get(f"/v1/accounts/{name}").json()
        assert placeless(answer.json()) == placeless(shown)
        assert answer.json()["balance"] == 7


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"currency": "USD"}, "currency is EUR, not USD"),
        ({"overdraft_limit": 1}, "overdraft_limit is 0, not 1"),
        ({"overdraft_limit": None}, "overdraft_limit is 0, not None"),
    ],
)
def test_opening_again_with_other_terms_is_refused(
    town: Town, terms: dict[str, Any], named: str
) -> None:
    name = town.account()
    with town.unchanged(but_decided=True):
        is_problem(put(town, name, **terms), 409, "account-exists", name, named)


@pytest.mark.parametrize(
    "id_", ["a", "x" * 64, "A.b_c:d-e", "{tag}", "a{tag}b", "..", "batch", "0"]
)
def test_ids_that_are_allowed(town: Town, id_: str) -> None:
    # Sent by hand: clients normalise "..", and an id may be taken by another test already.
    answer = town.api.put(f"/v1/accounts/{id_.replace('.', '%2E')}", json={"currency": "EUR"})
    assert answer.status_code in (200, 201), answer.text
    assert answer.json()["id"] == id_


def test_accounts_with_the_same_tag_share_a_shard(town: Town) -> None:
    names = [f"{town.prefix}-{number}{{{town.prefix}}}" for number in range(8)]
    assert len({put(town, name).json()["shard"] for name in names}) == 1


def test_a_batch_of_accounts(town: Town) -> None:
    old, new, other = town.account("s1"), town.name("s1"), town.name("s2")
    batch = [
        {"id": new, "currency": "EUR"},
        {"id": old, "currency": "EUR"},
        {"id": old, "currency": "USD"},
        {"id": "no id", "currency": "EUR"},
        {"id": other, "currency": "EUR", "overdraft_limit": None},
        {"id": new, "currency": "EUR"},
        {"id": new, "currency": "USD"},
        None,
    ]
    found = results(town.api.post("/v1/accounts/batch", json={"accounts": batch}))
    assert [(result["id"], result["status"], result.get("reason")) for result in found] == [
        (new, "created", None),
        (old, "exists", None),
        (old, "rejected", "account-exists"),
        (None, "rejected", "malformed"),
        (other, "created", None),
        (new, "exists", None),
        (new, "rejected", "account-exists"),
        (None, "rejected", "malformed"),
    ]
    assert "no id" in found[3]["detail"]
    with town.unchanged(but_decided=True):
        again = results(town.api.post("/v1/accounts/batch", json={"accounts": batch}))
    assert [result["status"] for result in again[:2]] == ["exists", "exists"]


def test_ten_thousand_accounts_in_a_batch_and_no_more(town: Town) -> None:
    batch = [{"id": f"{town.prefix}-{n}", "currency": "EUR"} for n in range(10_001)]
    with town.unchanged():
        answer = town.api.post("/v1/accounts/batch", json={"accounts": batch})
        is_problem(answer, 413, "too-large", "10001")
    found = results(town.api.post("/v1/accounts/batch", json={"accounts": batch[:-1]}))
    assert [result["id"] for result in found] == [terms["id"] for terms in batch[:-1]]
    assert {result["status"] for result in found} == {"created"}


def test_an_empty_batch_of_accounts(town: Town) -> None:
    assert results(town.api.post("/v1/accounts/batch", json={"accounts": []})) == []


# --- changing -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["frozen", "closed", "open"])
def test_a_status_is_changed(town: Town, status: str) -> None:
    name = town.account()
    for _ in range(2):
        answer = patch(town, name, status)
        assert answer.status_code == 200
        assert answer.json()["status"] == status
    shown = town.other.get(f"/v1/accounts/{name}").json()
    assert placeless(shown) == placeless(answer.json())
    assert patch(town, name, "open").json()["status"] == "open"


def test_only_an_empty_account_is_closed(town: Town) -> None:
    name = town.account(funds=3)
    with town.unchanged(but_decided=True):
        is_problem(patch(town, name, "closed"), 409, "account-not-empty", "3 EUR")


def test_an_unknown_account_cannot_be_changed(town: Town) -> None:
    with town.unchanged(but_decided=True):
        is_problem(patch(town, town.name(), "frozen"), 404, "account-not-found")


def test_a_change_of_a_locked_account_is_busy(town: Town) -> None:
    name = town.account()
    with town.unchanged(), town.locked(name):
        is_problem(patch(town, name, "frozen"), 503, "account-busy")
    assert patch(town, name, "frozen").status_code == 200


# --- reading --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/entries", "/balance"])
def test_an_unknown_account(town: Town, path: str) -> None:
    name = town.name()
    is_problem(town.api.get(f"/v1/accounts/{name}{path}"), 404, "account-not-found", name)


def test_a_statement(town: Town) -> None:
    alice, bob = town.pair(funds=100)
    ids = [town.transfer(alice, bob, amount).json()["id"] for amount in (30, 20)]
    ids.append(town.transfer(bob, alice, 5).json()["id"])
    page = town.api.get(f"/v1/accounts/{alice}/entries").json()
    assert page["next"] is None
    assert [(e["amount"], e["balance"]) for e in page["entries"]] == [
        (100, 100),
        (-30, 70),
        (-20, 50),
        (5, 55),
    ]
    assert [e["transfer_id"] for e in page["entries"]][1:] == ids
    assert [e["counterparty"] for e in page["entries"]][1:] == [bob] * 3
    times = [e["created_at"] for e in page["entries"]]
    assert times == sorted(times)
    newest = town.other.get(f"/v1/accounts/{alice}/entries", params={"order": "desc"}).json()
    assert placeless(newest) == {"entries": page["entries"][::-1], "next": None}


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_a_statement_in_pages(town: Town, order: str, limit: int) -> None:
    account = town.account()
    for amount in range(1, 6):
        town.fund(account, amount)
    seen: list[int] = []
    cursor: str | None = None
    while True:
        params = {"limit": limit, "order": order} | ({"after": cursor} if cursor else {})
        page = town.api.get(f"/v1/accounts/{account}/entries", params=params).json()
        assert 1 <= len(page["entries"]) <= limit
        seen += [entry["amount"] for entry in page["entries"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ([1, 2, 3, 4, 5] if order == "asc" else [5, 4, 3, 2, 1])


def test_the_statement_of_an_account_without_entries(town: Town) -> None:
    answer = town.api.get(f"/v1/accounts/{town.account()}/entries")
    assert placeless(answer.json()) == {"entries": [], "next": None}


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=١٠", "limit=1e1"),
        *("after=-1", "after=x", "after=", "after=1000000000000000000", "order=up", "order="),
    ],
)
def test_a_bad_page_is_named(town: Town, query: str) -> None:
    answer = town.api.get(f"/v1/accounts/{town.account()}/entries?{query}")
    is_problem(answer, 400, "malformed", query.partition("=")[0])


def test_shards_without_a_list_refuse_to_wait_for_a_frame(mysql_cluster: Cluster) -> None:
    town = visit(mysql_cluster)
    alice, bob = town.pair(funds=10)
    for path in (
        *(f"/v1/accounts/{alice}{part}" for part in ("", "/entries", "/balance")),
        f"/v1/balances?account={alice}&account={bob}",
    ):
        for min_seq in (0, 5, "5-0-0123abcd"):
            answer = town.api.get(f"{path}{'&' if '?' in path else '?'}min_seq={min_seq}")
            is_problem(answer, 409, "not-in-list", "keep no list", "nothing has happened")
        assert "as_of" not in town.api.get(path).json()
    assert "seq" not in town.transfer(alice, bob, 4).json()
    answer = town.api.get("/v1/trial-balance")
    is_problem(answer, 404, "not-found", "on several shards", "tandem audit")
