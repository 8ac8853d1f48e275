"""Messages through a socket that blocks."""

import socket
import threading
import time
from contextlib import suppress

from eventstore.wire.errors import Malformed
from eventstore.wire.messages import HEAD_BYTES, MESSAGE_BYTES_MAX, Buffer, Message, read_head

# What is read at once, as far as it is there: each read lets go of the interpreter's lock.
_CHUNK_BYTES = 2**16
# The shortest time that a socket is given: with none it would not block at all.
_MOMENT_S = 0.001


class Stream:
    """One connection. One thread receives, and one at a time sends."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._ready = b""
        self._closing = threading.Lock()

    def receive(
        self, limit: int = MESSAGE_BYTES_MAX, *, deadline: float | None = None
    ) -> Message | None:
        """The next message; None if the other end has closed the connection between two of them.

        `deadline` is monotonic, in seconds: TimeoutError is raised then. Without one the socket's
        own timeout goes by unnoticed. Raises Malformed, TooLarge, OSError.
        """
        head = self._take(HEAD_BYTES, deadline)
        if not head:
            return None
        if len(head) < HEAD_BYTES:
            raise Malformed("length of a message's head", len(head), HEAD_BYTES)
        number, kind, body_bytes = read_head(head, limit)
        body = self._take(body_bytes, deadline)
        if len(body) < body_bytes:
            raise Malformed("number of bytes that came of a body", len(body), body_bytes)
        return Message(number, kind, body)

    def send(self, data: bytes) -> int:
        """Send bytes, and give how many were sent: all of them, unless the socket's timeout was
        over, or the connection broke.
        """
        left = memoryview(data)
        with suppress(OSError):
            while left:
                left = left[self._socket.send(left) :]
        return len(data) - len(left)

    def wait_for_ever(self) -> None:
        """From now on neither reading nor sending has an end in time."""
        self._socket.settimeout(None)

    def break_off(self) -> None:
        """Break the connection, whoever is using it: who reads sees its end, who sends fails."""
        # It may be broken already. Once closed, its number may be that of another file.
        with self._closing, suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def say_end(self) -> None:
        """Tell the other end that nothing more is sent."""
        with self._closing, suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close_gently(self, patience_s: float, bytes_max: int) -> None:
        """Close it so that what was sent last arrives: if what came were left unread, the other end
        would be told that the connection broke, and might never read the reason.
        """
        deadline = time.monotonic() + patience_s
        self.say_end()
        with suppress(OSError):
            while bytes_max > 0 and (left_s := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left_s)
                if not (data := self._socket.recv(_CHUNK_BYTES)):
                    break
                bytes_max -= len(data)
        self.close()

    def close(self) -> None:
        """Let go of the socket, from which no other thread may be reading, nor sending."""
        with self._closing:
            self._socket.close()

    def _take(self, count: int, deadline: float | None) -> Buffer:
        """So many bytes, or fewer if the other end has closed the connection before."""
        if len(self._ready) >= count:
            taken, self._ready = self._ready[:count], self._ready[count:]
            return taken
        found = bytearray(count)
        filled = len(self._ready)
        found[:filled], self._ready = self._ready, b""
        view = memoryview(found)
        while filled < count:
            if count - filled >= _CHUNK_BYTES:
                came = self._receive_into(view[filled:], deadline)
            else:
                data = self._receive(deadline)
                came = min(len(data), count - filled)
                view[filled : filled + came] = data[:came]
                self._ready = data[came:]
            if not came:
                return found[:filled]
            filled += came
        return found

    def _receive(self, deadline: float | None) -> bytes:
        while True:
            try:
                self._hurry(deadline)
                return self._socket.recv(_CHUNK_BYTES)
            except TimeoutError:
                if deadline is not None:
                    raise

    def _receive_into(self, view: memoryview, deadline: float | None) -> int:
        while True:
            try:
                self._hurry(deadline)
                return self._socket.recv_into(view)
            except TimeoutError:
                if deadline is not None:
                    raise

    def _hurry(self, deadline: float | None) -> None:
        if deadline is not None:
            self._socket.settimeout(max(deadline - time.monotonic(), _MOMENT_S))
