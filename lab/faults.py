"""Carries a schedule of faults out, and undoes each, whatever happens."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from lab.parts import Parts
from lab.result import Disturbed
from lab.schedule import GOES_S, SLOW, STANDS_S, Fault
from tandem.local.errors import LocalError

# How long a part may take until it is ready again.
COME_BACK_S = 60.0
POLL_S = 0.1


class Disturber:
    """Does what the schedule says at the times that it says, as long as it is not stopped."""

    def __init__(
        self,
        parts: Parts,
        names: Sequence[str],
        faults: Sequence[Fault],
        clock: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        """`names`: of all parts that may be away in the end. `clock`: seconds since the load
        began.
        """
        self._parts = parts
        self._names = names
        self._faults = faults
        self._clock = clock
        self._tell = tell
        self._over = threading.Event()
        self.done: list[Disturbed] = []

    def run(self) -> None:
        for fault in self._faults:
            if self._over.wait(max(0.0, fault.at_s - self._clock())):
                return
            self._tell(str(fault))
            began = self._clock()
            if fault.kind == SLOW:
                self._slow(fault)
            else:
                self._kill(fault)
            self._await_ready(fault.part)
            self.done.append(Disturbed(fault.kind, fault.part, began, self._clock()))

    def stop(self) -> None:
        """Begin nothing more; what was begun is undone before `run` ends."""
        self._over.set()

    def heal(self) -> None:
        """Bring back whatever may be away; wait until all is ready. Raises LocalError."""
        for name in self._names:
            self._parts.thaw(name)
            self._parts.start(name)
        for name in self._names:
            self._await_ready(name)

    def _kill(self, fault: Fault) -> None:
        with suppress(ProcessLookupError):
            self._parts.kill(fault.part)
        self._over.wait(fault.for_s)
        self._parts.start(fault.part)

    def _slow(self, fault: Fault) -> None:
        try:
            until_s = self._clock() + fault.for_s
            while self._clock() < until_s and not self._over.is_set():
                self._parts.freeze(fault.part)
                time.sleep(STANDS_S)
                self._parts.thaw(fault.part)
                time.sleep(GOES_S)
        finally:
            self._parts.thaw(fault.part)

    def _await_ready(self, name: str) -> None:
        give_up = time.monotonic() + COME_BACK_S
        while (why := self._parts.not_ready(name)) is not None:
            if time.monotonic() > give_up:
                raise LocalError(f"{name} does not come back after a fault: {why}")
            if why == "it does not run":
                self._parts.start(name)
            time.sleep(POLL_S)
