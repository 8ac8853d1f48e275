"""Which connection gives way, and how long a client may take to send a request."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from gevent import socket as gevent_socket

from coordinator.http import worker
from coordinator.http.connections import SPARE, Connection, Connections
from coordinator.http.transport import Broken, Late

MOST = 200


def add(found: Connections, count: int, *, known: bool = False) -> list[Connection]:
    new = [Connection(None, None, 0.0) for _ in range(count)]
    for one in new:
        found.opened(one)
        if known:
            assert found.admit(one)
            found.waits(one)
    return new


def test_nobody_goes_while_there_is_room() -> None:
    found = Connections(MOST)
    add(found, MOST + SPARE)
    assert found.too_many() == []


def test_of_strangers_who_has_waited_longest_goes() -> None:
    found = Connections(MOST)
    strangers = add(found, MOST + SPARE)
    found.waits(strangers[0])
    add(found, 2)
    assert found.too_many() == strangers[1:3]


def test_a_flood_of_strangers_leaves_those_who_are_known() -> None:
    found = Connections(MOST)
    known = add(found, MOST // 2, known=True)
    add(found, MOST + 2 * SPARE)
    assert len(found.too_many()) == MOST // 2 + SPARE
    assert not set(found.too_many()) & set(known)


def test_strangers_have_some_room_all_the_same() -> None:
    found = Connections(MOST)
    known = add(found, MOST + SPARE, known=True)
    (stranger,) = add(found, 1)
    assert found.too_many() == known[:1]
    assert found.may_go(stranger)


def test_who_is_at_work_does_not_go() -> None:
    found = Connections(MOST)
    known = add(found, MOST + SPARE, known=True)
    for one in known:
        found.serves(one)
        assert not found.may_go(one)
    (stranger,) = add(found, 1)
    assert found.too_many() == [stranger]
    found.closed(stranger)
    assert found.too_many() == []


def test_requests_beyond_the_limit_are_refused() -> None:
    found = Connections(2)
    one, two, three = (Connection(None, None, 0.0) for _ in range(3))
    for connection in (one, two, three):
        found.opened(connection)
    assert [found.admit(each) for each in (one, two, three)] == [True, True, False]
    assert found.is_crowded
    found.closed(one)
    found.closed(three)
    assert not found.is_crowded
    # The next request of one that has been let in before.
    found.waits(two)
    found.serves(two)
    assert found.admit(two)


def test_without_files_there_is_room_for_fewer() -> None:
    found = Connections(MOST)
    strangers = add(found, 100)
    found.lower()
    assert found.too_many() == strangers[:SPARE]
    found.recover()
    assert found.too_many() == strangers[: SPARE - 1]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Connection]]:
    """A client, and its connection as the worker has it: idle."""
    here, there = socket.socketpair()
    with here, gevent_socket.socket(fileno=there.detach()) as client:
        yield here, Connection(client, None, time.monotonic() + 60)


def test_a_request_has_its_time_however_it_trickles(
    ends: tuple[socket.socket, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_HEAD_S", 0.3)
    here, connection = ends
    unreader = worker._Unreader(connection)
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.01):
            here.send(b"x")

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        with pytest.raises(Late):
            read_on(unreader)
    finally:
        stop.set()
        sender.join()


def test_silence_within_a_request_is_late(
    ends: tuple[socket.socket, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_HEAD_S", 0.05)
    here, connection = ends
    unreader = worker._Unreader(connection)
    here.send(b"GET")
    assert unreader.chunk() == b"GET"
    with pytest.raises(Late):
        unreader.chunk()


def test_a_client_that_breaks_off_within_a_request(
    ends: tuple[socket.socket, Connection],
) -> None:
    here, connection = ends
    unreader = worker._Unreader(connection)
    here.send(b"GET")
    assert unreader.chunk() == b"GET"
    connection.client.shutdown(socket.SHUT_RDWR)
    connection.client.close()
    with pytest.raises(Broken):
        unreader.chunk()


def read_on(unreader: worker._Unreader) -> None:
    while True:
        assert unreader.chunk()
