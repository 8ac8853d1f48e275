"""A coordinator that is told to end: what becomes of connections and of requests on their way."""

import http.client
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.cluster import Cluster, wait_until


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
