"""A clock that jumps: nothing is stamped by it, and whoever has it says so. Accounts that were hit
before hand their stamps on to nobody.
"""

import logging
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

import shard_client.shard
from coordinator.engine.in_flight import InFlight, begin, begin_of
from coordinator.engine.participants import LocalTransactions
from coordinator.engine.tickets import Latch, Ticket
from coordinator.http.app import create_app
from coordinator.telemetry.tracing import GroupTrace
from coordinator.wiring import WorkerProcess
from ledger.ids import transfer_id
from ledger.model import Transfer
from shard_client.connection import ShardConnection
from shard_client.errors import ClockAhead, ShardUnavailable
from shard_client.xid import Gtrid
from tests.cluster import Cluster, wait_until
from tests.contract.http import Town, visit, wish

HOUR_S, YEAR_S = 3600, 365 * 86_400


class Clock:
    """The module `time` as the coordinator in this process sees it."""

    def __init__(self) -> None:
        self.jump_s = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return time.time() + self.jump_s

    def time_ns(self) -> int:
        return time.time_ns() + self.jump_s * 10**9


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return request.getfixturevalue(f"{request.param}_cluster")


@pytest.fixture(scope="module")
def process(cluster: Cluster) -> Iterator[WorkerProcess]:
    with cluster.process() as running:
        yield running


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


@pytest.fixture
def clock(process: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The coordinator's clock; it is right again afterwards, and the coordinator ready."""
    made = Clock()
    for name, module in list(sys.modules.items()):
        if name.startswith("coordinator.") and getattr(module, "time", None) is time:
            monkeypatch.setattr(module, "time", made)
    yield made
    made.jump_s = 0
    wait_until(lambda: not process.reasons_not_ready(), 20, "it is not ready again")


@pytest.fixture
def http(process: WorkerProcess) -> FlaskClient:
    made = create_app(process).test_client()
    made.environ_base["HTTP_HOST"] = "127.0.0.1"
    return made


def send(http: FlaskClient, source: str, destination: str, key: str, **more: Any) -> Any:
    body = wish(source, destination, 5) | more
    return http.post("/v1/transfers", json=body, headers={"Idempotency-Key": key})


def state(town: Town, *accounts: str) -> list[tuple]:
    """All that stands of accounts on their shards."""
    found = []
    for name in accounts:
        for table, column in (("accounts", "id"), ("entries", "account_id"), ("phases", "source")):
            statement = f"SELECT * FROM {table} WHERE {column} = '{name}'"
            found += town.rows(town.shard_of(name), statement)
    return found


# --- it jumps -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "jump_s"),
    [("xa", HOUR_S), ("xa", 80 * YEAR_S), ("tcc", HOUR_S), ("saga", YEAR_S)],
)
@pytest.mark.parametrize("is_across", [True, False], ids=["across", "within"])
def test_nothing_is_stamped_by_a_clock_that_is_ahead(
    town: Town, http: FlaskClient, clock: Clock, jump_s: int, protocol: str, is_across: bool
) -> None:
    alice, bob = town.account("s1", funds=100), town.account("s2" if is_across else "s1")
    before, key = state(town, alice, bob), uuid.uuid4().hex
    clock.jump_s = jump_s
    answer = send(http, alice, bob, key, protocol=protocol)
    assert answer.status_code == 503, answer.text
    assert answer.json["type"].endswith("/shard-unavailable")
    assert "clock" in answer.json["detail"]
    assert "nothing has happened" in answer.json["detail"]
    assert state(town, alice, bob) == before
    clock.jump_s = 0
    again = send(http, alice, bob, key, protocol=protocol)
    assert again.status_code == 201, again.text
    stamps = [
        row[0] for row in town.rows("s1", f"SELECT stamp_floor FROM accounts WHERE id='{alice}'")
    ]
    assert stamps[0] < (time.time() + 1) * 1e6


def test_no_account_is_opened_or_changed_by_it(town: Town, http: FlaskClient, clock: Clock) -> None:
    alice, new = town.account("s1"), town.name("s2")
    before = state(town, alice)
    clock.jump_s = YEAR_S
    opened = http.put(f"/v1/accounts/{new}", json={"currency": "EUR"})
    changed = http.patch(f"/v1/accounts/{alice}", json={"status": "frozen"})
    balance = http.get(f"/v1/accounts/{alice}/balance")
    for answer in (opened, changed, balance):
        assert answer.status_code == 503, answer.text
        assert "clock" in answer.json["detail"]
    assert state(town, alice, new) == before


