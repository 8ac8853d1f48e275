"""A MySQL shard as a coordinator holds it: its connections, and whether it can be used."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import NamedTuple

from shard_client.address import Address
from shard_client.branch import Branch
from shard_client.calls import MySqlCalls, MySqlHold
from shard_client.checks import ServerCheck, check_server, clock_offset_s, verify_identity
from shard_client.connection import Pool, ShardConnection
from shard_client.errors import (
    DISK_FULL,
    ConnectionLost,
    Hurried,
    ShardError,
    ShardUnavailable,
    TimedOut,
)
from shard_client.node import LOCK_WAIT_S, PoolState, ShardNode
from shard_client.phases import MySqlLocalTransaction
from shard_client.rehearsal import rehearse
from shard_client.remedies import explained
from shard_client.trial import try_branch, try_writes
from shard_client.trust import Trust

log = logging.getLogger(__name__)


class Limits(NamedTuple):
    """How patient a coordinator is with a shard, and how many connections it opens."""

    connect_timeout_s: float
    idle_timeout_s: int
    connections: int
    reading_connections: int
    recovering_connections: int


class Shard(ShardNode):
    """See ShardNode. `note` is told what calls raise; `clock_problem` says of an offset of the
    shard's clock what is wrong with it, if anything is.
    """

    def __init__(
        self,
        address: Address,
        cluster: str,
        server_uuid: str,
        limits: Limits,
        *,
        refuse_weak_durability: bool,
        clock_problem: Callable[[float], str | None] = lambda _: None,
        note: Callable[[ShardError], None] = lambda _: None,
    ) -> None:
        self.id = address.shard
        self.address = address
        self.server_uuid = server_uuid
        self._cluster = cluster
        self._limits = limits
        self._refuse_weak = refuse_weak_durability
        idle_max_s = limits.idle_timeout_s / 2
        self._pool = Pool(self.id, self._connect, limits.connections, idle_max_s)
        # Of their own, so that many readers keep neither groups nor recovery waiting.
        self._readers = Pool(self.id, self._connect, limits.reading_connections, idle_max_s)
        self._recovery = Pool(self.id, self._connect, limits.recovering_connections, idle_max_s)
        self.pools = {"groups": self._pool, "reads": self._readers, "recovery": self._recovery}
        self.reads = MySqlCalls(cluster, partial(self._noting, self._readers))
        self.recovery = MySqlCalls(cluster, partial(self._noting, self._recovery))
        self.purge = MySqlCalls(cluster, self.recovering)
        self._note = note
        self._lock = threading.Lock()
        self._trust = Trust()
        # Why it was given up last.
        self._failure = ""
        self.is_doubted = False
        self.unavailable_because: str | None = "it was not reached yet"
        self.unavailable_since = time.monotonic()
        self.last_check: ServerCheck | None = None
        self.clock_offset_s: float | None = None
        self._clock_problem = clock_problem

    @property
    def is_slow(self) -> bool:
        return self._pool.is_slow(time.monotonic())

    @property
    def version(self) -> str | None:
        return self.last_check.version if self.last_check else None

    @property
    def weaknesses(self) -> list[str]:
        return self.last_check.weak if self.last_check else []

    @property
    def pool_states(self) -> dict[str, PoolState]:
        return {
            name: PoolState(pool.size, pool.busy, pool.idle) for name, pool in self.pools.items()
        }

    # --- sessions ---------------------------------------------------------------------------

    def branch(self, gtrid: str, deadline: float, *, is_local: bool) -> Branch:
        return Branch(self.take(deadline), gtrid, is_local=is_local, give=self._pool.give)

    def local_transaction(self, gtrid: str, deadline: float) -> MySqlLocalTransaction:
        return MySqlLocalTransaction(self.take(deadline), gtrid, give=self._pool.give)

    def hold(self, deadline: float) -> MySqlHold:
        return MySqlHold(self.take(deadline), self._pool.give)

    # --- whether it can be used -------------------------------------------------------------

    def admit(self) -> None:
        try:
            with self._fresh_connection() as connection:
                check = check_server(connection, self._soon())
                wrong_clock = self._clock_problem(check.clock_offset_s)
                self._refuse(check, [wrong_clock] if wrong_clock else [])
                # First without rows: where a disk is full, to undo some can bring a server down.
                rehearse(connection, self._soon() + LOCK_WAIT_S)
                try_writes(connection, self._cluster, self._soon() + LOCK_WAIT_S)
                try_branch(connection, self._cluster, self._soon() + LOCK_WAIT_S)
        except ShardError as error:
            self._trust.fail()
            self.give_up(error)
            raise
        now = time.monotonic()
        if not self._trust.prove(now):
            count = self._trust.needed(now)
            text = (
                f"it has failed, and {count} looks at it in a row have to be good: {self._failure}"
            )
            self.unavailable_because = text
            raise ShardUnavailable(self.id, text)
        self._empty()
        with self._lock:
            self.last_check, was = check, self.unavailable_because
            self.clock_offset_s = check.clock_offset_s
            self.unavailable_because = None
            self.is_doubted = False
        if was:
            extra = {"event": "shard.in_use", "shard": self.id}
            log.info("shard %s is in use (%s)", self.id, check.version, extra=extra)

    def look(self) -> None:
        self.is_doubted = False
        try:
            with self._fresh_connection() as connection:
                rehearse(connection, self._soon() + LOCK_WAIT_S)
        except ShardError as error:
            self.give_up(error)
            raise

    def check_again(self) -> None:
        """By a new connection: one that is open keeps the settings and rights with which it began.
        What is wrong with its clock is for the caller to say, who knows the others'.
        """
        try:
            with self._fresh_connection() as connection:
                check = check_server(connection, self._soon())
                self.last_check, self.clock_offset_s = check, check.clock_offset_s
                self._refuse(check, [])
                rehearse(connection, self._soon() + LOCK_WAIT_S)
                try_writes(connection, self._cluster, self._soon() + LOCK_WAIT_S)
        except (ShardUnavailable, TimedOut) as error:
            self.give_up(error)

    def read_clock(self) -> None:
        deadline = self._soon()
        with self.connection(deadline) as connection:
            self.clock_offset_s = clock_offset_s(connection, deadline)

    def _soon(self) -> float:
        return time.monotonic() + self._limits.connect_timeout_s

    def _refuse(self, check: ServerCheck, more: list[str]) -> None:
        """Raise ShardUnavailable if there is a problem."""
        problems = check.problems + (check.weak if self._refuse_weak else []) + more
        if problems:
            raise ShardUnavailable(self.id, "; ".join(problems))

    def give_up(self, error: ShardError) -> None:
        is_full = error.code in DISK_FULL
        text = f"its disk seems to be full: {error.text}" if is_full else error.text
        with self._lock:
            was, self.unavailable_because = self.unavailable_because, text
            if was is None:
                self.unavailable_since, self._failure = time.monotonic(), text
                # A broken connection costs nobody time, and is soon replaced.
                if isinstance(error, ShardUnavailable | TimedOut):
                    self._trust.lose(self.unavailable_since, for_long=is_full)
        if was is None:
            extra = {"event": "shard.lost", "shard": self.id, "code": error.code}
            log.warning("shard %s is not used: %s", self.id, text, extra=extra)
        self._empty()

    def take(self, deadline: float) -> ShardConnection:
        """A connection for the caller alone, to be given back to its pool.

        Raises ShardUnavailable, NoneFree.
        """
        if (reason := self.unavailable_because) is not None:
            raise ShardUnavailable(self.id, reason)
        return self._pool.take(deadline)

    def connection(self, deadline: float) -> AbstractContextManager[ShardConnection]:
        """A connection for a block that reads. What the block raises closes it; a shard that cannot
        be reached or takes no work is given up.
        """
        return self._connection(self._readers, deadline)

    def recovering(self, deadline: float) -> AbstractContextManager[ShardConnection]:
        """The same for a block that finishes or collects what is left open."""
        return self._connection(self._recovery, deadline)

    @contextmanager
    def _noting(self, pool: Pool, deadline: float) -> Iterator[ShardConnection]:
        """The same for a block of which is told what it raises."""
        try:
            with self._connection(pool, deadline) as connection:
                yield connection
        except ShardError as error:
            self._note(error)
            raise

    @contextmanager
    def _connection(self, pool: Pool, deadline: float) -> Iterator[ShardConnection]:
        if (reason := self.unavailable_because) is not None:
            raise ShardUnavailable(self.id, reason)
        connection = pool.take(deadline)
        try:
            yield connection
        except BaseException as error:
            connection.close()
            if isinstance(error, ShardUnavailable):
                self.give_up(error)
            elif isinstance(error, ConnectionLost) and not isinstance(error, Hurried):
                self._empty()
            raise
        finally:
            pool.give(connection)

    def close(self) -> None:
        self._empty()

    def _empty(self) -> None:
        for pool in self.pools.values():
            pool.empty()

    @contextmanager
    def _fresh_connection(self) -> Iterator[ShardConnection]:
        connection = self._connect()
        try:
            yield connection
        finally:
            connection.close()

    def _connect(self) -> ShardConnection:
        """A new session on the server, which must be the shard that it is taken for."""
        timeout_s = self._limits.connect_timeout_s
        try:
            connection = ShardConnection(self.address, timeout_s, self._limits.idle_timeout_s)
            verify_identity(connection, self._cluster, self.server_uuid, self._soon())
        except ShardError as error:
            unavailable = ShardUnavailable(self.id, explained(error), code=error.code)
            self.give_up(unavailable)
            raise unavailable from error
        return connection
