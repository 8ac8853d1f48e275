"""Gunicorn's worker on gevent: each connection has a greenlet. What differs:

When it is told to end, it still answers the connections that the kernel has taken for it, and those
that are just being made. It tells the server so at once, before the requests that run have come to
their ends. A connection between two requests is kept for a moment, for a request that is on its
way.

It never stops taking connections. If there are too many, one gives way that has nothing under way,
first of those that have shown no token; see connections.py. Whatever is awaited of a client has a
time limit.

What cannot be read is answered with a problem document, as everything else is.

The certificate is read for each new connection, so that a new one needs no restart.
"""

import errno
import select
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import gevent
from gevent import monkey, socket
from gevent.event import Event
from gevent.pool import Group
from gunicorn.http.errors import LimitRequestLine, NoMoreData, ParseException
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

from coordinator.http import transport
from coordinator.http.access import ADMIT
from coordinator.http.connections import Connection, Connections
from coordinator.http.one_write import OneWrite

_NOTIFY_EVERY_S = 1.0
# For connections that are just being made: the kernel waits for the client's last word.
_SETTLE_S = 0.2
# For a request that is on its way on a connection that is kept.
_LINGER_S = 2.0
_HANDSHAKE_S = 10.0
# From the first byte of a request to the end of its head, and from there to the end of its body.
_HEAD_S = 10.0
_BODY_S = 60.0
# How long an answer may wait for its client to read on.
_SEND_S = 30.0
# Of a body that nobody wants so much is read, so that its sender comes to read the answer.
_UNWANTED_S = 5.0
_UNWANTED_MAX = 32 << 20
_PIECE = 64 << 10
_UNWANTED_PAUSE_S = 0.005
_PAUSE_S = 0.02
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _GiveWay(BaseException):
    """Thrown into the greenlet of a connection that is to end. Nothing in between catches it."""


