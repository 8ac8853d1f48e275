"""Questions that wait until the read side has seen a frame."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from eventstore.wire.errors import Busy, NotYet

# So many questions wait at most, and so long.
WAITING_MAX = 10_000
PATIENCE_S = 5.0


class _Waiting(NamedTuple):
    """In the order of the frames that are waited for."""

    seq: int
    number: int
    give_up: float
    patience_s: float
    answer: Callable[[], None]
    refuse: Callable[[Exception], None]


class Waiters:
    """`run` has a question answered, by another thread than the one that follows the list."""

    def __init__(self, run: Callable[[Callable[[], None]], object]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._seen = 0
        self._waiting: list[_Waiting] = []
        self._numbers = itertools.count()

    def when_seen(
        self, seq: int, ask: Callable[[], Any], patience_s: float = PATIENCE_S
    ) -> "Future[Any]":
        """The answer to a question, once frame `seq` was seen. The future raises NotYet if that
        takes longer than `patience_s`, or PATIENCE_S. Raises Busy.
        """
        future: Future[Any] = Future()

        def answer() -> None:
            try:
                found = ask()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(found)

        with self._lock:
            if seq > self._seen:
                if len(self._waiting) >= WAITING_MAX:
                    raise Busy(
                        f"{WAITING_MAX} questions wait for frames that were not seen yet, the "
                        f"first for {self._waiting[0].seq}, after {self._seen}: ask again later"
                    )
                patience_s = min(patience_s, PATIENCE_S)
                when = next(self._numbers), time.monotonic() + patience_s, patience_s
                waiting = _Waiting(seq, *when, answer, future.set_exception)
                heapq.heappush(self._waiting, waiting)
                return future
        self._run(answer)
        return future

    def saw(self, seq: int) -> None:
        """All frames up to this one were seen."""
        due = []
        with self._lock:
            self._seen = seq
            while self._waiting and self._waiting[0].seq <= seq:
                due.append(heapq.heappop(self._waiting))
        for waiting in due:
            self._run(waiting.answer)

    def expire(self) -> None:
        """Refuse those that have waited for too long; to be called now and then."""
        now = time.monotonic()
        with self._lock:
            late = [waiting for waiting in self._waiting if waiting.give_up <= now]
            if late:
                self._waiting = [w for w in self._waiting if w.give_up > now]
                heapq.heapify(self._waiting)
            seen = self._seen
        for waiting in late:
            seq, in_s = waiting.seq, waiting.patience_s
            text = f"frame {seq} was not seen in {in_s:.1f} s; the last one was {seen}"
            waiting.refuse(NotYet(text))
