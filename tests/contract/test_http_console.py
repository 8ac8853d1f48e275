"""What the console rests on: its page, the stream of events, and a transfer's way."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from coordinator.http import schemas
from coordinator.http.pages import CONSOLE, DOCS
from coordinator.operations.answers import ClusterView
from tests.cluster import Cluster, Coordinator, wait_until
from tests.contract.http import Town, client, execute, in_doubt, is_problem, visit


@pytest.fixture
def town(any_cluster: Cluster) -> Town:
    return visit(any_cluster)


# --- the page -------------------------------------------------------------------------------


def test_the_page_loads_only_what_is_here(mysql_cluster: Cluster) -> None:
    api = visit(mysql_cluster).api
    page = api.get("/console")
    assert page.headers["Content-Type"].startswith("text/html")
    loaded = re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text)
    loaded += [f"/console/{name}" for name in CONSOLE.files]
    for address in loaded:
        part = api.get(address)
        assert part.status_code == 200, address
        assert "http:" not in part.text.replace("http://www.w3.org/2000/svg", "")
        assert "https:" not in part.text
    assert "<script>" not in page.text
    assert not re.search(r"\bon\w+=|style=", page.text)


@pytest.mark.parametrize("name", ["console.html", "__init__.py", "nothing.js", ".."])
def test_nothing_else_of_its_folder_is_served(mysql_cluster: Cluster, name: str) -> None:
    is_problem(visit(mysql_cluster).api.get(f"/console/{name}"), 404, "not-found")


def test_the_page_may_load_nothing_from_elsewhere(mysql_cluster: Cluster) -> None:
    api = visit(mysql_cluster).api
    for name in ("", *(f"/{name}" for name in CONSOLE.files)):
        policy = api.get(f"/console{name}").headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy


@pytest.mark.parametrize("name", ["", *DOCS.files])
def test_nor_may_the_page_of_the_api(mysql_cluster: Cluster, name: str) -> None:
    answer = visit(mysql_cluster).api.get(f"/docs/{name}")
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


# --- events ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(
    mysql_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Coordinator]:
    """A coordinator of one worker that gives two streams."""
    log = tmp_path_factory.mktemp("small") / "log"
    overrides = {"TANDEM_COORDINATOR_WORKERS": "1", "TANDEM_COORDINATOR_CONNECTIONS": "8"}
    with mysql_cluster.coordinator("small", log, overrides) as running:
        yield running


@contextmanager
def stream(url: str) -> Iterator[Iterator[str]]:
    with (
        httpx.Client(timeout=20, trust_env=False) as http,
        http.stream("GET", f"{url}/v1/admin/events") as answer,
    ):
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield answer.iter_lines()


def test_events_tell_what_the_views_tell(small: Coordinator, mysql_cluster: Cluster) -> None:
    with stream(small.url) as lines:
        line = next(line for line in lines if line.startswith("data: "))
        assert next(line for line in lines if line.startswith(": unchanged at "))
    state = msgspec.json.decode(line.removeprefix("data: "), type=schemas.StateView)
    assert (state.coordinator, state.trouble) == ("small", None)
    assert state.cluster is not None
    with client(small.url) as api:
        told = msgspec.convert(api.get("/v1/admin/cluster").json(), ClusterView)
    assert state.cluster.coordinators == told.coordinators
    assert [shard.id for shard in state.cluster.shards] == list(mysql_cluster.settings.shards)
    assert state.totals is not None
    assert {item.role for item in state.totals.lock_hold} == {
        "home",
        "remote",
        "recovered",
        "visit",
    }


def test_streams_are_bounded(small: Coordinator) -> None:
    address = f"{small.url}/v1/admin/events"

    def joins(stack: ExitStack) -> bool:
        """Watch until the stack ends, if there is room: those who have gone still count a while."""
        answer = stack.enter_context(httpx.stream("GET", address, timeout=20, trust_env=False))
        return answer.status_code == 200

    with client(small.url) as api:
        for _ in range(4):
            assert api.head(address).status_code == 200
        for _ in range(2):
            with ExitStack() as stack:
                for _ in range(2):
                    wait_until(lambda stack=stack: joins(stack), 10, "they count on", every_s=0.2)
                is_problem(api.get(address), 503, "overloaded", "2 streams")
                # There are connections left for others.
                assert api.get("/readyz").status_code == 200


def test_a_drain_does_not_wait_for_streams(mysql_cluster: Cluster, tmp_path: Path) -> None:
    overrides = {"TANDEM_COORDINATOR_WORKERS": "1"}
    with (
        mysql_cluster.coordinator("drained", tmp_path / "log", overrides) as running,
        stream(running.url) as lines,
    ):
        next(lines)
        assert running.process is not None
        begun = time.monotonic()
        running.process.terminate()
        for _ in lines:
            pass
        # By itself it would go on for minutes.
        assert time.monotonic() - begun < 10
        running.process.wait(40)


# --- a transfer's way -----------------------------------------------------------------------


def way(api: httpx.Client, transfer: str) -> dict:
    answer = api.get(f"/v1/admin/transfers/{transfer}")
    assert answer.status_code == 200, answer.text
    found: dict = answer.json()
    return found


def stages(told: dict) -> dict[str, str]:
    return {part["shard"]: part["stage"] for part in told["parts"]}


def test_a_transfer_is_followed_to_its_end(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        told = way(town.api, transfer.id)
        assert (told["status"], told["decision"], told["home"]) == ("pending", "none", "s2")
        assert (told["coordinator"], told["decided_at"]) == ("zz", None)
        assert stages(told) == {"s1": "prepared", "s2": "nothing"}
        transfer.decide()
        told = way(town.api, transfer.id)
        assert (told["status"], told["decision"]) == ("committed", "committed")
        assert stages(told) == {"s1": "prepared", "s2": "committed"}
        (credit,) = told["parts"][1]["entries"]
        assert (credit["amount"], credit["balance"]) == (5, 5)
        transfer.commit()
        told = way(town.other, transfer.id)
        assert stages(told) == {"s1": "committed", "s2": "committed"}
        (debit,) = told["parts"][0]["entries"]
        assert (debit["amount"], debit["balance"], debit["counterparty"]) == (-5, 0, bob)
        gtrid = told["gtrid"]
    # What the leader does in the end.
    execute(town.cluster, "s2", f"DELETE FROM decisions WHERE gtrid = '{gtrid}'")
    execute(town.cluster, "s1", f"DELETE FROM markers WHERE gtrid = '{gtrid}'")
    told = way(town.api, transfer.id)
    assert (told["status"], told["decision"]) == ("committed", "collected")
    assert stages(told) == {"s1": "committed", "s2": "committed"}


def test_a_transfer_that_is_rolled_back_leaves_nothing(town: Town) -> None:
    alice, bob = town.pair(funds=5)
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        assert way(town.api, transfer.id)["status"] == "pending"
        transfer.roll_back()
        answer = town.api.get(f"/v1/admin/transfers/{transfer.id}")
        is_problem(answer, 404, "not-found", transfer.id)


def test_a_transfer_across_shards_and_one_within(town: Town) -> None:
    alice, bob = town.pair(funds=50)
    carol = town.account("s1")
    across = way(town.api, town.transfer(alice, bob, 5).json()["id"])
    assert (across["status"], across["decision"]) == ("committed", "committed")
    assert stages(across) == {"s1": "committed", "s2": "committed"}
    within = way(town.other, town.transfer(alice, carol, 7, metadata={"a": 1}).json()["id"])
    assert (within["status"], within["decision"]) == ("committed", "not-kept")
    assert within["metadata"] == {"a": 1}
    (part,) = within["parts"]
    assert part["accounts"] == [alice, carol]
    assert [entry["amount"] for entry in part["entries"]] == [-7, 7]


def test_a_refusal_is_followed(town: Town) -> None:
    alice, bob = town.pair()
    refused = town.transfer(alice, bob, 5)
    told = way(town.api, refused.json()["transfer_id"])
    assert (told["status"], told["reason"]) == ("rejected", "insufficient-funds")
    assert stages(told) == {"s1": "committed"}
    assert told["parts"][0]["entries"] == []


@pytest.mark.parametrize("transfer", ["nothing", "000-" + "0" * 32])
def test_what_is_not_known_is_not_found(town: Town, transfer: str) -> None:
    is_problem(town.api.get(f"/v1/admin/transfers/{transfer}"), 404, "not-found", transfer)
