"""Who may call what, over HTTPS, of a real coordinator: refused calls do nothing, tokens change
without a gap, rates hold, certificates count, and no secret is anywhere that it can be read.
"""

import hashlib
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.security.tokens import Scope, add, new_token, table_of
from shard_client.address import Address
from shard_client.connection import ShardConnection
from shard_client.errors import ShardUnavailable
from tests.certificates import Authority
from tests.cluster import Cluster, wait_until
from tests.contract.http import Town, is_problem, item, visit, wish
from tests.logs import events
from tests.routes import routes, scopes

TANDEM = [sys.executable, "-c", "from tandem.cli import main; main()"]


class Guarded:
    """A coordinator of two workers that speaks TLS and knows some tokens."""

    url: str
    port: int

    def __init__(self, folder: Path, authority: Authority, trust: ssl.SSLContext) -> None:
        self.log = folder / "log"
        self.tokens = folder / "tokens.toml"
        self.authority = authority
        self.trust = trust
        self.secrets: dict[str, str] = {}

    def add(self, name: str, *scopes: Scope, **terms: Any) -> None:
        """One more token, which the workers know within a second."""
        secret = self.secrets[name] = new_token()
        expires, rate = terms.get("expires"), terms.get("rate")
        add(self.tokens, name, table_of(name, secret, scopes, expires, rate))

    def await_status(self, secret: str, status: int) -> None:
        """Wait until workers answer so many times in a row that each of them is among them."""

        def is_known() -> bool:
            # Each time another connection, which any worker may take.
            answers = [self.get("/v1/admin/cluster", secret) for _ in range(8)]
            return {answer.status_code for answer in answers} == {status}

        wait_until(is_known, 15, "the workers do not follow the file of tokens", every_s=0.2)

    def api(self, secret: str = "", **headers: str) -> httpx.Client:
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        return httpx.Client(base_url=self.url, verify=self.trust, headers=headers, timeout=30)

    def get(self, path: str, secret: str = "") -> httpx.Response:
        with self.api(secret) as api:
            return api.get(path)


@pytest.fixture(scope="module")
def guarded(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder, "authority")
    certificate = str(authority.sign("server"))
    trust = ssl.create_default_context(cafile=authority.file)
    made = Guarded(folder, authority, trust)
    for scope in Scope:
        made.add(scope.value, scope)
        made.add(f"lacking-{scope}", *(set(Scope) - {scope}))
    made.add("expired", *Scope, expires=datetime.now(UTC) - timedelta(days=1))
    made.add("slow", Scope.READ, rate=2)
    made.add("batches", Scope.TRANSFER, rate=200)
    made.add("old", Scope.READ)
    overrides = {
        "TANDEM_COORDINATOR_WORKERS": "2",
        "TANDEM_ACCESS_TOKENS_FILE": str(made.tokens),
        "TANDEM_ACCESS_TLS_CERTIFICATE": certificate,
        "TANDEM_ACCESS_TLS_KEY": certificate,
    }
    with cluster.coordinator("guarded", made.log, overrides, trust=trust) as running:
        made.url, made.port = running.url, running.port
        yield made


@pytest.fixture
def town(cluster: Cluster) -> Town:
    return visit(cluster)


# --- every route ----------------------------------------------------------------------------


def calls(town: Town, source: str) -> Iterator[tuple[str, str, dict[str, Any], Scope]]:
    """A request to each route that would do something if it were let through."""
    bodies = {
        "PUT /v1/accounts/{}": {"currency": "EUR", "overdraft_limit": None},
        "PATCH /v1/accounts/{}": {"status": "frozen"},
        "POST /v1/accounts/batch": {"accounts": [{"id": town.name(), "currency": "EUR"}]},
        "POST /v1/transfers": wish(source, town.prefix, 1),
        "POST /v1/transfers/batch": {"transfers": [item(source, town.prefix, 1, "key")]},
    }
    for method, path in routes():
        route = f"{method} {path}"
        if scope := scopes()[route]:
            # The account that is to be opened, frozen and paid.
            filled = path.replace("{}", town.prefix)
            yield method, filled, {"json": bodies[route]} if route in bodies else {}, scope


