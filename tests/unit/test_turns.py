"""Who brings much has no more than half of a process's time, however many do."""

from collections.abc import Iterator

import pytest

from coordinator.http import turns
from coordinator.http.turns import Turns


class Clock:
    """The time that is spent at work, and that of breaks."""

    def __init__(self) -> None:
        self.worked = 0.0
        self.breaks: list[float] = []

    def thread_time(self) -> float:
        return self.worked

    def sleep(self, seconds: float) -> None:
        self.breaks.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found = Clock()
    monkeypatch.setattr(turns, "time", found)
    yield found
    assert Turns.long == 0


def work(clock: Clock, one: Turns, pieces: int, piece_s: float = 0.01) -> float:
    """Work so many pieces; the breaks after them."""
    before = len(clock.breaks)
    for _ in range(pieces):
        clock.worked += piece_s
        one.pause()
    return sum(clock.breaks[before:])


def test_a_short_one_only_gives_way(clock: Clock) -> None:
    one = Turns()
    assert work(clock, one, 4) == 0
    assert len(clock.breaks) == 4
    one.end()


def test_a_long_one_leaves_half(clock: Clock) -> None:
    one = Turns()
    work(clock, one, 6)
    assert work(clock, one, 50) == pytest.approx(0.5)
    one.end()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_many_long_ones_leave_half_together(clock: Clock, count: int) -> None:
    many = [Turns() for _ in range(count)]
    for one in many:
        one._since = clock.worked
        work(clock, one, 6)
    shares = 0.0
    for one in many:
        one._since = clock.worked
        breaks = work(clock, one, 20)
        shares += 0.2 / (0.2 + breaks)
    assert shares == pytest.approx(0.5)
    for one in many:
        one.end()


def test_whoever_has_ended_does_not_count(clock: Clock) -> None:
    one, other = Turns(), Turns()
    for each in (one, other):
        each._since = clock.worked
        work(clock, each, 6)
    one.end()
    one.end()
    other._since = clock.worked
    assert work(clock, other, 10) == pytest.approx(0.1)
    other.end()
