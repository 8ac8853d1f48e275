"""Finishes transfers by TC/C and Saga that are left open: by a shard that is away, or by a process
that died. It goes on from where the phase table says, and tries for ever, with growing pauses.
"""

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import NamedTuple

from coordinator.engine.in_flight import Course
from coordinator.engine.local_transactions import Visits
from coordinator.engine.phased_run import settle
from coordinator.engine.scheduler import Queue
from coordinator.engine.tickets import Excuse, NotDone, Ticket
from coordinator.shards.registry import FINISHING_CONNECTIONS, Shards
from coordinator.telemetry.logs import few
from coordinator.telemetry.tracing import GroupTrace
from ledger.errors import Bug
from shard_client.errors import StatementRefused
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_PAUSE_MIN_S = 0.02
PAUSE_MAX_S = 5.0
# Courses that one visit takes on at most.
_PORTION_MAX = 500
# After it was passed over so often, a course waits in line for its account, alone (rule R9).
_SKIPS_MAX = 5
# Not all of them are at work on one shard: one that hangs leaves some to others.
_THREADS = 6
# So many may wait in line for locks at once, and one at each shard: the rest goes on beside.
_IN_LINE_MAX = 3
# So long is one that can be given up tried, from when an account was found locked.
_PATIENCE_S = 1.0
_JOIN_S = 3.0

Attempt = tuple[str, str]


class _Portion(NamedTuple):
    """Courses whose next visit is to one shard; the account of the one `in_line` is waited for, and
    the others want it too.
    """

    shard: str
    courses: list[Course]
    in_line: Course | None


