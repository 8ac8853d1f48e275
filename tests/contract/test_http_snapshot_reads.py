"""Reads of one moment, also while money moves: past balances, many balances, statements."""

import http.client
import itertools
import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.cluster import Cluster
from tests.contract.http import Town, client, is_problem, placeless, visit, wish


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


class Movers:
    """Threads that move small amounts between accounts through all coordinators."""

    def __init__(self, town: Town, accounts: list[str]) -> None:
        self._town = town
        self._accounts = accounts
        self._stop = threading.Event()
        self.answers: Counter[int] = Counter()

    def _move(self, seed: int) -> None:
        chance = random.Random(seed)
        with client(self._town.urls[seed % 2]) as api:
            while not self._stop.is_set():
                body = wish(*chance.sample(self._accounts, 2), chance.randint(1, 5))
                headers = {"Idempotency-Key": uuid.uuid4().hex}
                self.answers[api.post("/v1/transfers", json=body, headers=headers).status_code] += 1

    @contextmanager
    def moving(self, count: int = 4) -> Iterator[None]:
        threads = [threading.Thread(target=self._move, args=(seed,)) for seed in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


def eight_accounts(town: Town) -> list[str]:
    """Accounts on both shards with 100 in all."""
    return [town.account(("s1", "s2")[n % 2], funds=13 if n < 4 else 12) for n in range(8)]


# --- many balances --------------------------------------------------------------------------


def test_balances_in_the_order_asked_for(town: Town) -> None:
    alice, bob = town.pair(funds=7)
    asked = [bob, alice, bob]
    answer = town.api.get("/v1/balances", params={"account": asked})
    assert placeless(answer.json()) == {
        "balances": [
            {"account": name, "currency": "EUR", "balance": funds, "available": funds}
            for name, funds in zip(asked, (0, 7, 0), strict=True)
        ]
    }


def test_balances_of_an_unknown_account(town: Town) -> None:
    alice, nobody = town.account(), town.name()
    answer = town.api.get("/v1/balances", params={"account": [alice, nobody]})
    is_problem(answer, 404, "account-not-found", nobody)


@pytest.mark.parametrize("count", [0, 1001])
def test_too_few_and_too_many_balances(town: Town, count: int) -> None:
    answer = town.api.get("/v1/balances", params={"account": ["a"] * count})
    is_problem(answer, 400, "malformed", str(count))


@pytest.mark.parametrize("length", [14, 64])
def test_balances_of_a_thousand_accounts(town: Town, length: int) -> None:
    names = [f"{town.prefix}{n:0{length - len(town.prefix)}d}" for n in range(1000)]
    accounts = [{"id": name, "currency": "EUR"} for name in names]
    town.api.post("/v1/accounts/batch", json={"accounts": accounts})
    # Not by httpx, which does not send an address of this length.
    address = httpx.URL(town.urls[0])
    connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=30)
    with closing(connection):
        connection.request("GET", "/v1/balances?account=" + "&account=".join(names))
        answer = connection.getresponse()
        text = answer.read()
    assert answer.status == 200, text[:300]
    assert [balance["account"] for balance in json.loads(text)["balances"]] == names


def test_every_read_of_balances_adds_up(town: Town) -> None:
    accounts = eight_accounts(town)
    movers = Movers(town, accounts)
    codes: Counter[int] = Counter()
    seen: set[tuple[int, ...]] = set()
    turn = itertools.cycle([town.api, town.other])
    give_up = time.monotonic() + 60
    with movers.moving():
        # Money has to move between many reads.
        while codes[200] < 60 or len(seen) < 30 or movers.answers[201] < 250:
            assert time.monotonic() < give_up, (codes, len(seen), movers.answers)
            answer = next(turn).get("/v1/balances", params={"account": accounts})
            codes[answer.status_code] += 1
            if answer.status_code == 200:
                balances = tuple(item["balance"] for item in answer.json()["balances"])
                assert sum(balances) == 100
                assert min(balances) >= 0
                seen.add(balances)
    assert movers.answers.keys() <= {201, 422}, movers.answers
    assert codes.keys() <= {200, 503}


# --- past balances --------------------------------------------------------------------------


def at(town: Town, account: str, moment: str, api: httpx.Client | None = None) -> httpx.Response:
    return (api or town.api).get(f"/v1/accounts/{account}/balance", params={"at": moment})


