"""One shard's connections: packets of several statements, time limits, a pool."""

import fcntl
import math
import re
import ssl
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import pymysql
from pymysql.constants import CLIENT, COMMAND, CR

from shard_client.address import Address
from shard_client.errors import (
    ConnectionLost,
    Hurried,
    NoneFree,
    NoTime,
    ShardUnavailable,
    TimedOut,
    TooLarge,
    TryAgain,
    translate,
)
from shard_client.node import LOCK_WAIT_S, SLOW_S
from shard_client.remedies import with_remedy
from shard_client.session import ASK, PROOF, ROWS_MAX, TEXT_MAX, known_of, opening
from shard_client.timely import TimelyConnection
from shard_client.tls import Tls, context_of

T = TypeVar("T")
Row = tuple[Any, ...]

# To log in takes some eight packets. All of them together may take so many times what is allowed
# for reaching the server.
_LOGIN_TIMES = 2
# A shard that was given less than this for an answer is not to blame for its lack.
_FAIR_S = 0.9
# So long a shard counts as slow after an answer was overdue.
_SLOW_FOR_S = 2.0

# For what a session begins with; how much its server takes at most, it says when it is asked.
_OPENING_MAX = 4096

_ABILITIES = "SELECT @@log_bin, @@sync_binlog, @@max_allowed_packet"
# By version, those of a server that a session sets.
known_variables: dict[str, frozenset[str]] = {}
# Ends the text of a row.
END = "\tall"
# What gives rows: an answer that is believed only when it is known to be whole.
_READING = re.compile(r"\s*\(?\s*(SELECT|SHOW|WITH|TABLE|VALUES)\b", re.IGNORECASE)


class Result(NamedTuple):
    """What one statement of a packet gave: its rows, or how many it found."""

    rows: tuple[Row, ...]
    found: int


class _Wire(TimelyConnection):
    """PyMySQL with sending and receiving apart, so that one thread can ask many shards at once."""

    def send(self, packet: bytes) -> None:
        self._execute_command(COMMAND.COM_QUERY, packet)

    def receive(self) -> Result:
        found = self._read_query_result()
        result = self._result
        return Result(result.rows or (), found or 0)

    def has_more(self) -> bool:
        return bool(self._result is not None and self._result.has_next)


def _why_not(error: Exception, tls: Tls) -> str:
    """Why there is no connection, in words for operators."""
    cause = getattr(error, "original_exception", error)
    is_tls = isinstance(cause, ssl.SSLError) or error.args[:1] == (CR.CR_SSL_CONNECTION_ERROR,)
    if is_tls and tls.verifies:
        return f"its TLS is not what mysql.tls_ca = {tls.ca} asks for: {error}"
    return f"cannot be reached: {error}"


class Reply(Generic[T]):
    """The answer to a packet that is on its way; read it once with `get`."""

    def __init__(
        self,
        connection: "ShardConnection",
        deadline: float,
        parse: Callable[[list[Result]], T],
        *,
        has_proof: bool = False,
    ) -> None:
        self._connection = connection
        self._deadline = deadline
        self._parse = parse
        self._has_proof = has_proof

    def get(self) -> T:
        """Wait for the answer, until the deadline of the packet. Raises ShardError."""
        results = self._connection.receive(self._deadline)
        if self._has_proof:
            self._connection.believe(value for (value,) in results.pop().rows or [(0,)])
        return self._parse(results)


