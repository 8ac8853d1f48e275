"""Finishes transfers by TC/C and Saga that are left open: by a shard that is away, or by a process
that died. It goes on from where the phase table says, and tries for ever, with growing pauses.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence

from coordinator.engine.in_flight import Course
from coordinator.engine.local_transactions import Visits
from coordinator.engine.phased_run import settle
from coordinator.engine.scheduler import Queue
from coordinator.engine.tickets import Excuse, NotDone, Ticket
from coordinator.recovery.retry_pool import Kind, Limits, Portion, Resolver, RetryPool, pause_after
from coordinator.shards.registry import FINISHING_CONNECTIONS, Shards
from coordinator.telemetry.logs import few
from coordinator.telemetry.tracing import GroupTrace
from shard_client.errors import StatementRefused
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_PAUSE_MIN_S = 0.02
# A visit takes 500 courses on at most. Three wait for locks at once, and one at each shard.
_LIMITS = Limits(threads=6, at_shard=FINISHING_CONNECTIONS, portion=500, waiting=3)
# After it was passed over so often, a course waits for the lock of its account (rule R9).
_SKIPS_MAX = 5
# So long is one that can be given up tried, from when an account was found locked.
_PATIENCE_S = 1.0

Attempt = tuple[str, str]


class PhasedResolver(Resolver[Course, Course]):
    """See the module."""

    def __init__(self, shards: Shards, queue: Queue, visits: Visits) -> None:
        self._shards = shards
        self._queue = queue
        self._visits = visits
        self.pool: RetryPool[Attempt, Course, Course] = RetryPool(
            self, _LIMITS, name="phased-resolver", bug_event="phases.bug"
        )

    def add(self, *courses: Course) -> None:
        """Take courses to finish; one that is here already goes on as it is."""
        self.pool.add([(course.attempt, course) for course in courses], _join)

    def crowded(self, limit: int) -> set[str]:
        """The accounts that are locked, and to which so many courses or more want to go on."""
        counts = Counter(
            course.account for course in self.pool.unfinished() if course.account and course.skips
        )
        return {account for account, count in counts.items() if count >= limit}

    # --- portions ---------------------------------------------------------------------------

    def tasks_of(self, course: Course) -> Sequence[Course]:
        return (course,)

    def spot_of(self, course: Course) -> tuple[str, Kind]:
        """Those that want one locked account wait for it as one; whatever may have made others
        fail is tried by itself.
        """
        waits = course.skips >= _SKIPS_MAX
        shard = self._shards.shard_of(course.where)
        if course.alone:
            return shard, Kind(1, course.attempt, waits)
        return shard, Kind(1, course.account, waits) if waits else Kind(0)

    def resolve(self, portion: Portion[Course]) -> None:
        courses = portion.tasks
        try:
            is_theirs = self._go_on(portion)
        except Exception as bug:
            log.exception(
                "finishing transfers met a bug; it is tried again",
                extra={
                    "event": "phases.bug",
                    "shard": portion.shard,
                    "transfer_ids": few(course.transfer.id for course in courses),
                },
            )
            for course in courses:
                text = f"a fault of the service, see the log: {bug}"
                course.failed(text, time.monotonic())
            is_theirs = True
        if is_theirs:
            # It failed because of one of them, perhaps.
            for course in courses:
                course.alone = True
        self._settle(courses)

    def _go_on(self, portion: Portion[Course]) -> bool:
        """Visit a shard; says whether it was one of the courses that it has refused."""
        courses = portion.tasks
        gtrid = Gtrid.parse(courses[0].gtrid)
        assert gtrid is not None
        # The others want its account too.
        awaited = courses[0] if portion.kind.waits else None
        lost = self._visits.go_on(gtrid, courses, GroupTrace(), awaited)
        hindered = [course for course in courses if course.error]
        if hindered:
            self._visits.note_attempts(gtrid, hindered, _pause_after(hindered[0]))
        return isinstance(lost.get(portion.shard), StatementRefused)

    def _settle(self, courses: Sequence[Course]) -> None:
        """Answer those that can be, put off what has failed, and drop what is done."""
        now = time.monotonic()
        again: list[Ticket] = []
        with self.pool.lock:
            for course in courses:
                if course.error:
                    course.not_before = now + _pause_after(course)
                    self._give_up_late(course, now)
                if ticket := settle(self._queue, course, is_left=True):
                    again.append(ticket)
                if course.is_done:
                    self.pool.drop(course.attempt, course)
        done = [course for course in courses if course.is_done]
        over = [course.queued for course in done if course.queued]
        # Back in their places before what comes after them may go on.
        if again:
            self._queue.put_back(again)
        if over or again:
            self._queue.let_go([*over, *again])
        if done:
            extra = {
                "event": "phases.finished",
                "count": len(done),
                "transfer_ids": few(course.transfer.id for course in done),
            }
            log.info("%d transfers that were left open are finished", len(done), extra=extra)

    def _give_up_late(self, course: Course, now: float) -> None:
        """Take back what somebody waits for, if its account stays locked and its protocol can."""
        if course.ticket is None or now - course.hindered_at <= _PATIENCE_S:
            return
        is_away = self._shards.trouble_with(self._shards.shard_of(course.where))
        excuse = Excuse.SHARD_UNAVAILABLE if is_away else Excuse.ACCOUNT_BUSY
        if course.expire(NotDone(excuse, f"{course.error}; nothing has happened")):
            course.not_before, course.skips = 0.0, 0


def _join(known: Course, other: Course) -> None:
    """One that is here already goes on as it is; who waits for the other one waits for it now."""
    if known.ticket is None:
        known.ticket, known.excuse, known.queued = other.ticket, other.excuse, other.queued


def _pause_after(course: Course) -> float:
    """How long a course is left alone whose visit has failed, in seconds."""
    return pause_after(course.attempts, _PAUSE_MIN_S)
