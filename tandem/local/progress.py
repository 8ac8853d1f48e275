"""Shows what one is waiting for: a spinner on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text

Report = Callable[[str], None]

# A line "what: how far" is printed again for a changed "how far" only so often.
PLAIN_PAUSE_S = 5.0


def silent(text: str) -> None:
    """Report to nobody."""


class PlainLines:
    """Prints a line for each new step, and for each step's progress now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._head = ""
        self._printed_at = 0.0

    def __call__(self, text: str) -> None:
        head = text.partition(": ")[0]
        now = time.monotonic()
        if head != self._head or now - self._printed_at >= PLAIN_PAUSE_S:
            self._console.print(text, markup=False, highlight=False)
            self._head, self._printed_at = head, now


class Spinner:
    """One line that moves, with the time the present step has taken."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._head = ""
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        head = text.partition(": ")[0]
        if head != self._head:
            self._head, self._began = head, time.monotonic()
        passed = int(time.monotonic() - self._began)
        line = Text(text)
        if passed:
            line.append(f" ({passed} s)", style="dim")
        self._status.update(line)


@contextmanager
def shown(console: Console | None = None) -> Iterator[Report]:
    """A report to hand to whatever takes long, shown on stderr while the block runs."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield PlainLines(console)
        return
    with console.status("Starting") as status:
        yield Spinner(status)
