"""A process's connections to a ledger group: to its node, and to its read side.

The node's connection is made by `connect`, and when it breaks the group is given up until it is
made again. That to the read side is made when it is needed: without it there are no reads, and
transfers go on.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from eventstore.client import Answered, Client
from eventstore.rows import Commands
from eventstore.wire.errors import (
    Busy,
    CannotAnswer,
    ClientError,
    Lost,
    NotSent,
    NotTaken,
    Rejected,
    Unreachable,
)
from eventstore.wire.errors import NotYet as NotSeenYet
from eventstore.wire.errors import TooLarge as TooMuch
from eventstore.wire.proofs import Hello
from eventstore.wire.questions import At, Barrier, NodeQuestion, NowAnswerable, ReadQuestion
from shard_client.errors import (
    ConnectionLost,
    Hurried,
    NoTime,
    NotYet,
    ShardError,
    ShardUnavailable,
    StatementRefused,
    TimedOut,
    TooLarge,
    TryAgain,
)
from shard_client.shard_map import ShardAddress

T = TypeVar("T")

# How long is waited for an answer between two looks whether the node was heard of; and after how
# many in vain it is taken for frozen.
_LOOK_S = 0.1
SILENT_MAX = 10
# So long a read side is waited for that was mute for the whole time of a question before, until
# something is heard of it: else each reader would wait as long again, and repeat it.
_MUTE_S = 0.1


class Link:
    """See the module. Threads may share it."""

    def __init__(
        self, shard: str, address: ShardAddress, cluster: str, secret: str, connect_timeout_s: float
    ) -> None:
        self.shard = shard
        self._address = address
        self._cluster = cluster
        self._secret = secret.encode()
        self._connect_timeout_s = connect_timeout_s
        self._lock = threading.Lock()
        # Of its own: to connect may take long, and who ends all connections does not wait for it.
        self._connecting = threading.Lock()
        self._node: Client | None = None
        self._hello: Hello | None = None
        self._reads: Client | None = None
        # How many messages had come of the read side when it was found mute.
        self._mute: tuple[Client, int] | None = None

    # --- the node -------------------------------------------------------------------------------

    def connect(self) -> Hello:
        """Connect to the node anew, which must be that of this group. Raises ShardUnavailable."""
        address = self._address
        client = self._client(address.host, address.port)
        try:
            hello = client.connect()
        except ClientError as error:
            client.close()
            raise ShardUnavailable(self.shard, str(error)) from error
        known = address.server_uuid
        if known and str(hello.group) != known:
            client.close()
            raise ShardUnavailable(
                self.shard,
                f"the node at {address} is of group {hello.group}, and the shard map knows {known}",
            )
        with self._lock:
            old, self._node, self._hello = self._node, client, hello
        if old:
            old.close()
        return hello

    def submit(self, commands: Commands, texts: bytes) -> "Future[Answered]":
        """Send commands to the node. Raises ShardUnavailable."""
        return self._at_node(lambda client: client.submit(commands, texts))

    def result(self, answered: "Future[Answered]", deadline: float) -> Answered:
        """Wait for an answer to commands. Raises ShardError."""
        return self._at_node(lambda _: answered.result(self._left_s(deadline)))

    def ask_node(self, question: NodeQuestion, kind: type[T], deadline: float) -> T:
        """Ask the node. Raises ShardError; Hurried if it had little time to answer, which says
        nothing of it.
        """
        left_s = self._left_s(deadline)
        try:
            return self._at_node(lambda client: client.ask(question, kind, left_s))
        except TimedOut as error:
            if left_s < self._connect_timeout_s / 2:
                raise Hurried(self.shard, f"no answer in {left_s:.3f} s") from error
            raise

    def prove(self) -> None:
        """Whether the node makes frames. It may take its time for that as long as it is heard of.
        Raises ShardError, TimedOut after SILENT_MAX looks in which nothing was heard.
        """

        def ask(client: Client) -> None:
            answered, heard, silent = client.ask_soon(Barrier(), At), client.heard, 0
            while True:
                try:
                    answered.result(_LOOK_S)
                    return
                except TimeoutError:
                    # Looks are counted, not seconds: this process may have stood still itself.
                    silent = silent + 1 if client.heard == heard else 0
                    heard = client.heard
                    if silent >= SILENT_MAX:
                        raise

        self._at_node(ask)

    def answerable(self, deadline: float) -> At:
        """A frame up to which the list is answerable now: all that was answered before this is
        asked is in frames up to there. Raises ShardError.
        """
        return self.ask_node(NowAnswerable(), At, deadline)

    def _at_node(self, call: Callable[[Client], T]) -> T:
        client = self._node
        if client is None:
            raise ShardUnavailable(self.shard, "there is no connection to its node")
        try:
            return call(client)
        except Exception as error:
            raise translate(self.shard, error) from error

    # --- the read side --------------------------------------------------------------------------

    def ask_reads(self, question: ReadQuestion, kind: type[T], deadline: float) -> T:
        """Ask the read side, which changes nothing. Raises NoTime, or StatementRefused: what is
        wrong with the read side says nothing of the group, whose transfers go on.
        """
        client = self.connect_to_reads()
        left_s, heard = self._left_s(deadline), client.heard
        if self._mute == (client, heard):
            left_s = min(left_s, _MUTE_S)
        try:
            return client.ask(question, kind, left_s)
        except (Lost, NotSent) as error:
            # It will be connected to anew.
            with self._lock:
                self._reads = None
            client.close()
            raise self._cannot_read(str(error)) from error
        except TimeoutError as error:
            if client.heard == heard:
                self._mute = client, heard
            raise self._cannot_read(f"no answer in {left_s:.1f} s") from error
        except NotSeenYet as error:
            raise NotYet(self.shard, str(error)) from error
        except ClientError as error:
            raise self._cannot_read(str(error)) from error

    def connect_to_reads(self) -> Client:
        """The connection to the read side; makes it if there is none. Raises StatementRefused."""
        with self._connecting:
            if reads := self._reads:
                return reads
            if self._hello is None or self._hello.reads is None:
                raise self._cannot_read("its node has named none")
            client = self._client(*self._hello.reads)
            try:
                client.connect()
            except ClientError as error:
                client.close()
                raise self._cannot_read(str(error)) from error
            with self._lock:
                self._reads = client
            return client

    def _cannot_read(self, why: str) -> StatementRefused:
        return StatementRefused(self.shard, f"its read side cannot answer: {why}")

    # --- both -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Break both connections: what waits for an answer gets none."""
        with self._lock:
            clients = [client for client in (self._node, self._reads) if client]
            self._node = self._reads = None
        for client in clients:
            with suppress(ClientError):
                client.close()

    def _client(self, host: str, port: int) -> Client:
        timeout_s = self._connect_timeout_s
        return Client(host, port, self._secret, self._cluster, connect_timeout_s=timeout_s)

    def _left_s(self, deadline: float) -> float:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise NoTime(self.shard, "the deadline was over before it was asked")
        return left_s


def translate(shard: str, error: Exception) -> ShardError | Exception:
    """What an error of the client means to a coordinator; others are given back."""
    match error:
        case TimeoutError():
            return TimedOut(shard, "no answer in time")
        case Unreachable() | Rejected() | NotSent():
            return ShardUnavailable(shard, str(error))
        case Lost():
            return ConnectionLost(shard, str(error))
        case TooMuch():
            return TooLarge(shard, str(error))
        case NotTaken() if not isinstance(error, Busy):
            return StatementRefused(shard, str(error))
        case CannotAnswer():
            return TryAgain(shard, str(error))
        case _:
            return error
