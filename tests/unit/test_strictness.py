"""A request that has two readings is refused, on every route, before anything is done for it."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from gunicorn.http.errors import LimitRequestLine

from coordinator.http import strictness
from coordinator.http.app import create_app
from coordinator.http.openapi import document
from coordinator.http.strictness import keep_repeated_apart
from coordinator.settings import Settings
from coordinator.shards.registry import Shards
from coordinator.wiring import WorkerProcess
from shard_client.shard_map import ShardAddress, ShardMap
from tests.routes import routes

HERE = "http://127.0.0.1"
JSON = {"Content-Type": "application/json"}

_MAP = ShardMap.evenly(1, {"s1": ShardAddress("127.0.0.1", 1, "tandem")})


@pytest.fixture(scope="module")
def app() -> Flask:
    """The application of a process that is not started: what is not refused fails."""
    return create_app(WorkerProcess(Settings(), 0))


@pytest.fixture
def api(app: Flask, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    # Without one not even a batch with nothing to do is taken.
    monkeypatch.setattr(Shards, "map", _MAP)
    return app.test_client()


def refused(api: FlaskClient, method: str, path: str, **options: Any) -> str:
    """Assert that a request is refused, and say why."""
    answer = api.open(path, method=method, base_url=HERE, **options)
    assert answer.status_code == 400, answer.text
    assert answer.json is not None
    assert answer.json["type"] == "/problems/malformed"
    detail: str = answer.json["detail"]
    assert "nothing has happened" in detail
    return detail


EVERY = [(method, path.replace("{}", "x")) for method, path in routes()]


@pytest.mark.parametrize(("method", "path"), EVERY)
@pytest.mark.parametrize(
    "query", ["x=1", "AT=2026-11-22T10:00:00Z", "Limit=5", "x", "=", "%61t%20=1"]
)
def test_an_unknown_parameter(api: FlaskClient, method: str, path: str, query: str) -> None:
    assert "is no parameter here" in refused(api, method, f"{path}?{query}")


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("/v1/accounts/a/entries", "limit=1&limit=1", "limit"),
        ("/v1/accounts/a/entries", "after=1&order=asc&%61fter=2", "after"),
        ("/v1/accounts/a/balance", "at=2026-11-22T10:00:00Z&at=2026-11-22T10:00:01Z", "at"),
    ],
)
def test_a_repeated_parameter(api: FlaskClient, path: str, query: str, name: str) -> None:
    assert f"{name} is given 2 times" in refused(api, "GET", f"{path}?{query}")


def test_a_parameter_of_another_route(api: FlaskClient) -> None:
    assert "(account, min_seq)" in refused(api, "GET", "/v1/balances?account=a&at=2026-11-22")
    assert "(at, min_seq)" in refused(api, "GET", "/v1/accounts/a/balance?limit=5")
    assert "no parameter" in refused(api, "GET", "/v1/transfers/x?min_seq=5")


def test_too_many_parameters_are_not_looked_at(
    api: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.http.reading.unquote_plus", None)
    assert "100001 parameters" in refused(api, "GET", "/v1/balances?" + "&" * 100_000)
    for long in ("account=" + "%61" * 80_000, "x" * 100_000, "+" * 301):
        assert "more than 300 characters" in refused(api, "GET", f"/v1/balances?{long}")


@pytest.mark.parametrize("value", ["%ff", "a%C3", "%ED%A0%80"])
def test_a_parameter_that_is_no_text(api: FlaskClient, value: str) -> None:
    assert "not UTF-8" in refused(api, "GET", f"/v1/balances?account={value}")


def test_others_have_their_turn_while_parameters_are_read(
    api: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[None] = []
    monkeypatch.setattr("coordinator.http.reading.pause", lambda: turns.append(None))
    refused(api, "GET", "/v1/balances?" + "&".join(["account=" + "%61" * 65] * 1000))
    assert len(turns) == 5


def test_an_address_that_is_longer_than_any() -> None:
    """Refused before gunicorn takes it apart, escape by escape."""
    longest = "/v1/accounts/" + "%41" * 64 + "/balance"
    for path in (longest, longest + "?" + "account=a&" * 20_000):
        keep_repeated_apart(None, SimpleNamespace(headers=[], path=path.partition("?")[0]))
    with pytest.raises(LimitRequestLine):
        keep_repeated_apart(None, SimpleNamespace(headers=[], path="/" + "%41" * 80_000))


def test_a_long_wish_to_wait(api: FlaskClient) -> None:
    headers = {"Prefer": "x" * 1001}
    assert "more than 1000" in refused(api, "GET", "/v1/transfers/x", headers=headers)


def test_routes_take_the_parameters_that_the_document_names(api: FlaskClient) -> None:
    taken = set()
    for template, operations in document()["paths"].items():
        path = re.sub("{[^}]*}", "x", template)
        for item in operations.get("get", {}).get("parameters", []):
            if item["in"] == "query":
                name, is_many = item["name"], item["schema"]["type"] == "array"
                once, twice = (
                    api.get(f"{path}?{query}", base_url=HERE).text
                    for query in (f"{name}=x", f"{name}=x&{name}=x")
                )
                assert "is no parameter here" not in once
                assert (f"{name} is given 2 times" in twice) is not is_many
                taken.add((path, name))
    assert taken == {
        ("/v1/accounts/x/entries", "limit"),
        ("/v1/accounts/x/entries", "after"),
        ("/v1/events", "after"),
        ("/v1/accounts/x/entries", "order"),
        ("/v1/accounts/x/balance", "at"),
        ("/v1/balances", "account"),
        ("/v1/trial-balance", "at"),
        ("/v1/accounts/x", "min_seq"),
        ("/v1/accounts/x/entries", "min_seq"),
        ("/v1/accounts/x/balance", "min_seq"),
        ("/v1/balances", "min_seq"),
        ("/v1/trial-balance", "min_seq"),
    }


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_a_body_where_none_is_read(api: FlaskClient, method: str, path: str) -> None:
    takes_one = {"/v1/transfers", "/v1/transfers/batch", "/v1/accounts/batch", "/v1/accounts/x"}
    if method != "GET" and path in takes_one:
        return
    path = path.replace("in-doubt/x", "in-doubt/tandem.s1.c1.00000000000.0000000000000000")
    assert "takes no body" in refused(api, method, path, data=b"{}", headers=JSON)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/accounts/a%2Fbalance",
        "/v1/accounts/a%2fentries",
        "/v1%2Faccounts/a",
        "/v1/transfers%2Fbatch",
    ],
)
def test_an_encoded_slash(api: FlaskClient, path: str) -> None:
    raw = {"RAW_URI": path}
    decoded = path.replace("%2F", "/").replace("%2f", "/")
    for method in ("GET", "PUT", "POST"):
        answer = api.open(decoded, method=method, base_url=HERE, environ_overrides=raw)
        assert answer.status_code == 404
        assert answer.json is not None
        assert "encoded slash" in answer.json["detail"]


@pytest.mark.parametrize(
    "path", ["/v1//balances", "//v1/balances", "/v1/accounts//balance", "/v1/accounts//"]
)
def test_an_empty_part_of_an_address(api: FlaskClient, path: str) -> None:
    assert api.get(path, base_url=HERE).status_code == 404


# --- headers --------------------------------------------------------------------------------


def read_by_gunicorn(*headers: tuple[str, str]) -> dict[str, str]:
    """The headers as the application gets them."""
    message = SimpleNamespace(headers=list(headers), path="/")
    keep_repeated_apart(None, message)
    found: dict[str, str] = {}
    for name, value in message.headers:
        key = "HTTP_" + name.replace("-", "_")
        found[key] = f"{found[key]},{value}" if key in found else value
    return found


@pytest.mark.parametrize("name", strictness.SINGLE_HEADERS)
@pytest.mark.parametrize("values", [("k", "k"), ("a", "b"), ("", "k"), ("k", "x", "k")])
def test_a_header_that_is_there_twice(api: FlaskClient, name: str, values: tuple[str, ...]) -> None:
    found = read_by_gunicorn(("HOST", "h"), *((name, value) for value in values), ("ACCEPT", "x"))
    assert "," not in "".join(found.values())
    for method, path in (("POST", "/v1/transfers"), ("GET", "/healthz")):
        detail = refused(api, method, path, environ_overrides=found)
        assert f"{name.title()} is there more than once" in detail


def test_headers_that_may_be_there_twice() -> None:
    given = [("ACCEPT", "a"), ("IDEMPOTENCY-KEY", "k,k"), ("ACCEPT", "b"), ("PREFER", "wait=1")]
    assert read_by_gunicorn(*given) == {
        "HTTP_ACCEPT": "a,b",
        "HTTP_IDEMPOTENCY_KEY": "k,k",
        "HTTP_PREFER": "wait=1",
    }


@pytest.mark.parametrize(
    "prefer", ["wait=1, wait=30", "wait=5;wait=5", "respond-async, wait=1,wait=2"]
)
def test_two_times_to_wait(api: FlaskClient, prefer: str) -> None:
    headers = JSON | {"Prefer": prefer, "Idempotency-Key": "k"}
    for path in ("/v1/transfers", "/v1/transfers/batch"):
        assert "wait 2 times" in refused(api, "POST", path, data=b"{}", headers=headers)
    assert "wait 2 times" in refused(api, "GET", "/v1/transfers/x", headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; charset=latin-1"},
        JSON | {"Content-Encoding": "gzip"},
    ],
)
def test_a_body_that_says_to_be_written_otherwise(
    api: FlaskClient, headers: dict[str, str]
) -> None:
    for method, path in EVERY:
        if method in ("PUT", "PATCH") or (path.endswith("/batch") and method == "POST"):
            answer = api.open(path, method=method, base_url=HERE, data=b"{}", headers=headers)
            assert answer.status_code == 415
            assert answer.json is not None
            assert answer.json["type"] == "/problems/content-type"


# --- bodies ---------------------------------------------------------------------------------

WISH = '"source": "a", "destination": "b", "amount": 1, "currency": "EUR"'
TWICE = [
    f'{{{WISH}, "amount": 2}}',
    f'{{{WISH}, "\\u0061mount": 1}}',
    f'{{{WISH}, "metadata": {{"a": {{"b": 1, "b": 2}}}}}}',
]


@pytest.mark.parametrize("text", TWICE)
def test_a_member_twice(api: FlaskClient, text: str) -> None:
    headers = JSON | {"Idempotency-Key": "k"}
    assert "occurs twice" in refused(api, "POST", "/v1/transfers", data=text, headers=headers)
    item = text.replace("{", '{"idempotency_key": "k", ', 1)
    data = f'{{"transfers": [{item}]}}'
    answer = api.post("/v1/transfers/batch", base_url=HERE, headers=JSON, data=data)
    assert answer.json is not None
    (result,) = answer.json["results"]
    assert (result["status"], result["reason"]) == ("rejected", "malformed")
    assert "occurs twice" in result["detail"]


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("PUT", "/v1/accounts/a", '{"currency": "EUR", "currency": "USD"}'),
        ("PATCH", "/v1/accounts/a", '{"status": "open", "status": "closed"}'),
        ("POST", "/v1/transfers/batch", '{"transfers": [], "transfers": []}'),
        ("POST", "/v1/accounts/batch", '{"accounts": [], "\\u0061ccounts": []}'),
    ],
)
def test_a_member_twice_elsewhere(api: FlaskClient, method: str, path: str, text: str) -> None:
    refused(api, method, path, data=text, headers=JSON)


@pytest.mark.parametrize("key", ["order 17 ", " order 17", " ", "   ", "k ", " k"])
def test_blanks_at_the_ends_of_a_key(api: FlaskClient, key: str) -> None:
    """In a header HTTP takes them off, so it is in a batch that they would make another key."""
    answer = api.post(
        "/v1/transfers/batch",
        base_url=HERE,
        json={"transfers": [{"source": "a", "destination": "b", "amount": 1, "currency": "EUR",
                             "idempotency_key": key}]},
    )  # fmt: skip
    assert answer.json is not None
    (result,) = answer.json["results"]
    assert (result["id"], result["status"], result["reason"]) == (None, "rejected", "malformed")
    assert "idempotency_key" in result["detail"]
    headers = JSON | {"Idempotency-Key": key}
    refused(api, "POST", "/v1/transfers", data=f"{{{WISH}}}", headers=headers)


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/transfers"), ("PUT", "/v1/accounts/a"),
                                              ("PATCH", "/v1/accounts/a")])  # fmt: skip
def test_a_single_request_has_a_limit_of_its_own(
    api: FlaskClient, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at before the body is."""
    monkeypatch.setattr("coordinator.http.json_text.read", None)
    headers = JSON | {"Idempotency-Key": "k"}
    most = Settings().coordinator.request_max_bytes
    for data in (b" " * (most + 1), b"[" * (8 << 20)):
        answer = api.open(path, method=method, base_url=HERE, data=data, headers=headers)
        assert answer.status_code == 413
        assert answer.json is not None
        assert str(most) in answer.json["detail"]
