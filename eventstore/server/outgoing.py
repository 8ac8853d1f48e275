"""What is to be sent to one client, in its order, and the thread that sends it.

Whoever puts a message never waits for the client: one that does not read is cut off.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from eventstore.wire.stream import Stream

# So much is sent at once.
_BUNDLE_BYTES = 2**18
# What keeping a message takes besides its bytes.
_MESSAGE_BYTES = 64


class Outgoing:
    """A queue of messages, and its thread."""

    def __init__(self, stream: Stream, limit_bytes: int, on_cut: Callable[[int], None]) -> None:
        """`on_cut` is told how many bytes the client has left unread, when it is cut off."""
        self._stream, self._limit_bytes, self._on_cut = stream, limit_bytes, on_cut
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        # What is queued, and what is being sent.
        self._bytes = 0
        self._is_ended = False
        self._thread = threading.Thread(target=self._send_all, name="outgoing", daemon=True)

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def put(self, *messages: bytes) -> None:
        """Have messages sent, one behind the other; after the end they are dropped."""
        size = sum(map(_cost, messages))
        with self._changed:
            if self._is_ended:
                return
            # To who reads all that comes one answer may be as long as it is.
            is_too_much = self._bytes and self._bytes + size > self._limit_bytes
            if not is_too_much:
                self._queue += messages
                self._bytes += size
                self._changed.notify_all()
                return
            left = self._end()
        self._stream.break_off()
        self._on_cut(left)

    def wait_until_sent(self, deadline: float) -> bool:
        """Whether all is sent before `deadline` (monotonic, in seconds)."""
        with self._changed:
            while self._bytes and not self._is_ended:
                if (left_s := deadline - time.monotonic()) <= 0:
                    return False
                self._changed.wait(left_s)
            return not self._bytes

    def end(self, patience_s: float) -> None:
        """Send what is queued, for so long at most, and no more."""
        self.wait_until_sent(time.monotonic() + patience_s)
        with self._changed:
            left = self._end()
        if left:
            self._stream.break_off()
        if self._thread.ident:
            self._thread.join()

    def _end(self) -> int:
        self._is_ended = True
        self._queue.clear()
        self._changed.notify_all()
        return self._bytes

    def _send_all(self) -> None:
        while messages := self._next():
            bundle = messages[0] if len(messages) == 1 else b"".join(messages)
            sent = self._stream.send(bundle)
            if sent < len(bundle):
                self._stream.break_off()
            with self._changed:
                self._bytes -= sum(map(_cost, messages))
                if sent < len(bundle):
                    self._end()
                self._changed.notify_all()

    def _next(self) -> list[bytes]:
        """Some messages; none at the end."""
        with self._changed:
            while not self._queue and not self._is_ended:
                self._changed.wait()
            found: list[bytes] = []
            size = 0
            while self._queue and size < _BUNDLE_BYTES:
                found.append(self._queue.popleft())
                size += len(found[-1])
        return found


def _cost(message: bytes) -> int:
    return len(message) + _MESSAGE_BYTES
