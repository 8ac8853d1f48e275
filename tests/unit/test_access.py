"""Tokens and their file, rates, the table of scopes, and where a coordinator may listen."""

import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask, Response, g

from coordinator.http.access import caller
from coordinator.http.openapi import document
from coordinator.http.routes import ROUTES, serve
from coordinator.security.secret_files import readable_by_others
from coordinator.security.tokens import (
    Bucket,
    Scope,
    Token,
    Tokens,
    TokensError,
    check_access,
    is_loopback,
    new_token,
    parse,
    read,
    table_of,
)
from coordinator.settings import SettingsError, load
from coordinator.shards.addresses import admin_address, audit_address, service_address
from shard_client.shard_map import ShardAddress
from shard_client.tls import Tls
from tandem.cli import main
from tests.certificates import Authority
from tests.cluster import wait_until
from tests.routes import routes, scopes

HASH = "0" * 64
GOOD = f'[tokens.good]\nsha256 = "{HASH}"\nscopes = ["read"]\n'
SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, text: str) -> None:
    """As an operator does: another file in its place, which cannot be taken for the old one."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.chmod(0o600)
    part.replace(path)


# --- the file -------------------------------------------------------------------------------


def test_a_token_with_everything() -> None:
    more = "expires = 2027-01-01T00:00:00Z\nrate_per_s = 50\n"
    terms = parse(GOOD + more)["good"]
    assert (terms.sha256, terms.scopes, terms.rate_per_s) == (HASH, [Scope.READ], 50)
    assert terms.expires == datetime(2027, 1, 1, tzinfo=UTC)


def test_nobody_is_let_in_by_a_file_that_says_so() -> None:
    assert parse("# on purpose\nnobody = true\n") == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tandem_abcdef", "no TOML"),
        ("[token.a]\n", r"\[tokens.NAME\]"),
        ("tokens = 5\n", r"\[tokens.NAME\]"),
        (GOOD + GOOD, "no TOML"),
        (GOOD.replace("good", '"a b"'), "'a b' is no name"),
        (GOOD.replace(HASH, HASH[1:]), r"\[tokens.good\].*sha256"),
        (GOOD.replace(HASH, "secret-token"), r"\[tokens.good\].*sha256"),
        (GOOD.replace('["read"]', "[]"), r"\[tokens.good\].*scopes"),
        (GOOD.replace('["read"]', '["write"]'), r"\[tokens.good\].*write"),
        (GOOD + "expires = 2027-01-01T00:00:00\n", r"\[tokens.good\].*expires"),
        (GOOD + "rate_per_s = 0\n", r"\[tokens.good\].*rate_per_s"),
        (GOOD + "rate = 5\n", r"\[tokens.good\].*rate"),
        (GOOD + GOOD.replace("good", "other"), "one token"),
        (GOOD + f'certificate_sha256 = "{HASH[1:]}"\n', r"\[tokens.good\].*certificate_sha256"),
        ("", "lists no token.*nobody = true"),
        ("# none yet\n", "lists no token.*nobody = true"),
        ("[tokens]\n", "lists no token.*nobody = true"),
        ("nobody = false\n", "lists no token"),
        ("nobody = 1\n", r"\[tokens.NAME\]"),
        ("nobody = true\n" + GOOD, "take one of them out"),
        (GOOD + "rate_per_s = 50", "cut off"),
        ("x = " + "[" * 5000 + "\n", "no TOML"),
        ("x = " + "1" * 5000 + "\n", "no TOML"),
    ],
)
def test_a_file_that_cannot_be_used(text: str, named: str) -> None:
    with pytest.raises(TokensError, match=named) as caught:
        parse(text)
    # Somebody may have put a token where its hash belongs.
    assert "secret-token" not in str(caught.value)
    assert "tandem_abcdef" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620, 0o660])
def test_a_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(GOOD)
    path.chmod(mode)
    with pytest.raises(TokensError, match=rf"{path}.*mode {mode:04o}.*chmod 600"):
        read(path)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640])
def test_a_file_that_is_not(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(GOOD)
    path.chmod(mode)
    assert list(read(path)) == ["good"]


@pytest.mark.parametrize("harm", ["pipe", "folder", "endless"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "tokens.toml"
    if harm == "pipe":
        os.mkfifo(path, 0o600)
    elif harm == "folder":
        path.mkdir(0o700)
    else:
        path.touch(0o600)
        os.truncate(path, 1 << 40)
    for _ in range(3):
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(TokensError, match=rf"{path} cannot be read"):
            read(path)
    assert set(os.listdir("/proc/self/fd")) <= before


# --- the command ----------------------------------------------------------------------------


def test_token_new(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    arguments = ["token", "new", "--scope", "read", "--scope", "transfer", "--file", str(path)]
    made = [CliRunner().invoke(main, [*arguments, name]) for name in ("a", "b")]
    assert [result.exit_code for result in made] == [0, 0], made
    assert path.stat().st_mode & 0o777 == 0o600
    tokens = Tokens(path, 1)
    for name, result in zip("ab", made, strict=True):
        secret = result.stdout.strip()
        assert len(secret) >= 43
        found = tokens.find(secret)
        assert found is not None
        assert (found.name, found.scopes) == (name, {Scope.READ, Scope.TRANSFER})
        assert secret not in path.read_text()
    again = CliRunner().invoke(main, [*arguments, "a"])
    assert (again.exit_code, again.stdout) == (1, "")
    assert "called a already" in again.stderr


def test_token_new_prints_what_the_file_has_to_say() -> None:
    options = ["--scope", "admin", "--days", "30", "--rate", "2.5"]
    result = CliRunner().invoke(main, ["token", "new", "ops", *options])
    table = result.stderr[result.stderr.index("[tokens.ops]") :].partition("\n\n")[0]
    terms = parse(table + "\n")["ops"]
    assert (terms.scopes, terms.rate_per_s) == ([Scope.ADMIN], 2.5)
    assert terms.expires is not None
    assert 29 <= (terms.expires - datetime.now(UTC)).days <= 30


def test_token_new_writes_the_token_for_its_owner_alone(tmp_path: Path) -> None:
    tokens, out = tmp_path / "tokens.toml", tmp_path / "token"
    options = ["--scope", "read", "--file", str(tokens), "--out", str(out)]
    before = os.umask(0)
    try:
        made = CliRunner().invoke(main, ["token", "new", "a", *options])
    finally:
        os.umask(before)
    assert (made.exit_code, made.stdout) == (0, ""), made.output
    assert out.stat().st_mode & 0o777 == 0o600
    assert Tokens(tokens, 1).find(out.read_text().strip())
    # What is there is never written over, and no token is left that nobody has.
    for name, file in (("b", out), ("c", tmp_path / "no-folder" / "token")):
        options[-1] = str(file)
        again = CliRunner().invoke(main, ["token", "new", name, *options])
        assert (again.exit_code, again.stdout) == (1, "")
        assert f"{file} cannot be written" in again.stderr
    assert list(read(tokens)) == ["a"]
    # Nor a file, when the name is taken.
    other = tmp_path / "other"
    assert CliRunner().invoke(main, ["token", "new", "a", *options[:-1], str(other)]).exit_code == 1
    assert not other.exists()


def test_a_file_that_the_token_is_sent_to_is_closed_to_others(tmp_path: Path) -> None:
    """As a shell makes it for `tandem token new > file`."""
    out = tmp_path / "token"
    command = [sys.executable, "-c", "from tandem.cli import main; main()"]
    with out.open("w") as file:
        out.chmod(0o644)
        done = subprocess.run(
            [*command, "token", "new", "a", "--scope", "read"],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
    assert out.stat().st_mode & 0o777 == 0o600
    assert "readable by its owner alone now" in done.stderr
    assert out.read_text().startswith("tandem_")


# --- in force -------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


def look(tokens: Tokens, clock: Clock) -> None:
    """Let a file be seen twice, so that it is known to stay as it is."""
    for _ in range(2):
        clock.now += 1
        tokens.look()


def add(text: str, name: str, **terms: float) -> tuple[str, str]:
    """The text with one more token, and the token."""
    secret = new_token()
    return text + table_of(name, secret, [Scope.READ], None, terms.get("rate")), secret


def test_tokens_change_without_a_gap(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "tokens.toml"
    text, old = add("", "old")
    write(path, text)
    tokens = Tokens(path, 1, clock)
    both, new = add(text, "new")
    write(path, both)
    # It is not looked at again within a second, and is to stay as it is for another one.
    for _ in range(2):
        assert (bool(tokens.find(old)), bool(tokens.find(new))) == (True, False)
        clock.now += 1
    assert (bool(tokens.find(old)), bool(tokens.find(new))) == (True, True)
    write(path, both.removeprefix(text))
    look(tokens, clock)
    assert (bool(tokens.find(old)), bool(tokens.find(new))) == (False, True)
    assert tokens.find("tandem_nobody") is None


def test_a_token_that_was_taken_away_is_gone_when_nobody_has_called_since(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "tokens.toml"
    text, old = add("", "old")
    more, new = add("", "new")
    write(path, text)
    tokens = Tokens(path, 1, clock)
    write(path, more)
    wait_until(lambda: time.time() - path.stat().st_ctime > 1, 5, "time stands still")
    clock.now += 2
    assert (bool(tokens.find(old)), bool(tokens.find(new))) == (False, True)


def test_half_of_a_file_is_not_used(tmp_path: Path, clock: Clock) -> None:
    """While it grows: without the line that is still to come the token would be good for ever."""
    path = tmp_path / "tokens.toml"
    text, kept = add("", "kept")
    write(path, text)
    tokens = Tokens(path, 1, clock)
    half, fresh = add("", "fresh")
    path.write_text(half)
    clock.now += 1
    assert (bool(tokens.find(kept)), bool(tokens.find(fresh))) == (True, False)
    path.write_text(half + "expires = 2020-01-01T00:00:00Z\n")
    look(tokens, clock)
    found = tokens.find(fresh)
    assert found is not None
    assert found.expires is not None


def test_nobody_gets_in_when_the_file_says_so(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "tokens.toml"
    text, secret = add("", "good")
    write(path, text)
    tokens = Tokens(path, 1, clock)
    write(path, "nobody = true\n")
    look(tokens, clock)
    assert tokens.trouble is None
    assert tokens.find(secret) is None


@pytest.mark.parametrize(
    "harm", ["broken", "gone", "open to others", "empty", "no token", "cut off", "pipe", "deep"]
)
def test_a_broken_file_keeps_the_old_tokens(
    tmp_path: Path, clock: Clock, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens.toml"
    text, secret = add("", "good")
    write(path, text)
    tokens = Tokens(path, 1, clock)
    assert tokens.trouble is None
    texts = {
        "broken": text + "[tokens.",
        "empty": "",
        "no token": "# none\n",
        "cut off": text + "# more",
        "deep": "x = " + "[" * 5000,
    }
    if harm in texts:
        write(path, texts[harm])
    elif harm == "open to others":
        path.chmod(0o644)
    else:
        path.unlink()
        if harm == "pipe":
            os.mkfifo(path, 0o600)
    look(tokens, clock)
    assert tokens.find(secret)
    assert tokens.trouble is not None
    assert str(path) in tokens.trouble
    # It is said once, however often it is looked at.
    look(tokens, clock)
    assert [r.levelname for r in caplog.records if r.event == "tokens.unusable"] == ["ERROR"]
    write(path, text)
    look(tokens, clock)
    assert tokens.find(secret)
    assert tokens.trouble is None


def test_a_process_that_never_read_a_good_file_lets_nobody_in(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "none.toml", 1)
    assert not tokens.was_read
    assert tokens.trouble is not None
    assert tokens.find("tandem_x") is None


def test_a_rate_is_shared_out_among_the_workers_and_survives_a_change(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "tokens.toml"
    text, secret = add("", "slow", rate=4)
    write(path, text)
    tokens = Tokens(path, 2, clock)

    def wait_s() -> float:
        token = tokens.find(secret)
        assert token is not None
        return tokens.wait_s(token)

    assert [wait_s(), wait_s(), wait_s()] == [0, 0, 0.5]
    write(path, text + "# touched\n")
    look(tokens, clock)
    assert [wait_s(), wait_s(), wait_s()] == [0, 0, 0.5]
    write(path, text + "# touched again\n")
    clock.now += 0.25
    assert wait_s() == 0.25


# --- rates ----------------------------------------------------------------------------------


def test_a_bucket_lets_its_rate_through() -> None:
    bucket = Bucket(10, 0.0)
    # A second's worth at once, then one every tenth of a second.
    assert [bucket.take(0.0) for _ in range(10)] == [0] * 10
    assert bucket.take(0.0) == pytest.approx(0.1)
    assert bucket.take(0.1) == 0
    assert bucket.take(0.1) > 0
    # It never holds more than a second's worth.
    assert [bucket.take(1000.0) for _ in range(10)] == [0] * 10
    assert bucket.take(1000.0) > 0


def test_a_batch_is_let_through_and_paid_off() -> None:
    bucket = Bucket(10, 0.0)
    assert bucket.take(0.0) == 0
    bucket.charge(99)
    assert bucket.take(0.0) == pytest.approx(9.1)
    assert bucket.take(9.0) > 0
    assert bucket.take(9.11) == 0


def test_less_than_one_a_second() -> None:
    bucket = Bucket(0.1, 0.0)
    assert bucket.take(0.0) == 0
    assert bucket.take(0.0) == pytest.approx(10)
    assert bucket.take(10.1) == 0


# --- the table of scopes --------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_is_in_the_table_and_in_it_rightly(method: str, path: str) -> None:
    """Written down once more, as a rule: who adds a route has to think twice."""
    if not path.startswith(("/v1/", "/metrics")):
        assert scopes()[f"{method} {path}"] is None
        return
    expected = Scope.ADMIN
    if method == "GET":
        expected = Scope.READ
    elif method == "POST" and path.startswith("/v1/transfers"):
        expected = Scope.TRANSFER
    assert scopes()[f"{method} {path}"] is expected


def test_what_is_not_in_the_table_is_not_served() -> None:
    views = {route.name: Response for route in ROUTES}
    for wrong in ({**views, "show_more": Response}, dict(list(views.items())[1:])):
        app = Flask("tests")
        with pytest.raises(ValueError, match=r"show_more|open_account"):
            serve(app, wrong)
        assert {rule.endpoint for rule in app.url_map.iter_rules()} <= {"static"}
    assert {f"{method} {path}" for method, path in routes()} == scopes().keys()


def test_the_table_stands_in_the_documents() -> None:
    told = re.findall(r"^\| `([A-Z]+ /\S+)` \| `(\w+)` \|", SECURITY.read_text(), re.MULTILINE)
    written = {(re.sub(r"\{\w+\}", "{}", route), scope) for route, scope in told}
    assert written == {(route, scope.value) for route, scope in scopes().items() if scope}


def test_the_openapi_document_names_the_scopes() -> None:
    described = document(needs_token=True)
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            scope = scopes()[re.sub(r"\{\w+\}", "{}", f"{method.upper()} {path}")]
            needed = [{"token": [scope.value]}] if scope else None
            assert operation.get("security") == needed
            assert ({"401", "403", "429"} <= operation["responses"].keys()) is bool(scope)
    open_one = document()
    assert "securitySchemes" not in open_one["components"]
    assert not any("security" in o for p in open_one["paths"].values() for o in p.values())


# --- where a coordinator listens ------------------------------------------------------------


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "127.9.9.9:1", "localhost:8080"])
def test_loopback(listen: str) -> None:
    assert is_loopback(listen)
    (told,) = check_access(load(environ={"TANDEM_COORDINATOR_LISTEN": listen}))
    assert "no access control" in told
    assert listen in told


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "10.1.2.3:80", "db.example:80", "*:80"])
def test_elsewhere_only_with_tokens(tmp_path: Path, listen: str) -> None:
    assert not is_loopback(listen)
    with pytest.raises(SettingsError, match=r"tandem token new.*127\.0\.0\.1") as caught:
        check_access(load(environ={"TANDEM_COORDINATOR_LISTEN": listen}))
    assert listen in str(caught.value)
    path = tmp_path / "tokens.toml"
    write(path, GOOD)
    environ = {"TANDEM_COORDINATOR_LISTEN": listen, "TANDEM_ACCESS_TOKENS_FILE": str(path)}
    (told,) = check_access(load(environ=environ))
    assert "in the clear" in told


def test_a_tokens_file_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    environ = {"TANDEM_ACCESS_TOKENS_FILE": str(tmp_path / "none.toml")}
    with pytest.raises(SettingsError, match=r"access\.tokens_file .*none\.toml"):
        check_access(load(environ=environ))


def test_certificates_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    environ = {"TANDEM_ACCESS_TLS_CERTIFICATE": str(path), "TANDEM_ACCESS_TLS_KEY": str(path)}
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"access\.tls_certificate = .*cert\.pem"):
            check_access(load(environ=environ))
        path.write_text("no certificate\n")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ("ACCESS_TLS_KEY=k", "access.tls_certificate and access.tls_key"),
        ("ACCESS_TLS_CERTIFICATE=c", "access.tls_certificate and access.tls_key"),
        ("ACCESS_TLS_CLIENT_CA=c", "access.tls_client_ca"),
        ("ZOOKEEPER_USER=u", "zookeeper.user and zookeeper.password"),
        ("ZOOKEEPER_PASSWORD=hush", "zookeeper.user and zookeeper.password"),
        ("ZOOKEEPER_PREVIOUS_PASSWORD=hush", "zookeeper.previous_password"),
        ("MYSQL_AUDIT_USER=tandem", "mysql.audit_user"),
    ],
)
def test_settings_that_go_together(variables: str, named: str) -> None:
    name, _, value = variables.partition("=")
    with pytest.raises(SettingsError, match=re.escape(named)) as caught:
        load(environ={f"TANDEM_{name}": value})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("section", ["MYSQL", "ZOOKEEPER"])
def test_authorities_that_cannot_be_used_end_the_start(tmp_path: Path, section: str) -> None:
    path = tmp_path / "ca.pem"
    environ = {f"TANDEM_{section}_TLS_CA": str(path)}
    for _ in range(2):
        with pytest.raises(SettingsError, match=rf"{section.lower()}\.tls_ca = .*ca\.pem"):
            check_access(load(environ=environ))
        path.write_text("no certificate")


def test_a_revocation_list_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    server = str(authority.sign("server"))
    environ = {
        "TANDEM_ACCESS_TLS_CERTIFICATE": server,
        "TANDEM_ACCESS_TLS_KEY": server,
        "TANDEM_ACCESS_TLS_CLIENT_CA": str(authority.file),
    }
    for wrong in (tmp_path / "none.crl", authority.file):
        named = environ | {"TANDEM_ACCESS_TLS_CLIENT_CRL": str(wrong)}
        with pytest.raises(SettingsError, match=r"access\.tls_client_crl = "):
            check_access(load(environ=named))
    check_access(load(environ=environ | {"TANDEM_ACCESS_TLS_CLIENT_CRL": str(authority.revoke())}))


def test_files_with_secrets_that_others_can_read_are_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    key = authority.sign("server")
    config = tmp_path / "tandem.toml"
    config.write_text('[mysql]\npassword = "hush"\n')
    for file in (key, config):
        file.chmod(0o644)
    environ = {
        "TANDEM_CONFIG": str(config),
        "TANDEM_MYSQL_TLS_CA": str(authority.file),
        "TANDEM_MYSQL_TLS_CERTIFICATE": str(key),
        "TANDEM_MYSQL_TLS_KEY": str(key),
    }
    told = readable_by_others(load(environ=environ), environ)
    assert len(told) == 2
    assert f"the key of mysql.tls_key {key} can be read by everybody" in told[0]
    assert f"with passwords, {config} can be read by everybody" in told[1]
    assert "hush" not in "".join(told)
    for file in (key, config):
        file.chmod(0o640)
    assert readable_by_others(load(environ=environ), environ) == []
    config.write_text("[mysql]\n")
    config.chmod(0o644)
    assert readable_by_others(load(environ=environ), environ) == []


def test_every_way_to_a_shard_is_verified() -> None:
    environ = {
        "TANDEM_MYSQL_TLS_CA": "ca.pem",
        "TANDEM_MYSQL_ADMIN_USER": "admin",
        "TANDEM_MYSQL_AUDIT_USER": "auditor",
    }
    where = ShardAddress("db", 3306, "tandem")
    for way in (admin_address, service_address, audit_address):
        assert way(load(environ=environ), "s1", where).tls == Tls("ca.pem")
        assert not way(
            load(environ=environ | {"TANDEM_MYSQL_TLS_CA": ""}), "s1", where
        ).tls.verifies


def test_a_caller_is_a_token_or_without_tokens_a_connection() -> None:
    address = {"REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "40123"}
    with Flask("callers").test_request_context(environ_overrides=address):
        assert caller() == "127.0.0.1:40123"
        g.token = Token("shop", b"", frozenset(), None, None, None)
        assert caller() == "shop"