def test_whoever_has_it_says_so_and_keeps_the_shards(
    town: Town,
    process: WorkerProcess,
    http: FlaskClient,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    alice, bob = town.pair(funds=100)
    # It is told at most once a second.
    process.shards.clocks._told_at = 0.0
    with caplog.at_level(logging.ERROR):
        clock.jump_s = YEAR_S
        assert send(http, alice, bob, uuid.uuid4().hex).status_code == 503
        wait_until(lambda: process.shards.clocks.trouble, 10, "nobody looks at clocks")
    (trouble,) = process.reasons_not_ready()
    assert "this machine's clock is 31536000.0 s ahead of those of shards s1, s2" in trouble
    assert http.get("/readyz").status_code == 503
    assert all(shard.is_available for shard in process.shards.all())
    events = {getattr(record, "event", "") for record in caplog.records}
    assert {"clock.ahead", "clock.wrong"} <= events
    assert process.metrics.stamps_refused._value.get() > 0


def test_the_shard_that_has_it_is_left_alone(
    process: WorkerProcess, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clocks against one: it is named, and comes back when its clock is right."""
    right = shard_client.shard.clock_offset_s

    def read(connection: ShardConnection, deadline: float) -> float:
        return right(connection, deadline) + HOUR_S * (connection.shard == "s2")

    odd = process.shards["s2"]
    with monkeypatch.context() as patch:
        patch.setattr("shard_client.shard.clock_offset_s", read)
        patch.setattr("shard_client.checks.clock_offset_s", read)
        odd.check_again()
        wait_until(lambda: not odd.is_available, 10, "nobody looks at clocks")
        assert "3600" in (odd.unavailable_because or "")
        assert "ahead of most others; set it by NTP" in (odd.unavailable_because or "")
        with pytest.raises(ShardUnavailable, match="its clock is"):
            odd.admit()
        assert process.shards["s1"].is_available
        assert process.shards.clocks.trouble is None
    wait_until(lambda: odd.is_available, 10, "it does not come back")


def test_a_clock_that_is_behind_is_told_too(process: WorkerProcess, clock: Clock) -> None:
    clock.jump_s = -YEAR_S
    wait_until(lambda: process.shards.clocks.trouble, 10, "nobody looks at clocks")
    assert "behind" in (process.shards.clocks.trouble or "")
    assert all(shard.is_available for shard in process.shards.all())


@pytest.mark.parametrize("protocol", ["tcc", "saga"])
def test_what_has_begun_waits_for_the_clock_at_each_step(
    town: Town, process: WorkerProcess, clock: Clock, protocol: str
) -> None:
    alice, bob = town.pair(funds=100)
    now, key = time.time_ns() // 1000, uuid.uuid4().hex
    gtrid = process._gtrids.gtrid("s1")._replace(cluster="another")
    id_ = transfer_id(alice, key)
    transfer = Transfer(id_, key, alice, bob, 5, "EUR", None, protocol, now)
    flight = begin_of(Ticket(transfer, 0.0, Latch(1), None), str(gtrid), 0.0)
    process.shards.admit_all()
    _begin(process, flight)
    steps = 0
    while not flight.is_done:
        before = state(town, alice, bob)
        clock.jump_s = YEAR_S
        (error,) = process._local.go_on(gtrid, [flight], GroupTrace()).values()
        assert isinstance(error, ClockAhead)
        assert state(town, alice, bob) == before
        clock.jump_s = 0
        # Its answer was not waited for: how far it is, is looked up.
        while flight.error or state(town, alice, bob) == before:
            assert process._local.go_on(gtrid, [flight], GroupTrace()) == {}
        steps += 1
    assert steps >= 2
    rows = town.rows("s2", f"SELECT stamp FROM entries WHERE account_id = '{bob}'")
    assert len(rows) == 1
    assert rows[0][0] < (time.time() + 1) * 1e6


def _begin(process: WorkerProcess, flight: InFlight) -> None:
    gtrid = Gtrid.parse(flight.gtrid)
    assert gtrid is not None
    parties = LocalTransactions(process.shards, gtrid, process.metrics, GroupTrace())
    with parties.used():
        found = process._local.lock(parties, {"s1": [flight]})["s1"]
        now = time.time_ns() // 1000
        visited, _ = begin([flight], found, now, now + 60_000_000)
        assert process._local.commit(parties, {"s1": visited}) == {"s1"}
        process._local.apply(visited)


# --- accounts that were hit -----------------------------------------------------------------


class Hit:
    """Two accounts on different shards whose last transfer is stamped years ahead."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.alice, self.bob = town.pair(funds=100)
        self.until = time.time_ns() // 1000 + 3 * YEAR_S * 10**6
        for name in (self.alice, self.bob):
            update = f"UPDATE accounts SET stamp_floor = {self.until} WHERE id = '{name}'"
            town.rows(town.shard_of(name), update)
        # Between those that have come that far already nothing is handed on.
        answer = town.transfer(self.alice, self.bob, 10)
        assert answer.status_code == 201, answer.text
        assert answer.json()["committed_at"].startswith(f"{datetime.now(UTC).year + 3}")

    def floor(self, name: str) -> int:
        rows = self.town.rows(
            self.town.shard_of(name), f"SELECT stamp_floor FROM accounts WHERE id = '{name}'"
        )
        return int(rows[0][0])


@pytest.fixture
def hit(town: Town) -> Hit:
    return Hit(town)


@pytest.mark.parametrize("shard", ["s1", "s2"])
@pytest.mark.parametrize("is_source", [True, False], ids=["from", "to"])
def test_a_stamp_is_not_handed_on(hit: Hit, shard: str, is_source: bool) -> None:
    carol = hit.town.account(shard, funds=50)
    floor = hit.floor(carol)
    pair = (hit.alice, carol) if is_source else (carol, hit.alice)
    answer = hit.town.transfer(*pair, 5)
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"].endswith("/shard-unavailable")
    assert f"account {hit.alice} has come to" in answer.json()["detail"]
    assert hit.floor(carol) == floor
    # The others of its batch go through.
    town, dave = hit.town, hit.town.account("s1")
    items = [
        wish(*pair, 5) | {"idempotency_key": "hit"},
        wish(carol, dave, 5) | {"idempotency_key": "good"},
    ]
    results = town.api.post("/v1/transfers/batch", json={"transfers": items}).json()["results"]
    assert [result["status"] for result in results] == ["failed", "committed"]


def test_the_balance_of_now_is_right_or_refused(hit: Hit) -> None:
    api, carol = hit.town.api, hit.town.account("s1", funds=50)
    now = api.get(f"/v1/accounts/{hit.alice}/balance")
    assert now.status_code == 503
    assert "is stamped" in now.json()["detail"]
    assert api.get(f"/v1/accounts/{hit.alice}").json()["balance"] == 90
    assert api.get(f"/v1/accounts/{carol}/balance").json()["balance"] == 50
    early = api.get(f"/v1/accounts/{hit.alice}/balance", params={"at": "2020-01-01T00:00:00Z"})
    assert early.json()["balance"] == 0


def test_a_floor_without_entries_leaves_the_balance_right(town: Town) -> None:
    alice = town.account("s1", funds=30)
    far = time.time_ns() // 1000 + YEAR_S * 10**6
    town.rows("s1", f"UPDATE accounts SET stamp_floor = {far} WHERE id = '{alice}'")
    assert town.api.get(f"/v1/accounts/{alice}/balance").json()["balance"] == 30


@pytest.mark.parametrize("protocol", ["tcc", "saga"])
def test_money_leaves_and_the_account_is_closed(hit: Hit, protocol: str) -> None:
    """By the protocols whose two sides have times of their own, to another shard."""
    carol = hit.town.account("s2")
    answer = hit.town.transfer(hit.alice, carol, 90, protocol=protocol)
    assert answer.status_code == 201, answer.text
    assert hit.floor(carol) < (time.time() + 1) * 1e6
    assert hit.floor(hit.alice) == hit.until
    closed = hit.town.api.patch(f"/v1/accounts/{hit.alice}", json={"status": "closed"})
    assert closed.status_code == 200, closed.text