def members(town: Town) -> list[dict[str, Any]]:
    """The coordinators, who of them leads, and for which term. A process may still be joining."""
    found = town.api.get("/v1/admin/cluster").json()["coordinators"]
    return [{key: what for key, what in one.items() if key != "processes"} for one in found]


def test_without_a_good_token_nothing_is_done(guarded: Guarded, town: Town) -> None:
    """For each route: 401 without a token, with a wrong one, with an expired one; 403 with one that
    has both other scopes.
    """
    source = town.account(overdraft_limit=None)
    town.api.put(f"/v1/accounts/{town.prefix}", json={"currency": "EUR"})
    key = {"Idempotency-Key": uuid.uuid4().hex}
    expired = guarded.secrets["expired"]
    before = members(town)
    with town.unchanged():
        for method, path, options, scope in calls(town, source):
            for secret, named in (("", "no token"), ("tandem_x", "known"), (expired, "expired")):
                with guarded.api(secret, **key) as api:
                    answer = api.request(method, path, **options)
                is_problem(answer, 401, "unauthorized", named)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
                assert answer.headers["X-Request-Id"]
                assert "nothing has happened" in answer.json()["detail"]
            with guarded.api(guarded.secrets[f"lacking-{scope}"], **key) as api:
                answer = api.request(method, path, **options)
            has = ", ".join(sorted(set(Scope) - {scope}))
            named = f"needs the scope {scope}; the token lacking-{scope} has {has}"
            is_problem(answer, 403, "forbidden", named)
            assert f'scope="{scope}"' in answer.headers["WWW-Authenticate"]
    assert members(town) == before


def test_with_its_scope_each_route_is_let_through(guarded: Guarded, town: Town) -> None:
    source = town.account(overdraft_limit=None)
    town.api.put(f"/v1/accounts/{town.prefix}", json={"currency": "EUR"})
    for method, path, options, scope in calls(town, source):
        if path.endswith("step-down"):
            continue
        key = {"Idempotency-Key": uuid.uuid4().hex}
        # A stream has no end: its head is enough.
        with (
            guarded.api(guarded.secrets[scope], **key) as api,
            api.stream(method, path, **options) as answer,
        ):
            assert answer.status_code not in (401, 403), (method, path)
    assert town.balance(town.prefix) == 2


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs/", "/openapi.json"])
def test_what_is_public(guarded: Guarded, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_the_document_says_what_is_needed(guarded: Guarded) -> None:
    described = guarded.get("/openapi.json").json()
    assert described["paths"]["/v1/transfers"]["post"]["security"] == [{"token": ["transfer"]}]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nowhere"), ("DELETE", "/v1/transfers"), ("OPTIONS", "/v1/balances")],
)
def test_without_a_token_every_address_looks_the_same(
    guarded: Guarded, method: str, path: str
) -> None:
    with guarded.api() as api:
        is_problem(api.request(method, path), 401, "unauthorized")
    with guarded.api(guarded.secrets["read"]) as api:
        assert api.request(method, path).status_code in (404, 405, 200)


def test_a_refused_body_is_not_waited_for(guarded: Guarded) -> None:
    head = "POST /v1/transfers HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as plain,
        guarded.trust.wrap_socket(plain, server_hostname="127.0.0.1") as wire,
    ):
        wire.sendall(head.encode())
        assert wire.recv(64).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("header", ["Basic {}", "{}", "Bearer", "Bearer {}x", "Bearer {} {}"])
def test_other_headers_are_no_tokens(guarded: Guarded, header: str) -> None:
    value = header.replace("{}", guarded.secrets["read"])
    with guarded.api(Authorization=value) as api:
        is_problem(api.get("/v1/admin/cluster"), 401, "unauthorized")


