"""The console's events: one document for all viewers, made only while somebody watches."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from coordinator.http.events import Broadcast, Full, Viewer
from tests.cluster import wait_until


class Source:
    """Documents, and how many were made; `hold` keeps the next one from being finished."""

    def __init__(self) -> None:
        self.made = 0
        self.text = b"a"
        self.go_on = threading.Event()
        self.go_on.set()

    def make(self) -> bytes:
        self.go_on.wait(10)
        self.made += 1
        return self.text


@pytest.fixture
def source() -> Source:
    return Source()


@contextmanager
def watching(broadcast: Broadcast, **options: float) -> Iterator[Viewer]:
    viewer = broadcast.watch(**options)
    try:
        yield viewer
    finally:
        viewer.close()


def data(frame: bytes) -> bytes | None:
    """The document in a frame; None if it says that nothing has changed."""
    if frame.startswith(b": unchanged at "):
        return None
    first, second = frame.removesuffix(b"\n\n").split(b"\n")
    assert first.startswith(b"id: ")
    return second.removeprefix(b"data: ")


def test_all_viewers_share_what_is_made(source: Source) -> None:
    broadcast = Broadcast(source.make, 8, interval_s=0.1)
    with watching(broadcast) as one, watching(broadcast) as two:
        for _ in range(3):
            assert {data(next(one)), data(next(two))} <= {b"a", None}
        assert source.made <= 4


def test_a_document_goes_out_when_it_has_changed(source: Source) -> None:
    broadcast = Broadcast(source.make, 8, interval_s=0.02)
    with watching(broadcast) as viewer:
        assert data(next(viewer)) == b"a"
        assert data(next(viewer)) is None
        source.text = b"b"
        frames = (data(next(viewer)) for _ in itertools.count())
        assert next(frame for frame in frames if frame) == b"b"


def test_who_comes_later_is_told_at_once(source: Source) -> None:
    broadcast = Broadcast(source.make, 8, interval_s=60)
    with watching(broadcast) as one:
        assert data(next(one)) == b"a"
        with watching(broadcast) as two:
            assert data(next(two)) == b"a"
    assert source.made == 1


def test_nothing_is_made_when_nobody_watches(source: Source) -> None:
    broadcast = Broadcast(source.make, 8, interval_s=60)
    with watching(broadcast) as viewer:
        next(viewer)
    wait_until(lambda: not broadcast.is_running, 5, "it goes on for nobody")
    # Who comes then is not told what was so before.
    source.text = b"b"
    with watching(broadcast) as viewer:
        assert data(next(viewer)) == b"b"
    assert source.made == 2


def test_viewers_are_bounded_and_may_leave(source: Source) -> None:
    broadcast = Broadcast(source.make, 2)
    with watching(broadcast), watching(broadcast) as second:
        with pytest.raises(Full):
            broadcast.watch()
        second.close()
        second.close()
        with watching(broadcast), pytest.raises(Full):
            broadcast.watch()
    assert broadcast.viewers == 0


def test_a_sign_of_life_comes_while_the_shards_are_slow(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.http.events._KEEPALIVE_S", 0.02)
    source.go_on.clear()
    with watching(Broadcast(source.make, 8)) as viewer:
        assert next(viewer) == b": waiting\n\n"
        source.go_on.set()
        frames = (next(viewer) for _ in itertools.count())
        assert data(next(frame for frame in frames if frame != b": waiting\n\n")) == b"a"


def test_a_stream_ends_when_its_time_is_up(source: Source) -> None:
    with watching(Broadcast(source.make, 8, interval_s=0.02), lifetime_s=0.1) as viewer:
        begun = time.monotonic()
        assert len(list(viewer)) >= 1
        assert time.monotonic() - begun >= 0.1


def test_every_stream_ends_when_it_is_closed(source: Source) -> None:
    broadcast = Broadcast(source.make, 8, interval_s=60)
    with watching(broadcast) as viewer:
        next(viewer)
        ended = threading.Thread(target=lambda: list(viewer))
        ended.start()
        broadcast.close()
        ended.join(5)
        assert not ended.is_alive()
        with pytest.raises(Full):
            broadcast.watch()
    wait_until(lambda: not broadcast.is_running, 5, "it goes on when it is closed")
