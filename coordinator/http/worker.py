"""Gunicorn's worker on gevent: each connection has a greenlet. What differs:

When it is told to end, it still answers the connections that the kernel has taken for it, and then
lets the kernel take no more. It tells the server so at once, before the requests that run have come
to their ends. Without it clients that connect meanwhile are accepted by the kernel, send their
request, and are cut off without an answer when the worker ends. A connection between two requests
is kept for a moment, for a request that is on its way.

The certificate is read for each new connection, so that a new one needs no restart.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http.errors import NoMoreData
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

_NOTIFY_EVERY_S = 1.0
# For a request that is on its way on a connection that is kept.
_LINGER_S = 2.0
_HANDSHAKE_S = 10.0


class Worker(GeventWorker):  # type: ignore[misc]
    """See the module."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._connections = Pool(self.worker_connections)
        # Those that wait for a request, or read its headers, and since when.
        self._reading: dict[gevent.Greenlet, float] = {}
        self._told = Event()

    def run(self) -> None:
        servers = [self._listen(listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._close_idle(self.cfg.keepalive)
            self._told.wait(_NOTIFY_EVERY_S)
        now = time.monotonic()
        self.app.on_draining()
        for server in servers:
            self._accept_the_rest(server)
            server.close()
        self._wait(min(now + _LINGER_S, now + self.cfg.graceful_timeout))
        self._close_idle(0.0)
        self._wait(now + self.cfg.graceful_timeout)
        if self._connections:
            self.log.warning("worker %s: %d requests cut off", self.pid, len(self._connections))
            self._connections.kill(timeout=_NOTIFY_EVERY_S)

    def _listen(self, listener: socket.socket) -> StreamServer:
        listener.setblocking(True)
        server = StreamServer(
            listener, handle=partial(self.handle, listener), spawn=self._connections
        )
        if self.cfg.workers > 1:
            # The other workers are to have some, too.
            server.max_accept = 1
        server.start()
        return server

    def _accept_the_rest(self, server: StreamServer) -> None:
        while not self._connections.full() and (taken := server.do_read()):
            server.do_handle(*taken)

    def _wait(self, deadline: float) -> None:
        """Until all connections have ended, or the deadline."""
        while self._connections and (left := deadline - time.monotonic()) > 0:
            self.notify()
            self._connections.join(min(left, _NOTIFY_EVERY_S))

    def _close_idle(self, for_s: float) -> None:
        """Close the connections that have brought no request for so long."""
        before = time.monotonic() - for_s
        for greenlet, since in list(self._reading.items()):
            if since <= before:
                gevent.get_hub().loop.run_callback(self._close, greenlet, since)

    def _close(self, greenlet: gevent.Greenlet, since: float) -> None:
        """Called by the hub, so that nothing comes between looking and throwing: a request that
        has just been read is answered.
        """
        if self._reading.get(greenlet) == since:
            greenlet.throw(NoMoreData())

    def handle(self, listener: socket.socket, client: socket.socket, address: object) -> None:
        if self.cfg.is_ssl:
            try:
                context = ssl_context(self.cfg)
            except OSError as error:
                self.log.error("the certificate or its key cannot be used: %s", error)
                return
            try:
                client = context.wrap_socket(
                    client, server_side=True, do_handshake_on_connect=False
                )
                with gevent.Timeout(_HANDSHAKE_S):
                    client.do_handshake()
            except (gevent.Timeout, OSError) as error:
                self.log.debug("no TLS with %s: %s", address, error)
                client.close()
                return
        super().handle(listener, client, address)

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Around the reading of a request."""
        greenlet = gevent.getcurrent()
        self._reading[greenlet] = time.monotonic()
        try:
            yield
        finally:
            del self._reading[greenlet]

    def handle_exit(self, sig: int, frame: object) -> None:
        super().handle_exit(sig, frame)
        self._told.set()
