"""More connections than a coordinator takes: who has shown no token gives way, and nobody is left
without an answer.
"""

import http.client
import json
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from coordinator.http.connections import SPARE
from coordinator.security.tokens import Scope, add, new_token, table_of
from tandem.local import processes
from tests.certificates import Authority
from tests.cluster import Cluster, Coordinator, wait_until
from tests.logs import events

MOST = 24
# So long an honest client waits at most, however many others there are.
PATIENCE_S = 15.0


@dataclass
class Place:
    """A coordinator of one worker that takes few connections, and a token for it."""

    running: Coordinator
    log: Path
    token: str
    trust: ssl.SSLContext | None

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.running.port), timeout=20)

    def worker(self) -> int:
        """The process id of the one worker."""
        assert self.running.process is not None
        master = self.running.process.pid
        (worker,) = [pid for pid in processes.session(master) if pid != master]
        return worker

    def client(self) -> http.client.HTTPConnection:
        if self.trust:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.running.port, timeout=20, context=self.trust
            )
        return http.client.HTTPConnection("127.0.0.1", self.running.port, timeout=20)

    def get(self, path: str = "/v1/admin/cluster") -> httpx.Response:
        """A request of an honest client, who waits as long as he does."""
        headers = {"Authorization": f"Bearer {self.token}"}
        verify = self.trust or False
        url = f"{self.running.url}{path}"
        return httpx.get(url, headers=headers, timeout=PATIENCE_S, verify=verify)

    def ask(self, connection: http.client.HTTPConnection) -> tuple[int, bool]:
        """The status of an answer on this connection, and whether it was the last on it."""
        headers = {"Authorization": f"Bearer {self.token}"}
        connection.request("GET", "/v1/admin/cluster", headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Connection") == "close"


@pytest.fixture(scope="module", params=["http", "https"])
def place(
    request: pytest.FixtureRequest,
    mysql_cluster: Cluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("crowd")
    token, tokens, log = new_token(), folder / "tokens", folder / "log"
    add(tokens, "all", table_of("all", token, list(Scope), None, None))
    overrides = {
        "TANDEM_COORDINATOR_WORKERS": "1",
        "TANDEM_COORDINATOR_CONNECTIONS": str(MOST),
        "TANDEM_ACCESS_TOKENS_FILE": str(tokens),
        "TANDEM_LOG_FORMAT": "json",
    }
    trust = None
    if request.param == "https":
        authority = Authority(folder, "authority")
        certificate = str(authority.sign("server"))
        overrides["TANDEM_ACCESS_TLS_CERTIFICATE"] = certificate
        overrides["TANDEM_ACCESS_TLS_KEY"] = certificate
        trust = ssl.create_default_context(cafile=authority.file)
    with mysql_cluster.coordinator("crowd", log, overrides, trust=trust) as running:
        yield Place(running, log, token, trust)
    assert not [line for line in log.read_text().splitlines() if "Traceback" in line]


@contextmanager
def crowd(place: Place, count: int, greeting: bytes) -> Iterator[list[socket.socket]]:
    """Connections that bring these bytes and then nothing more."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            wire = stack.enter_context(place.open())
            wire.sendall(greeting)
            found.append(wire)
        yield found


@pytest.mark.parametrize("greeting", [b"", b"GET /v1/balances HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_strangers_give_way(place: Place, greeting: bytes) -> None:
    with crowd(place, 6 * MOST, greeting) as wires:
        assert place.get().status_code == 200
        assert place.get("/healthz").status_code == 200
        for wire in wires[:MOST]:
            if place.trust:
                # There is nothing to be said to one that has not even agreed upon a secret.
                wait_until(lambda wire=wire: is_ended(wire), 20, "it is kept")
            else:
                with wire.makefile("rb") as said:
                    assert said.read().startswith(b"HTTP/1.1 503 ")


def test_who_has_shown_a_token_is_kept(place: Place) -> None:
    kept = [place.client() for _ in range(MOST // 2)]
    for connection in kept:
        assert place.ask(connection) == (200, False)
    with crowd(place, 6 * MOST, b""):
        for connection in kept:
            assert place.ask(connection) == (200, False)
            connection.close()


def test_many_clients_that_keep_their_connections(place: Place) -> None:
    """Six times as many as there is room for. Whose connection has been closed meanwhile has been
    told so, and comes again.
    """
    if place.trust:
        pytest.skip("secrets take time, and change nothing")
    clients = [place.client() for _ in range(6 * MOST)]
    told = served = 0
    for _ in range(3):
        for connection in clients:
            for _ in range(3):
                try:
                    status, is_last = place.ask(connection)
                except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLError):
                    status, is_last = 0, True
                if is_last:
                    connection.close()
                if status == 200:
                    served += 1
                    break
                told += 1
            else:
                pytest.fail("a client was sent away three times in a row")
    assert served == 3 * len(clients)
    # Few have met a connection that was closed: answers said beforehand that they would be.
    assert told <= MOST + SPARE
    for connection in clients:
        connection.close()


def test_the_limit_is_answered(place: Place) -> None:
    """As many requests as are allowed wait for the rest of their bodies."""
    head = (
        f"POST /v1/transfers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {place.token}\r\n"
        "Content-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\n{"
    )
    with ExitStack() as stack:
        wires = []
        for _ in range(MOST):
            wire = place.open()
            if place.trust:
                wire = place.trust.wrap_socket(wire, server_hostname="127.0.0.1")
            wires.append(stack.enter_context(wire))
            wire.sendall(head.encode())
        wait_until(lambda: place.get().status_code == 503, 20, "the limit is not reached")
        answer = place.get()
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["type"] == "/problems/overloaded"
        assert "nothing has happened" in answer.json()["detail"]
        for path in ("/healthz", "/readyz", "/metrics"):
            assert place.get(path).status_code == 200
        # A stranger learns nothing of it.
        url = f"{place.running.url}/v1/admin/cluster"
        assert httpx.get(url, verify=place.trust or False).status_code == 401
        for wire in wires:
            wire.sendall(b"}")
            assert wire.recv(64).startswith(b"HTTP/1.1 400 ")
    wait_until(lambda: place.get().status_code == 200, 20, "there is no room again")


def test_without_files_it_goes_on(place: Place) -> None:
    """The system gives the worker no more files: whoever waits longest gives way."""
    worker = place.worker()
    opened = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (opened + SPARE, before[1]))
    try:
        with crowd(place, 3 * SPARE, b""):
            assert place.get().status_code == 200
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
    assert events(place.log, "http.no_files")
    assert json.loads(place.get("/healthz").text)["status"] == "ok"


def is_ended(wire: socket.socket) -> bool:
    try:
        return not wire.recv(4096)
    except ConnectionError:
        return True
