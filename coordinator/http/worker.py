"""Gunicorn's threaded worker, with two differences.

When it is told to end, it still answers the connections that the kernel has taken for it, and then
lets the kernel take no more. It tells the server so at once, before the requests that run have come
to their ends. Without it clients that connect meanwhile are accepted by the kernel, send their
request, and are cut off without an answer when the worker ends.

And a thread stays with its connection for a moment, as long as there are threads for all
connections. Otherwise each request goes to the thread that watches all connections and from there
to another one, and each change of threads costs a share of what the request itself costs.
"""

import select
import socket
from ssl import SSLSocket
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

_STAY_MS = 20


class _Socket(socket.socket):
    """Asks the kernel for little: after each call the threads of other requests go first."""

    _held = b""

    def setblocking(self, flag: bool) -> None:
        # Not `getblocking`: with a time limit a socket is neither.
        if self.gettimeout() != (None if flag else 0.0):
            super().setblocking(flag)

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        """Headers go with what comes after them."""
        if not self._held and data.startswith(b"HTTP/1.") and data.endswith(b"\r\n\r\n"):
            self._held = data
            return
        data, self._held = self._held + data, b""
        super().sendall(data, flags)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        self.flush()
        return super().sendfile(file, offset, count)

    def shutdown(self, how: int) -> None:
        self.flush()
        super().shutdown(how)

    def flush(self) -> None:
        """Send headers that nothing came after."""
        if self._held:
            self.sendall(b"")


class Worker(ThreadWorker):  # type: ignore[misc]
    """See the module."""

    def enqueue_req(self, conn: TConn) -> None:
        if not isinstance(conn.sock, _Socket | SSLSocket):
            timeout_s = conn.sock.gettimeout()
            conn.sock = _Socket(fileno=conn.sock.detach())
            conn.sock.settimeout(timeout_s)
        super().enqueue_req(conn)

    def handle(self, conn: TConn) -> object:
        while True:
            is_kept = super().handle(conn)
            if isinstance(conn.sock, _Socket):
                self._flush(conn.sock)
            if is_kept is not True or not self._stays_with(conn):
                return is_kept

    def _flush(self, sock: _Socket) -> None:
        try:
            sock.flush()
        except OSError as error:
            self.log.debug("an answer was not taken: %s", error)

    def _stays_with(self, conn: TConn) -> bool:
        """Whether the next request of a connection is there, or comes at once."""
        if not self.alive or self.nr_conns > self.cfg.threads or conn.is_http2:
            return False
        if self.cfg.is_ssl or conn.parser.unreader.buf.getvalue():
            # Something may have been read already, which the socket does not tell.
            return False
        poller = select.poll()
        poller.register(conn.sock, select.POLLIN)
        return bool(poller.poll(_STAY_MS)) and self.alive

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        self.app.on_draining()
        for listener in self.sockets:
            listener.setblocking(False)
            taken = -1
            while taken != self.nr_conns:
                taken = self.nr_conns
                self.accept(listener)
            listener.close()
