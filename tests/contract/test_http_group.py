"""What is special to a ledger group in the HTTP contract: two-phase commit is refused by name, the
key of a transfer that waits for the node is in use, without a read side money moves and is not
shown, and answers name the frame that they have seen.
"""

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from coordinator.auditing.places import places_of
from coordinator.http.schemas import parse_time, time_text
from coordinator.services.accounts import Accounts
from eventstore.wire.questions import FIND_MAX
from ledger.ids import transfer_id
from shard_client.errors import ConnectionLost, Hurried
from shard_client.records import Since
from tandem.cli.trial_balance import trial_balance
from tandem.local.errors import LocalError
from tests.cluster import Cluster, wait_until
from tests.contract.http import Town, client, is_problem, item, results, visit, wish
from tests.contract.lone import paused

NOT_OFFERED = "protocol-not-offered"
IN_USE, REUSED = "idempotency-key-in-use", "idempotency-key-reused"


@pytest.fixture
def town(eventstore_cluster: Cluster) -> Town:
    return visit(eventstore_cluster)


# --- two-phase commit -----------------------------------------------------------------------


def test_two_phase_commit_is_refused_by_name_and_the_key_stays_free(town: Town) -> None:
    alice, bob = town.pair(funds=10)
    with town.unchanged():
        for api in (town.api, town.other):
            answer = town.transfer(alice, bob, 4, "k", protocol="xa", api=api)
            problem = is_problem(answer, 400, NOT_OFFERED, "xa", "s1", "key is not used")
        is_problem(town.api.get(f"/v1/transfers/{problem['transfer_id']}"), 404, "not-found")
    answer = town.transfer(alice, bob, 5, "k")
    assert answer.status_code == 201
    assert "Idempotent-Replayed" not in answer.headers


def test_two_phase_commit_in_a_batch_concerns_its_items_alone(town: Town) -> None:
    alice, bob = town.pair(funds=10)
    batch = [
        item(alice, bob, 1, "a"),
        item(alice, bob, 2, "b") | {"protocol": "xa"},
        item(alice, bob, 3, "c") | {"protocol": "saga"},
    ]
    for is_replay in (False, True):
        found = results(town.api.post("/v1/transfers/batch", json={"transfers": batch}))
        assert [(r["status"], r.get("reason")) for r in found] == [
            ("committed", None),
            ("rejected", NOT_OFFERED),
            ("committed", None),
        ]
        assert [r.get("replayed", False) for r in found] == [is_replay, False, is_replay]
        assert "key is not used" in found[1]["detail"]
    assert (town.balance(alice), town.balance(bob)) == (6, 4)


def test_a_large_batch_by_two_phase_commit_is_refused_and_stops_nobody(town: Town) -> None:
    """More than the node looks for with one question."""
    alice, bob = town.pair(funds=10)
    batch = [item(alice, bob, 1, f"{n}") | {"protocol": "xa"} for n in range(FIND_MAX + 1)]
    found = results(town.api.post("/v1/transfers/batch", json={"transfers": batch}))
    assert {(r["status"], r.get("reason")) for r in found} == {("rejected", NOT_OFFERED)}
    assert town.transfer(alice, bob, 5, "k").status_code == 201


@pytest.mark.parametrize("amount", [5, 50], ids=["committed", "refused"])
def test_what_is_recorded_is_answered_though_two_phase_commit_is_named(
    town: Town, amount: int
) -> None:
    alice, bob = town.pair(funds=10)
    first = town.transfer(alice, bob, amount, "k", protocol="saga")
    with town.unchanged():
        for api in (town.api, town.other):
            again = town.transfer(alice, bob, amount, "k", protocol="xa", api=api)
            assert (again.status_code, again.json()) == (first.status_code, first.json())
            assert again.headers["Idempotent-Replayed"] == "true"
            other = town.transfer(alice, bob, amount + 1, "k", protocol="xa", api=api)
            is_problem(other, 422, REUSED, f"amount was {amount}, now {amount + 1}")
            batch = [item(alice, bob, each, "k") | {"protocol": "xa"} for each in (amount, 7)]
            same, else_ = results(api.post("/v1/transfers/batch", json={"transfers": batch}))
            assert same["status"] == ("committed" if amount == 5 else "rejected")
            assert same["replayed"]
            assert (else_["status"], else_["reason"]) == ("rejected", REUSED)
    # Of those that are offered one is not the other, as on every kind of shard.
    is_problem(town.transfer(alice, bob, amount, "k", protocol="tcc"), 422, REUSED, "now tcc")


