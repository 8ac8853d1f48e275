"""A ledger group's events as they go out: their texts, streams of them, and where one begins."""

import json
import threading
import time
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.http import ledger_events
from coordinator.http.app import create_app
from coordinator.http.event_views import event_text, page_text, parse_position, position_text
from coordinator.http.events import Full
from coordinator.http.ledger_events import Stream, Streams, _after
from coordinator.http.problems import Refuse
from coordinator.settings import Settings
from coordinator.shards.group.events import PAGE_EVENTS, GroupEvents
from coordinator.shards.registry import Shards
from coordinator.wiring import WorkerProcess
from eventstore.wire.questions import (
    AccountOpened,
    At,
    Event,
    EventsAre,
    EventsPage,
    NowAnswerable,
    Position,
    StatusSet,
    TransferDecided,
)
from ledger.model import Transfer
from shard_client.errors import ShardUnavailable, TryAgain

NOON = 1_768_478_400_000_001
CHECK = "0a1b2c3d"
PAID = Transfer("c47-ab", "k\n1", "a", "b", 5, "EUR", '{"é":"1\\n2"}', "", NOON)
OPENED = AccountOpened(Position(1, 0, CHECK), NOON, "a", "EUR", None)
COMMITTED = TransferDecided(Position(2, 7, CHECK), NOON, PAID, None, None)
REJECTED = TransferDecided(Position(2, 8, CHECK), NOON, PAID, "same-account", "why")
START = Position(0)


def page(*events: Event, end: Position | None = None, seq: int = 9) -> EventsAre:
    return EventsAre(At(seq, NOON), list(events), end or events[-1].position)


def parsed(text: bytes) -> list[dict[str, Any]]:
    """Events as a client reads them."""
    found: list[dict[str, Any]] = []
    for block in text.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line[1:])
        if "data" in fields:
            found.append(fields | {"data": json.loads(fields["data"])})
    return found


# --- texts --------------------------------------------------------------------------------------


def test_the_text_of_an_opening() -> None:
    assert event_text(OPENED) == (
        b"id: 1-0-0a1b2c3d\nevent: account-opened\n"
        b'data: {"account":"a","currency":"EUR","overdraft_limit":null,'
        b'"created_at":"2026-01-15T12:00:00.000001Z"}\n\n'
    )


def test_the_text_of_a_status() -> None:
    assert event_text(StatusSet(Position(1, 1, CHECK), NOON, "a", "frozen")) == (
        b"id: 1-1-0a1b2c3d\nevent: account-status-set\n"
        b'data: {"account":"a","status":"frozen","updated_at":"2026-01-15T12:00:00.000001Z"}\n\n'
    )


def test_the_texts_of_transfers() -> None:
    text = event_text(COMMITTED)
    # Nothing in it ends a line before its time.
    assert text.count(b"\n") == 4
    (told,) = parsed(text)
    at = "2026-01-15T12:00:00.000001Z"
    shown = {
        "id": "c47-ab",
        "protocol": "",
        "source": "a",
        "destination": "b",
        "amount": 5,
        "currency": "EUR",
        "metadata": {"é": "1\n2"},
        "created_at": at,
        "seq": 2,
        "idempotency_key": "k\n1",
    }
    assert (told["id"], told["event"]) == ("2-7-0a1b2c3d", "transfer-committed")
    assert told["data"] == shown | {"status": "committed", "committed_at": at}
    (told,) = parsed(event_text(REJECTED))
    assert (told["id"], told["event"]) == ("2-8-0a1b2c3d", "transfer-rejected")
    why = {"status": "rejected", "rejected_at": at, "reason": "same-account", "detail": "why"}
    assert told["data"] == shown | why


def test_the_text_of_a_page() -> None:
    assert page_text(START, page(OPENED, COMMITTED)) == event_text(OPENED) + event_text(COMMITTED)
    end = Position(9, check=CHECK)
    # Nobody is told an event, and who comes again begins behind the frame.
    assert page_text(START, page(end=end)) == (
        b"id: 9-65535-0a1b2c3d\n: nothing else up to frame 9\n\n"
    )
    assert page_text(end, page(end=end)) == b": nothing else up to frame 9\n\n"


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("0", START),
        ("17", Position(17)),
        ("17-0", Position(17, 0)),
        ("17-65535-0a1b2c3d", Position(17, 65535, CHECK)),
        ("999999999999999-99999-ffffffff", Position(10**15 - 1, 99_999, "ffffffff")),
    ],
)
def test_positions_are_texts(text: str, position: Position) -> None:
    assert parse_position(text) == position
    assert position_text(position) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "1-", "1--0a1b2c3d", "1-0-", "1-0-0a1b2c3", "1-0-0A1B2C3D", "1-0-0a1b2c3d0"),
        *("a", "1 ", "1\n", "1-0-0a1b2c3d\n", "١", "1-123456", "1" * 16, "1-0-0a1b2c3d-1"),
    ],
)
def test_what_is_no_position(text: str) -> None:
    assert parse_position(text) is None


