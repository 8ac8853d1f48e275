"""What chaos shows: lines as it goes, a line with the state of things, one table in the end."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from tandem.chaos.history import LOST, NOT_CONNECTED, TOO_LATE
from tandem.chaos.oracles import WAYS, Violation

# How often the state of things is shown: on a terminal, and as a line elsewhere.
STATUS_PAUSE_S = 0.5
STATUS_LINE_PAUSE_S = 10.0
# So many violations are shown when they are found, and in the table; all are in --json.
SHOWN_MAX = 20
EVIDENCE_MAX = 2000


class Result(NamedTuple):
    """What a run has come to."""

    seed: int
    seconds: float
    # The command line that does it again.
    again: str
    tried: Mapping[str, int]
    answers: Mapping[str, int]
    # What was measured or counted besides, by name.
    measured: Mapping[str, str]
    violations: Sequence[Violation]
    # What it means if there is no violation.
    good_news: str = "every answer was true"

    @property
    def document(self) -> dict[str, Any]:
        """As --json prints it."""
        violations = [
            {"way": v.way, "subject": v.subject, "detail": v.detail} for v in self.violations
        ]
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "again": self.again,
            "tried": dict(self.tried),
            "answers": dict(self.answers),
            "measured": dict(self.measured),
            "violations": violations,
        }


class Screen:
    """Prints lines with the time since the beginning. Threads may share it."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Counter[str] = Counter()

    def tell(self, text: str) -> None:
        with self._lock:
            self._console.print(Text(f"{self._clock():7.1f} s  {text}"))

    def accuse(self, violation: Violation) -> None:
        """Show a violation; of one way only so many."""
        with self._lock:
            self._found[violation.way] += 1
            count = self._found[violation.way]
        if count <= SHOWN_MAX:
            self.tell(f"VIOLATION {violation.way}: {violation.subject}: {_cut(violation.detail)}")
        if count == SHOWN_MAX:
            self.tell(f"further violations {violation.way} are only counted")

    @contextmanager
    def state(self, describe: Callable[[], str]) -> Iterator[None]:
        """Show what `describe` says during the block, again and again."""
        over = threading.Event()
        if self._console.is_terminal:
            with self._console.status(Text(describe())) as status:
                yield from self._repeating(over, lambda: _update(status, describe), STATUS_PAUSE_S)
        else:
            yield from self._repeating(over, lambda: self.tell(describe()), STATUS_LINE_PAUSE_S)

    def _repeating(
        self, over: threading.Event, show: Callable[[], None], pause_s: float
    ) -> Iterator[None]:
        def work() -> None:
            while not over.wait(pause_s):
                show()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _update(status: Status, describe: Callable[[], str]) -> None:
    status.update(Text(describe()))


def _cut(text: str) -> str:
    return text if len(text) <= EVIDENCE_MAX else f"{text[:EVIDENCE_MAX]} ..."


def state_line(
    answers: Mapping[str, int], committed: int, passed_s: float, in_doubt_most: int, found: int
) -> str:
    """The state of things in one line."""
    top = ", ".join(f"{count:,} {name}" for name, count in grouped(answers).items() if count)
    rate = committed / passed_s if passed_s else 0.0
    return (
        f"{committed:,} transfers committed, {rate:.0f}/s; {top or 'no answers yet'}; "
        f"in doubt at most {in_doubt_most}; violations: {found}"
    )


def grouped(answers: Mapping[str, int]) -> dict[str, int]:
    """Answers to single transfers, in groups: 201, 202, 4xx, 503, lost, refused connections."""
    groups = dict.fromkeys(("201", "202", "4xx", "503", "lost", "not connected", "other"), 0)
    for label, count in answers.items():
        if not label.startswith(("GET:", "batch:", "item:")):
            groups[_group(label)] += count
    return groups


def _group(label: str) -> str:
    if label[:3] in ("201", "202", "503"):
        return label[:3]
    if label.startswith("4"):
        return "4xx"
    if label.startswith((LOST, TOO_LATE)):
        return "lost"
    return "not connected" if label == NOT_CONNECTED else "other"


def summary(result: Result) -> Table:
    """The one table: what was tried, what clients saw, what was measured, what was found."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    made.title = f"seed {result.seed}, {result.seconds:.0f} s"
    made.add_column("")
    made.add_column("what", overflow="fold")
    made.add_column("how often", justify="right", no_wrap=True)
    _section(made, "tried", [(name, f"{n:,}") for name, n in sorted(result.tried.items())])
    _section(made, "clients saw", [(name, f"{n:,}") for name, n in _sorted(result.answers)])
    _section(made, "measured", list(result.measured.items()))
    ways = Counter(violation.way for violation in result.violations)
    found = [(f"{way}: {WAYS.get(way, way)}", f"{n:,}") for way, n in ways.items()]
    _section(made, "found", found or [(f"no violation: {result.good_news}", "0")])
    return made


def _sorted(answers: Mapping[str, int]) -> list[tuple[str, int]]:
    """Single transfers first, then batches and their items, then questions."""
    order = ("batch:", "item:", "GET:")

    def rank(label: str) -> tuple[int, str]:
        return next((i for i, p in enumerate(order, 1) if label.startswith(p)), 0), label

    return [(label, answers[label]) for label in sorted(answers, key=rank)]


def _section(table: Table, title: str, rows: Sequence[tuple[str, str]]) -> None:
    for index, (what, count) in enumerate(rows or [("nothing", "0")]):
        table.add_row(title if index == 0 else "", what, count)
    table.add_section()


def seconds_text(seconds: float) -> str:
    return f"{seconds:.1f} s"


def clock_since(start: float) -> Callable[[], float]:
    """Seconds since a moment of the monotonic clock."""
    return lambda: time.monotonic() - start
