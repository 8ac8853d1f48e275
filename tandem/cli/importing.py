"""Importing a file: batches, in order, sent again until every line is settled or time is up.

It stops where a line cannot be settled, because order matters: a payment that comes after an
unsettled deposit would be refused for good. Run again, it recognises by the keys what is done,
and goes on.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

from tandem.cli.client import (
    BATCH_ANSWER_TIMEOUT_S,
    Client,
    GaveUp,
    Waiting,
    pauses,
)
from tandem.cli.import_result import ImportResult, RefusedLine, Verdict, judge
from tandem.cli.import_rows import FileError, Format, Kind, Row, rows_of

CHUNK_ROWS = 1000
# The service takes bodies up to [coordinator] body_max_bytes; half of its default leaves room.
CHUNK_MAX_BYTES = 4 << 20
# How long lines that are busy, pending or refused for a while are sent again without any of them
# being settled.
PATIENCE_S = 60.0
# How often the progress is told while nothing comes back.
HEARTBEAT_S = 0.5


class CannotDeliver(Exception):
    """A whole batch could not be handed over; the text says why."""

    def __init__(self, why: str, *, is_unreachable: bool, is_ambiguous: bool) -> None:
        super().__init__(why)
        self.is_unreachable = is_unreachable
        self.is_ambiguous = is_ambiguous


class Stopped(Exception):
    """Another batch, or the user, has ended the import."""


def batches(rows: Iterator[Row], chunk: int) -> Iterator[list[Row]]:
    """Consecutive rows, at most `chunk` together and no more than a request takes."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and (len(batch) >= chunk or size + row.size > CHUNK_MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row.size
    if batch:
        yield batch


class Sender:
    """Brings batches to an end, one after another, with a connection of its own."""

    def __init__(
        self,
        kind: Kind,
        client: Client,
        patience_s: float,
        stop: Event,
        tell: Callable[[str], None],
    ) -> None:
        self._kind = kind
        self._client = client
        self._patience_s = patience_s
        self._stop = stop
        self._tell = tell
        self._waiting = Waiting(patience_s, sleep=self._sleep, on_wait=lambda why, _: tell(why))

    def _sleep(self, pause_s: float) -> None:
        if self._stop.wait(pause_s):
            raise Stopped

    def settle(self, rows: Sequence[Row]) -> tuple[dict[int, Verdict], CannotDeliver | None]:
        """A verdict for each line that can be sent, and why the service was not reached, if so."""
        verdicts: dict[int, Verdict] = {}
        items = {row.line: row.item for row in rows if row.item is not None}
        last: dict[int, dict[str, Any]] = {}
        failure = None
        try:
            self._settle(items, verdicts, last)
        except CannotDeliver as error:
            failure = error
        except Stopped:
            failure = CannotDeliver("stopped", is_unreachable=False, is_ambiguous=True)
        for line in items.keys() - verdicts.keys():
            verdicts[line] = _unsettled(last.get(line), failure)
        if any(verdict.outcome == "unsettled" for verdict in verdicts.values()):
            self._stop.set()
        return verdicts, failure

    def _settle(
        self,
        items: dict[int, dict[str, Any]],
        verdicts: dict[int, Verdict],
        last: dict[int, dict[str, Any]],
    ) -> None:
        """Send what is open, in order, until nothing is or none was settled for too long."""
        deadline = time.monotonic() + self._patience_s
        growing = pauses()
        pending: set[int] = set()
        still_open = items
        while still_open:
            for line, result in self._deliver(still_open):
                if verdict := judge(result, line in pending):
                    verdicts[line] = verdict
                    continue
                if result["status"] == "pending":
                    pending.add(line)
                elif line in pending:
                    # "Nothing has happened" is said of this request, not of the earlier one.
                    continue
                last[line] = result
            sent = len(still_open)
            still_open = {line: item for line, item in items.items() if line not in verdicts}
            if len(still_open) < sent:
                deadline, growing = time.monotonic() + self._patience_s, pauses()
            pause = next(growing)
            if not still_open or time.monotonic() + pause >= deadline:
                return
            why = _why(last[next(iter(still_open))])
            self._tell(f"{len(still_open)} lines to be sent again: {why}")
            self._sleep(pause)

    def _deliver(self, items: dict[int, dict[str, Any]]) -> Iterator[tuple[int, Any]]:
        """The service's result for each line, as they come in. Raises CannotDeliver."""
        try:
            body = {self._kind: list(items.values())}
            answer = self._client.persist(
                "POST", f"/v1/{self._kind}/batch", body, waiting=self._waiting
            )
        except GaveUp as error:
            raise CannotDeliver(
                str(error), is_unreachable=True, is_ambiguous=error.is_ambiguous
            ) from error
        if answer.status in {400, 413}:
            yield from self._deliver_apart(items, answer.explanation)
            return
        results = answer.body.get("results") if isinstance(answer.body, dict) else None
        if answer.status != 200 or not isinstance(results, list) or len(results) != len(items):
            why = f"{answer.url} answered {answer.status}: {answer.explanation}"
            raise CannotDeliver(why, is_unreachable=False, is_ambiguous=answer.status < 400)
        yield from zip(items, results, strict=True)

    def _deliver_apart(
        self, items: dict[int, dict[str, Any]], why: str
    ) -> Iterator[tuple[int, Any]]:
        """One line spoils the request, or they are too much together: find out which."""
        lines = list(items)
        if len(lines) == 1:
            yield lines[0], {"status": "rejected", "reason": "malformed", "detail": why}
            return
        middle = len(lines) // 2
        for half in (lines[:middle], lines[middle:]):
            yield from self._deliver({line: items[line] for line in half})


