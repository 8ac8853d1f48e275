"""Bringing batches to an end: what is sent again, what is counted as what, when it stops."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tandem.cli.client import Client
from tandem.cli.import_result import ImportResult, RefusedLine, Verdict, judge
from tandem.cli.import_rows import Row
from tandem.cli.importing import CHUNK_MAX_BYTES, Sender, batches, import_file

Item = dict[str, Any]
Reply = Callable[[list[Item]], httpx.Response]
COMMITTED = {"status": "committed"}
BUSY = {"status": "failed", "reason": "account-busy", "detail": "account a is busy"}
PENDING = {"status": "pending"}


def row(line: int, *, problem: str = "", size: int = 100) -> Row:
    item = None if problem else {"idempotency_key": f"f:{line}"}
    return Row(line, item, problem, size, 0)


def keys(items: list[Item]) -> list[int]:
    return [int(item["idempotency_key"].partition(":")[2]) for item in items]


def results(*values: Item) -> httpx.Response:
    return httpx.Response(200, json={"results": list(values)})


def problem(status: int, name: str) -> httpx.Response:
    return httpx.Response(status, json={"type": f"/problems/{name}", "detail": f"it is {name}"})


class Service:
    """Answers each request with the next reply, the last one for ever; notes what was sent."""

    def __init__(self, *replies: Reply) -> None:
        self.sent: list[list[int]] = []
        self._replies = list(replies)
        self.stop = threading.Event()
        self.sender = Sender(
            "transfers",
            Client(["http://c1"], transport=httpx.MockTransport(self._answer)),
            patience_s=1.0,
            stop=self.stop,
            tell=lambda why: None,
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        items = json.loads(request.content)["transfers"]
        self.sent.append(keys(items))
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        return reply(items)

    def settle(self, *rows: Row) -> dict[int, str]:
        verdicts, _ = self.sender.settle(rows)
        return {line: verdict.outcome for line, verdict in verdicts.items()}


def all_committed(items: list[Item]) -> httpx.Response:
    return results(*(COMMITTED for _ in items))


@pytest.mark.parametrize(
    ("result", "was_pending", "verdict"),
    [
        (COMMITTED, False, Verdict("committed")),
        ({"status": "created"}, False, Verdict("committed")),
        ({"status": "exists"}, False, Verdict("replayed")),
        ({"status": "committed", "replayed": True}, False, Verdict("replayed")),
        ({"status": "committed", "replayed": True}, True, Verdict("committed")),
        (
            {"status": "rejected", "reason": "same-account", "detail": "d"},
            False,
            Verdict("refused", "same-account", "d"),
        ),
        (
            {"status": "rejected", "reason": "malformed", "detail": "d", "id": None},
            False,
            Verdict("malformed", "malformed", "d"),
        ),
        (BUSY, False, None),
        (PENDING, False, None),
    ],
)
def test_what_a_result_means(result: Item, was_pending: bool, verdict: Verdict | None) -> None:
    assert judge(result, was_pending) == verdict


@pytest.mark.parametrize("result", ["committed", None, {}, {"status": "sideways"}])
def test_a_result_that_is_not_understood_is_never_success(result: Any) -> None:
    verdict = judge(result, False)
    assert verdict is not None
    assert verdict.outcome == "unsettled"


def test_only_what_is_open_is_sent_again_and_in_its_order() -> None:
    service = Service(
        lambda items: results(COMMITTED, BUSY, PENDING, BUSY),
        lambda items: results(COMMITTED, COMMITTED, BUSY),
        all_committed,
    )
    outcomes = service.settle(row(1), row(2), row(3), row(4))
    assert service.sent == [[1, 2, 3, 4], [2, 3, 4], [4]]
    assert set(outcomes.values()) == {"committed"}


def test_a_malformed_line_is_never_sent() -> None:
    service = Service(all_committed)
    assert service.settle(row(1), row(2, problem="bad"), row(3)) == {
        1: "committed",
        3: "committed",
    }
    assert service.sent == [[1, 3]]


@pytest.mark.parametrize(
    ("result", "reason", "told"),
    [(BUSY, "account-busy", "nothing has happened"), (PENDING, "pending", "not known")],
)
def test_what_stays_open_is_given_up_and_stops_the_import(
    result: Item, reason: str, told: str
) -> None:
    service = Service(lambda items: results(*(result for _ in items)))
    verdicts, failure = service.sender.settle([row(1)])
    assert failure is None
    assert (verdicts[1].outcome, verdicts[1].reason) == ("unsettled", reason)
    assert told in verdicts[1].detail
    assert service.stop.is_set()


def test_what_was_once_pending_is_not_called_undone_by_a_later_busy() -> None:
    service = Service(lambda items: results(PENDING), lambda items: results(BUSY))
    verdicts, _ = service.sender.settle([row(1)])
    assert verdicts[1].reason == "pending"
    assert "not known" in verdicts[1].detail


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_batch_that_is_turned_away_is_sent_again(status: int) -> None:
    service = Service(lambda items: problem(status, "overloaded"), all_committed)
    assert service.settle(row(1), row(2)) == {1: "committed", 2: "committed"}
    assert service.sent == [[1, 2], [1, 2]]


def lose(items: list[Item]) -> httpx.Response:
    raise httpx.ReadError("connection reset")


def refuse(items: list[Item]) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


def test_a_batch_whose_answer_was_lost_is_sent_again() -> None:
    service = Service(lose, all_committed)
    assert service.settle(row(1)) == {1: "committed"}


@pytest.mark.parametrize(
    ("reply", "told"), [(lose, "it is not known"), (refuse, "nothing has happened")]
)
def test_a_service_that_stays_away_is_told_with_what_is_known(reply: Reply, told: str) -> None:
    verdicts, failure = Service(reply).sender.settle([row(1)])
    assert verdicts[1].outcome == "unsettled"
    assert told in verdicts[1].detail
    assert failure is not None
    assert failure.is_unreachable


@pytest.mark.parametrize("status", [400, 413])
def test_one_line_that_spoils_a_batch_is_found_and_the_others_go_on(status: int) -> None:
    def answer(items: list[Item]) -> httpx.Response:
        return problem(status, "malformed") if 3 in keys(items) else all_committed(items)

    service = Service(answer)
    outcomes = service.settle(*(row(line) for line in range(1, 6)))
    assert outcomes == {
        1: "committed",
        2: "committed",
        3: "malformed",
        4: "committed",
        5: "committed",
    }


def test_lines_of_a_batch_that_was_half_delivered_keep_their_outcome() -> None:
    def answer(items: list[Item]) -> httpx.Response:
        if len(items) == 4:
            return problem(413, "too-large")
        return all_committed(items) if 1 in keys(items) else refuse(items)

    outcomes = Service(answer).settle(*(row(line) for line in range(1, 5)))
    assert outcomes == {1: "committed", 2: "committed", 3: "unsettled", 4: "unsettled"}


def test_something_that_is_not_tandem_is_named() -> None:
    service = Service(lambda items: httpx.Response(404, text="<html>"))
    verdicts, failure = service.sender.settle([row(1)])
    assert "no answer of Tandem's" in str(failure)
    assert verdicts[1].outcome == "unsettled"


def test_batches_end_at_their_length_and_at_their_size() -> None:
    assert [len(batch) for batch in batches(iter([row(n) for n in range(7)]), 3)] == [3, 3, 1]
    large = [row(n, size=CHUNK_MAX_BYTES // 2) for n in range(5)]
    assert [len(batch) for batch in batches(iter(large), 1000)] == [2, 2, 1]
    huge = [row(n, size=CHUNK_MAX_BYTES * 2) for n in range(2)]
    assert [len(batch) for batch in batches(iter(huge), 1000)] == [1, 1]


@contextmanager
def listening(answer: Callable[[list[Item]], list[Item]]) -> Iterator[str]:
    """A service on a free port that answers every batch with a list of results."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = json.dumps({"results": answer(body["transfers"])}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def transfers_file(folder: Path, lines: int) -> Path:
    path = folder / "t.csv"
    path.write_text("source,destination,amount,currency\n" + "a,b,5,EUR\n" * lines)
    return path


