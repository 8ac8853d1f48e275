"""One request has one reading, from the socket on: what is ambiguous is 400, and does nothing."""

import http.client
import json
from contextlib import closing

import httpx
import pytest

from coordinator.http.strictness import SINGLE_HEADERS
from tests.cluster import Cluster
from tests.contract.http import Town, is_problem, item, results, visit, wish


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


def send(
    town: Town, method: str, target: str, headers: list[tuple[str, str]], body: bytes = b""
) -> tuple[int, bytes]:
    """A request as it is written here, header by header."""
    url = httpx.URL(town.urls[0])
    with closing(http.client.HTTPConnection(url.host, url.port or 80, timeout=30)) as connection:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        named = {name.lower() for name, _ in headers}
        if "host" not in named:
            connection.putheader("Host", url.netloc.decode())
        if "content-length" not in named:
            connection.putheader("Content-Length", str(len(body)))
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()


JSON = ("Content-Type", "application/json")
KEY = ("Idempotency-Key", "k")


@pytest.mark.parametrize("values", [("k", "k"), ("k", "other"), ("", "k")])
def test_two_keys(town: Town, values: tuple[str, str]) -> None:
    alice, bob = town.pair(funds=50)
    body = json.dumps(wish(alice, bob, 5)).encode()
    twice = [("Idempotency-Key", values[0]), ("idempotency-key", values[1])]
    assert town.transfer(alice, bob, 5, "k").status_code == 201
    with town.unchanged():
        status, text = send(town, "POST", "/v1/transfers", [JSON, *twice], body)
        assert status == 400, text
        assert "Idempotency-Key is there more than once" in json.loads(text)["detail"]


def test_one_key_with_a_comma(town: Town) -> None:
    alice, bob = town.pair(funds=50)
    body = json.dumps(wish(alice, bob, 5)).encode()
    status, text = send(town, "POST", "/v1/transfers", [JSON, ("Idempotency-Key", "k,k")], body)
    assert status == 201, text


@pytest.mark.parametrize(
    "name", [*SINGLE_HEADERS, "Content-Type", "Content-Length", "Host", "Transfer-Encoding"]
)
def test_a_header_that_must_be_single(town: Town, name: str) -> None:
    alice, bob = town.pair(funds=50)
    body = json.dumps(wish(alice, bob, 5)).encode()
    values = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Host": httpx.URL(town.urls[0]).netloc.decode(),
        "ORIGIN": town.urls[0],
        "Transfer-Encoding": "chunked",
    }
    given = [header for header in (JSON, KEY) if header[0].lower() != name.lower()]
    given += [(name, values.get(name, "x"))] * 2
    with town.unchanged():
        status, text = send(town, "POST", "/v1/transfers", given, body)
        assert status == 400, text


def test_balances_at_a_time_are_not_those_of_now(town: Town) -> None:
    alice = town.account(funds=5)
    for query in (f"account={alice}&at=2026-11-22T10:00:00Z", f"account={alice}&x="):
        is_problem(town.api.get(f"/v1/balances?{query}"), 400, "malformed")
    for query in ("AT=2026-11-22T10:00:00Z", "at=2026-11-22T10:00:00Z&at=2026-11-22T10:00:00Z"):
        is_problem(town.api.get(f"/v1/accounts/{alice}/balance?{query}"), 400, "malformed")


def test_an_address_that_decoding_would_change(town: Town) -> None:
    alice = town.account(funds=5)
    for target in (f"/v1/accounts/{alice}%2Fbalance", f"/v1//accounts/{alice}"):
        status, text = send(town, "GET", target, [])
        assert status == 404, text
    status, text = send(town, "GET", f"/v1/accounts/{alice}%2562", [])
    assert status == 400, text


def test_a_key_with_blanks_does_not_pay_twice(town: Town) -> None:
    """HTTP takes the blanks off a header; a batch with them would name another transfer."""
    alice, bob = town.pair(funds=50)
    body = json.dumps(wish(alice, bob, 5)).encode()
    status, text = send(
        town, "POST", "/v1/transfers", [JSON, ("Idempotency-Key", "order 17 ")], body
    )
    assert status == 201, text
    batch = {"transfers": [item(alice, bob, 5, "order 17 "), item(alice, bob, 5, "order 17")]}
    with town.unchanged(but_decided=True):
        one, other = results(town.api.post("/v1/transfers/batch", json=batch))
        assert (one["status"], one["reason"]) == ("rejected", "malformed")
        assert (other["status"], other["replayed"]) == ("committed", True)


def test_a_member_twice_moves_nothing(town: Town) -> None:
    alice, bob = town.pair(funds=50)
    text = json.dumps(wish(alice, bob, 5))
    for more in ('"amount": 5', '"\\u0061mount": 6', '"metadata": {"a": 1, "a": 1}'):
        twice = f"{text[:-1]}, {more}}}".encode()
        with town.unchanged():
            status, answer = send(town, "POST", "/v1/transfers", [JSON, KEY], twice)
            assert status == 400, answer