# --- streams ------------------------------------------------------------------------------------


class Group:
    """Answers with what it was given, one after the other; `asked` has what it was asked."""

    def __init__(self, *answers: EventsAre | Exception) -> None:
        self._answers = iter(answers)
        self.asked: list[tuple[Position, float]] = []

    def ask(self, after: Position, wait_s: float) -> EventsAre:
        self.asked.append((after, wait_s))
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_stream_asks_when_the_page_before_was_taken() -> None:
    end = Position(5, check=CHECK)
    group = Group(page(COMMITTED, REJECTED), page(end=end), page(end=end))
    with closing(Stream(Streams(1), group.ask, START, page(OPENED))) as stream:
        assert next(stream) == b"retry: 1000\n" + event_text(OPENED)
        assert group.asked == []
        assert next(stream) == event_text(COMMITTED) + event_text(REJECTED)
        assert len(group.asked) == 1
        assert next(stream) == b"id: 5-65535-0a1b2c3d\n: nothing else up to frame 5\n\n"
        assert next(stream) == b": nothing else up to frame 5\n\n"
    wait_s = ledger_events._WAIT_S
    assert group.asked == [
        *((OPENED.position, wait_s), (REJECTED.position, wait_s)),
        (end, wait_s),
    ]


def test_a_group_that_cannot_be_asked_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_events, "_PAUSE_S", 0.001)
    gone = ShardUnavailable("g", "its read side is gone")
    group = Group(gone, TryAgain("g", "not yet"), page(COMMITTED))
    with closing(Stream(Streams(1), group.ask, START, page(OPENED))) as stream:
        next(stream)
        assert [next(stream) for _ in range(3)] == [
            *(b": waiting\n\n", b": waiting\n\n"),
            event_text(COMMITTED),
        ]
    assert {after for after, _ in group.asked} == {OPENED.position}


@pytest.mark.parametrize(
    "answer", [EventsAre(At(1, 1), None, START), Refuse(404, "not-found", "there is none")]
)
def test_a_stream_ends_with_its_list(answer: EventsAre | Exception) -> None:
    with closing(Stream(Streams(1), Group(answer).ask, START, page(OPENED))) as stream:
        assert len(list(stream)) == 1


def test_a_stream_ends_when_its_time_is_up() -> None:
    endless = Group(*(page(end=START) for _ in range(10**5)))
    with closing(Stream(Streams(1), endless.ask, START, page(OPENED), lifetime_s=0.05)) as stream:
        begun = time.monotonic()
        assert len(list(stream)) > 1
        assert time.monotonic() - begun >= 0.05


def test_every_stream_ends_when_they_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_events, "_PAUSE_S", 60)
    asked = threading.Event()

    def ask(after: Position, wait_s: float) -> EventsAre:
        asked.set()
        raise ShardUnavailable("g", "gone")

    streams = Streams(2)
    with closing(Stream(streams, ask, START, page(OPENED))) as stream:
        ended = threading.Thread(target=lambda: list(stream))
        ended.start()
        assert asked.wait(5)
        streams.close()
        ended.join(5)
        assert not ended.is_alive()
        with pytest.raises(Full):
            Stream(streams, ask, START, page(OPENED))


def test_streams_are_bounded_and_may_leave() -> None:
    streams, group = Streams(2), Group()
    first, second = (Stream(streams, group.ask, START, page(OPENED)) for _ in range(2))
    with pytest.raises(Full):
        Stream(streams, group.ask, START, page(OPENED))
    # It was never begun, and is closed twice.
    second.close()
    second.close()
    assert streams.count == 1
    Stream(streams, group.ask, START, page(OPENED)).close()
    first.close()
    assert streams.count == 0


# --- the view -----------------------------------------------------------------------------------


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    made = Group(page(OPENED), EventsAre(At(9, NOON), None, START))
    monkeypatch.setattr(ledger_events, "_ask", lambda shards, *asked: made.ask(*asked))
    return made


@pytest.fixture
def api() -> FlaskClient:
    """Of a process that is not started."""
    client = create_app(WorkerProcess(Settings(), 0)).test_client()
    client.environ_base["HTTP_HOST"] = "127.0.0.1"
    return client