def test_a_trace_shows_the_entries_of_both_accounts(town: Town) -> None:
    alice, bob = town.pair(funds=10)
    view = town.transfer(alice, bob, 4).json()
    trace = town.other.get(f"/v1/admin/transfers/{view['id']}").json()
    (part,) = trace["parts"]
    assert part["stage"] == "committed"
    paid = {entry["counterparty"]: entry["amount"] for entry in part["entries"]}
    assert paid == {bob: -4, alice: 4}


# --- keys, while the node does not answer ---------------------------------------------------


@pytest.fixture
def hasty(eventstore_cluster: Cluster, tmp_path: Path) -> Iterator[httpx.Client]:
    """A coordinator of one process that gives up after half a second."""
    overrides = {
        "TANDEM_ENGINE_REQUEST_DEADLINE_MS": "500",
        "TANDEM_ENGINE_BATCH_DEADLINE_MS": "500",
        "TANDEM_COORDINATOR_WORKERS": "1",
    }
    with (
        eventstore_cluster.coordinator("hasty", tmp_path / "log", overrides) as running,
        client(running.url) as api,
    ):
        yield api


def test_a_key_is_in_use_while_its_transfer_waits_for_the_node(
    town: Town, eventstore_cluster: Cluster, hasty: httpx.Client
) -> None:
    alice, bob = town.pair(funds=10)
    id_ = transfer_id(alice, "k")
    with paused(eventstore_cluster.pid("s1")):
        first = town.transfer(alice, bob, 4, "k", api=hasty)
        assert (first.status_code, first.json()) == (202, {"id": id_, "status": "pending"})
        for changes in ({"amount": 5}, {"protocol": "saga"}, {"protocol": "xa"}):
            answer = hasty.post(
                "/v1/transfers",
                json=wish(alice, bob, 4) | changes,
                headers={"Idempotency-Key": "k"},
            )
            assert is_problem(answer, 409, IN_USE, alice)["transfer_id"] == id_
    # What was pending comes to its end by itself.
    way = f"/v1/transfers/{id_}"
    wait_until(lambda: hasty.get(way).json()["status"] == "committed", 20, "it does not end")
    is_problem(town.transfer(alice, bob, 5, "k", api=hasty), 422, REUSED, "amount was 4, now 5")
    wait_until(lambda: not troubles(town), 20, "the group is not taken into use again")
    assert town.transfer(alice, bob, 4, "k", api=town.other).json() == hasty.get(way).json()
    assert (town.balance(alice), town.balance(bob)) == (6, 4)


def test_a_batch_that_waits_for_the_node_is_pending_and_its_keys_in_use(
    town: Town, eventstore_cluster: Cluster, hasty: httpx.Client
) -> None:
    """It goes as columns; what is left of it when the node is given up goes item by item."""
    alice, bob = town.pair(funds=10)
    batch = {"transfers": [item(alice, bob, amount, f"{amount}") for amount in (1, 2, 8)]}
    with paused(eventstore_cluster.pid("s1")):
        first = results(hasty.post("/v1/transfers/batch", json=batch))
        assert [one["status"] for one in first] == ["pending"] * 3
        for amount, expected in ((2, 202), (3, 409)):
            answer = town.transfer(alice, bob, amount, "2", api=hasty)
            assert answer.status_code == expected, answer.text
    way = f"/v1/transfers/{first[2]['id']}"
    wait_until(lambda: hasty.get(way).json().get("status") == "rejected", 20, "it does not end")
    wait_until(lambda: not troubles(town), 20, "the group is not taken into use again")
    again = results(town.other.post("/v1/transfers/batch", json=batch))
    assert [one["status"] for one in again] == ["committed", "committed", "rejected"]
    assert all(one["replayed"] for one in again)
    assert (town.balance(alice), town.balance(bob)) == (7, 3)


def troubles(town: Town) -> list[str]:
    """What the processes of both coordinators complain of; asked often, to meet each of them."""
    return [
        trouble
        for url in town.urls
        for _ in range(8)
        for trouble in httpx.get(f"{url}/readyz", verify=False).json()["troubles"]
    ]


# --- without a read side --------------------------------------------------------------------


