"""What an import shows: progress while it runs, a summary, a file of what was not carried out."""

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from tandem.cli.import_result import ImportResult, RefusedLine, Tally
from tandem.cli.terminal import table

# How often a line is printed where no bar can be drawn.
PLAIN_INTERVAL_S = 2.0

REPORT_COLUMNS = ("line", "outcome", "reason", "detail", "name")

EXPLANATIONS = {
    "insufficient-funds": "the source would have gone below its overdraft limit",
    "account-not-found": "the source or the destination does not exist",
    "currency-mismatch": "an account is kept in another currency than the transfer's",
    "account-frozen": "the source is frozen: nothing can be debited",
    "account-closed": "the source or the destination is closed",
    "account-exists": "an account of this id exists with other terms",
    "same-account": "source and destination are the same account",
    "balance-overflow": "a balance would have become too large to be kept",
    "idempotency-key-reused": "the key names another transfer of the same source already",
    "malformed": "the line could not be understood; mend it and import the file again",
    "account-busy": "others were using the account all the time; import again",
    "shard-unavailable": "a shard could not be reached; import again when it is back",
    "overloaded": "the service had too much to do; import again later",
    "pending": "the outcome is being settled; import again to learn it",
    "no-answer": "the answer was lost; import again to learn the outcome",
    "not-sent": "the service could not be reached; import again",
}


@contextmanager
def progress_of(screen: Console, what: str) -> Iterator["Display"]:
    """Shows progress: a bar on a terminal, elsewhere a line every two seconds."""
    if not screen.is_terminal:
        yield PlainLines(screen, what)
        return
    with BarDisplay(screen, what) as display:
        yield display


class Display:
    """What `import_file` tells its progress to."""

    def __call__(self, result: ImportResult) -> None:
        raise NotImplementedError


class PlainLines(Display):
    """A line every two seconds, and one at the end of the file."""

    def __init__(self, screen: Console, what: str) -> None:
        self._screen = screen
        self._what = what
        self._next_s = time.monotonic() + PLAIN_INTERVAL_S

    def __call__(self, result: ImportResult) -> None:
        is_end = result.bytes_total is not None and result.bytes_done >= result.bytes_total
        if time.monotonic() < self._next_s and not is_end:
            return
        self._next_s = time.monotonic() + PLAIN_INTERVAL_S
        part = ""
        if result.bytes_total:
            part = f"{100 * result.bytes_done // result.bytes_total:3d} %, "
        waiting = f"; waiting: {result.waiting}" if result.waiting else ""
        self._screen.print(f"{self._what}: {part}{_figures(result)}{waiting}", soft_wrap=True)


class BarDisplay(Display):
    """A bar by the bytes that are done, with the figures under way."""

    def __init__(self, screen: Console, what: str) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=screen,
        )
        self._task = self._progress.add_task(what, total=None, figures="")

    def __enter__(self) -> "BarDisplay":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, result: ImportResult) -> None:
        waiting = f" · {result.waiting}" if result.waiting else ""
        self._progress.update(
            self._task,
            total=result.bytes_total,
            completed=result.bytes_done,
            figures=_figures(result) + waiting,
        )


def _figures(result: ImportResult) -> str:
    rate = result.rows / result.seconds if result.seconds else 0.0
    not_done = [
        f"{count:,} {name}"
        for name, count in (("malformed", result.malformed), ("unsettled", result.unsettled))
        if count
    ]
    parts = [
        f"{result.rows:,} rows",
        f"{rate:,.0f}/s",
        f"{result.committed:,} {_done_word(result)}",
        f"{result.replayed:,} replayed",
        f"{result.refused:,} refused",
        *not_done,
    ]
    return ", ".join(parts)


def _done_word(result: ImportResult) -> str:
    return "created" if result.kind == "accounts" else "committed"


def print_summary(screen: Console, result: ImportResult) -> None:
    """What was done, and of what was not: how often for which reason, with an example."""
    screen.print(f"{result.kind}: {_figures(result)} in {result.seconds:.1f} s", soft_wrap=True)
    if result.replayed:
        screen.print(
            f"{result.replayed:,} had been carried out before, and were not carried out again.",
            soft_wrap=True,
        )
    if result.refused_before:
        screen.print(
            f"{result.refused_before:,} had been refused before already: a refusal is for good.",
            soft_wrap=True,
        )
    if result.reasons:
        screen.print(reasons_table(result.reasons))


def reasons_table(reasons: dict[str, Tally]) -> object:
    """Reasons, most frequent first: how often, what it means, and the first lines."""
    shown = table("reason", "lines", "what it means", "for example", right=("lines",))
    for reason, tally in sorted(reasons.items(), key=lambda item: -item[1].count):
        first, *others = tally.examples
        also = f" (also lines {', '.join(str(o.line) for o in others)})" if others else ""
        example = f"line {first.line}: {first.detail or first.name}{also}"
        shown.add_row(reason, f"{tally.count:,}", EXPLANATIONS.get(reason, ""), example)
    return shown


class ReportFile:
    """A CSV file of every line that was not carried out, written as they come."""

    def __init__(self, stream: TextIO) -> None:
        self._writer = csv.writer(stream)
        self._writer.writerow(REPORT_COLUMNS)

    def write(self, refused: RefusedLine) -> None:
        self._writer.writerow(refused)


@contextmanager
def report_file(path: Path, source: Path) -> Iterator[ReportFile]:
    """Open the report. Raises UsageError where it would overwrite the file that is imported."""
    if path.exists() and source.exists() and path.samefile(source):
        raise click.UsageError(f"--report {path} is the file to be imported; name another one.")
    try:
        stream = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise click.UsageError(f"--report {path} cannot be written: {error.strerror}.") from error
    with stream:
        yield ReportFile(stream)
