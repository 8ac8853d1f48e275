"""Listens, and serves each client by threads of its own: a few dozen of them."""

import logging
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType

from eventstore.server.connection import Connection
from eventstore.server.handling import Handlers
from eventstore.server.limits import Limits
from eventstore.wire.failures import Failed, FailureKind
from eventstore.wire.messages import Kind, pack
from eventstore.wire.proofs import Hello
from eventstore.wire.values import encode
from ledger.errors import Bug

log = logging.getLogger(__name__)

_BACKLOG = 128
_DEFAULTS = Limits()
# A system that is out of files, say, is asked again after so long.
_PAUSE_S = 0.1


class Server:
    """It listens from the beginning, and serves from `start` on; used in a `with`, in one."""

    def __init__(
        self,
        listen: tuple[str, int],
        secret: bytes,
        hello: Hello,
        handlers: Handlers,
        limits: Limits = _DEFAULTS,
    ) -> None:
        """`listen` is a host and a port, 0 for any. Raises OSError if it is in use."""
        if not secret:
            raise Bug("a server without a secret would serve anybody")
        self._secret, self._hello = secret, hello
        self._handlers, self._limits = handlers, limits
        host, port = listen
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._is_ending = False
        self._accepter = threading.Thread(target=self._accept_all, name="accepter", daemon=True)

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def start(self) -> None:
        """Serve whoever comes."""
        self._accepter.start()

    def stop_listening(self) -> None:
        """Let nobody in any more. May be repeated."""
        with self._lock:
            self._is_ending = True
        # It wakes up who accepts, which closing alone does not.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._accepter.ident:
            self._accepter.join()
        self._socket.close()

    def close(self, drain_s: float | None = None) -> None:
        """Send what is still to be sent, for so long at most, and end all connections, when their
        clients have had a moment to read it. What is not answered then never will be.
        """
        self.stop_listening()
        limits = self._limits
        deadline = time.monotonic() + (limits.drain_s if drain_s is None else drain_s)
        with self._lock:
            left = list(self._connections.items())
        for connection, _ in left:
            connection.drain(deadline)
        deadline = time.monotonic() + limits.goodbye_s
        for connection, thread in left:
            thread.join(max(deadline - time.monotonic(), 0))
            connection.break_off()
        for _, thread in left:
            thread.join(limits.goodbye_s)

    def _accept_all(self) -> None:
        while not self._is_ending:
            try:
                sock, address = self._socket.accept()
            except OSError as error:
                if not self._is_ending:
                    extra = {"event": "server.accept_failed"}
                    log.error("nobody can be let in: %s", error, extra=extra)
                    time.sleep(_PAUSE_S)
                continue
            self._let_in(sock, "{}:{}".format(*address[:2]))

    def _let_in(self, sock: socket.socket, peer: str) -> None:
        with self._lock:
            is_full = len(self._connections) >= self._limits.connections
        if is_full:
            why = f"{self._limits.connections} connections are open, and no more are let in"
            extra = {"event": "connection.refused", "peer": peer}
            log.warning("connection of %s is refused: %s", peer, why, extra=extra)
            sock.setblocking(False)
            with suppress(OSError):
                sock.send(pack(0, Kind.FAILED, encode(Failed(FailureKind.BUSY, why))))
            sock.close()
            return
        connection = Connection(sock, peer, self._handlers, self._hello, self._limits)
        thread = threading.Thread(
            target=self._serve, args=(connection,), name=f"client {peer}", daemon=True
        )
        with self._lock:
            self._connections[connection] = thread
        thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            connection.run(self._secret)
        finally:
            with self._lock:
                self._connections.pop(connection, None)