@pytest.mark.parametrize(("name", "status"), [("admin", 400), ("read", 403)])
def test_the_log_says_whose_token_it_was(guarded: Guarded, name: str, status: int) -> None:
    with guarded.api(guarded.secrets[name], **{"X-Request-Id": f"who-{name}"}) as api:
        assert api.post("/v1/admin/in-doubt/none/resolve").status_code == status

    def line() -> dict[str, Any] | None:
        found = events(guarded.log, "http.request")
        return next((item for item in found if item["request_id"] == f"who-{name}"), None)

    wait_until(line, 5, "the log does not name the request")
    assert (line() or {})["token"] == name


# --- tokens change --------------------------------------------------------------------------


def test_a_token_is_replaced_without_a_gap(guarded: Guarded) -> None:
    """A client that calls all the time is never refused."""
    in_use = [guarded.secrets["old"]]
    found: list[int] = []
    is_over = threading.Event()

    def call() -> None:
        while not is_over.is_set():
            found.append(guarded.get("/v1/admin/cluster", in_use[0]).status_code)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        before = guarded.tokens.read_text()
        guarded.add("new", Scope.READ)
        guarded.await_status(guarded.secrets["new"], 200)
        in_use[0] = guarded.secrets["new"]
        count = len(found)
        # What the thread had begun with the old token is over when two more answers are there.
        wait_until(lambda: len(found) > count + 2, 10, "the client has stopped")
        old = guarded.secrets["old"]
        part = guarded.tokens.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(guarded.tokens.read_text().replace(_table(before, "old"), ""))
        part.replace(guarded.tokens)
        guarded.await_status(old, 401)
    finally:
        is_over.set()
        caller.join(30)
    assert set(found) == {200}


def _table(text: str, name: str) -> str:
    return re.search(rf"\[tokens\.{name}\][^\[]*\[[^\[]*", text).group()


def test_a_broken_file_keeps_the_tokens_and_is_trouble(guarded: Guarded) -> None:
    good = guarded.tokens.read_text()
    guarded.tokens.write_text(good + "[tokens.")

    def troubles() -> list[str]:
        return [t for _ in range(6) for t in guarded.get("/readyz").json()["troubles"]]

    wait_until(lambda: len(troubles()) == 6, 15, "no trouble is told", every_s=0.3)
    assert "file of tokens is not used" in troubles()[0]
    assert guarded.get("/v1/admin/cluster", guarded.secrets["read"]).status_code == 200
    assert "the file of tokens is not used" in guarded.log.read_text()
    guarded.tokens.write_text(good)
    wait_until(lambda: troubles() == [], 15, "the trouble does not end", every_s=0.3)


# --- rates ----------------------------------------------------------------------------------


def test_a_token_is_used_too_often(guarded: Guarded) -> None:
    with guarded.api(guarded.secrets["slow"]) as api:
        # On one connection, so of one worker: it lets one a second through.
        answers = [api.get("/v1/admin/cluster") for _ in range(5)]
        limited = next(a for a in answers if a.status_code == 429)
        is_problem(limited, 429, "rate-limited", "slow", "2 requests", "nothing has happened")
        assert limited.headers["Retry-After"] == "1"
        wait_until(
            lambda: api.get("/v1/admin/cluster").status_code == 200, 5, "it is let out never"
        )


def test_a_batch_counts_its_items(guarded: Guarded, town: Town) -> None:
    source, destination = town.account(overdraft_limit=None), town.account()
    transfers = [item(source, destination, 1, f"k{n}") for n in range(1000)]
    with guarded.api(guarded.secrets["batches"]) as api:
        assert api.post("/v1/transfers/batch", json={"transfers": transfers}).status_code == 200
        headers = {"Idempotency-Key": "one-more"}
        answer = api.post("/v1/transfers", json=wish(source, destination, 1), headers=headers)
    is_problem(answer, 429, "rate-limited")
    # 1,000 of which a worker lets 100 a second through.
    assert 3 <= int(answer.headers["Retry-After"]) <= 9
    assert town.balance(destination) == 1000


