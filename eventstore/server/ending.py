"""How a process waits for its end."""

import os
import signal
from contextlib import suppress
from enum import Enum
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Why(Enum):
    """Why a process ends."""

    SIGNAL = b"s"
    DEATH = b"d"


class End:
    """Waits for it. Signals are told through a pipe: they come between any two instructions of the
    thread that waits, which may hold any lock then.
    """

    def __init__(self) -> None:
        self._told, self._tells = os.pipe()
        os.set_blocking(self._tells, False)
        self.is_death = False

    def catch_signals(self) -> None:
        """Take SIGTERM and SIGINT for the end, from now on; by the main thread."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def tell_death(self, error: BaseException) -> None:
        """What the process is for has failed; from any thread."""
        self.is_death = True
        self._tell(Why.DEATH)

    def wait(self) -> Why:
        """Why it is to end."""
        return Why(os.read(self._told, 1))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._tell(Why.SIGNAL)

    def _tell(self, why: Why) -> None:
        # A pipe that is full has told it often enough.
        with suppress(BlockingIOError):
            os.write(self._tells, why.value)
