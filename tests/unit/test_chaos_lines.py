"""Lines that pass bytes on, drip, delay, fall silent and break: against a server that echoes."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tandem.chaos.lines import Lines, State

PATIENCE_S = 10.0


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(100):
            self.request.sendall(data)


@pytest.fixture
def lines() -> Iterator[Lines]:
    made = Lines()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            made.door("s1", server.server_address[1])
            yield made
        finally:
            made.close()
            server.shutdown()
            thread.join()


@pytest.fixture
def call(lines: Lines) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", lines.door("s1", 0)), PATIENCE_S) as made:
        yield made


def received(call: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        some = call.recv(100)
        if not some:
            break
        data += some
    return data


def test_a_line_that_is_well(call: socket.socket) -> None:
    call.sendall(b"hello")
    assert received(call, 5) == b"hello"


def test_a_door_is_made_once(lines: Lines) -> None:
    assert lines.door("s1", 0) == lines.door("s1", 0)


def test_dripping_until_it_is_well_again(lines: Lines, call: socket.socket) -> None:
    lines.disturb("s1", State.DRIP, 1000)
    call.sendall(b"hello")
    assert call.recv(100) == b"h"
    lines.disturb("s1", State.WELL)
    assert received(call, 4) == b"ello"


def test_late(lines: Lines, call: socket.socket) -> None:
    lines.disturb("s1", State.LATE, 0.05)
    began = time.monotonic()
    call.sendall(b"hello")
    assert received(call, 5) == b"hello"
    assert time.monotonic() - began >= 0.1


def test_silent_until_it_is_well_again(lines: Lines, call: socket.socket) -> None:
    lines.disturb("s1", State.STILL)
    call.sendall(b"hello")
    call.settimeout(0.1)
    with pytest.raises(TimeoutError):
        call.recv(100)
    call.settimeout(PATIENCE_S)
    lines.disturb("s1", State.WELL)
    assert received(call, 5) == b"hello"


def test_cut(lines: Lines, call: socket.socket) -> None:
    call.sendall(b"hello")
    assert received(call, 5) == b"hello"
    lines.cut("s1")
    assert call.recv(100) == b""
    with socket.create_connection(("127.0.0.1", lines.door("s1", 0)), PATIENCE_S) as again:
        again.sendall(b"hello")
        assert received(again, 5) == b"hello"
