"""A batch of plain items goes to a ledger group as columns, any other item by item: the two ways
give the same answers and leave the same books, in every kind of body.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from coordinator.http.batches import arrow_columns, scan
from tests.cluster import Cluster
from tests.contract.http import Town, item, visit
from tests.contract.test_http_batch_kinds import ARROW, NDJSON, PATH, as_arrow, as_lines, from_arrow

JSON = "application/json"
MEDIA = [JSON, NDJSON, ARROW]

Items = list[dict[str, Any]]


@pytest.fixture
def town(eventstore_cluster: Cluster) -> Town:
    return visit(eventstore_cluster)


@pytest.fixture
def api(town: Town) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=town.urls[0], timeout=60) as client:
        yield client


def body(media: str, items: Items) -> bytes:
    if media == JSON:
        return json.dumps({"transfers": items}).encode()
    if media == NDJSON:
        return as_lines(items)
    # A column with some nulls is not plain.
    return as_arrow([{"protocol": "tcc"} | one for one in items])


def send(api: httpx.Client, media: str, items: Items) -> Items:
    answer = api.post(PATH, content=body(media, items), headers={"Content-Type": media})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, media), answer.text
    if media == JSON:
        found: Items = answer.json()["results"]
        return found
    if media == NDJSON:
        return [json.loads(line) for line in answer.content.splitlines()]
    return from_arrow(answer.content)


def open_accounts(town: Town) -> dict[str, str]:
    """One of each standing, by a name that is the same in every town."""
    frozen, closed = town.account(funds=9), town.account()
    for account, status in ((frozen, "frozen"), (closed, "closed")):
        assert town.api.patch(f"/v1/accounts/{account}", json={"status": status}).status_code == 200
    return {
        "alice": town.account(funds=100),
        "bob": town.account(),
        "dollars": town.account(currency="USD"),
        "frozen": frozen,
        "closed": closed,
        "nobody": town.name(),
    }


def every_outcome(of: dict[str, str]) -> Items:
    """Of valid items: in their order each depends on those before."""
    alice, bob = of["alice"], of["bob"]
    return [
        item(alice, bob, 60, "a"),
        item(alice, bob, 60, "b"),
        item(bob, alice, 30, "c") | {"protocol": "saga"},
        item(alice, bob, 60, "d") | {"protocol": "tcc"},
        item(alice, bob, 60, "a"),
        item(alice, bob, 61, "a"),
        item(alice, of["nobody"], 1, "e"),
        item(of["nobody"], alice, 1, "f"),
        item(alice, alice, 1, "g"),
        item(alice, of["dollars"], 1, "h"),
        item(of["frozen"], alice, 1, "i"),
        item(alice, of["closed"], 1, "j"),
        item(bob, alice, 1, "a key with blanks, and ~!#"),
    ]


def told(found: Items, of: dict[str, str]) -> Items:
    """Results without what is this town's, or this run's, alone."""
    text = json.dumps(
        [{name: value for name, value in one.items() if name not in ("id", "seq")} for one in found]
    )
    for name, account in of.items():
        text = text.replace(account, name)
    plain: Items = json.loads(text)
    return plain


@pytest.mark.parametrize("media", MEDIA)
def test_the_two_ways_are_one(town: Town, api: httpx.Client, media: str) -> None:
    ways = []
    for is_plain in (True, False):
        town.renew()
        of = open_accounts(town)
        # A transfer with metadata is none that goes as columns.
        extra = [] if is_plain else [item(of["bob"], of["bob"], 1, "m") | {"metadata": {"a": 1}}]
        items = every_outcome(of)
        first = send(api, media, items + extra)
        again = send(api, media, items + extra)
        ids = [one["id"] for one in first[: len(items)]]
        balances = [town.balance(of[name]) for name in ("alice", "bob", "frozen", "closed")]
        ways.append((told(first[: len(items)], of), told(again[: len(items)], of), balances))
        shown = [api.get(f"/v1/transfers/{id_}") for id_ in ids]
        protocols = {a.json()["protocol"] for a in shown if a.status_code == 200}
        assert protocols == {"tcc", "saga"}
    assert ways[0] == ways[1]


@pytest.mark.parametrize("media", MEDIA)
def test_what_is_sent_here_is_plain(media: str) -> None:
    """Else the test above would compare a way with itself."""
    of = {name: name for name in ("alice", "bob", "dollars", "frozen", "closed", "nobody")}
    data = body(media, every_outcome(of))
    read = {
        JSON: lambda: scan.json_columns(data, 100),
        NDJSON: lambda: scan.line_columns(data, 100),
        ARROW: lambda: arrow_columns.arrow_columns(data, 100, 1 << 20),
    }
    columns = read[media]()
    assert columns is not None
    assert columns.size == len(every_outcome(of))


@pytest.mark.parametrize("media", MEDIA)
def test_ten_thousand_at_once(town: Town, api: httpx.Client, media: str) -> None:
    alice, bob = town.pair(funds=9_990)
    items = [item(alice, bob, 1, f"{n}") for n in range(10_000)]
    found = send(api, media, items)
    assert [one["status"] for one in found] == ["committed"] * 9_990 + ["rejected"] * 10
    again = send(api, media, items)
    assert all(one["replayed"] for one in again)
    assert [one["id"] for one in again] == [one["id"] for one in found]
    assert (town.balance(alice), town.balance(bob)) == (0, 9_990)