@contextmanager
def stopped(cluster: Cluster, how: str) -> Iterator[None]:
    """The read side frozen, or killed, for a block."""
    if how == "frozen":
        with paused(cluster.pid("s1-reads")):
            yield
        return
    cluster.local.stop("s1-reads", kill=True)
    try:
        yield
    finally:
        cluster.local.start("s1-reads")


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_without_a_read_side_money_moves_and_is_not_shown(
    town: Town, eventstore_cluster: Cluster, how: str
) -> None:
    alice, bob = town.pair(funds=10)
    poor, new, shut = town.account(funds=1), town.name(), town.account()
    reads = [f"/v1/accounts/{alice}{part}" for part in ("", "/entries", "/balance")]
    reads.append(f"/v1/balances?account={alice}&account={bob}")
    cannot = "read side cannot answer"
    with stopped(eventstore_cluster, how):
        began = time.monotonic()
        for path in reads:
            is_problem(town.api.get(path), 503, "shard-unavailable", cannot, "nothing has happened")
        # A frozen one takes a call's time once, and not each reader's.
        assert time.monotonic() - began < 10
        # What has to do with transfers alone goes on, and nobody takes the group out of use.
        paid = town.transfer(alice, bob, 4, "k")
        assert paid.status_code == 201
        assert town.api.get(f"/v1/transfers/{paid.json()['id']}").json() == paid.json()
        is_problem(town.transfer(poor, bob, 5), 422, "insufficient-funds")
        assert troubles(town) == []
        # What is done, and cannot be shown, is not told as if it were not.
        for answer in (
            town.api.put(f"/v1/accounts/{new}", json={"currency": "EUR"}),
            town.api.patch(f"/v1/accounts/{shut}", json={"status": "closed"}),
        ):
            is_problem(answer, 503, "shard-unavailable", cannot, "is not known")
        refused = town.api.patch(f"/v1/accounts/{poor}", json={"status": "closed"})
        is_problem(refused, 503, "shard-unavailable", cannot, "nothing has happened")
        batch = {"accounts": [{"id": f"{new}-{n}", "currency": "EUR"} for n in range(2)]}
        found = results(town.api.post("/v1/accounts/batch", json=batch))
        assert {(r["status"], r["reason"]) for r in found} == {("failed", "shard-unavailable")}
        assert all("is decided, and cannot be shown" in result["detail"] for result in found)
    # It is the same connections that are used again, or new ones, without a restart of anything.
    wait_until(lambda: town.api.get(reads[0]).status_code == 200, 20, "no reads")
    for api in (town.api, town.other):
        shown = {name: api.get(f"/v1/accounts/{name}").json() for name in (new, shut, poor)}
        assert [shown[name]["status"] for name in (new, shut, poor)] == ["open", "closed", "open"]
        answer = api.get(reads[-1])
        assert [each["balance"] for each in answer.json()["balances"]] == [6, 4]
    again = results(town.api.post("/v1/accounts/batch", json=batch))
    assert [result["status"] for result in again] == ["exists", "exists"]


def test_who_gives_a_node_little_time_takes_it_from_nobody(eventstore_cluster: Cluster) -> None:
    """A question that had no time says nothing of the node; one that had says that it is mute."""
    with eventstore_cluster.process() as process:
        group = process.shards["s1"]
        with paused(eventstore_cluster.pid("s1")):
            with pytest.raises(Hurried):
                group.reads.list_prepared(time.monotonic() + 0.05)
            assert group.is_available
            with pytest.raises(ConnectionLost):
                group.reads.list_prepared(time.monotonic() + 1)
            wait_until(lambda: not group.is_available, 10, "a mute node is used still")


# --- which frame of the list an answer has seen ----------------------------------------------


def test_answers_name_the_frame_that_they_have_seen(town: Town) -> None:
    alice, bob = town.pair(funds=10)
    paid = town.transfer(alice, bob, 4, "k")
    refused = is_problem(town.transfer(alice, bob, 40, "dear"), 422, "insufficient-funds")
    seq, committed_at = paid.json()["seq"], paid.json()["committed_at"]
    # A retry has the seq of the first.
    assert town.transfer(alice, bob, 4, "k", api=town.other).json() == paid.json()
    assert town.other.get(f"/v1/transfers/{paid.json()['id']}").json() == paid.json()
    assert refused["seq"] > seq
    told = results(town.api.post("/v1/transfers/batch", json={"transfers": _kinds(alice, bob)}))
    assert [("seq" in one, one["status"]) for one in told] == [
        (True, "committed"),
        (True, "committed"),
        (True, "rejected"),
        # Not recorded, so in no frame that could be asked for.
        (False, "rejected"),
    ]
    assert told[0]["seq"] == seq
    for path in reads_of(alice, bob):
        for api in (town.api, town.other):
            as_of = api.get(path).json()["as_of"]
            assert as_of["seq"] >= told[1]["seq"] > refused["seq"]
            assert as_of["time"] > committed_at


