"""The pool that tries again: which portions it hands on, and that no shard has all its threads."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from coordinator.recovery.retry_pool import (
    PAUSE_MAX_S,
    Kind,
    Limits,
    Portion,
    Resolver,
    RetryPool,
    pause_after,
)

PLAIN, FIRST = Kind(1), Kind(0)
LIMITS = Limits(threads=3, at_shard=2, portion=4, waiting=2)
NOW = 100.0
SOON_S = 5.0


class Job:
    """An item that is its only task."""

    def __init__(self, name: str, shard: str, kind: Kind = PLAIN, not_before: float = 0.0) -> None:
        self.name = name
        self.shard = shard
        self.kind = kind
        self.not_before = not_before
        self.is_running = False


class Jobs(Resolver[Job, Job]):
    """Does to each portion what a test says."""

    def __init__(self, *jobs: Job, limits: Limits = LIMITS) -> None:
        self.pool: RetryPool[str, Job, Job] = RetryPool(
            self, limits, name="retry-test", bug_event="test.bug"
        )
        self.do: Callable[[Portion[Job]], None] = self.finish
        self.add(*jobs)

    def add(self, *jobs: Job) -> None:
        self.pool.add([(job.name, job) for job in jobs], lambda known, other: None)

    def tasks_of(self, job: Job) -> list[Job]:
        return [job]

    def spot_of(self, job: Job) -> tuple[str, Kind]:
        return job.shard, job.kind

    def resolve(self, portion: Portion[Job]) -> None:
        self.do(portion)

    def finish(self, portion: Portion[Job]) -> None:
        for job in portion.tasks:
            self.pool.drop(job.name, job)

    def take(self, now: float = NOW) -> list[Job] | None:
        portion, _ = self.pool.take(now)
        return portion.tasks if portion else None

    @contextmanager
    def running(self) -> Iterator[None]:
        self.pool.start()
        try:
            yield
        finally:
            self.pool.stop()

    def are_done(self) -> bool:
        return self.pool.wait_for(lambda left: not left, time.monotonic() + SOON_S)


def jobs(count: int, shard: str, kind: Kind = PLAIN) -> list[Job]:
    return [Job(f"{shard}-{kind.rank}-{number}", shard, kind) for number in range(count)]


# --- portions -----------------------------------------------------------------------------------


def test_a_portion_has_tasks_of_one_kind_at_one_shard_and_so_many_at_most() -> None:
    there, elsewhere, other = jobs(6, "s1"), jobs(2, "s2"), jobs(1, "s1", FIRST)
    made = Jobs(*there, *elsewhere, *other)
    assert made.take() == other
    assert made.take() == elsewhere
    assert made.take() == there[:4]
    # Two portions are at that shard.
    assert made.take() is None


def test_of_one_rank_what_has_been_due_for_longest_comes_first() -> None:
    late = [Job("b", "s1", Kind(1, "b"), not_before=20.0), Job("a", "s1", Kind(1, "a"), 10.0)]
    made = Jobs(*late)
    assert made.take() == [late[1]]
    assert made.take() == [late[0]]


def test_what_is_not_due_is_left_alone_and_the_pool_knows_how_long() -> None:
    made = Jobs(Job("a", "s1", not_before=NOW + 7), Job("b", "s1", not_before=NOW + 3))
    assert made.pool.take(NOW) == (None, 3.0)
    assert made.take(NOW + 3) is not None
    assert Jobs().pool.take(NOW) == (None, None)


def test_the_shard_with_the_fewest_at_work_comes_first() -> None:
    made = Jobs(*jobs(5, "s1"))
    assert made.take() is not None
    made.add(*jobs(1, "s2"))
    taken = made.take()
    assert taken is not None
    assert taken[0].shard == "s2"


def test_what_waits_for_locks_is_under_way_once_at_a_shard_and_few_at_a_time() -> None:
    waiting = [Job(f"{n}", f"s{n % 3}", Kind(1, n, waits=True)) for n in range(6)]
    made = Jobs(*waiting)
    first, _ = made.pool.take(NOW)
    second, _ = made.pool.take(NOW)
    assert first
    assert second
    assert first.shard != second.shard
    assert made.take() is None
    made.add(Job("free", "s1"))
    assert [job.name for job in made.take() or []] == ["free"]
    made.pool.give_back(first)
    third, _ = made.pool.take(NOW)
    assert third
    assert third.kind.waits


def test_what_is_given_back_may_be_taken_again() -> None:
    made = Jobs(*jobs(1, "s1"))
    portion, _ = made.pool.take(NOW)
    assert portion
    assert made.take() is None
    made.pool.give_back(portion)
    assert made.take() == portion.tasks


# --- items --------------------------------------------------------------------------------------


def test_one_that_is_here_already_stays_and_is_joined() -> None:
    first, second = Job("a", "s1"), Job("a", "s2")
    made, joined = Jobs(first), list[tuple[Job, Job]]()
    kept = made.pool.add([("a", second)], lambda known, other: joined.append((known, other)))
    assert kept == [first]
    assert joined == [(first, second)]
    assert made.pool.unfinished() == [first]


def test_one_that_is_dropped_does_not_take_its_namesake_along() -> None:
    first, second = Job("a", "s1"), Job("a", "s2")
    made = Jobs(first)
    assert made.pool.drop("a", first)
    made.add(second)
    assert not made.pool.drop("a", first)
    assert made.pool.unfinished() == [second]


def test_who_is_in_a_hurry_is_tried_at_once() -> None:
    made = Jobs(Job("a", "s1", not_before=NOW + 5), Job("b", "s1", not_before=NOW + 5))
    made.pool.hurry(lambda job: job.name == "b")
    assert [job.name for job in made.take() or []] == ["b"]


@pytest.mark.parametrize("first_s", [0.02, 0.05])
def test_pauses_double_up_to_a_limit(first_s: float) -> None:
    pauses = [pause_after(failures, first_s) for failures in (0, 1, 2, 20, 10_000)]
    assert pauses == [first_s, 2 * first_s, 4 * first_s, PAUSE_MAX_S, PAUSE_MAX_S]


# --- threads ------------------------------------------------------------------------------------


def test_a_shard_that_hangs_leaves_threads_to_others() -> None:
    made, goes_on = Jobs(*jobs(20, "hangs")), threading.Event()

    def resolve(portion: Portion[Job]) -> None:
        if portion.shard == "hangs":
            goes_on.wait(SOON_S)
        made.finish(portion)

    made.do = resolve
    with made.running():
        made.add(*jobs(20, "s1"))
        deadline = time.monotonic() + SOON_S
        assert made.pool.wait_for(lambda left: all(j.shard != "s1" for j in left), deadline)
        assert len(made.pool.unfinished()) == 20
        goes_on.set()
        assert made.are_done()


def test_what_has_failed_is_tried_again_after_its_pause() -> None:
    made, tries = Jobs(*jobs(1, "s1")), list[float]()

    def resolve(portion: Portion[Job]) -> None:
        tries.append(time.monotonic())
        if len(tries) == 3:
            made.finish(portion)
        portion.tasks[0].not_before = time.monotonic() + pause_after(len(tries), 0.01)

    made.do = resolve
    with made.running():
        assert made.are_done()
    assert tries[1] - tries[0] >= 0.02
    assert tries[2] - tries[1] >= 0.04


def test_a_bug_ends_no_thread_and_keeps_no_task() -> None:
    made, bugs = Jobs(*jobs(1, "s1")), list[str]()

    def resolve(portion: Portion[Job]) -> None:
        if len(bugs) < 2 * LIMITS.threads:
            bugs.append(portion.shard)
            raise ValueError("a bug")
        made.finish(portion)

    made.do = resolve
    with made.running():
        assert made.are_done()
    assert len(bugs) == 2 * LIMITS.threads


def test_when_it_stops_its_threads_end() -> None:
    made = Jobs(Job("a", "s1", not_before=time.monotonic() + 60))
    with made.running():
        assert any(thread.name == "retry-test-0" for thread in threading.enumerate())
    assert all(not thread.name.startswith("retry-test") for thread in threading.enumerate())
    assert len(made.pool.unfinished()) == 1
