"""Who leads: terms, leases, and the ZooKeeper transactions that make a leader.

Leading means to do what one process should do for all: recover others' branches, collect, change
the shard map. Nothing that one does as leader goes wrong if two do it; so a leader that is late to
notice its end does no harm.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec
from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError, NoNodeError
from kazoo.protocol.states import WatchedEvent, ZnodeStat

from coordinator.cluster.client import Grant, Paths

# How much of the session's timeout a leader trusts. The rest is for what its clock and its threads
# may be late, so that it has stopped before ZooKeeper lets anybody else begin.
LEASE_SHARE = 0.7
# Who is granted a shorter session cannot lead: its lease would end between two turns.
LEAD_MIN_S = 1.0

# Called once, on a thread of kazoo's that must not block.
Watch = Callable[[WatchedEvent], None]


class Member(msgspec.Struct, frozen=True):
    """A worker process of a coordinator, as it presents itself. `started_at` is in microseconds."""

    coordinator: str
    # Eight hexadecimal digits; the gtrids of this process carry them.
    instance: str
    address: str
    pid: int
    started_at: int

    @property
    def name(self) -> str:
        return f"{self.coordinator}-{self.instance}"

    @property
    def number(self) -> int:
        return int(self.instance, 16)


class Leader(msgspec.Struct, frozen=True):
    """Who leads, in which term."""

    epoch: int
    member: Member


# Who sits in a seat whose node cannot be read: of another version, say.
SOMEBODY = Leader(0, Member("?", "00000000", "?", 0, 0))


class HandOver(msgspec.Struct, frozen=True):
    """The leader of term `epoch`, of this coordinator, was asked to step down."""

    epoch: int
    coordinator: str


# Goes on while the machine sleeps, as ZooKeeper's clock does elsewhere; time.monotonic() does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def lease_clock() -> float:
    """Seconds, for leases alone."""
    return time.clock_gettime(_CLOCK)


class Lease:
    """The right to lead, until a moment of this machine's clock.

    It counts from before the request that proved it: ZooKeeper's count begins later. It holds by
    the connection on which it was proved, since the next one may be granted less time, or belong to
    another session.
    """

    def __init__(self) -> None:
        self._grant: Grant | None = None
        self._until = float("-inf")

    def renew(self, asked_at: float, grant: Grant | None, asked_s: float) -> None:
        """`grant` is that of the connection before it was asked, `asked_s` the session's timeout
        that was asked for: longer than that nobody needs to lead without a word.
        """
        self._grant = grant
        timeout_s = min(grant.timeout_s, asked_s) if grant else 0.0
        self._until = asked_at + timeout_s * LEASE_SHARE

    def drop(self) -> None:
        self._grant = None

    def holds(self, now: float, grant: Grant | None) -> bool:
        """`grant` is that of the connection as it is now."""
        return grant is not None and grant is self._grant and now < self._until


def trouble_with(granted_s: float, asked_s: float) -> str | None:
    """What an operator should know of the time that ZooKeeper gives to a session."""
    if round(granted_s, 3) == round(asked_s, 3):
        return None
    told = (
        f"ZooKeeper grants sessions of {granted_s:g} s where zookeeper.session_timeout_s asks for "
        f"{asked_s:g} s"
    )
    if granted_s > asked_s:
        return f"{told}: it takes a process for gone that much later; lower its minSessionTimeout"
    if granted_s < LEAD_MIN_S:
        return f"{told}: too short for this process to lead; raise its maxSessionTimeout"
    return f"{told}: leases are as short; raise its maxSessionTimeout"


class Seat(NamedTuple):
    """The leader's node as it was read: who sits there, and by which session."""

    leader: Leader
    session: int


def read_seat(client: KazooClient, paths: Paths, watch: Watch | None = None) -> Seat | None:
    """Who leads; None if nobody does. `watch` is called when that changes."""
    stat: ZnodeStat | None = client.exists(paths.leader, watch=watch)
    if stat is None:
        return None
    try:
        data, stat = client.get(paths.leader)
    except NoNodeError:
        return None
    try:
        leader = msgspec.json.decode(data, type=Leader)
    except msgspec.DecodeError:
        leader = SOMEBODY
    return Seat(leader, stat.owner_session_id or 0)


def read_epoch(client: KazooClient, paths: Paths) -> tuple[int, int]:
    """The number of the last term, and the version of its node."""
    client.ensure_path(paths.root)
    try:
        data, stat = client.get(paths.epoch)
    except NoNodeError:
        with suppress(NodeExistsError):
            client.create(paths.epoch, b"0")
        data, stat = client.get(paths.epoch)
    return int(data), stat.version


def stand(client: KazooClient, paths: Paths, me: Member) -> int | None:
    """Try to become the leader; gives the new term's number, or None if somebody else did.

    The epoch grows and the leader's node is made in one transaction, so that no two terms have one
    number.
    """
    last, version = read_epoch(client, paths)
    epoch = last + 1
    transaction = client.transaction()
    transaction.set_data(paths.epoch, str(epoch).encode(), version=version)
    document = msgspec.json.encode(Leader(epoch, me))
    transaction.create(paths.leader, document, ephemeral=True)
    # kazoo returns the exceptions of a transaction's parts in the list of results.
    failed = any(isinstance(result, Exception) for result in transaction.commit())
    return None if failed else epoch


def end_term(client: KazooClient, paths: Paths, epoch: int) -> None:
    """Remove the node of the leader of this term; that of a later one stays."""
    last, version = read_epoch(client, paths)
    if last != epoch:
        return
    transaction = client.transaction()
    transaction.check(paths.epoch, version)
    transaction.delete(paths.leader)
    transaction.commit()


def read_hand_over(
    client: KazooClient, paths: Paths, watch: Watch | None = None
) -> HandOver | None:
    """Which term was asked to end; None if none ever was, or nobody can read which."""
    if client.exists(paths.hand_over, watch=watch) is None:
        return None
    data, _ = client.get(paths.hand_over)
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(data, type=HandOver)
    return None


def ask_to_hand_over(client: KazooClient, paths: Paths, leader: Leader, timeout_s: float) -> None:
    """Ask a leader to step down; it alone ends its term, so that no two lead at a time.

    Each request waits for `timeout_s` at most: made while ZooKeeper goes away it would wait for
    its return. Raises KazooException and kazoo's timeout; it may have been asked then, or not.
    """
    asked = msgspec.json.encode(HandOver(leader.epoch, leader.member.coordinator))
    try:
        client.create_async(paths.hand_over, asked).get(timeout=timeout_s)
    except NodeExistsError:
        client.set_async(paths.hand_over, asked).get(timeout=timeout_s)