def _kinds(alice: str, bob: str) -> list[dict[str, Any]]:
    return [
        item(alice, bob, 4, "k"),
        item(alice, bob, 1, "new"),
        item(alice, bob, 40, "dear-2"),
        item(f"{alice}-absent", bob, 1, "k"),
    ]


def reads_of(alice: str, bob: str) -> list[str]:
    return [
        f"/v1/accounts/{alice}",
        f"/v1/accounts/{alice}/entries",
        f"/v1/accounts/{alice}/balance",
        f"/v1/balances?account={alice}&account={bob}",
    ]


def _with(path: str, min_seq: object) -> str:
    return f"{path}{'&' if '?' in path else '?'}min_seq={min_seq}"


def test_a_read_waits_for_a_frame(town: Town) -> None:
    alice, bob = town.pair(funds=10)
    seq = town.transfer(alice, bob, 4).json()["seq"]
    for path in reads_of(alice, bob):
        answer = town.other.get(_with(path, seq))
        assert answer.status_code == 200
        assert answer.json()["as_of"]["seq"] >= seq
        is_problem(town.api.get(_with(path, "")), 400, "malformed", "min_seq")
        is_problem(town.api.get(_with(path, "-1")), 400, "malformed", "min_seq")
        is_problem(town.api.get(_with(path, "1.0")), 400, "malformed", "min_seq")
    is_problem(town.api.get(_with(reads_of(alice, bob)[0], 10**15)), 400, "malformed", "min_seq")
    began = time.monotonic()
    answer = town.api.get(_with(reads_of(alice, bob)[1], 10**12))
    is_problem(answer, 409, "not-yet", f"frame {10**12} was not seen", "nothing has happened")
    assert time.monotonic() - began < 4


def test_a_frame_that_is_yet_to_come_is_waited_for(town: Town) -> None:
    alice, bob = town.pair(funds=10)
    path, seq = f"/v1/accounts/{bob}", town.transfer(alice, bob, 1).json()["seq"]
    with ThreadPoolExecutor(1) as pool:
        # At most one frame for each of them, and an empty one behind it.
        waiting = pool.submit(lambda: town.other.get(_with(path, seq + 4)).json())
        for _ in range(4):
            last = town.transfer(alice, bob, 1).json()["seq"]
        assert last >= seq + 4
        assert waiting.result(10)["as_of"]["seq"] >= seq + 4


def test_a_frame_of_another_list_is_never_seen(town: Town) -> None:
    """The id of an event has a part of its frame's hash."""
    alice, bob = town.pair(funds=10)
    seq = town.transfer(alice, bob, 4).json()["seq"]
    with httpx.stream("GET", f"{town.urls[0]}/v1/events?after={seq - 1}", timeout=10) as events:
        line = next(line for line in events.iter_lines() if line.startswith("id: "))
    id_ = line.removeprefix("id: ")
    frame, command, check = id_.split("-")
    assert int(frame) == seq
    other = f"{frame}-{command}-{int(check, 16) ^ 1:08x}"
    for path in reads_of(alice, bob):
        assert town.other.get(_with(path, id_)).status_code == 200
        is_problem(town.other.get(_with(path, other)), 409, "not-in-list", f"frame {seq}")


def test_what_was_seen_is_answered_while_the_node_is_mute(
    town: Town, eventstore_cluster: Cluster
) -> None:
    """Without `min_seq` nobody can say whether it is as new as all answers before."""
    alice, bob = town.pair(funds=10)
    seq = town.transfer(alice, bob, 4).json()["seq"]
    path = f"/v1/accounts/{bob}"
    with eventstore_cluster.process() as process:
        accounts = Accounts(process.shards)
        with paused(eventstore_cluster.pid("s1")):
            found = accounts.get(bob, Since(seq))
            assert found is not None
            assert found[0].account.balance == 4
    assert town.api.get(path).json()["balance"] == 4


# --- the trial balance ------------------------------------------------------------------------


