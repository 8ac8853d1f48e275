"""Server-sent events: what the console shows, once a second, to all who watch this process.

One thread makes one document for all of them, and only while there is a viewer. A viewer takes one
of the worker's connections, so there are few, and each is asked to come again after some minutes.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
from flask import Response, request

from coordinator.http import schemas
from coordinator.http.problems import Refuse
from coordinator.http.routes import View, by_name
from coordinator.operations.answers import InDoubtList
from coordinator.shards.registry import NoShardMap
from coordinator.telemetry.metrics import Totals
from coordinator.wiring import WorkerProcess

log = logging.getLogger(__name__)

_INTERVAL_S = 1.0
# Something is sent at least so often: a viewer that hears nothing has lost touch.
_KEEPALIVE_S = 2.0
_LIFETIME_S = 300.0
# A viewer that is gone without a word is given up.
_UNHEARD_MAX_MS = 20_000
_VIEWERS_MAX = 8
# Others than viewers need connections, too.
_CONNECTIONS_PER_VIEWER = 4
# What is in doubt for less is shown by nobody: every transfer across shards is, for a moment.
_IN_DOUBT_FROM_S = 1.0
_BRANCHES_MAX = 100


class Full(Exception):
    """So many watch already."""


class Broadcast:
    """Gives one document, made by `make`, to at most `most` viewers.

    A document goes out when it differs from the one before, else a comment does.
    """

    def __init__(
        self, make: Callable[[], bytes], most: int, *, interval_s: float = _INTERVAL_S
    ) -> None:
        self._make = make
        self._most = most
        self._interval_s = interval_s
        self.changed = threading.Condition()
        self.viewers = 0
        self.is_running = False
        self.is_closed = False
        # Counts looks, and those that have found something else than the one before.
        self.looks = 0
        self.version = 0
        self.document = b""
        self.made_ms = 0

    def watch(self, lifetime_s: float = _LIFETIME_S) -> "Viewer":
        """One more viewer, which is to be closed. Raises Full."""
        with self.changed:
            if self.is_closed or self.viewers >= self._most:
                raise Full
            self.viewers += 1
            if not self.is_running:
                self.is_running = True
                threading.Thread(target=self._produce, name="console", daemon=True).start()
            return Viewer(self, lifetime_s)

    def close(self) -> None:
        """Nobody watches any more, from now on."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def _produce(self) -> None:
        while True:
            next_look = time.monotonic() + self._interval_s
            made_ms = time.time_ns() // 1_000_000
            document = self._make()
            with self.changed:
                if document != self.document:
                    self.document = document
                    self.version += 1
                self.looks += 1
                self.made_ms = made_ms
                self.changed.notify_all()
                pause_s = max(next_look - time.monotonic(), 0)
                self.changed.wait_for(lambda: self.is_closed or not self.viewers, pause_s)
                if self.is_closed or not self.viewers:
                    self.document = b""
                    self.is_running = False
                    return


class Viewer(Iterator[bytes]):
    """The frames for one viewer, until its time is up or the process drains."""

    def __init__(self, broadcast: Broadcast, lifetime_s: float) -> None:
        self._broadcast = broadcast
        self._end = time.monotonic() + lifetime_s
        # A document that is there is told at once.
        self._looks = broadcast.looks if not broadcast.document else -1
        self._version = -1
        self._is_closed = False

    def __next__(self) -> bytes:
        broadcast = self._broadcast
        with broadcast.changed:
            broadcast.changed.wait_for(
                lambda: broadcast.is_closed or broadcast.looks != self._looks, _KEEPALIVE_S
            )
            if broadcast.is_closed or time.monotonic() >= self._end:
                raise StopIteration
            if broadcast.looks == self._looks:
                return b": waiting\n\n"
            self._looks = broadcast.looks
            if broadcast.version == self._version:
                return b": unchanged at %d\n\n" % broadcast.made_ms
            self._version = broadcast.version
            return b"id: %d\ndata: %b\n\n" % (broadcast.made_ms, broadcast.document)

    def close(self) -> None:
        with self._broadcast.changed:
            if not self._is_closed:
                self._is_closed = True
                self._broadcast.viewers -= 1
                self._broadcast.changed.notify_all()


def views(process: WorkerProcess) -> dict[str, View]:
    """The view; its streams end when the process drains."""
    most = min(_VIEWERS_MAX, process.settings.coordinator.connections // _CONNECTIONS_PER_VIEWER)
    broadcast = Broadcast(lambda: msgspec.json.encode(state(process)), most)
    process.when_stopping.append(broadcast.close)

    def watch_cluster() -> Response:
        if request.method == "HEAD":
            return Response(content_type="text/event-stream")
        try:
            viewer = broadcast.watch()
        except Full:
            detail = (
                f"this worker process has {most} streams of events, as many as it gives, or is "
                "shutting down; nothing has happened, ask again later"
            )
            raise Refuse(503, "overloaded", detail) from None
        give_up_when_unheard()
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Response(viewer, headers=headers, content_type="text/event-stream")

    return by_name(watch_cluster)


def give_up_when_unheard() -> None:
    """Let the kernel end the connection if what is sent is not acknowledged."""
    connection = request.environ.get("gunicorn.socket")
    if connection and hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNHEARD_MAX_MS)


# --- the document ---------------------------------------------------------------------------


def state(process: WorkerProcess) -> schemas.StateView:
    """What a viewer sees. A fault is told in it, and ends nothing."""
    view = schemas.StateView(
        coordinator=process.settings.coordinator.id,
        trouble=None,
        cluster=None,
        in_doubt=InDoubtList([], [], []),
        in_doubt_total=0,
        unfinished_total=0,
        totals=None,
    )
    try:
        view.totals = _totals(process.metrics.totals())
        seen = process.cluster_admin.overview(_IN_DOUBT_FROM_S, _BRANCHES_MAX)
        view.cluster = seen.cluster
        view.in_doubt = seen.oldest
        view.in_doubt_total = seen.total
        view.unfinished_total = seen.unfinished_total
    except NoShardMap as error:
        view.trouble = str(error)
    except Exception:
        log.exception(
            "the console's state met a bug; it is made again", extra={"event": "console.bug"}
        )
        view.trouble = "the service met a fault of its own; its log has it"
    return view


def _totals(totals: Totals) -> schemas.TotalsView:
    counts = {name: totals.outcomes.get(name, 0) for name in ("committed", "rejected", "withdrawn")}
    return schemas.TotalsView(
        **counts,
        lock_hold=[
            schemas.LockHold(role, *map(list, zip(*buckets, strict=True)))
            for role, buckets in sorted(totals.lock_hold.items())
            if buckets
        ],
    )