class ShardConnection:
    """A session on a shard: READ COMMITTED, autocommit, several statements to a packet.

    After any error it is closed: what a session does after an error inside XA is not defined well
    enough to go on with it.
    """

    def __init__(self, address: Address, connect_timeout_s: float, idle_timeout_s: int) -> None:
        self.shard = address.shard
        deadline = time.monotonic() + connect_timeout_s * _LOGIN_TIMES
        try:
            self._wire = _Wire(
                deadline,
                host=address.host,
                port=address.port,
                user=address.user,
                password=address.password,
                database=address.database,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=connect_timeout_s,
                client_flag=CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS,
                # Given, a server that does not speak TLS is refused; else it is used without.
                ssl=context_of(address.tls) if address.tls.verifies else None,
            )
        except Exception as error:
            code = error.args[0] if isinstance(error, pymysql.err.MySQLError) else 0
            text = with_remedy(code, _why_not(error, address.tls))
            raise ShardUnavailable(self.shard, text, code=code) from error
        self.is_mariadb = "mariadb" in self._wire.get_server_info().lower()
        self.thread_id: int = self._wire.thread_id()
        self.last_used = self._sent_at = time.monotonic()
        # Since when an answer is waited for that ought to come at once.
        self.waits_since: float | None = None
        self.packet_max = _OPENING_MAX
        try:
            first = opening(self._known(deadline), idle_timeout_s, "READ COMMITTED")
            results = self.query([*first, _ABILITIES], deadline)
        except (ConnectionLost, TryAgain) as error:
            raise ShardUnavailable(self.shard, f"cannot be reached: {error.text}") from error
        log_bin, sync_binlog, self.packet_max = results[-1].rows[0]
        # Elsewhere InnoDB shows a commit before it has flushed it (rule R2).
        self.is_durable_before_visible = bool(log_bin) and sync_binlog == 1 and not self.is_mariadb
        # When its pool last was emptied, as a count: an older connection is not taken back.
        self.generation = 0

    def _known(self, deadline: float) -> frozenset[str]:
        """The session variables that this version of the server has."""
        version = self.server_version
        if version not in known_variables:
            known = known_of(self.query(ASK, deadline)[1].rows)
            if not known:
                raise self.not_whole("it does not list its variables")
            known_variables[version] = known
        return known_variables[version]

    @property
    def server_version(self) -> str:
        # MariaDB puts a version that old replicas understand in front of its own.
        return str(self._wire.get_server_info()).removeprefix("5.5.5-")

    @property
    def is_open(self) -> bool:
        return bool(self._wire.open)

    def literal(self, value: object) -> str:
        """A value as SQL text."""
        return str(self._wire.escape(value))

    def fileno(self) -> int:
        """For waiting until an answer begins to arrive."""
        return int(self._wire._sock.fileno())

    def is_overdue(self, now: float) -> bool:
        """Whether nothing is there of an answer that ought to have come long ago. One that has come
        and is not read yet is no fault of the shard.
        """
        if self.waits_since is None or now - self.waits_since < SLOW_S:
            return False
        if not self.is_open:
            # Its answer was given up.
            return True
        try:
            waiting = fcntl.ioctl(self.fileno(), termios.FIONREAD, bytes(4))
        except (OSError, ValueError, AttributeError):
            # Another thread is just giving it up.
            return True
        return waiting == bytes(4)

    def close(self) -> None:
        # No COM_QUIT: it could block on a server that does not read.
        self._wire._force_close()

    def call(
        self,
        statements: Sequence[str],
        deadline: float,
        parse: Callable[[list[Result]], T],
        *,
        waits: bool = False,
        may_wait: bool = False,
        is_proven: bool = False,
    ) -> Reply[T]:
        """Send one packet of statements; the answer is read from the Reply. The deadline is for all
        of it, from here to the last byte of the answer. `waits`: the server is to wait for locks;
        `may_wait`: it waits for them where it has to.

        If it reads, the session's own limit on rows is asked for with it, and `parse` sees rows
        that were not cut only. `is_proven`: it asks for the limit already, and `parse` calls
        `believe`.

        Raises TooLarge if the server would not take so large a packet, TryAgain if there was no
        time left to ask it, ConnectionLost.
        """
        has_proof = not is_proven and any(map(_READING.match, statements))
        packet = ";".join([*statements, PROOF] if has_proof else statements).encode()
        if len(packet) >= self.packet_max:
            self.close()
            text = f"a packet of {len(packet)} bytes is beyond max_allowed_packet"
            raise TooLarge(self.shard, f"{text}, {self.packet_max}", code=1153)
        self._sent_at = time.monotonic()
        if deadline <= self._sent_at:
            self.close()
            raise NoTime(self.shard, "there was no time left to ask it")
        self._wire.deadline = deadline
        patience_s = LOCK_WAIT_S if may_wait else 0.0
        self.waits_since = None if waits else self._sent_at + patience_s
        try:
            self._wire.send(packet)
        except Exception as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise self._late(deadline, None) from error
            raise ConnectionLost(self.shard, f"the packet could not be sent: {error}") from error
        return Reply(self, deadline, parse, has_proof=has_proof)

    def believe(self, limits: Iterable[int]) -> None:
        """Raise ShardUnavailable if an answer may lack rows by the limits that came with it."""
        for limit in limits:
            if limit != ROWS_MAX:
                raise self.not_whole(f"sql_select_limit is {limit} in its session")

    def not_whole(self, why: str) -> ShardUnavailable:
        """What to raise of an answer that lacks something: nothing follows from it."""
        self.close()
        return ShardUnavailable(self.shard, f"an answer is not whole and counts for nothing: {why}")

    def lines(self, results: Iterable[Result]) -> list[str]:
        """The rows that came as one text, with their number (see `statements.as_text`). Raises
        ShardUnavailable if not all of them are there.
        """
        lines: list[str] = []
        for result in results:
            count, text = result.rows[0] if result.rows else (None, "")
            some = text.removesuffix(END).split(f"{END}\n") if text else []
            if len(some) != count or not (text or END).endswith(END):
                raise self.not_whole(
                    f"{len(text or '')} characters came of {count or 0} rows; max_allowed_packet "
                    f"is {self.packet_max}, group_concat_max_len was set to {TEXT_MAX}"
                )
            lines += some
        return lines

    def _late(self, deadline: float, statement: int | None) -> ConnectionLost:
        """What it means that the deadline has passed."""
        given_s = deadline - self._sent_at
        is_fair = given_s >= _FAIR_S and self.waits_since is not None
        kind = TimedOut if is_fair else Hurried
        text = f"there was no answer within {given_s:.1f} s"
        return kind(self.shard, text, code=CR.CR_SERVER_LOST, statement=statement)

    def query(self, statements: Sequence[str], deadline: float) -> list[Result]:
        """Send one packet and wait for the answer: a result for each statement."""
        return self.call(statements, deadline, lambda results: results).get()

    def rows(self, statement: str, deadline: float) -> tuple[Row, ...]:
        return self.query([statement], deadline)[0].rows

    def receive(self, deadline: float) -> list[Result]:
        """The results of the packet that was sent last. Raises ShardError and then is closed."""
        results: list[Result] = []
        self._wire.deadline = deadline
        try:
            while not results or self._wire.has_more():
                results.append(self._wire.receive())
        except TimeoutError as error:
            self.close()
            raise self._late(deadline, len(results)) from error
        except Exception as error:
            self.close()
            raise translate(self.shard, error, statement=len(results)) from error
        self.last_used = time.monotonic()
        self.waits_since = None
        return results