def test_the_trial_balance_is_that_of_the_entries(town: Town, eventstore_cluster: Cluster) -> None:
    """In a currency that nobody else has: all its entries are read by themselves, as an export
    reads them, and summed up. In all others the books balance.
    """
    currency = f"T{uuid.uuid4().hex[:7].upper()}"
    alice, bob = (town.account(currency=currency) for _ in "ab")
    for amount in (100, 2**62, 2**62):
        town.fund(alice, amount, currency)
        paid = town.transfer(alice, bob, amount - 50, currency=currency).json()
        if amount > 100:
            refund = town.transfer(bob, town.issuer(currency), amount - 50, currency=currency)
            assert refund.status_code == 201
    late = town.account(currency=currency)
    names = [alice, bob, late, town.issuer(currency)]
    opened = [parse_time(town.api.get(f"/v1/accounts/{n}").json()["created_at"]) for n in names]
    with closing(places_of(eventstore_cluster.settings)[1]["s1"].books()) as books:
        entries = [entry for name in names for entry in books.entries(name)]

    def expected(at: int) -> dict[str, Any]:
        amounts = [entry.amount for entry in entries if entry.stamp <= at]
        given, taken = (sum(max(sign * each, 0) for each in amounts) for sign in (1, -1))
        sums = {"debits": taken, "credits": given, "balances": 0}
        return {"currency": currency, "accounts": sum(o <= at for o in opened), **sums}

    for stamp in {entry.stamp for entry in entries} | set(opened):
        for at in (stamp - 1, stamp):
            answer = town.other.get(f"/v1/trial-balance?at={time_text(at)}").json()
            assert answer["at"] == time_text(at)
            assert answer["as_of"]["seq"] >= paid["seq"]
            for each in answer["currencies"]:
                assert (each["debits"], each["balances"]) == (each["credits"], 0)
            own = [each for each in answer["currencies"] if each["currency"] == currency]
            assert own == ([expected(at)] if expected(at)["accounts"] else [])
    latest = town.other.get(f"/v1/trial-balance?min_seq={paid['seq']}").json()
    assert latest["at"] == latest["as_of"]["time"] > paid["committed_at"]
    assert expected(parse_time(latest["at"])) in latest["currencies"]
    assert expected(parse_time(latest["at"]))["debits"] > 2**63
    assert town.api.get("/v1/trial-balance?at=1969-07-20T20:17:40Z").json()["currencies"] == []
    for query in ("at=3000-01-01T00:00:00Z", "at=today"):
        is_problem(town.api.get(f"/v1/trial-balance?{query}"), 400, "malformed", "at is")
    is_problem(town.api.get(f"/v1/trial-balance?min_seq={10**12}"), 409, "not-yet")
    shown = CliRunner().invoke(
        trial_balance, ["--url", town.urls[0], "--at", latest["at"], "--json"]
    )
    assert json.loads(shown.stdout)["currencies"] == latest["currencies"]
    shown = CliRunner().invoke(trial_balance, ["--url", town.urls[0]])
    sums = f"{expected(parse_time(latest['at']))['debits']:,} {currency}"
    assert (shown.exit_code, shown.output.count(sums)) == (0, 2)
    refused = CliRunner().invoke(trial_balance, ["--url", town.urls[0], "--at", "today"])
    assert (refused.exit_code, "at is" in refused.output) == (1, True)


# --- made anew ----------------------------------------------------------------------------------


def test_a_read_side_is_made_anew_while_money_moves(
    town: Town, eventstore_cluster: Cluster
) -> None:
    local = eventstore_cluster.local
    alice, bob = town.pair(funds=10**6)
    seq = town.transfer(alice, bob, 1).json()["seq"]
    told = town.api.get(f"/v1/accounts/{alice}/entries").json()["entries"]
    for name in ("s1", "zk"):
        with pytest.raises(LocalError, match="is no read side"):
            local.rebuild(name)
    with ThreadPoolExecutor(1) as pool:
        rebuilt = pool.submit(local.rebuild, "s1-reads")
        while not rebuilt.done():
            assert town.transfer(alice, bob, 1).status_code == 201
        rebuilt.result()
    path = f"/v1/accounts/{alice}/entries?min_seq={seq}"
    wait_until(lambda: town.other.get(path).status_code == 200, 30, "no reads")
    paid = town.api.get(f"/v1/accounts/{alice}/entries?limit=1000").json()["entries"]
    assert paid[: len(told)] == told
    assert [entry["balance"] for entry in paid] == list(range(10**6, 10**6 - len(paid), -1))