class _Unreader(SocketUnreader):  # type: ignore[misc]
    """Reads from a connection within its time limits; others have their turn in between."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.client)
        self._connection = connection

    def chunk(self, size_hint: int | None = None) -> bytes:
        connection = self._connection
        if connection.is_idle:
            # Waits as long as it may: the loop that looks after all connections ends it.
            self.sock.settimeout(None)
            data: bytes = super().chunk(size_hint)
            connection.is_idle = False
            connection.deadline = time.monotonic() + _HEAD_S
            return data
        gevent.sleep(0)
        left = connection.deadline - time.monotonic()
        if left <= 0:
            raise transport.Late
        self.sock.settimeout(left)
        try:
            data = super().chunk(size_hint)
        except OSError:
            if time.monotonic() >= connection.deadline:
                raise transport.Late from None
            raise transport.Broken from None
        return data


class Worker(GeventWorker):  # type: ignore[misc]
    """See the module."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._connections = Connections(self.worker_connections)
        self._greenlets = Group()
        # By the greenlet that serves it.
        self._served: dict[gevent.Greenlet, Connection] = {}
        self._told = Event()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi: Any = partial(self._answer, self.app.wsgi())

    def run(self) -> None:
        for listener in self.sockets:
            listener.setblocking(True)
        accepting = [gevent.spawn(self._accept, listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._close_idle(time.monotonic())
            self._connections.recover()
            self._told.wait(_NOTIFY_EVERY_S)
        now = time.monotonic()
        # A client that connects now hears nothing until the socket is closed; nothing waits for it.
        telling = gevent.spawn(self.app.on_draining)
        gevent.sleep(_SETTLE_S)
        gevent.killall(accepting)
        for listener in self.sockets:
            self._accept_the_rest(listener)
        telling.join()
        self._hurry()
        self._wait(now + self.cfg.graceful_timeout)
        if self._greenlets:
            self.log.warning("worker %s: %d requests cut off", self.pid, len(self._greenlets))
            self._greenlets.kill(timeout=_NOTIFY_EVERY_S)

    # --- taking and ending connections ------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        name = listener.getsockname()
        while True:
            try:
                self._take(name, *listener.accept())
            except OSError as error:
                self._not_taken(error)
            except Exception:
                # Else nobody would be taken any more.
                self.log.exception("a connection met a bug", extra={"event": "http.bug"})
            # One at a time: the other workers are to have some, too.
            gevent.sleep(0)

    def _accept_the_rest(self, listener: socket.socket) -> None:
        """Take what the kernel has taken, and close in the same breath."""
        name = listener.getsockname()
        listener.setblocking(False)
        while True:
            try:
                self._take(name, *listener.accept())
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _NO_FILES:
                    self._not_taken(error)
                    break
        listener.close()

    def _take(self, name: object, client: socket.socket, address: object) -> None:
        connection = Connection(client, address, time.monotonic() + self.cfg.keepalive)
        self._connections.opened(connection)
        connection.greenlet = self._greenlets.spawn(self._run, name, connection)
        self._make_room()

    def _not_taken(self, error: OSError) -> None:
        """There may be no files for it; else its client has gone already."""
        if error.errno in _NO_FILES:
            self._connections.lower()
            extra = {"event": "http.no_files", "connections": len(self._connections)}
            self.log.error("no connection can be taken: %s", error, extra=extra)
            self._make_room()
        # Who gives way goes now; and an error that stays must not keep the processor busy.
        gevent.sleep(_PAUSE_S)

    def _make_room(self) -> None:
        for connection in self._connections.too_many():
            gevent.get_hub().loop.run_callback(self._give_way, connection)

    def _give_way(self, connection: Connection) -> None:
        """Called by the hub, so that nothing comes between looking and throwing: a request that has
        just been let in is answered.
        """
        if self._connections.may_go(connection):
            connection.greenlet.throw(_GiveWay())

    def _close_idle(self, now: float) -> None:
        """Close the connections that have brought no request for so long as they may."""
        for connection in self._connections:
            if connection.is_idle and connection.deadline <= now:
                gevent.get_hub().loop.run_callback(self._close, connection, connection.deadline)

    def _close(self, connection: Connection, deadline: float) -> None:
        """Called by the hub. What has come, though nobody has read it yet, is answered."""
        is_same = connection.is_idle and connection.deadline == deadline
        if is_same and not _has_something(connection.client):
            connection.greenlet.throw(NoMoreData())

    def _hurry(self) -> None:
        """Clients that were taken are answered, if they ask soon; others have less time."""
        now = time.monotonic()
        for connection in self._connections:
            if connection.is_idle:
                patience_s = _HEAD_S if connection.is_new else _LINGER_S
                connection.deadline = min(connection.deadline, now + patience_s)

    def _wait(self, deadline: float) -> None:
        """Until all connections have ended, or the deadline."""
        while self._greenlets and (left := deadline - time.monotonic()) > 0:
            self.notify()
            self._close_idle(time.monotonic())
            self._greenlets.join(min(left, _NOTIFY_EVERY_S))

    # --- one connection ---------------------------------------------------------------------

    def _run(self, name: object, connection: Connection) -> None:
        self._served[connection.greenlet] = connection
        try:
            if not self.cfg.is_ssl or self._secure(connection):
                self._talk(name, connection)
        except _GiveWay:
            # In the middle of an answer it would be taken for a part of it.
            if connection.request is None:
                self._tell(connection, transport.no_room(), 0.0)
        except (NoMoreData, OSError):
            # The client has gone, or brings nothing more.
            pass
        finally:
            del self._served[connection.greenlet]
            self._connections.closed(connection)
            connection.client.close()

    def _secure(self, connection: Connection) -> bool:
        try:
            context = ssl_context(self.cfg)
        except OSError as error:
            if error.errno in _NO_FILES:
                self._not_taken(error)
            self.log.error("the certificate or its key cannot be used: %s", error)
            return False
        try:
            client = context.wrap_socket(
                connection.client, server_side=True, do_handshake_on_connect=False
            )
            connection.client = client
            with gevent.Timeout(_HANDSHAKE_S):
                client.do_handshake()
        except (gevent.Timeout, OSError) as error:
            self.log.debug("no TLS with %s: %s", connection.address, error)
            return False
        return True

    def _talk(self, name: object, connection: Connection) -> None:
        """Read requests and answer them, until either side has had enough."""
        parser = RequestParser(self.cfg, connection.client, connection.address)
        parser.unreader = _Unreader(connection)
        try:
            for request in parser:
                if not self._serve(name, connection, request):
                    return
                # The next one may be there already, and the next after it.
                gevent.sleep(0)
        except ParseException as error:
            self._tell(connection, transport.unreadable(error), _NOTIFY_EVERY_S)
            self._linger(connection, parser.unreader)

    def _serve(self, name: object, connection: Connection, request: Any) -> bool:
        """Answer one request. False if it was the last."""
        connection.request = request
        # It may have come together with the one before.
        connection.is_idle = connection.is_new = False
        connection.deadline = time.monotonic() + _BODY_S
        connection.client.settimeout(_SEND_S)
        self._connections.serves(connection)
        is_last = False
        try:
            client = OneWrite(connection.client)
            try:
                self.handle_request(name, request, client, connection.address)
            finally:
                client.flush()
        except StopIteration:
            is_last = True
        except (OSError, LimitRequestLine):
            raise
        except Exception:
            self.log.exception("a request met a bug", extra={"event": "http.bug"})
            self._tell(connection, transport.bug(), _NOTIFY_EVERY_S)
            is_last = True
        connection.request = None
        self._connections.waits(connection)
        connection.deadline = time.monotonic() + _UNWANTED_S
        is_whole = _read_away(request.body.read) and not request.body.failed
        if not is_whole:
            self._linger(connection, request.unreader)
        connection.is_idle = True
        connection.deadline = time.monotonic() + (self.cfg.keepalive if self.alive else _LINGER_S)
        return is_whole and not is_last

    def _answer(
        self, application: Any, environ: dict[str, Any], start_response: Any
    ) -> Iterable[bytes]:
        connection = self._served[gevent.getcurrent()]
        environ[ADMIT] = partial(self._connections.admit, connection)
        environ["gunicorn.socket"] = connection.client
        answer: Iterable[bytes] = application(environ, start_response)
        request = connection.request
        if request.body.failed or self._connections.is_crowded:
            request.force_close()
        return answer

    def _linger(self, connection: Connection, unreader: _Unreader) -> None:
        """Read on from a client that has been answered for the last time: one that is still sending
        does not look for the answer, and would not find it behind a reset.
        """
        connection.deadline = time.monotonic() + _UNWANTED_S
        try:
            connection.client.shutdown(socket.SHUT_WR)
        except OSError:
            return
        _read_away(unreader.read)

    def _tell(self, connection: Connection, answer: bytes, patience_s: float) -> None:
        """Send what ends the connection, if the client takes it."""
        try:
            connection.client.settimeout(patience_s)
            connection.client.sendall(answer)
        except OSError:
            pass

    def handle_exit(self, sig: int, frame: object) -> None:
        super().handle_exit(sig, frame)
        self._told.set()


def _read_away(read: Callable[[int], bytes]) -> bool:
    """Read what nobody wants. False if there is too much of it, or if it is malformed or late."""
    left = _UNWANTED_MAX
    try:
        while left > 0 and (data := read(_PIECE)):
            left -= len(data)
            # A client that has been answered can wait: the others come first.
            gevent.sleep(_UNWANTED_PAUSE_S)
    except (ParseException, OSError):
        return False
    return left > 0


def _has_something(client: Any) -> bool:
    """Whether something has come that nobody has read. Called where nothing may wait."""
    poll = monkey.get_original("select", "poll")()
    poll.register(client.fileno(), select.POLLIN)
    return bool(poll.poll(0))