@pytest.mark.parametrize(
    ("query", "headers", "after"),
    [
        ("", {}, START),
        ("?after=0", {}, START),
        ("?after=7", {}, Position(7)),
        ("?after=7-3-0a1b2c3d", {}, Position(7, 3, CHECK)),
        ("?after=7", {"Last-Event-ID": "9-1-0a1b2c3d"}, Position(9, 1, CHECK)),
        ("?after=7", {"Last-Event-ID": ""}, Position(7)),
    ],
)
def test_where_a_stream_begins(
    api: FlaskClient, group: Group, query: str, headers: dict[str, str], after: Position
) -> None:
    with api.get(f"/v1/events{query}", headers=headers, buffered=False) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        assert next(answer.iter_encoded()) == b"retry: 1000\n" + event_text(OPENED)
    # Nobody waits for the first answer.
    assert group.asked == [(after, 0.0)]


def test_a_head_opens_no_stream(api: FlaskClient, group: Group) -> None:
    answer = api.head("/v1/events")
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["Content-Type"] == "text/event-stream"


@pytest.mark.parametrize("headers", [{}, {"Last-Event-ID": "x"}])
def test_what_is_no_position_is_refused(
    api: FlaskClient, group: Group, headers: dict[str, str]
) -> None:
    answer = api.get("/v1/events?after=1-x", headers=headers)
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["type"] == "/problems/malformed"
    assert ("Last-Event-ID is" if headers else "after is") in answer.json["detail"]
    assert not group.asked


def test_a_position_of_another_list_is_refused(api: FlaskClient, group: Group) -> None:
    group.ask(START, 0)
    answer = api.get("/v1/events?after=12-3-0a1b2c3d")
    assert answer.status_code == 409
    assert answer.json is not None
    assert answer.json["type"] == "/problems/not-in-list"
    assert answer.json["detail"].startswith("12-3-0a1b2c3d is no position in the ledger group's")
    assert "frame 9 (2026-01-15T12:00:00.000001Z)" in answer.json["detail"]


def test_a_cluster_without_a_ledger_group_has_no_events(
    api: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shards, "map", SimpleNamespace(has_groups=False))
    answer = api.get("/v1/events?after=5")
    assert answer.status_code == 404
    assert answer.json is not None
    assert answer.json["type"] == "/problems/not-found"
    assert "has no ledger group" in answer.json["detail"]


# --- the group's side ---------------------------------------------------------------------------


class FakeLink:
    """Answers with a page, and says up to where the node's list is answerable."""

    shard = "g"

    def __init__(self, found: EventsAre, answerable: int = 0) -> None:
        self._found, self._answerable = found, answerable
        self.asked: list[object] = []

    def ask_reads(self, question: EventsPage, kind: type, deadline: float) -> EventsAre:
        assert 2.5 < deadline - time.monotonic() <= 60
        self.asked.append(question)
        return self._found

    def answerable(self, deadline: float) -> At:
        self.asked.append(NowAnswerable())
        return At(self._answerable, NOON)


def of(link: FakeLink) -> GroupEvents:
    return GroupEvents(link)  # type: ignore[arg-type]


def test_a_page_is_asked_of_the_read_side_alone() -> None:
    link = FakeLink(page(OPENED))
    assert of(link).page(START, 2.5) == page(OPENED)
    assert link.asked == [EventsPage(START, PAGE_EVENTS, 2.5)]


def test_a_read_side_that_is_behind_refuses_nobody_for_good() -> None:
    unseen = EventsAre(At(4, NOON), None, Position(5))
    with pytest.raises(TryAgain, match="has seen frame 4, and 5 comes later"):
        of(FakeLink(unseen, answerable=5)).page(Position(5), 0.0)
    # The node has no such frame either.
    assert of(FakeLink(unseen, answerable=4)).page(Position(5), 0.0) == unseen
    # It was seen, and is not what it should be.
    link = FakeLink(EventsAre(At(5, NOON), None, Position(5, 1)), answerable=9)
    assert of(link).page(Position(5, 1), 0.0).events is None
    assert NowAnswerable() not in link.asked


@pytest.mark.parametrize("last", ["", "7", "7-3-0011aabb"])
def test_a_position_that_is_none_is_refused_beside_another_one(last: str) -> None:
    app = Flask(__name__)
    headers = {"Last-Event-ID": last}
    with app.test_request_context("/v1/events?after=x", headers=headers), pytest.raises(Refuse):
        _after()
    with app.test_request_context("/v1/events?after=3", headers=headers):
        assert _after() == (parse_position(last or "3"))
