"""How long a shard that has failed must be well before it is used again."""

from collections import deque

# Failures are remembered for so long.
_REMEMBERED_S = 30.0
# After its first failure one good look is enough. With each further one it takes twice as many, at
# most sixteen, so that a shard that comes and goes does not cost everybody its timeouts each time.
_DOUBLED_MAX = 4
# Looks that are closer to each other count as one.
_APART_S = 0.4


class Trust:
    """Counts failures and good looks; `now` is monotonic, in seconds."""

    def __init__(self) -> None:
        self._failures: deque[float] = deque()
        self._good = 0
        self._good_at = 0.0

    def lose(self, now: float, *, for_long: bool = False) -> None:
        """The shard was in use and has failed; `for_long` with something that will not pass soon,
        even if a look at it is good.
        """
        self._failures += [now] * (_DOUBLED_MAX + 1 if for_long else 1)
        self._good = 0

    def fail(self) -> None:
        """A look at it was in vain."""
        self._good = 0

    def prove(self, now: float) -> bool:
        """A look at it was good; says whether it has proved itself."""
        if not self._good or now - self._good_at >= _APART_S:
            self._good += 1
            self._good_at = now
        return self._good >= self.needed(now)

    def needed(self, now: float) -> int:
        """How many good looks it takes."""
        while self._failures and self._failures[0] < now - _REMEMBERED_S:
            self._failures.popleft()
        return 1 << min(max(len(self._failures) - 1, 0), _DOUBLED_MAX)
