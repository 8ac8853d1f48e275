"""Looks between changes: one thread changes, any number look, and neither starves.

Whoever comes to look while a change is wanted or made waits for that one alone: the next change
waits for all who have waited.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Moments:
    """See `change` and `look`."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        # From when a change is wanted until it has ended; and how many have.
        self._is_closed, self._changes = False, 0
        # Who looks; who waits to; and who of those goes before the next change.
        self._looking = self._waiting = self._admitted = 0

    @contextmanager
    def change(self) -> Iterator[None]:
        """For one thread: nobody looks in here."""
        with self._turn:
            self._is_closed = True
            self._turn.wait_for(lambda: not self._looking and not self._admitted)
        try:
            yield
        finally:
            with self._turn:
                self._is_closed = False
                self._changes += 1
                self._admitted = self._waiting
                self._turn.notify_all()

    @contextmanager
    def look(self) -> Iterator[None]:
        """Nothing changes in here, so be quick; and do not look again in here."""
        with self._turn:
            if self._is_closed:
                self._wait()
            self._looking += 1
        try:
            yield
        finally:
            with self._turn:
                self._looking -= 1
                if not self._looking:
                    self._turn.notify_all()

    def _wait(self) -> None:
        """Until the change that is under way has ended."""
        changes = self._changes
        self._waiting += 1
        self._turn.wait_for(lambda: self._changes != changes)
        self._waiting -= 1
        self._admitted -= 1

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something that a change brings; whether it has come."""
        with self._turn:
            return self._turn.wait_for(is_so, timeout_s)

    def wake(self) -> None:
        """Have those in `wait_until` look again."""
        with self._turn:
            self._turn.notify_all()