# --- certificates ---------------------------------------------------------------------------


def test_plain_http_gets_no_answer(guarded: Guarded) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(guarded.url.replace("https", "http") + "/healthz")


def test_a_certificate_is_replaced_while_it_runs(guarded: Guarded) -> None:
    """The authority is another one after that, so the old trust ends."""
    folder = guarded.authority.file.parent
    server = folder / "server.pem"
    before = server.read_bytes()
    other = Authority(folder, "other-authority")
    part = other.sign("next")
    part.replace(server)
    try:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            guarded.get("/healthz")
        trust = ssl.create_default_context(cafile=other.file)
        assert httpx.get(f"{guarded.url}/healthz", verify=trust).status_code == 200
    finally:
        part.write_bytes(before)
        part.replace(server)
    assert guarded.get("/healthz").status_code == 200


def test_mutual_tls(mysql_cluster: Cluster, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    server, mine = str(authority.sign("server")), str(authority.sign("client"))
    stranger = str(Authority(tmp_path, "strangers").sign("stranger"))
    overrides = {
        "TANDEM_COORDINATOR_WORKERS": "1",
        "TANDEM_ACCESS_TLS_CERTIFICATE": server,
        "TANDEM_ACCESS_TLS_KEY": server,
        "TANDEM_ACCESS_TLS_CLIENT_CA": str(authority.file),
    }
    log = tmp_path / "log"
    trust = ssl.create_default_context(cafile=authority.file)
    trust.load_cert_chain(mine)
    with mysql_cluster.coordinator("mutual", log, overrides, trust=trust) as running:
        assert "no access control" in log.read_text()
        for certificate in (None, stranger):
            context = ssl.create_default_context(cafile=authority.file)
            if certificate:
                context.load_cert_chain(certificate)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{running.url}/healthz", verify=context)
        assert httpx.get(f"{running.url}/healthz", verify=trust).status_code == 200
        environ = {"TANDEM_CA": str(authority.file), "TANDEM_CLIENT_CERT": mine}
        assert tandem(running.url, "cluster", **environ).returncode == 0


def test_revoked_certificates_and_bound_tokens(mysql_cluster: Cluster, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    server = authority.sign("server")
    mine, yours = authority.sign("mine"), authority.sign("yours")
    revoked = tmp_path / "revoked.crl"
    revoked.write_bytes(authority.revoke().read_bytes())
    tokens = tmp_path / "tokens.toml"
    der = ssl.PEM_cert_to_DER_cert(mine.read_text().partition("-----BEGIN PRIVATE")[0])
    bound, free = new_token(), new_token()
    add(
        tokens,
        "bound",
        table_of("bound", bound, [Scope.READ], None, None, hashlib.sha256(der).hexdigest()),
    )
    add(tokens, "free", table_of("free", free, [Scope.READ], None, None))
    overrides = {
        "TANDEM_COORDINATOR_WORKERS": "1",
        "TANDEM_ACCESS_TOKENS_FILE": str(tokens),
        "TANDEM_ACCESS_TLS_CERTIFICATE": str(server),
        "TANDEM_ACCESS_TLS_KEY": str(server),
        "TANDEM_ACCESS_TLS_CLIENT_CA": str(authority.file),
        "TANDEM_ACCESS_TLS_CLIENT_CRL": str(revoked),
    }
    log = tmp_path / "log"

    def trust(certificate: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=authority.file)
        context.load_cert_chain(certificate)
        return context

    with mysql_cluster.coordinator("crl", log, overrides, trust=trust(yours)) as running:

        def call(certificate: Path, token: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}"}
            url = f"{running.url}/v1/admin/cluster"
            return httpx.get(url, verify=trust(certificate), headers=headers)

        assert call(mine, bound).status_code == 200
        is_problem(call(yours, bound), 401, "unauthorized", "the client certificate that it is")
        assert [call(c, free).status_code for c in (mine, yours)] == [200, 200]
        # The next connection knows of what is revoked now.
        authority.revoke(mine).replace(revoked)
        with pytest.raises(httpx.TransportError):
            call(mine, bound)
        assert call(yours, free).status_code == 200
        # Half a list, and half a certificate, change nothing.
        for file in (revoked, server):
            file.write_bytes(file.read_bytes()[:100])
            with pytest.raises(httpx.TransportError):
                call(mine, bound)
            assert call(yours, free).status_code == 200
        assert events(log, "tls.unusable")


def test_a_bound_token_needs_tls(guarded: Guarded) -> None:
    """Also where no certificate is asked for."""
    secret = new_token()
    table = table_of("bound", secret, [Scope.READ], None, None, "ab" * 32)
    add(guarded.tokens, "bound", table)
    guarded.await_status(guarded.secrets["read"], 200)
    wait_until(
        lambda: "bound to" in guarded.get("/v1/admin/cluster", secret).text, 15, "it is not known"
    )


# --- the command line -----------------------------------------------------------------------


def tandem(url: str, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*TANDEM, *arguments, "--url", url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environ},
    )


def test_the_command_line_presents_a_token(guarded: Guarded, tmp_path: Path) -> None:
    trust = {"TANDEM_CA": str(guarded.authority.file)}
    file = tmp_path / "token"
    file.write_text(guarded.secrets["read"] + "\n")
    done = tandem(guarded.url, "cluster", **trust, TANDEM_TOKEN_FILE=str(file))
    assert done.returncode == 0, done.stderr
    refused = tandem(guarded.url, "leader", "step-down", **trust, TANDEM_TOKEN_FILE=str(file))
    assert refused.returncode == 1
    assert "needs the scope admin" in refused.stderr
    without = tandem(guarded.url, "cluster", **trust)
    assert without.returncode == 1
    assert "TANDEM_TOKEN_FILE" in without.stderr


def test_a_coordinator_that_would_be_open_to_others_does_not_start(mysql_cluster: Cluster) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coordinator"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **mysql_cluster.environment, "TANDEM_COORDINATOR_LISTEN": "0.0.0.0:1"},
    )
    assert done.returncode == 2
    assert "tandem token new" in done.stderr