class PhasedFinisher:
    """See the module."""

    def __init__(self, shards: Shards, queue: Queue, visits: Visits) -> None:
        self._shards = shards
        self._queue = queue
        self._visits = visits
        self._courses: dict[Attempt, Course] = {}
        self._busy: Counter[str] = Counter()
        # Where somebody waits in line.
        self._in_line: set[str] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"phased-finisher-{i}", daemon=True)
            for i in range(_THREADS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def add(self, *courses: Course) -> None:
        """Take courses to finish; one that is here already goes on as it is."""
        with self._changed:
            for course in courses:
                known = self._courses.setdefault(course.attempt, course)
                if known is not course and known.ticket is None:
                    known.ticket, known.excuse = course.ticket, course.excuse
                    known.queued = course.queued
            self._changed.notify_all()

    def hurry(self, gtrid: Gtrid) -> None:
        """Try the transfers of a group at once, however long the next pause was to be."""
        with self._changed:
            for course in self._courses.values():
                if course.gtrid == str(gtrid):
                    course.not_before = 0.0
            self._changed.notify_all()

    def unfinished(self) -> list[Course]:
        with self._changed:
            return list(self._courses.values())

    def crowded(self, limit: int) -> set[str]:
        """The accounts that are locked, and to which so many courses or more want to go on."""
        with self._changed:
            counts = Counter(
                course.account
                for course in self._courses.values()
                if course.account and course.skips
            )
        return {account for account, count in counts.items() if count >= limit}

    def wait_for(self, done: Callable[[list[Course]], bool], deadline: float) -> bool:
        """Wait until `done` says yes to what is unfinished, or the deadline."""
        with self._changed:
            return self._changed.wait_for(
                lambda: done(list(self._courses.values())), max(deadline - time.monotonic(), 0)
            )

    # --- portions ---------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopping:
            try:
                self._work_on()
            except Exception:
                # A thread that ends would leave its part of the work undone for ever.
                log.exception("finishing transfers met a bug", extra={"event": "phases.bug"})
                time.sleep(_PAUSE_MIN_S)

    def _work_on(self) -> None:
        while portion := self._next():
            try:
                gtrid = _gtrid_of(portion.courses[0])
                lost = self._visits.go_on(gtrid, portion.courses, GroupTrace(), portion.in_line)
                is_theirs = isinstance(lost.get(portion.shard), StatementRefused)
                hindered = [course for course in portion.courses if course.error]
                if hindered:
                    self._visits.note_attempts(gtrid, hindered, _pause_after(hindered[0]))
            except Exception as bug:
                log.exception(
                    "finishing transfers met a bug; it is tried again",
                    extra={
                        "event": "phases.bug",
                        "shard": portion.shard,
                        "transfer_ids": few(c.transfer.id for c in portion.courses),
                    },
                )
                for course in portion.courses:
                    text = f"a fault of the service, see the log: {bug}"
                    course.failed(text, time.monotonic())
                is_theirs = True
            if is_theirs:
                # It failed because of one of them, perhaps.
                for course in portion.courses:
                    course.alone = True
            self._release(portion)

    def _next(self) -> _Portion | None:
        """Wait for something whose time has come; None when the finisher stops."""
        with self._changed:
            while not self._stopping:
                portion, wait = self._pick(time.monotonic())
                if portion:
                    self._busy[portion.shard] += 1
                    if portion.in_line:
                        self._in_line.add(portion.shard)
                    for course in portion.courses:
                        course.is_running = True
                    return portion
                self._changed.wait(wait)
        return None

    def _pick(self, now: float) -> tuple[_Portion | None, float | None]:
        """What to do next; if nothing, how long to wait, at most."""
        due: dict[str, list[Course]] = defaultdict(list)
        later: float | None = None
        for course in self._courses.values():
            if course.is_running:
                continue
            if course.not_before > now:
                later = min(later or course.not_before, course.not_before)
                continue
            shard = self._shards.shard_of(course.where)
            is_kept = course.skips >= _SKIPS_MAX and not self._has_room_in_line(shard)
            if self._busy[shard] < FINISHING_CONNECTIONS and not is_kept:
                due[shard].append(course)
        if not due:
            return None, later and later - now
        shard = min(due, key=lambda name: self._busy[name])
        together = [c for c in due[shard] if not c.alone and c.skips < _SKIPS_MAX]
        if together:
            return _Portion(shard, together[:_PORTION_MAX], None), None
        first = min(due[shard], key=lambda course: course.not_before)
        if first.skips < _SKIPS_MAX:
            return _Portion(shard, [first], None), None
        likes = [c for c in due[shard] if c.account == first.account and c.skips >= _SKIPS_MAX]
        return _Portion(shard, [first] if first.alone else likes[:_PORTION_MAX], first), None

    def _give_up_late(self, course: Course, now: float) -> None:
        """Take back what somebody waits for, if its account stays locked and its protocol can."""
        if course.ticket is None or now - course.hindered_at <= _PATIENCE_S:
            return
        is_away = self._shards.trouble_with(self._shards.shard_of(course.where))
        excuse = Excuse.SHARD_UNAVAILABLE if is_away else Excuse.ACCOUNT_BUSY
        if course.expire(NotDone(excuse, f"{course.error}; nothing has happened")):
            course.not_before, course.skips = 0.0, 0

    def _has_room_in_line(self, shard: str) -> bool:
        return shard not in self._in_line and len(self._in_line) < _IN_LINE_MAX

    def _release(self, portion: _Portion) -> None:
        now = time.monotonic()
        again: list[Ticket] = []
        with self._changed:
            self._busy[portion.shard] -= 1
            if portion.in_line:
                self._in_line.discard(portion.shard)
            for course in portion.courses:
                course.is_running = False
                if course.error:
                    course.not_before = now + _pause_after(course)
                    self._give_up_late(course, now)
                if ticket := settle(self._queue, course, is_left=True):
                    again.append(ticket)
                if course.is_done:
                    self._courses.pop(course.attempt, None)
            self._changed.notify_all()
        over = [course.queued for course in portion.courses if course.is_done and course.queued]
        # Back in their places before what comes after them may go on.
        if again:
            self._queue.put_back(again)
        if over or again:
            self._queue.let_go([*over, *again])
        done = [course for course in portion.courses if course.is_done]
        if done:
            extra = {
                "event": "phases.finished",
                "count": len(done),
                "transfer_ids": few(course.transfer.id for course in done),
            }
            log.info("%d transfers that were left open are finished", len(done), extra=extra)


def _gtrid_of(course: Course) -> Gtrid:
    """The group that has begun an attempt. Raises Bug if it has another name than groups have."""
    gtrid = Gtrid.parse(course.gtrid)
    if gtrid is None:
        raise Bug(f"transfer {course.transfer.id} was begun by {course.gtrid!r}, which is no gtrid")
    return gtrid


def _pause_after(course: Course) -> float:
    """How long a course is left alone whose visit has failed, in seconds."""
    pause: float = min(_PAUSE_MIN_S * 2 ** min(course.attempts, 10), PAUSE_MAX_S)
    return pause
