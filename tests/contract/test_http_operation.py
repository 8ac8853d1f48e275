"""What belongs to every answer: request ids, methods, addresses; and the pages for operators."""

import re
import socket
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.cluster import Cluster, wait_until
from tests.contract.http import Town, client, is_problem, visit


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


def test_healthz(town: Town) -> None:
    for api in (town.api, town.other):
        answer = api.get("/healthz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readyz(town: Town) -> None:
    for api in (town.api, town.other):
        answer = api.get("/readyz")
        assert answer.status_code == 200
        assert answer.json() == {"ready": True, "reasons": [], "troubles": []}


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_the_page_for_people(town: Town, path: str) -> None:
    answer = town.api.get(path, follow_redirects=True)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    # It shows itself without the Internet: all that it loads comes from here.
    loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert loaded
    parts = {a: town.api.get(str(httpx.URL(answer.url).join(a))) for a in loaded}
    assert {a: part.status_code for a, part in parts.items()} == dict.fromkeys(loaded, 200)
    assert '"/openapi.json"' in parts["/docs/docs.js"].text


# --- methods and addresses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/accounts/a", {"GET", "PUT", "PATCH"}),
        ("POST", "/v1/accounts/a", {"GET", "PUT", "PATCH"}),
        ("POST", "/v1/accounts/a/entries", {"GET"}),
        ("DELETE", "/v1/accounts/a/balance", {"GET"}),
        ("POST", "/v1/balances", {"GET"}),
        ("GET", "/v1/transfers", {"POST"}),
        ("PUT", "/v1/transfers", {"POST"}),
        ("PATCH", "/v1/transfers/x", {"GET"}),
        ("DELETE", "/v1/transfers/x", {"GET"}),
        ("PUT", "/v1/transfers/batch", {"POST"}),
        ("DELETE", "/v1/accounts/batch", {"POST"}),
        ("POST", "/healthz", {"GET"}),
        ("POST", "/readyz", {"GET"}),
        ("POST", "/openapi.json", {"GET"}),
        ("POST", "/v1/admin/cluster", {"GET"}),
        ("POST", "/v1/admin/in-doubt", {"GET"}),
        ("GET", "/v1/admin/in-doubt/x/resolve", {"POST"}),
        ("POST", "/v1/admin/transfers/x", {"GET"}),
        ("POST", "/v1/admin/events", {"GET"}),
        ("POST", "/console", {"GET"}),
        ("GET", "/v1/admin/leader/step-down", {"POST"}),
    ],
)
def test_a_wrong_method(town: Town, method: str, path: str, allowed: set[str]) -> None:
    with town.unchanged():
        answer = town.api.request(method, path)
        is_problem(answer, 405, "method-not-allowed", method, path)
        assert set(answer.headers["Allow"].split(", ")) >= allowed


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/transfers", "/v1/account/a", "/v1/accounts/a/b"])
def test_an_unknown_address(town: Town, path: str) -> None:
    for method in ("GET", "POST"):
        is_problem(town.api.request(method, path), 404, "not-found", path)


# --- request ids ----------------------------------------------------------------------------

ANSWERS = {
    200: ("GET", "/healthz"),
    400: ("GET", "/v1/balances"),
    404: ("GET", "/nowhere"),
    405: ("DELETE", "/healthz"),
    415: ("POST", "/v1/accounts/batch"),
}


@pytest.mark.parametrize(("status", "request_"), ANSWERS.items(), ids=map(str, ANSWERS))
def test_every_answer_carries_a_request_id(
    town: Town, status: int, request_: tuple[str, str]
) -> None:
    made = [town.api.request(*request_) for _ in range(2)]
    assert [answer.status_code for answer in made] == [status, status]
    assert len({answer.headers["X-Request-Id"] for answer in made}) == 2
    given = town.api.request(*request_, headers={"X-Request-Id": "mine-1"})
    assert given.headers["X-Request-Id"] == "mine-1"


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "é"])
def test_a_request_id_that_cannot_be_used_is_replaced(town: Town, given: str) -> None:
    answer = town.api.get("/healthz", headers={b"X-Request-Id": given.encode()})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])


def test_the_log_carries_the_request_id(town: Town, cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    overrides = {
        "TANDEM_ENGINE_REQUEST_DEADLINE_MS": "50",
        "TANDEM_COORDINATOR_WORKERS": "1",
    }
    alice, bob = town.pair(funds=1)
    with cluster.coordinator("logged", log, overrides) as running, client(running.url) as api:
        with town.locked(alice):
            headers = {"X-Request-Id": "find-me-503"}
            answer = town.transfer(alice, bob, 1, api=api, headers=headers)
            is_problem(answer, 503, "account-busy")
        wait_until(lambda: "find-me-503" in log.read_text(), 5, "the log does not name the request")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8080"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_a_web_page_of_another_cannot_call(town: Town, headers: dict[str, str]) -> None:
    """A browser on this machine would send these for it; without tokens nothing else stops it."""
    with town.unchanged(), httpx.Client(base_url=town.urls[0], verify=False) as api:
        for method, path in (
            ("GET", "/v1/admin/cluster"),
            ("POST", "/v1/admin/leader/step-down"),
            ("POST", "/v1/transfers"),
        ):
            answer = api.request(method, path, headers=headers)
            is_problem(answer, 403, "forbidden", "nothing has happened")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "localhost:8080"])
def test_this_machine_can_call_by_any_of_its_names(town: Town, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert town.api.get("/v1/admin/cluster", headers=headers).status_code == 200


def test_an_address_beyond_all_bounds_is_refused_soon(town: Town) -> None:
    """Also when its line never ends: before that nobody is asked for a token."""
    address = httpx.URL(town.urls[0])
    with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
        with suppress(ConnectionError):
            connection.sendall(b"GET /" + b"a" * 2_000_000)
        told = b""
        with suppress(ConnectionError):
            while got := connection.recv(4096):
                told += got
    assert told == b"" or told.startswith(b"HTTP/1.1 414")