# --- where secrets are not ------------------------------------------------------------------


def test_no_secret_can_be_read(guarded: Guarded, cluster: Cluster) -> None:
    """Not in a log, in a process list, in an error or in what the service tells of itself."""
    settings = cluster.settings
    passwords = {
        settings.mysql.password,
        settings.mysql.admin_password,
        settings.zookeeper.password,
    }
    if settings.eventstore.secret:
        # Of a ledger group.
        passwords.add(settings.eventstore.secret)
    assert all(passwords)
    secrets = [text.encode() for text in passwords | set(guarded.secrets.values())]
    logs = [*(cluster.local.data_dir / "logs").iterdir(), guarded.log]
    assert len(logs) >= 5
    for file in [*logs, *Path("/proc").glob("[0-9]*/cmdline")]:
        try:
            text = file.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        assert not any(secret in text for secret in secrets), file
    told = [guarded.get(path).content for path in ("/readyz", "/openapi.json")]
    told.append(guarded.get("/v1/admin/cluster", guarded.secrets["read"]).content)
    assert not any(secret in text for secret in secrets for text in told)


def test_a_wrong_password_is_not_shown(mysql_cluster: Cluster) -> None:
    host, _, rest = mysql_cluster.settings.shards["s1"].partition(":")
    port = int(rest.partition("/")[0])
    with pytest.raises(ShardUnavailable, match="Access denied") as caught:
        ShardConnection(Address("s1", host, port, "tandem", "tandem", "hush"), 2.0, 60)
    assert "hush" not in str(caught.value)
    environ = mysql_cluster.environment | {"TANDEM_MYSQL_ADMIN_PASSWORD": "hush"}
    done = subprocess.run(
        [*TANDEM, "shards", "init"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environ},
    )
    assert done.returncode == 3
    assert "Access denied" in done.stderr
    assert "hush" not in done.stdout + done.stderr
