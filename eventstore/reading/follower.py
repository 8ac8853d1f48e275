"""Follows a list as far as it is answerable, and has a read side see its frames."""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from eventstore.segments.frame import Frame
from eventstore.segments.reader import Reader

log = logging.getLogger(__name__)


class Sees(Protocol):
    """A read side, or what gives frames to one."""

    @property
    def next_seq(self) -> int:
        """The frame that is to be applied next."""

    def apply(self, frame: Frame) -> None:
        """See the next frame."""


class Follower:
    """A thread. It knows how far it may read by `tell` alone (rule E15)."""

    def __init__(
        self, side: Sees, reader: Reader, on_death: Callable[[BaseException], None]
    ) -> None:
        """`reader` is for its thread alone. `on_death` is called by that when something has failed:
        the process is to end then.
        """
        self._side, self._reader, self._on_death = side, reader, on_death
        self._changed = threading.Condition()
        self._answerable, self._is_stopped = 0, False
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def tell(self, answerable: int) -> None:
        """All frames up to this one are answerable. That never becomes less."""
        with self._changed:
            self._answerable = max(self._answerable, answerable)
            self._changed.notify()

    @property
    def answerable(self) -> int:
        """What it was told last."""
        return self._answerable

    def stop(self) -> None:
        """End the thread, between two frames."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join()

    def _follow(self) -> None:
        try:
            while self._is_more():
                for frame in self._reader.read(self._side.next_seq, until=self._answerable):
                    self._side.apply(frame)
                    if self._is_stopped:
                        return
        except BaseException as error:
            extra = {"event": "reading.died", "seq": self._side.next_seq}
            log.critical("the read side follows no more: %s", error, exc_info=error, extra=extra)
            self._on_death(error)

    def _is_more(self) -> bool:
        """Wait for frames; False if it is to end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_stopped or self._answerable >= self._side.next_seq
            )
            return not self._is_stopped