def _why(result: dict[str, Any]) -> str:
    return str(result.get("detail") or result.get("reason") or result.get("status"))


def _unsettled(last: dict[str, Any] | None, failure: CannotDeliver | None) -> Verdict:
    """The verdict on a line that was given up, from its last result if there was one."""
    unknown = "it is not known whether it has happened"
    if last and last["status"] == "pending":
        return Verdict("unsettled", "pending", f"{unknown}: {_why(last)}")
    if failure and failure.is_ambiguous:
        return Verdict("unsettled", "no-answer", f"{unknown}: {failure}")
    if last:
        return Verdict("unsettled", str(last.get("reason")), f"nothing has happened: {_why(last)}")
    return Verdict("unsettled", "not-sent", f"nothing has happened: {failure or 'not sent'}")


class _Import:
    """One run of `import_file`: the main thread reads and counts, `parallel` threads send."""

    def __init__(
        self,
        result: ImportResult,
        on_progress: Callable[[ImportResult], None],
        on_refused: Callable[[RefusedLine], None],
    ) -> None:
        self.result = result
        self.stop = Event()
        self._on_progress = on_progress
        self._on_refused = on_refused
        self._started = time.monotonic()

    def tell(self, waiting: str) -> None:
        self.result.waiting = waiting

    def run(self, rows: Iterator[Row], senders: Sequence[Sender], chunk: int) -> None:
        free: deque[Sender] = deque(senders)
        flight: deque[tuple[list[Row], Future[Any]]] = deque()

        def send(batch: list[Row]) -> Any:
            if self.stop.is_set():
                return None
            sender = free.pop()
            try:
                return sender.settle(batch)
            finally:
                free.append(sender)

        with ThreadPoolExecutor(len(senders)) as pool:
            try:
                for batch in batches(rows, chunk):
                    # One more than can be sent, so that it is ready when a thread is.
                    while len(flight) > len(senders):
                        self._take(*flight[0])
                        flight.popleft()
                    if self.stop.is_set():
                        break
                    flight.append((batch, pool.submit(send, batch)))
            except KeyboardInterrupt as interruption:
                self.result.interruption = interruption
                self.result.stopped = "stopped by the user"
                self.stop.set()
            except BaseException:
                self.stop.set()
                raise
            finally:
                while flight:
                    self._take(*flight.popleft())

    def _take(self, batch: list[Row], future: Future[Any]) -> None:
        """Wait for a batch and count what became of its lines."""
        while not wait([future], HEARTBEAT_S).done:
            self._report_progress()
        settled = future.result()
        if settled is None:
            return
        verdicts, failure = settled
        if failure is not None:
            self.result.stopped = self.result.stopped or str(failure)
            self.result.is_unreachable |= failure.is_unreachable
        for row in batch:
            verdict = verdicts.get(row.line) or Verdict("malformed", "malformed", row.problem)
            if refused := self.result.count(row.line, row.name, verdict):
                self._on_refused(refused)
        self.result.bytes_done = batch[-1].end
        self.result.waiting = ""
        self._report_progress()

    def _report_progress(self) -> None:
        self.result.seconds = time.monotonic() - self._started
        self._on_progress(self.result)


def import_file(
    path: Path | str,
    urls: Sequence[str],
    *,
    parallel: int = 1,
    chunk: int = CHUNK_ROWS,
    format: Format | None = None,
    name: str | None = None,
    patience_s: float = PATIENCE_S,
    on_progress: Callable[[ImportResult], None] = lambda result: None,
    on_refused: Callable[[RefusedLine], None] = lambda refused: None,
) -> ImportResult:
    """Import the accounts or transfers of a file ("-" is standard input, which needs a `name`).

    One batch of `chunk` lines after another, so that the outcome is the same each time; with
    `parallel` above 1 several at once, and then the order between batches is not kept.
    `on_progress` is called twice a second or more, `on_refused` for each line that was not
    carried out, in the order of the file; both in the calling thread.

    Raises FileError when the file as a whole cannot be imported; then nothing has been sent.
    """
    stream = sys.stdin.buffer if str(path) == "-" else _open(Path(path))
    with stream:
        kind, rows = rows_of(stream, format or format_of(path), name or _base_name(path))
        result = ImportResult(kind, bytes_total=_size(path))
        run = _Import(result, on_progress, on_refused)
        clients = [
            Client(urls, first=number, answer_timeout_s=BATCH_ANSWER_TIMEOUT_S)
            for number in range(parallel)
        ]
        try:
            senders = [Sender(kind, client, patience_s, run.stop, run.tell) for client in clients]
            run.run(rows, senders, chunk)
        finally:
            for client in clients:
                client.close()
    return result


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}.") from error


def _size(path: Path | str) -> int | None:
    """The size of a regular file; a pipe has none."""
    return Path(path).stat().st_size or None if str(path) != "-" and Path(path).is_file() else None


def _base_name(path: Path | str) -> str:
    if str(path) == "-":
        raise FileError("Standard input has no name to make keys from; give one with --name.")
    return Path(path).name


def format_of(path: Path | str) -> Format:
    """The format that a file's name tells. Raises FileError."""
    suffix = Path(path).suffix.lower()
    formats: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
    if suffix not in formats:
        raise FileError(
            f"{path}: its name does not tell the format; give --format csv or --format jsonl "
            "(files named .csv, .jsonl or .ndjson need none)."
        )
    return formats[suffix]