def key_lines(items: list[Item]) -> list[int]:
    return [int(item["idempotency_key"].removeprefix("t.csv:")) for item in items]


def test_one_batch_at_a_time_and_every_line_once_in_order(tmp_path: Path) -> None:
    seen: list[int] = []
    at_once: list[int] = []
    lock = threading.Lock()

    def answer(items: list[Item]) -> list[Item]:
        at_once.append(lock.acquire(blocking=False))
        seen.extend(key_lines(items))
        lock.release()
        return [COMMITTED for _ in items]

    with listening(answer) as url:
        result = import_file(transfers_file(tmp_path, 95), [url], chunk=10)
    assert seen == list(range(2, 97))
    assert all(at_once)
    assert (result.rows, result.committed, result.stopped) == (95, 95, "")


def test_several_batches_at_once_where_asked_for(tmp_path: Path) -> None:
    # Each of the first three waits until all three are there; one after another would hang.
    together = threading.Barrier(3, timeout=20)
    count = iter(range(1000))

    def answer(items: list[Item]) -> list[Item]:
        if next(count) < 3:
            together.wait()
        return [COMMITTED for _ in items]

    with listening(answer) as url:
        result = import_file(transfers_file(tmp_path, 50), [url], chunk=10, parallel=3)
    assert result.committed == 50


