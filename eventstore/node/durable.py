"""How far a list is durable, and who is told when it is further."""

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

log = logging.getLogger(__name__)


class At(NamedTuple):
    """A frame of the list: its seq, and the time in its header."""

    seq: int
    time_us: int


class Counts(NamedTuple):
    """What was written since the node started."""

    frames: int = 0
    commands: int = 0
    flushes: int = 0
    flush_seconds: float = 0.0


Tell = Callable[[At], None]


class Durable:
    """The last frame that is durable. One thread raises it; whoever follows is told by another one,
    which begins with the first of them: what they do holds up nobody but each other.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at: At | None = None
        # Whom to tell, and the seq that each was told last.
        self._told: dict[Tell, int] = {}
        self._teller: threading.Thread | None = None
        self._is_closed = False

    def rise(self, at: At) -> None:
        """All up to this frame is durable."""
        with self._changed:
            self._at = at
            self._changed.notify_all()

    @property
    def at(self) -> At:
        """The last frame that is durable; there is one a moment after the node's start."""
        with self._changed:
            while self._at is None:
                self._changed.wait()
            return self._at

    def follow(self, tell: Tell, after: int = 0) -> Callable[[], None]:
        """Have somebody told of the last frame that is durable, if it comes behind `after`, now and
        whenever there is a later one. Of several that come fast only the last is told. What is
        returned ends it; one more call may be under way then. Who fails is told no more.
        """
        with self._changed:
            self._told[tell] = after
            if not self._teller:
                self._teller = threading.Thread(target=self._tell_all, name="teller", daemon=True)
                self._teller.start()
            self._changed.notify_all()
        return lambda: self._forget(tell)

    def close(self) -> None:
        """Tell what is left to tell, and end. May be repeated."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            teller = self._teller
        if teller:
            teller.join()

    def _forget(self, tell: Tell) -> None:
        with self._changed:
            self._told.pop(tell, None)

    def _tell_all(self) -> None:
        while late := self._next():
            at, tells = late
            for tell in tells:
                try:
                    tell(at)
                except Exception as error:
                    extra = {"event": "node.follower_failed"}
                    log.error("who follows the list failed: %s", error, exc_info=True, extra=extra)
                    self._forget(tell)

    def _next(self) -> tuple[At, list[Tell]] | None:
        """What is to be told, and whom; None at the end."""
        with self._changed:
            while not (late := self._late()) and not self._is_closed:
                self._changed.wait()
            if not late or not self._at:
                return None
            self._told |= dict.fromkeys(late, self._at.seq)
            return self._at, late

    def _late(self) -> list[Tell]:
        seq = self._at.seq if self._at else 0
        return [tell for tell, told in self._told.items() if told < seq]
