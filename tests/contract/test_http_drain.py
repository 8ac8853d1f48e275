"""A coordinator that is told to end, or to renew its workers: what becomes of connections and of
requests on their way.
"""

import http.client
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tandem.local import processes
from tests.certificates import Authority
from tests.cluster import Cluster, Coordinator, wait_until


# A kept connection is open for two seconds more: nothing else may hold this test up for so long.
@pytest.mark.alone
def test_a_drain_answers_what_is_on_its_way_and_leaves_idle_connections(
    mysql_cluster: Cluster, tmp_path: Path
) -> None:
    overrides = {"TANDEM_COORDINATOR_WORKERS": "1"}
    with (
        mysql_cluster.coordinator("drain", tmp_path / "log", overrides) as running,
        closing(to(running.url)) as idle,
        closing(to(running.url)) as kept,
    ):
        for connection in (idle, kept):
            assert ask(connection) == (200, False)
        begun = time.monotonic()
        assert running.process is not None
        running.process.terminate()
        wait_until(lambda: not takes_connections(running.url), 10, "it takes no more connections")
        # Whoever has a connection is still answered on it, and told to come back elsewhere.
        assert ask(kept) == (200, True)
        # Nobody sends anything on this one: it is closed, not waited for.
        assert idle.sock.recv(1) == b""
        assert running.process.wait(30) == 0
        # The longest that a request may take is more than half a minute.
        assert time.monotonic() - begun < 15


class Callers:
    """Clients that call all the time, most of them over a new connection each time."""

    COUNT = 16
    _ASK = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"

    def __init__(self, port: int, trust: ssl.SSLContext | None) -> None:
        self._port = port
        self._trust = trust
        self._enough = threading.Event()
        # What has become of connections that the coordinator's machine had taken.
        self.answered = 0
        self.lost: list[str] = []

    @contextmanager
    def calling(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=self._call, args=[number % 4 == 0])
            for number in range(self.COUNT)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._enough.set()
            for thread in threads:
                thread.join()

    def _call(self, is_kept: bool) -> None:
        while not self._enough.is_set():
            try:
                wire = socket.create_connection(("127.0.0.1", self._port), timeout=30)
            except OSError:
                # It takes nobody: nothing was promised.
                self._enough.wait(0.02)
                continue
            try:
                if self._trust:
                    wire = self._trust.wrap_socket(wire, server_hostname="127.0.0.1")
                with wire:
                    self._talk(wire, is_kept)
            except OSError as error:
                self.lost.append(repr(error))

    def _talk(self, wire: socket.socket, is_kept: bool) -> None:
        end = b"\r\n" if is_kept else b"Connection: close\r\n\r\n"
        said = b""
        while b"Connection: close" not in said and not self._enough.is_set():
            wire.sendall(self._ASK + end)
            said = b""
            while not said.endswith(b"}"):
                more = wire.recv(4096)
                if not more:
                    raise OSError("it is closed without an answer")
                said += more
            self.answered += 1


@pytest.mark.parametrize(("workers", "is_secure"), [(1, False), (2, False), (2, True)])
def test_who_was_taken_is_answered(
    mysql_cluster: Cluster, tmp_path: Path, workers: int, is_secure: bool
) -> None:
    overrides = {"TANDEM_COORDINATOR_WORKERS": str(workers)}
    trust = None
    if is_secure:
        authority = Authority(tmp_path, "authority")
        certificate = str(authority.sign("server"))
        overrides["TANDEM_ACCESS_TLS_CERTIFICATE"] = certificate
        overrides["TANDEM_ACCESS_TLS_KEY"] = certificate
        trust = ssl.create_default_context(cafile=authority.file)
    log = tmp_path / "log"
    with mysql_cluster.coordinator("rolling", log, overrides, trust=trust) as running:
        callers = Callers(running.port, trust)
        with callers.calling():
            for ask_to in (signal.SIGHUP, signal.SIGTERM):
                before = callers.answered
                wait_until(lambda before=before: callers.answered > before + 50, 60, "no answers")
                old = workers_of(running)
                assert running.process is not None
                running.process.send_signal(ask_to)
                wait_until(lambda old=old: not old & workers_of(running), 60, "they go on")
            assert running.process.wait(30) == 0
        assert callers.lost == []
    assert "Traceback" not in log.read_text()


def workers_of(running: Coordinator) -> set[int]:
    """The process ids of its workers."""
    assert running.process is not None
    return {*processes.session(running.process.pid)} - {running.process.pid}


def to(url: str) -> http.client.HTTPConnection:
    address = httpx.URL(url)
    return http.client.HTTPConnection(address.host, address.port, timeout=30)


def ask(connection: http.client.HTTPConnection) -> tuple[int, bool]:
    """The status of an answer, and whether the connection is to be closed after it."""
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("Connection") == "close"


def takes_connections(url: str) -> bool:
    try:
        with closing(to(url)) as connection:
            connection.connect()
    except OSError:
        return False
    return True
