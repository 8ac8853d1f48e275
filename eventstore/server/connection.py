"""One client: proves itself, and then asks; whatever comes of it is sent when it is known.

One thread reads and hands requests to the handlers; another one sends, see outgoing.py.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from eventstore.server.handling import Asker, Decided, Handlers, NoRequest, failed
from eventstore.server.limits import Limits
from eventstore.server.outgoing import Outgoing
from eventstore.wire.answers import pack_answer, pack_firsts
from eventstore.wire.commands import read_commands
from eventstore.wire.errors import Malformed, Rejected, TooLarge, WireError
from eventstore.wire.failures import Failed, FailureKind
from eventstore.wire.handshake import welcome
from eventstore.wire.messages import Buffer, Kind, pack
from eventstore.wire.proofs import Hello
from eventstore.wire.stream import Stream
from eventstore.wire.values import decode, encode

log = logging.getLogger(__name__)


class Connection:
    """See the module. `run` is its thread's work."""

    def __init__(
        self, sock: socket.socket, peer: str, handlers: Handlers, hello: Hello, limits: Limits
    ) -> None:
        self._stream, self._peer = Stream(sock), peer
        self._handlers, self._hello, self._limits = handlers, hello, limits
        self._outgoing = Outgoing(self._stream, limits.queued_bytes, self._on_cut)
        self._lock = threading.Lock()
        # The numbers of the requests under way.
        self._waiting: set[int] = set()
        self._at_end: list[Callable[[], None]] | None = []
        self._is_draining = False

    # --- its life -------------------------------------------------------------------------------

    def run(self, secret: bytes) -> None:
        """Serve it until it ends."""
        goodbye = b""
        try:
            goodbye = self._serve(secret)
        except Exception as error:
            extra = {"event": "connection.failed", "peer": self._peer}
            log.error("connection of %s failed: %s", self._peer, error, exc_info=True, extra=extra)
        finally:
            self._finish(goodbye)

    def _serve(self, secret: bytes) -> bytes:
        """What is to be said last: why the connection ends, if it is the client's fault."""
        deadline = time.monotonic() + self._limits.proof_s
        is_known = False
        try:
            welcome(self._stream, secret, self._hello, deadline)
            is_known = True
            self._stream.wait_for_ever()
            self._outgoing.start()
            while (message := self._stream.receive()) is not None:
                # What comes after the end is read, so that the end arrives, and has no answer.
                if not self._is_draining:
                    self._take(*message)
        except Rejected as error:
            self._refused(str(error))
        except WireError as error:
            self._refused(str(error))
            kind = FailureKind.MALFORMED if is_known else FailureKind.REJECTED
            return _failed(0, Failed(kind, str(error)))
        except OSError as error:
            if not is_known:
                self._refused(str(error) or f"no proof within {self._limits.proof_s:g} s")
        return b""

    def _finish(self, goodbye: bytes) -> None:
        with self._lock:
            ended, self._at_end = self._at_end or [], None
        for act in ended:
            act()
        limits = self._limits
        if goodbye:
            self._outgoing.end(limits.goodbye_s)
            self._stream.send(goodbye)
            self._stream.close_gently(limits.goodbye_s, limits.goodbye_bytes)
        else:
            self._outgoing.end(0)
            self._stream.close()

    def drain(self, deadline: float) -> None:
        """Send what is to be sent, until `deadline` (monotonic, in seconds) at most, and tell the
        client that this is the end: it is to close its side.
        """
        self._is_draining = True
        self._outgoing.end(max(deadline - time.monotonic(), 0))
        self._stream.say_end()

    def break_off(self) -> None:
        """End it, whatever the client does."""
        self._stream.break_off()

    def _refused(self, why: str) -> None:
        extra = {"event": "connection.refused", "peer": self._peer}
        log.warning("connection of %s is refused: %s", self._peer, why, extra=extra)

    def _on_cut(self, left: int) -> None:
        extra = {"event": "connection.cut_off", "peer": self._peer, "bytes": left}
        text = "connection of %s is cut off: it has left %d bytes unread"
        log.warning(text, self._peer, left, extra=extra)

    # --- requests -------------------------------------------------------------------------------

    def _take(self, number: int, kind: Kind, body: Buffer) -> None:
        """Raises Malformed: the connection is to end then."""
        if kind not in (Kind.COMMANDS, Kind.QUESTION):
            raise Malformed("a request", kind.name, "COMMANDS or QUESTION")
        with self._lock:
            if not number or number in self._waiting:
                raise Malformed("number of a request", number, "one that is not under way, nor 0")
            if has_room := len(self._waiting) < self._limits.requests:
                self._waiting.add(number)
        if not has_room:
            why = f"{self._limits.requests} requests are under way on this connection"
            self._outgoing.put(_failed(number, Failed(FailureKind.BUSY, why)))
        elif kind == Kind.COMMANDS:
            self._take_commands(number, body)
        else:
            self._take_question(number, body)

    def _take_commands(self, number: int, body: Buffer) -> None:
        commands, texts = read_commands(body)
        try:
            if self._handlers.commands is None:
                raise NoRequest("commands were sent to a process that takes none")
            decided = self._handlers.commands(commands, texts)
        except Exception as error:
            self._fail(number, error)
        else:
            decided.add_done_callback(lambda done: self._answer(number, done))

    def _take_question(self, number: int, body: Buffer) -> None:
        question = decode(body, self._handlers.questions)
        later: list[Callable[[], None]] = []
        asker = Asker(lambda value: self._push(number, value), later.append, self._call_at_end)
        try:
            reply = self._handlers.question(question, asker)
        except Exception as error:
            self._fail(number, error)
            return

        def tell(done: "Future[Any]") -> None:
            if self._reply(number, done):
                for act in later:
                    act()

        if not isinstance(reply, Future):
            told: Future[Any] = Future()
            told.set_result(reply)
            reply = told
        reply.add_done_callback(tell)

    def _call_at_end(self, act: Callable[[], None]) -> None:
        with self._lock:
            if self._at_end is not None:
                self._at_end.append(act)
                return
        act()

    # --- answers --------------------------------------------------------------------------------

    def _answer(self, number: int, done: "Future[Decided]") -> None:
        try:
            answer, firsts = done.result()
            messages = [pack(number, Kind.FIRSTS, body) for body in pack_firsts(firsts)]
            messages.append(pack(number, Kind.ANSWER, pack_answer(answer)))
        except Exception as error:
            self._fail(number, error)
        else:
            self._put(number, *messages)

    def _reply(self, number: int, done: "Future[Any]") -> bool:
        """Whether there is one."""
        try:
            message = pack(number, Kind.REPLY, encode(done.result()))
        except TooLarge as error:
            why = Failed(FailureKind.CANNOT_ANSWER, f"the answer is too long: {error}")
            self._put(number, _failed(number, why))
        except Exception as error:
            self._fail(number, error)
        else:
            self._put(number, message)
            return True
        return False

    def _push(self, number: int, value: msgspec.Struct) -> None:
        self._outgoing.put(pack(number, Kind.PUSH, encode(value)))

    def _fail(self, number: int, error: Exception) -> None:
        told = failed(error)
        if told is None:
            extra = {"event": "request.failed", "peer": self._peer}
            log.error("a request of %s failed: %s", self._peer, error, exc_info=error, extra=extra)
            # Whatever it was, something may have come of it.
            told = Failed(FailureKind.UNKNOWN, f"it failed: {error!r}")
        self._put(number, _failed(number, told))

    def _put(self, number: int, *messages: bytes) -> None:
        with self._lock:
            self._waiting.discard(number)
        self._outgoing.put(*messages)


def _failed(number: int, why: Failed) -> bytes:
    return pack(number, Kind.FAILED, encode(why))
