"""The queue beside a shard that is slow, and an executor that fails."""

import threading
import time

import pytest

from coordinator.engine.scheduler import Queue
from coordinator.engine.tickets import Group, NotExecuted, NotExecutedReason, State
from coordinator.engine.two_phase_run import Executors
from tests.unit.tickets import GONE, has_nothing, queue, take, take_at_once, ticket


def beside(*slow: str, slow_max: int = 1) -> Queue:
    return queue(slow_shards=lambda: set(slow), slow_max=slow_max)


def test_what_waits_for_a_slow_shard_takes_nobody_along() -> None:
    waiting = beside("s3")
    slow, well, within, other = (
        ticket("1a", "3a"),
        ticket("1b", "2b"),
        ticket("1c", "1d"),
        ticket("2d", "3d"),
    )
    waiting.put([slow, well, within, other])
    assert take_at_once(waiting).tickets == [slow, other]
    assert take_at_once(waiting).tickets == [well, within]


def test_slow_shards_have_some_of_the_executors_only() -> None:
    waiting = beside("s3", slow_max=2)
    tickets = [ticket(f"3a{n}", f"3b{n}") for n in range(3)]
    groups = []
    for one in tickets[:2]:
        waiting.put([one])
        groups.append(take_at_once(waiting))
    waiting.put([tickets[2]])
    assert has_nothing(waiting)
    well = ticket("1a", "2a")
    waiting.put([well])
    assert take_at_once(waiting).tickets == [well]
    waiting.finished(groups[0], [])
    assert take_at_once(waiting).tickets == [tickets[2]]


def test_what_has_to_wait_for_a_slow_shard_is_not_overtaken_in_its_batch() -> None:
    waiting = beside("s3")
    batch = object()
    first, slow, after = (
        ticket("1z", "2z", batch=batch),
        ticket("1a", "3a", batch=batch),
        ticket("1a", "2a", batch=batch),
    )
    waiting.put([first, slow, after])
    assert take_at_once(waiting).tickets == [first]
    assert take_at_once(waiting).tickets == [slow]
    assert has_nothing(waiting)


@pytest.mark.parametrize("protocol", ["xa", "saga"])
def test_a_group_that_cannot_even_begin_lets_go_of_its_accounts(protocol: str) -> None:
    waiting = queue()
    ended = threading.Event()

    def run(group: Group) -> None:
        if not ended.is_set():
            ended.set()
            raise KeyError("on purpose")
        waiting.settle((one, GONE) for one in group.tickets)
        waiting.finished(group, [])

    first, second = (ticket("1a", "2b", protocol=protocol) for _ in range(2))
    executors = Executors(1, waiting, run)
    waiting.put([first])
    executors.start()
    assert first.latch.wait(_soon())
    assert isinstance(first.answer, NotExecuted)
    assert first.answer.reason is NotExecutedReason.INTERNAL_ERROR
    waiting.put([second])
    assert second.latch.wait(_soon())
    assert second.answer is GONE
    assert waiting.close(_soon())


def test_what_may_have_been_written_runs_again_when_its_group_cannot_begin() -> None:
    waiting = queue()
    one = ticket("1a", "2b")
    waiting.put([one])
    group = take(waiting)
    waiting.claim_for_writing([one], "g")
    waiting.broke(group, NotExecuted(NotExecutedReason.INTERNAL_ERROR, "a bug"))
    assert one.state is State.SENT
    assert take(waiting).tickets == [one]


def test_a_group_that_has_ended_is_not_ended_again() -> None:
    waiting = queue()
    one, other = ticket("1a", "2b"), ticket("1a", "2c")
    waiting.put([one])
    group = take(waiting)
    waiting.finished(group, [one])
    waiting.put([other])
    assert take(waiting).tickets == [one, other]
    waiting.broke(group, NotExecuted(NotExecutedReason.INTERNAL_ERROR, "a bug"))
    assert one.answer is None
    waiting.put([ticket("1a", "2d")])
    assert has_nothing(waiting)


def _soon() -> float:
    return time.monotonic() + 10
