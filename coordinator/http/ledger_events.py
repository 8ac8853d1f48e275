"""Server-sent events: what has become durable in a ledger group, in its order, to each who asks.

A stream asks the group's read side for a page when its client has taken the one before: a slow
client slows itself alone, and nothing is kept for it. It goes on from wherever it says, so a stream
may end at any time: each is asked to come again after some minutes, and may do so on any
coordinator.
"""

import threading
import time
from collections.abc import Callable, Iterator

from flask import Response, request

from coordinator.http import reading
from coordinator.http.event_views import page_text, parse_position, position_text
from coordinator.http.events import Full, give_up_when_unheard
from coordinator.http.problems import Refuse
from coordinator.http.routes import View, by_name
from coordinator.http.schemas import time_text
from coordinator.shards.registry import Shards
from coordinator.wiring import WorkerProcess
from eventstore.wire.questions import EventsAre, Position
from shard_client.errors import ShardError

# A page behind a position, waited for so many seconds. Raises ShardError.
Ask = Callable[[Position, float], EventsAre]

# Something is sent at least so often.
_WAIT_S = 2.0
# Before a group that could not be asked is asked again.
_PAUSE_S = 1.0
_LIFETIME_S = 300.0
_STREAMS_MAX = 16
# Others than these need connections, too.
_CONNECTIONS_PER_STREAM = 4
# How long a client is to wait before it comes again.
_RETRY_MS = 1000
_BEGINNING = "0"


class Streams:
    """How many streams there are, of at most `most`, and whether they are to end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self.count = 0
        self.is_closed = False

    def enter(self) -> None:
        """One more. Raises Full."""
        with self._changed:
            if self.is_closed or self.count >= self._most:
                raise Full
            self.count += 1

    def leave(self) -> None:
        """One less."""
        with self._changed:
            self.count -= 1

    def pause(self, seconds: float) -> None:
        """Wait, unless streams are to end."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_closed, seconds)

    def close(self) -> None:
        """All streams end, from now on, and there are no new ones."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()


class Stream(Iterator[bytes]):
    """What one client is sent, page after page, until its time is up or the process drains."""

    def __init__(
        self,
        streams: Streams,
        ask: Ask,
        after: Position,
        first: EventsAre,
        lifetime_s: float = _LIFETIME_S,
    ) -> None:
        """`first` is the page behind `after`. To be closed. Raises Full."""
        streams.enter()
        self._streams, self._ask = streams, ask
        self._after, self._first = after, first
        self._end = time.monotonic() + lifetime_s
        self._is_begun = self._is_closed = False

    def __next__(self) -> bytes:
        if not self._is_begun:
            self._is_begun = True
            return b"retry: %d\n" % _RETRY_MS + self._told(self._first)
        if self._streams.is_closed or time.monotonic() >= self._end:
            raise StopIteration
        try:
            found = self._ask(self._after, _WAIT_S)
        except ShardError:
            # In the middle of a stream no status can say so. Whoever comes again is told.
            self._streams.pause(_PAUSE_S)
            return b": waiting\n\n"
        except Refuse:
            raise StopIteration from None
        if found.events is None:
            # The list is another one since. Whoever comes again is told that, too.
            raise StopIteration
        return self._told(found)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._streams.leave()

    def _told(self, found: EventsAre) -> bytes:
        after, self._after = self._after, found.end
        return page_text(after, found)


def views(process: WorkerProcess) -> dict[str, View]:
    """The view; its streams end when the process drains."""
    most = min(_STREAMS_MAX, process.settings.coordinator.connections // _CONNECTIONS_PER_STREAM)
    streams = Streams(most)
    process.when_stopping.append(streams.close)

    def ask(after: Position, wait_s: float) -> EventsAre:
        return _ask(process.shards, after, wait_s)

    def stream_events() -> Response:
        after = _after()
        first = ask(after, 0.0)
        if first.events is None:
            raise _not_in_list(after, first)
        if request.method == "HEAD":
            return Response(content_type="text/event-stream")
        try:
            stream = Stream(streams, ask, after, first)
        except Full:
            detail = (
                f"this worker process has {most} streams of a group's events, as many as it gives, "
                "or is shutting down; nothing has happened, ask again later"
            )
            raise Refuse(503, "overloaded", detail) from None
        give_up_when_unheard()
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Response(stream, headers=headers, content_type="text/event-stream")

    return by_name(stream_events)


def _after() -> Position:
    """Behind which position to begin: `Last-Event-ID` comes before `after`, which has to be a
    position all the same. Raises Refuse.
    """
    # A client that was sent no id yet may say so.
    last = _position("Last-Event-ID", request.headers.get("Last-Event-ID") or None)
    after = _position("after", reading.parameter("after"))
    return last or after or Position(0)


def _position(name: str, text: str | None) -> Position | None:
    if text is None:
        return None
    position = parse_position(text)
    if position is None:
        detail = (
            f"{name} is {reading.shown(text)}, not the id of an event or the number of a frame; "
            "nothing has happened"
        )
        raise Refuse(400, "malformed", detail)
    return position


def _ask(shards: Shards, after: Position, wait_s: float) -> EventsAre:
    """A page from the cluster's ledger group. Raises Refuse if there is none, ShardError."""
    if shards.map.has_groups:
        # Takes an extra that others need not have.
        from coordinator.shards.group.node import events_among

        if group := events_among(shards.all()):
            return group.page(after, wait_s)
    detail = "this cluster has no ledger group, and only of these there are events"
    raise Refuse(404, "not-found", f"{detail}; nothing has happened")


def _not_in_list(after: Position, found: EventsAre) -> Refuse:
    last = found.as_of
    detail = (
        f"{position_text(after)} is no position in the ledger group's list, which goes up to frame "
        f"{last.seq} ({time_text(last.time_us)}): it is behind the end, or of another list. "
        f"after={_BEGINNING} is its beginning; nothing has happened"
    )
    return Refuse(409, "not-in-list", detail)