def text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_the_balance_at_a_time_is_final(town: Town) -> None:
    """Once told it stays, though transfers follow at once, through any coordinator."""
    alice, bob = town.pair(funds=100)
    told: list[tuple[str, int]] = []
    for turn in range(20):
        first, second = (town.api, town.other)[:: 1 if turn % 2 else -1]
        moment = text(datetime.now(UTC))
        answer = at(town, alice, moment, first)
        assert placeless(answer.json()) == {
            "account": alice,
            "currency": "EUR",
            "balance": 100 - turn,
            "at": moment,
        }
        told.append((moment, 100 - turn))
        assert town.transfer(alice, bob, 1, api=second).status_code == 201
    for moment, balance in told:
        for api in (town.api, town.other):
            assert at(town, alice, moment, api).json()["balance"] == balance


def test_the_balance_at_the_time_of_an_entry_includes_it(town: Town) -> None:
    alice, bob = town.pair(funds=100)
    for _ in range(5):
        town.transfer(alice, bob, 10)
    for entry in town.api.get(f"/v1/accounts/{alice}/entries").json()["entries"]:
        moment = datetime.fromisoformat(entry["created_at"])
        before = moment - timedelta(microseconds=1)
        assert at(town, alice, entry["created_at"]).json()["balance"] == entry["balance"]
        lower = at(town, alice, text(before)).json()["balance"]
        assert lower == entry["balance"] - entry["amount"]


def test_the_balance_now_and_before_there_was_an_account(town: Town) -> None:
    alice = town.account(funds=5)
    now = town.api.get(f"/v1/accounts/{alice}/balance").json()
    assert now["balance"] == 5
    assert placeless(at(town, alice, now["at"]).json()) == placeless(now)
    assert at(town, alice, "2020-01-01T00:00:00Z").json()["balance"] == 0


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05.000000Z"),
        ("2020-01-02T03:04:05.5Z", "2020-01-02T03:04:05.500000Z"),
        ("2020-01-02T03:04:05.123456789Z", "2020-01-02T03:04:05.123456Z"),
        ("2020-01-02T03:04:05+01:00", "2020-01-02T02:04:05.000000Z"),
        ("2020-01-02t03:04:05z", "2020-01-02T03:04:05.000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("0999-12-31T23:59:59-23:59", "1000-01-01T23:58:59.000000Z"),
    ],
)
def test_times_that_are_understood(town: Town, moment: str, shown: str) -> None:
    assert at(town, town.account(), moment).json()["at"] == shown


@pytest.mark.parametrize(
    "moment",
    [
        *("", "x", "0", "1700000000", "2020-01-01", "2020-01-01T00:00:00", "2020-13-01T00:00:00Z"),
        *("2020-01-01T25:00:00Z", "2020-W01-1T00:00:00Z", "20200101T000000Z", "2020-01-01T00Z"),
        *("2020-01-01x00:00:00Z", "2020-01-01T00:00:00,5Z", "٢٠٢٠-01-01T00:00:00Z"),
        *("0001-01-01T00:00:00+01:00", "0000-01-01T00:00:00Z", "2020-01-01T00:00:00Z\n"),
        *("2020-01-01T00:00:00 01:00", "2020-01-01T00:00:00+99:99", "-2020-01-01T00:00:00Z"),
    ],
)
def test_times_that_are_not_understood(town: Town, moment: str) -> None:
    with town.unchanged():
        is_problem(at(town, "nobody", moment), 400, "malformed", "at is")


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59", None])
def test_a_time_to_come_is_refused(town: Town, moment: str | None) -> None:
    alice = town.account()
    soon = text(datetime.now(UTC) + timedelta(minutes=1))
    with town.unchanged():
        is_problem(at(town, alice, moment or soon), 400, "malformed", "at is")


# --- statements while money moves -----------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 7])
def test_a_statement_is_paged_while_money_moves(town: Town, limit: int) -> None:
    accounts = eight_accounts(town)
    account, seen, cursor = accounts[0], [], None
    movers = Movers(town, accounts)
    give_up = time.monotonic() + 60
    with movers.moving(2):
        while len(seen) < 40:
            assert time.monotonic() < give_up, f"only {len(seen)} entries"
            params = {"limit": limit} | ({"after": cursor} if cursor else {})
            page = town.api.get(f"/v1/accounts/{account}/entries", params=params).json()
            if page["next"] is None:
                # The end, for now: what has come meanwhile is on the page that is asked again.
                continue
            seen += page["entries"]
            cursor = page["next"]
    whole = town.api.get(f"/v1/accounts/{account}/entries", params={"limit": 1000}).json()
    assert seen == whole["entries"][: len(seen)]
    for one, following in itertools.pairwise(whole["entries"]):
        assert following["balance"] == one["balance"] + following["amount"]
        assert following["created_at"] >= one["created_at"]
    transfers = [entry["transfer_id"] for entry in whole["entries"]]
    assert len(transfers) == len(set(transfers))
