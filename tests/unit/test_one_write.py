"""The head of an answer goes with its body, and never later than that."""

import socket

import pytest

from coordinator.http.one_write import OneWrite

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Client:
    """A socket that notes what it is told."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def sendfile(self, data: bytes) -> None:
        self.sent.append(data)

    def fileno(self) -> int:
        return 7


def test_head_and_body_are_one_write() -> None:
    client = Client()
    one = OneWrite(client)
    one.sendall(HEAD)
    assert client.sent == []
    one.sendall(b"body")
    one.sendall(b"more")
    one.flush()
    assert client.sent == [HEAD + b"body", b"more"]


def test_a_head_without_a_body_goes_at_the_end() -> None:
    client = Client()
    one = OneWrite(client)
    one.sendall(HEAD)
    one.flush()
    one.flush()
    assert client.sent == [HEAD]


def test_the_head_of_a_stream_does_not_wait() -> None:
    client = Client()
    one = OneWrite(client)
    one.sendall(STREAM)
    assert client.sent == [STREAM]
    # What looks like a head is none any more.
    one.sendall(HEAD)
    assert client.sent == [STREAM, HEAD]


def test_all_else_is_the_sockets() -> None:
    assert OneWrite(Client()).fileno() == 7


def test_a_file_comes_behind_the_head() -> None:
    client = Client()
    one = OneWrite(client)
    one.sendall(HEAD)
    one.sendfile(b"body")
    one.flush()
    assert client.sent == [HEAD, b"body"]


def test_a_client_that_has_gone_is_told() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    one = OneWrite(ours)
    one.sendall(HEAD)
    with pytest.raises(OSError, match="pipe"):
        one.flush()
    ours.close()
