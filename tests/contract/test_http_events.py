"""What becomes durable in a ledger group, as server-sent events: all of it, in order, once."""

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.cluster import Cluster, Coordinator
from tests.contract.http import client, is_problem

PATIENCE_S = 30


class Told(NamedTuple):
    """An event as a client reads it."""

    id: str
    kind: str
    data: dict[str, Any]


@contextmanager
def lines(url: str, headers: Mapping[str, str] = {}, **query: str) -> Iterator[Iterator[str]]:
    with (
        httpx.Client(timeout=PATIENCE_S, trust_env=False) as http,
        http.stream("GET", f"{url}/v1/events", params=query, headers=headers) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield answer.iter_lines()


def events(stream: Iterator[str]) -> Iterator[Told]:
    """What a stream tells, as long as somebody asks for more."""
    fields: dict[str, str] = {}
    for line in stream:
        if not line:
            if "data" in fields:
                yield Told(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def read(url: str, until: str, headers: Mapping[str, str] = {}, **query: str) -> list[Told]:
    """All events up to the one that has this transfer's id."""
    found = []
    with lines(url, headers, **query) as stream:
        for told in events(stream):
            found.append(told)
            if told.data.get("id") == until:
                return found
    raise AssertionError(f"the stream ended before {until}")


class Payers:
    """Accounts of one test's own, and transfers between them."""

    def __init__(self, cluster: Cluster, api: httpx.Client) -> None:
        self.urls = cluster.urls
        self.api = api
        prefix = f"e{uuid.uuid4().hex[:10]}"
        self.bank, self.alice = f"{prefix}-bank", f"{prefix}-alice"
        self.open(self.bank, None)
        self.open(self.alice, 0)

    def open(self, account: str, limit: int | None) -> None:
        terms = {"currency": "EUR", "overdraft_limit": limit}
        assert self.api.put(f"/v1/accounts/{account}", json=terms).status_code == 201

    def pay(self, source: str, destination: str, amount: int, key: str, **more: Any) -> Any:
        wish = {"source": source, "destination": destination, "amount": amount, "currency": "EUR"}
        headers = {"Idempotency-Key": key}
        return self.api.post("/v1/transfers", json=wish | more, headers=headers)

    def fund(self, key: str) -> str:
        """A transfer that is committed; its id."""
        answer = self.pay(self.bank, self.alice, 1, key)
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["id"]
        return found

    def own(self, told: list[Told]) -> list[Told]:
        """Those that are of these accounts: other tests have theirs."""
        mine = (self.bank, self.alice)
        names = ("account", "source")
        return [each for each in told if any(each.data.get(name) in mine for name in names)]

    def here(self) -> str:
        """The id of the last event up to now."""
        last = self.fund(uuid.uuid4().hex)
        return read(self.urls[0], last)[-1].id


@pytest.fixture
def payers(eventstore_cluster: Cluster) -> Iterator[Payers]:
    with client(eventstore_cluster.urls[0]) as api:
        yield Payers(eventstore_cluster, api)


def test_events_tell_what_has_happened(payers: Payers) -> None:
    alice, bank = payers.alice, payers.bank
    refused = payers.pay(alice, bank, 5, "k0")
    assert refused.status_code == 422
    paid = payers.pay(bank, alice, 7, "k1", metadata={"n": "é"})
    # These change nothing.
    assert payers.pay(bank, alice, 7, "k1", metadata={"n": "é"}).status_code == 201
    assert payers.pay(bank, alice, 8, "k1").status_code == 422
    assert payers.pay("nobody-" + alice, alice, 8, "k2").status_code == 422
    assert payers.api.patch(f"/v1/accounts/{alice}", json={"status": "closed"}).status_code == 409
    frozen = payers.api.patch(f"/v1/accounts/{alice}", json={"status": "frozen"})
    last = payers.fund("k3")
    told = payers.own(read(payers.urls[1], last))
    assert [each.kind for each in told] == [
        "account-opened",
        "account-opened",
        "transfer-rejected",
        "transfer-committed",
        "account-status-set",
        "transfer-committed",
    ]
    opened, _, rejected, committed, changed, _ = (each.data for each in told)
    view = payers.api.get(f"/v1/accounts/{bank}").json()
    assert opened == {
        "account": bank,
        "currency": "EUR",
        "overdraft_limit": None,
        "created_at": view["created_at"],
    }
    for data, key in ((rejected, "k0"), (committed, "k1")):
        shown = payers.api.get(f"/v1/transfers/{data['id']}").json()
        assert data == shown | {"idempotency_key": key}
    assert committed["id"] == paid.json()["id"]
    assert (changed["account"], changed["status"]) == (alice, "frozen")
    assert frozen.status_code == 200


def test_an_event_comes_when_it_happens(payers: Payers) -> None:
    with lines(payers.urls[1], after=payers.here()) as stream:
        told = events(stream)
        for number in range(3):
            transfer = payers.fund(f"now-{number}")
            while (each := next(told)).data.get("id") != transfer:
                pass
            assert each.kind == "transfer-committed"


def test_a_stream_goes_on_from_any_event(payers: Payers) -> None:
    before = payers.here()
    last = [payers.fund(f"k{number}") for number in range(6)][-1]
    whole = read(payers.urls[0], last, after=before)
    assert len({each.id for each in whole}) == len(whole)
    for index, each in enumerate(whole[:-1]):
        url = payers.urls[index % 2]
        rest = whole[index + 1 :]
        assert read(url, last, after=each.id) == rest
        # What a browser sends goes before what its address says.
        assert read(url, last, {"Last-Event-ID": each.id}, after="0") == rest
    first_seq = whole[0].id.partition("-")[0]
    behind = [each for each in whole if each.id.partition("-")[0] != first_seq]
    assert read(payers.urls[0], last, after=first_seq) == behind


def test_any_number_of_reconnects_leaves_nothing_out(payers: Payers) -> None:
    """While transfers run, one stream is never cut and another one after every event."""
    before = payers.here()
    keys = [f"k{number}" for number in range(20)]
    paying = threading.Thread(target=lambda: [payers.fund(key) for key in [*keys, "last"]])
    paying.start()
    found: list[Told] = []
    position = before
    while not (found and found[-1].data.get("idempotency_key") == "last"):
        with lines(payers.urls[len(found) % 2], {"Last-Event-ID": position}) as stream:
            found.append(next(events(stream)))
            position = found[-1].id
    paying.join(PATIENCE_S)
    assert found == read(payers.urls[0], found[-1].data["id"], after=before)
    assert [each.data["idempotency_key"] for each in payers.own(found)] == [*keys, "last"]


def test_a_quiet_stream_says_so_and_where(payers: Payers) -> None:
    with lines(payers.urls[0], after=payers.here()) as stream:
        line = next(each for each in stream if each.startswith(": nothing else up to frame "))
    frame = line.rpartition(" ")[2]
    last = payers.fund("after")
    assert payers.own(read(payers.urls[1], last, after=frame))[-1].data["id"] == last


@pytest.mark.parametrize("end", ["", "-0", "-0-00000000"])
def test_a_position_behind_the_end_is_refused(payers: Payers, end: str) -> None:
    answer = payers.api.get("/v1/events", params={"after": f"999999999{end}"})
    is_problem(answer, 409, "not-in-list", f"999999999{end} is no position")


def test_a_position_of_another_list_is_refused(payers: Payers) -> None:
    seq, index, check = payers.here().split("-")
    other = f"{int(check, 16) ^ 1:08x}"
    for wrong in (f"{seq}-{index}-{other}", f"{seq}-60000", "0-1"):
        answer = payers.api.get("/v1/events", headers={"Last-Event-ID": wrong})
        is_problem(answer, 409, "not-in-list", wrong)


@pytest.mark.parametrize("after", ["x", "-1", "1-", "1-2-3"])
def test_what_is_no_position_is_refused(payers: Payers, after: str) -> None:
    answer = payers.api.get("/v1/events", params={"after": after})
    is_problem(answer, 400, "malformed", "after is")


@pytest.fixture(scope="module")
def small(
    eventstore_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Coordinator]:
    """A coordinator of one worker that gives two streams."""
    log = tmp_path_factory.mktemp("small") / "log"
    overrides = {"TANDEM_COORDINATOR_WORKERS": "1", "TANDEM_COORDINATOR_CONNECTIONS": "8"}
    with eventstore_cluster.coordinator("small", log, overrides) as running:
        yield running


def test_streams_are_bounded(small: Coordinator) -> None:
    with client(small.url) as api, lines(small.url) as one, lines(small.url) as two:
        assert next(one) == next(two) == "retry: 1000"
        is_problem(api.get("/v1/events"), 503, "overloaded", "2 streams")
        assert api.head("/v1/events").status_code == 200
        assert api.get("/readyz").status_code == 200


def test_a_drain_does_not_wait_for_streams(eventstore_cluster: Cluster, tmp_path: Path) -> None:
    overrides = {"TANDEM_COORDINATOR_WORKERS": "1"}
    with (
        eventstore_cluster.coordinator("drained", tmp_path / "log", overrides) as running,
        lines(running.url) as stream,
    ):
        next(stream)
        assert running.process is not None
        begun = time.monotonic()
        running.process.terminate()
        for _ in stream:
            pass
        # By itself it would go on for minutes.
        assert time.monotonic() - begun < 10
        running.process.wait(40)


def test_a_cluster_without_a_ledger_group_has_none(mysql_cluster: Cluster) -> None:
    with client(mysql_cluster.urls[0]) as api:
        is_problem(api.get("/v1/events"), 404, "not-found", "no ledger group")
