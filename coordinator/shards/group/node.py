"""A ledger group as a coordinator holds it: its connections, and whether it can be used."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, NoReturn

from coordinator.shards.group.calls import GroupCalls, GroupHold
from coordinator.shards.group.decider import GroupDecider
from coordinator.shards.group.events import GroupEvents
from coordinator.shards.group.link import Link
from eventstore.wire.questions import Describe, Description, Lag, LagIs
from ledger.errors import Bug
from shard_client.errors import ShardError, ShardUnavailable, TimedOut
from shard_client.node import (
    SLOW_S,
    GroupBranch,
    LocalTransaction,
    PoolState,
    ReadHold,
    ShardNode,
)
from shard_client.shard_map import ShardAddress
from shard_client.trust import Trust

log = logging.getLogger(__name__)


class Observed(NamedTuple):
    """What a group says of itself now: its node, and its read side. None: there was no answer."""

    node: Description | None
    reads: LagIs | None


class LedgerGroup(ShardNode):
    """See ShardNode. `note` is told what calls raise; `clock_problem` says of an offset of the
    node's clock what is wrong with it, if anything is.
    """

    def __init__(
        self,
        name: str,
        address: ShardAddress,
        cluster: str,
        secret: str,
        connect_timeout_s: float,
        *,
        clock_problem: Callable[[float], str | None] = lambda _: None,
        note: Callable[[ShardError], None] = lambda _: None,
    ) -> None:
        self.id = name
        self.address = address
        self.server_uuid = address.server_uuid
        self._timeout_s = connect_timeout_s
        self._link = Link(name, address, cluster, secret, connect_timeout_s)
        self.events = GroupEvents(self._link)
        self._clock_problem = clock_problem
        self._calls = GroupCalls(self._link, note)
        self.reads = self.recovery = self._calls
        self.purge = GroupCalls(self._link, lambda _: None)
        self.decider = self._decider = GroupDecider(self._link, time.monotonic)
        self._lock = threading.Lock()
        self._trust = Trust()
        self.is_doubted = False
        self.unavailable_because: str | None = "it was not reached yet"
        self.unavailable_since = time.monotonic()
        self._failure = ""
        self.clock_offset_s: float | None = None
        self.description: Description | None = None
        # What the read side has said when it was last observed; None: nothing.
        self.lag: LagIs | None = None

    @property
    def is_slow(self) -> bool:
        return self._decider.oldest_s > SLOW_S

    @property
    def version(self) -> str | None:
        return f"ledger group, {self.description.version}" if self.description else None

    @property
    def weaknesses(self) -> list[str]:
        return []

    @property
    def pool_states(self) -> Mapping[str, PoolState]:
        return {}

    # --- sessions: a group takes part in none ---------------------------------------------------

    def branch(self, gtrid: str, deadline: float, *, is_local: bool) -> GroupBranch:
        self._has_no_sessions(gtrid)

    def local_transaction(self, gtrid: str, deadline: float) -> LocalTransaction:
        self._has_no_sessions(gtrid)

    def hold(self, deadline: float) -> ReadHold:
        if (reason := self.unavailable_because) is not None:
            raise ShardUnavailable(self.id, reason)
        return GroupHold(self._calls)

    def _has_no_sessions(self, gtrid: str) -> NoReturn:
        raise Bug(f"shard {self.id} is a ledger group and takes no part in {gtrid}")

    # --- whether it can be used -----------------------------------------------------------------

    def admit(self) -> None:
        try:
            self._link.connect()
            self._describe()
            wrong = self._clock_problem(self.clock_offset_s or 0.0)
            if wrong:
                raise ShardUnavailable(self.id, wrong)
            self._link.prove()
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
        with self._lock:
            was, self.unavailable_because = self.unavailable_because, None
            self.is_doubted = False
        if was:
            extra = {"event": "shard.in_use", "shard": self.id}
            log.info("shard %s is in use (%s)", self.id, self.version, extra=extra)

    def look(self) -> None:
        self.is_doubted = False
        try:
            self._link.prove()
        except ShardError as error:
            self.give_up(error)
            raise

    def check_again(self) -> None:
        try:
            self._describe()
            self._link.prove()
        except (ShardUnavailable, TimedOut) as error:
            self.give_up(error)

    def read_clock(self) -> None:
        self._describe()

    def observe(self) -> Observed:
        """Ask the node how it is, and then the read side how far. Only the caller waits, for each
        up to its time limit. That there is no answer is no reason to give the group up.
        """
        node: Description | None = None
        reads: LagIs | None = None
        with suppress(ShardError):
            node = self._link.ask_node(Describe(), Description, self._soon())
        with suppress(ShardError):
            reads = self._link.ask_reads(Lag(), LagIs, self._soon())
        self.lag = reads
        return Observed(node, reads)

    def give_up(self, error: ShardError) -> None:
        with self._lock:
            was, self.unavailable_because = self.unavailable_because, error.text
            if was is None:
                self.unavailable_since, self._failure = time.monotonic(), error.text
                # A broken connection costs nobody time, and is soon replaced.
                if isinstance(error, ShardUnavailable | TimedOut):
                    self._trust.lose(self.unavailable_since)
        if was is None:
            extra = {"event": "shard.lost", "shard": self.id, "code": error.code}
            log.warning("shard %s is not used: %s", self.id, error.text, extra=extra)
        self._link.close()

    def close(self) -> None:
        self._link.close()

    def _describe(self) -> None:
        before = time.monotonic()
        self.description = self._link.ask_node(Describe(), Description, self._soon())
        middle = (before + time.monotonic()) / 2
        self.clock_offset_s = self.description.time_us / 1e6 - middle

    def _soon(self) -> float:
        return time.monotonic() + self._timeout_s


def events_among(shards: list[ShardNode]) -> GroupEvents | None:
    """Those of the ledger group among shards, of which there is one at most."""
    groups = (shard for shard in shards if isinstance(shard, LedgerGroup))
    return next((group.events for group in groups), None)