def test_the_import_stops_at_what_cannot_be_settled_and_sends_nothing_after_it(
    tmp_path: Path,
) -> None:
    seen: set[int] = set()

    def answer(items: list[Item]) -> list[Item]:
        lines = key_lines(items)
        seen.update(lines)
        return [BUSY if line == 15 else COMMITTED for line in lines]

    refused: list[RefusedLine] = []
    with listening(answer) as url:
        result = import_file(
            transfers_file(tmp_path, 50),
            [url],
            chunk=10,
            patience_s=0.5,
            on_refused=refused.append,
        )
    assert max(seen) == 21
    assert (result.committed, result.unsettled, result.stopped_line) == (19, 1, 15)
    assert result.stopped
    assert [(line.line, line.reason, line.name) for line in refused] == [
        (15, "account-busy", "t.csv:15")
    ]


def test_refusals_are_counted_by_reason_with_a_few_examples(tmp_path: Path) -> None:
    no = {"status": "rejected", "reason": "insufficient-funds", "detail": "no money"}
    path = transfers_file(tmp_path, 20)
    with path.open("a") as file:
        file.write("a,b,x,EUR\n")
    progress: list[int] = []

    def note(result: ImportResult) -> None:
        progress.append(result.rows)

    with listening(lambda items: [{**no, "replayed": True} for _ in items]) as url:
        result = import_file(path, [url], chunk=5, on_progress=note)
    assert (result.refused, result.refused_before, result.malformed) == (20, 20, 1)
    tally = result.reasons["insufficient-funds"]
    assert (tally.count, [example.line for example in tally.examples]) == (20, [2, 3, 4])
    assert result.reasons["malformed"].examples[0].line == 22
    assert progress[-1] == 21
    assert result.bytes_done == result.bytes_total == path.stat().st_size


def test_an_interrupted_import_tells_what_was_done_and_sends_nothing_more(tmp_path: Path) -> None:
    seen: set[int] = set()

    def answer(items: list[Item]) -> list[Item]:
        seen.update(key_lines(items))
        return [COMMITTED for _ in items]

    def interrupt(result: ImportResult) -> None:
        if result.rows == 20 and not result.interruption:
            raise KeyboardInterrupt

    with listening(answer) as url:
        path = transfers_file(tmp_path, 5000)
        result = import_file(path, [url], chunk=10, on_progress=interrupt)
    assert result.interruption is not None
    assert result.stopped
    # What was under way is counted; the long rest was never sent.
    assert len(seen) < 200
    assert result.committed >= 20
