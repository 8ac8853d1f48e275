"""Whose turn it is while a request that brings much is read: others of this process have at least
half of its time, however many such requests there are and whatever is in them.

To give way to those who are ready now is not enough: one that waits for a database or a client is
looked at only when no other is ready, or after some ms of such work, again and again.
"""

import time

# What an ordinary batch takes to be read; so long nobody is kept waiting.
_FREE_S = 0.05


class Turns:
    """The turns of one request; `end` it."""

    # How many in this process take long.
    long = 0

    def __init__(self) -> None:
        self._spent_s = 0.0
        self._since = time.thread_time()
        self._is_long = False

    def pause(self) -> None:
        """Let others have their turn, the longer, the more was done since the last pause."""
        spent_s = time.thread_time() - self._since
        self._spent_s += spent_s
        if not self._is_long and self._spent_s > _FREE_S:
            self._is_long = True
            Turns.long += 1
        time.sleep(spent_s * (2 * Turns.long - 1) if self._is_long else 0)
        self._since = time.thread_time()

    def end(self) -> None:
        if self._is_long:
            self._is_long = False
            Turns.long -= 1
