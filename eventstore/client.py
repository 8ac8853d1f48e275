"""A connection to a node of the event store, or to its read side.

    client = Client("127.0.0.1", 9700, secret, "bank")
    client.connect()
    client.submit(*packed).result(5.0).codes
    client.ask(Barrier(), At, 5.0)

Threads share it: many requests are under way at once, and are answered in any order. It is for one
life: when the connection breaks everybody who waits is told, and whoever owns it makes a new one.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import numpy as np

from eventstore.rows import DETAIL, Codes, Commands, Details
from eventstore.wire.answers import Piece, read_answer, read_firsts
from eventstore.wire.commands import pack_commands
from eventstore.wire.errors import (
    CannotAnswer,
    ClientError,
    Lost,
    Malformed,
    NotSent,
    NotTaken,
    Rejected,
    Unreachable,
    WireError,
)
from eventstore.wire.failures import Failed, error_of
from eventstore.wire.handshake import greet
from eventstore.wire.messages import Buffer, Kind, Message, pack
from eventstore.wire.proofs import Hello
from eventstore.wire.questions import At, Known, NodeQuestion, ReadQuestion
from eventstore.wire.stream import Stream
from eventstore.wire.values import decode, encode

__all__ = [
    "Answered",
    "CannotAnswer",
    "Client",
    "ClientError",
    "Hello",
    "Lost",
    "NotSent",
    "NotTaken",
    "Rejected",
    "Unreachable",
]

log = logging.getLogger(__name__)
T = TypeVar("T")

# Whoever sends waits at most so long for the other side to read; then the connection is given up.
SEND_TIMEOUT_S = 5.0


class Answered(NamedTuple):
    """What became of commands: `pieces` in their order, and `rest`, why those behind the last piece
    were not taken (None: all were). `firsts` has, for each command whose id was known before
    (REPLAYED, REUSED), by its index, what was decided then.
    """

    pieces: list[Piece]
    firsts: dict[int, Known]
    rest: str | None

    @property
    def codes(self) -> Codes:
        """A `rows.Code` for each command that was taken."""
        return np.concatenate([np.empty(0, np.uint8), *(p.outcomes.codes for p in self.pieces)])

    @property
    def details(self) -> Details:
        """Those of all commands; `command` counts from the first one that was sent."""
        all_ = [np.empty(0, DETAIL)]
        for piece in self.pieces:
            own = piece.outcomes.details.copy()
            own["command"] += piece.first
            all_.append(own)
        return np.concatenate(all_)


class _Waiting(NamedTuple):
    """A request under way. `read` makes its result of an answer's body, which is of this kind."""

    future: "Future[Any]"
    kind: Kind
    read: Callable[[Buffer, dict[int, Known]], Any]
    firsts: dict[int, Known]