class Lent:
    """A connection for the caller alone; `give` gets it back, once."""

    connection: ShardConnection
    _give: Callable[[ShardConnection], None] | None

    def give_back(self) -> None:
        give, self._give = self._give, None
        if give:
            give(self.connection)

    def abandon(self) -> None:
        # By now it may be another's.
        if self._give:
            self.connection.close()
            self.give_back()


class Pool:
    """Connections to one shard, at most `size` at a time; the one used last is taken first."""

    def __init__(
        self, shard: str, connect: Callable[[], ShardConnection], size: int, idle_max_s: float
    ) -> None:
        self._shard = shard
        self._connect = connect
        self.size = size
        # Those that are with somebody, and since when others are being opened.
        self._taken: set[ShardConnection] = set()
        self._opening: list[float] = []
        # When an answer was last seen to be overdue.
        self._slow_at = -math.inf
        self._idle: list[ShardConnection] = []
        self._free = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._generation = 0
        # Younger than the server's own idle timeout, so that the server never hangs up first.
        self._idle_max_s = idle_max_s

    def take(self, deadline: float) -> ShardConnection:
        """A connection for the caller alone; give it back with `give`.

        Raises NoneFree if none becomes free in time, ShardUnavailable.
        """
        if not self._free.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise NoneFree(self._shard, "all connections to it are in use")
        began, generation = time.monotonic(), self._generation
        with self._lock:
            self._opening.append(began)
        try:
            connection = self._take_idle() or self._connect()
        except BaseException:
            with self._lock:
                self._opening.remove(began)
            self._free.release()
            raise
        connection.generation = generation
        with self._lock:
            self._opening.remove(began)
            self._taken.add(connection)
        return connection

    def _take_idle(self) -> ShardConnection | None:
        oldest = time.monotonic() - self._idle_max_s
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_open and connection.last_used > oldest:
                    return connection
                connection.close()
        return None

    @property
    def idle(self) -> int:
        """How many are open and with nobody."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """How many are with somebody, or about to be."""
        return len(self._taken) + len(self._opening)

    def is_slow(self, now: float) -> bool:
        """Whether an answer is overdue, or was a moment ago."""
        with self._lock:
            is_overdue = any(connection.is_overdue(now) for connection in self._taken)
            if is_overdue or now - min(self._opening, default=now) > SLOW_S:
                self._slow_at = now
            return now - self._slow_at < _SLOW_FOR_S

    def give(self, connection: ShardConnection) -> None:
        """Give a connection back; one that is closed or older than the last emptying is dropped."""
        with self._lock:
            self._taken.discard(connection)
            if not connection.is_open and connection.is_overdue(time.monotonic()):
                self._slow_at = time.monotonic()
        self._free.release()
        with self._lock:
            if connection.is_open and connection.generation == self._generation:
                self._idle.append(connection)
                return
        connection.close()

    def empty(self) -> None:
        """Close what is idle, and what is in use when it comes back: the server behind it went
        away or came back as another.
        """
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def connection(self, deadline: float) -> Iterator[ShardConnection]:
        """A connection for a block; an exception in the block closes it."""
        connection = self.take(deadline)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        finally:
            self.give(connection)