class Client:
    """See the module. Futures raise NotSent, Lost, CannotAnswer, or Bug if the other side has found
    that what was sent is no request; who waits for one gives its own deadline.
    """

    def __init__(
        self,
        host: str,
        port: int,
        secret: bytes,
        cluster: str,
        *,
        connect_timeout_s: float = 5.0,
        on_push: Callable[[At], None] = lambda at: None,
    ) -> None:
        """`on_push` is called by a thread of the client's, and is to be quick."""
        self._address, self._secret, self._cluster = (host, port), secret, cluster
        self._connect_timeout_s, self._on_push = connect_timeout_s, on_push
        self._stream: Stream | None = None
        self._sending = threading.Lock()
        # By their numbers. Only who sends adds one, and only the reader takes away what was sent.
        self._waiting: dict[int, _Waiting] = {}
        self._last = 0
        # How many messages have come.
        self.heard = 0
        self._ended = "it was not connected yet"
        self._reader = threading.Thread(target=self._read_all, name="wire client", daemon=True)

    # --- the connection -------------------------------------------------------------------------

    def connect(self) -> Hello:
        """Connect, and have both sides prove themselves. Raises Unreachable, Rejected. Once only:
        after an error too, another client is needed.
        """
        deadline = time.monotonic() + self._connect_timeout_s
        try:
            sock = socket.create_connection(self._address, self._connect_timeout_s)
        except OSError as error:
            raise Unreachable(f"{self._where}: {error}") from error
        stream = Stream(sock)
        try:
            hello = greet(stream, self._secret, self._cluster, deadline)
        except Rejected as error:
            stream.close()
            raise Rejected(f"{self._where}: {error}") from error
        except (OSError, WireError, ClientError) as error:
            stream.close()
            raise Unreachable(f"{self._where}: {error or 'no answer in time'}") from error
        sock.settimeout(SEND_TIMEOUT_S)
        self._stream, self._ended = stream, ""
        self._reader.start()
        return hello

    @property
    def is_alive(self) -> bool:
        """Whether it is connected, as far as is known."""
        return not self._ended

    def close(self) -> None:
        """End the connection; who waits is told. May be repeated."""
        self._end("it was closed")
        if self._reader.ident and threading.current_thread() is not self._reader:
            self._reader.join()

    @property
    def _where(self) -> str:
        return "{}:{}".format(*self._address)

    # --- requests -------------------------------------------------------------------------------

    def submit(self, commands: Commands, texts: bytes) -> "Future[Answered]":
        """Have commands decided, in their order. Raises TooLarge for more than a message holds, and
        Bug for what are no commands: nothing was sent then.
        """
        count = len(commands)

        def read(body: Buffer, firsts: dict[int, Known]) -> Answered:
            pieces, rest = read_answer(body)
            end = pieces[-1].first + len(pieces[-1].outcomes.codes) if pieces else 0
            if end > count or (end == count) != (rest is None):
                raise Malformed("number of outcomes", (end, rest), f"{count}, or a rest with why")
            return Answered(pieces, firsts, rest)

        return self._send(Kind.COMMANDS, pack_commands(commands, texts), Kind.ANSWER, read)

    def ask_soon(self, question: NodeQuestion | ReadQuestion, kind: type[T]) -> "Future[T]":
        """Ask something; `kind` is the struct that answers it, see questions.py."""

        def read(body: Buffer, firsts: dict[int, Known]) -> T:
            return decode(body, kind)

        return self._send(Kind.QUESTION, encode(question), Kind.REPLY, read)

    def ask(self, question: NodeQuestion | ReadQuestion, kind: type[T], timeout_s: float) -> T:
        """The answer to a question. Raises what futures do, and TimeoutError."""
        return self.ask_soon(question, kind).result(timeout_s)

    def _send(
        self, kind: Kind, body: bytes, answer: Kind, read: Callable[[Buffer, dict[int, Known]], T]
    ) -> "Future[T]":
        future: Future[T] = Future()
        sent = 0
        with self._sending:
            if self._stream and not self._ended:
                self._last = number = self._last + 1
                message = pack(number, kind, body)
                self._waiting[number] = _Waiting(future, answer, read, {})
                sent = self._stream.send(message)
                if sent < len(message):
                    self._end(f"{self._where}: it broke, or its other end does not read")
                if not sent:
                    del self._waiting[number]
        # What was sent in part the reader tells of, as of all that was sent.
        if not sent:
            future.set_exception(NotSent(f"no byte of it was sent: {self._ended}"))
        return future

    # --- answers --------------------------------------------------------------------------------

    def _read_all(self) -> None:
        stream = self._stream
        why = f"{self._where}: the other end has closed the connection"
        try:
            while stream and (message := stream.receive()) is not None:
                self.heard += 1
                self._take(message)
        except Exception as error:
            why = f"{self._where}: {error}"
        self._end(why)
        # From here on nothing is sent.
        with self._sending:
            if stream:
                stream.close()
            left, self._waiting = list(self._waiting.values()), {}
        lost = f"it was sent, and nobody knows what became of it: {self._ended}"
        for waiting in left:
            _settle(waiting.future, Lost(lost))

    def _take(self, message: Message) -> None:
        number, kind, body = message
        if kind == Kind.PUSH:
            self._push(decode(body, At))
            return
        if kind == Kind.FAILED and not number:
            raise error_of(decode(body, Failed))
        if not (waiting := self._waiting.get(number)):
            raise Malformed("number of an answer", number, "that of a request under way")
        if kind == Kind.FIRSTS and waiting.kind == Kind.ANSWER:
            waiting.firsts.update(read_firsts(body))
            return
        found: Any
        if kind == Kind.FAILED:
            found = error_of(decode(body, Failed))
        elif kind == waiting.kind:
            found = waiting.read(body, waiting.firsts)
        else:
            raise Malformed("kind of an answer", kind.name, waiting.kind.name)
        del self._waiting[number]
        _settle(waiting.future, found)

    def _push(self, at: At) -> None:
        try:
            self._on_push(at)
        except Exception as error:
            extra = {"event": "client.push_failed"}
            log.error("who is told of pushes failed: %s", error, exc_info=True, extra=extra)

    # --- the end --------------------------------------------------------------------------------

    def _end(self, why: str) -> None:
        """Send and receive nothing more. The reader tells those who wait."""
        self._ended = self._ended or why
        if self._stream:
            self._stream.break_off()


def _settle(future: "Future[Any]", found: Any) -> None:
    # It may have been cancelled.
    with suppress(InvalidStateError):
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)
