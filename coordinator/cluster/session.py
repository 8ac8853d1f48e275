"""One process's place in ZooKeeper: it is there, it sees who else is, it may lead, it has the map.

One thread does all of it, in turns: when something has changed, and often enough to keep its lease.
kazoo's own threads only wake it.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec
from kazoo.exceptions import KazooException, NoAuthError, NodeExistsError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import WatchedEvent

from coordinator.cluster.client import (
    NOT_OURS,
    Client,
    ClusterError,
    Grant,
    Paths,
    new_client,
)
from coordinator.cluster.election import (
    LEAD_MIN_S,
    HandOver,
    Leader,
    Lease,
    Member,
    ask_to_hand_over,
    end_term,
    lease_clock,
    read_epoch,
    read_hand_over,
    read_seat,
    stand,
    trouble_with,
)
from coordinator.cluster.ownership import trouble_with_owner
from coordinator.cluster.shard_map import MapInForce
from coordinator.settings import Settings
from shard_client.shard_map import ShardMap

log = logging.getLogger(__name__)

# Turns in one session timeout: a few may be late or lost before the lease runs out.
_TURNS_PER_TIMEOUT = 6
# How long the processes of a coordinator that was asked to step down leave the seat to others.
_ABSTAIN_S = 3.0
# Processes that have gone are remembered up to this number.
_GONE_MAX = 10_000
# Without contact for so many session timeouts, but so many seconds at least, another client is
# made: one whose server has lost its data is refused for ever, and says nothing.
_RENEW_TIMEOUTS = 4
_RENEW_MIN_S = 10.0


class HandOverUnknown(ClusterError):
    """The leader may have been asked to step down, or not."""


class View(NamedTuple):
    """What was last seen: who is there, who leads, and who was there and is not any more."""

    members: tuple[Member, ...]
    leader: Leader | None
    gone: frozenset[int]

    @property
    def present(self) -> frozenset[int]:
        return frozenset(member.number for member in self.members)


class ClusterSession:
    """See the module. `on_change` is called, on its thread, when members or leader change, and
    `on_elected` when this process begins to lead: with the seconds for which it saw nobody lead
    after somebody had, or None.
    """

    def __init__(
        self,
        settings: Settings,
        me: Member,
        on_map: Callable[[ShardMap], None],
        on_change: Callable[[], None],
        on_elected: Callable[[float | None], None],
    ) -> None:
        self.me = me
        self.map = MapInForce(on_map)
        self.view = View((), None, frozenset())
        self._paths = Paths(settings.cluster.id)
        self._on_change = on_change
        self._on_elected = on_elected
        # Since when nobody is seen to lead, after somebody was.
        self._vacant_since: float | None = None
        self._asked_s = settings.zookeeper.session_timeout_s
        self._lease = Lease()
        # Of the connection on which the turn is taken.
        self._grant: Grant | None = None
        # What is wrong with the time that ZooKeeper gives to sessions.
        self._odd_grant: str | None = None
        # What in ZooKeeper is not its user's alone, and whether it was looked for.
        self._open_nodes: str | None = None
        self._is_owned = False
        self._epoch = 0
        self._hand_over: HandOver | None = None
        self._asked_at = 0.0
        self._gone: dict[int, None] = {}
        self._known: dict[str, Member] = {}
        self._unreadable: set[str] = set()
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._is_leaving = False
        self._is_stopping = False
        self._settings = settings
        self._client = self._new_client()
        self._seen_at = time.monotonic()
        self._renewed_at = self._seen_at
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)

    def start(self) -> None:
        """Begin, in the background. To be called after a fork, never before."""
        self._client.start_async()
        self._thread.start()

    @property
    def _timeout_s(self) -> float:
        """How long this process may be without a word: what it asked for, or less."""
        grant = self._grant
        return min(grant.timeout_s, self._asked_s) if grant else self._asked_s

    def _new_client(self) -> Client:
        client = new_client(
            self._settings,
            connection_retry={"max_tries": -1, "max_delay": 1.0},
            command_retry={"max_tries": 0},
        )
        # Listeners are called on threads of kazoo's that must not block.
        client.add_listener(lambda state: self._wake.set())
        return client

    # --- what others ask --------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether the last turn has succeeded, and not long ago."""
        is_recent = time.monotonic() - self._seen_at < 2 * self._timeout_s
        return bool(self._client.connected) and is_recent

    @property
    def trouble(self) -> str | None:
        """What an operator should know of the connection, though others may have one."""
        return self._client.handler.trouble or self._open_nodes or self._odd_grant

    @property
    def leads(self) -> bool:
        """Whether this process leads, at this moment."""
        return not self._is_stopping and self._lease.holds(lease_clock(), self._client.grant)

    @property
    def epoch(self) -> int:
        """The term in which this process leads, or led last."""
        return self._epoch

    def look_again(self) -> None:
        """Take a turn soon: a shard has said that a slot is not its own."""
        self._wake.set()

    def wait_for(self, done: Callable[[], object], deadline: float) -> bool:
        """Wait until `done` says yes after a turn, or the deadline."""
        with self._changed:
            left = max(deadline - time.monotonic(), 0)
            return bool(self._changed.wait_for(done, left))

    def hand_over(self, deadline: float) -> tuple[Leader, Leader | None]:
        """Ask the leader to step down, whoever it is, and wait for the next one: gives both.

        The second is the first if it still leads at the deadline, and None if nobody is known to
        lead then. Raises ClusterError, and HandOverUnknown if it may have been asked or not.
        """
        if not self.is_connected:
            raise ClusterError("ZooKeeper does not answer: no leader can be elected now")
        old = self.view.leader
        if old is None:
            raise ClusterError("no coordinator leads now")
        try:
            ask_to_hand_over(self._client, self._paths, old, self._timeout_s)
        except (KazooException, KazooTimeoutError) as error:
            raise HandOverUnknown(f"ZooKeeper did not confirm: {error!r}") from error

        def has_changed() -> bool:
            new = self.view.leader
            return bool(new and new.epoch > old.epoch)

        self.wait_for(has_changed, deadline)
        return old, self.view.leader

    # --- leaving ----------------------------------------------------------------------------

    def leave_seat(self) -> None:
        """Lead no more, so that somebody else can at once; this process stays a member."""
        self._is_leaving = True
        self._wake.set()

    def stop(self) -> None:
        self._is_leaving = self._is_stopping = True
        self._wake.set()
        self._thread.join(timeout=2)
        # kazoo's stop can hang when the connection is half open; the process goes anyway.
        stopper = threading.Thread(target=_end, args=[self._client], daemon=True)
        stopper.start()
        stopper.join(timeout=2)
        self._lease.drop()

    # --- turns ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.wait(self._timeout_s / _TURNS_PER_TIMEOUT)
            self._wake.clear()
            if self._is_stopping:
                return
            if not self._client.connected:
                self._note(None)
                self._renew_client()
                continue
            try:
                self._turn()
            except NoAuthError:
                self.map.complain(NOT_OURS)
            except ClusterError as error:
                self.map.complain(str(error))
            except (KazooException, KazooTimeoutError) as error:
                extra = {"event": "zookeeper.no_answer"}
                log.info("ZooKeeper did not answer: %r", error, extra=extra)
            except Exception:
                extra = {"event": "zookeeper.bug"}
                log.exception("a turn in ZooKeeper met a bug; it is repeated", extra=extra)

    def _renew_client(self) -> None:
        """Begin with another client, after long without contact."""
        patience_s = max(_RENEW_TIMEOUTS * self._timeout_s, _RENEW_MIN_S)
        if time.monotonic() - max(self._seen_at, self._renewed_at) < patience_s:
            return
        log.warning(
            "no contact with ZooKeeper for long: beginning with another connection",
            extra={"event": "zookeeper.renewed"},
        )
        self._renewed_at = time.monotonic()
        old, self._client = self._client, self._new_client()
        # kazoo's stop can hang.
        threading.Thread(target=_end, args=[old], daemon=True).start()
        self._client.start_async()

    def _turn(self) -> None:
        session, grant = self._client.client_id, self._client.grant
        if session is None or grant is None:
            return
        if grant is not self._grant:
            self._grant = grant
            self._look_at_grant(grant)
            self._is_owned = False
        if not self._is_owned:
            self._look_at_owner()
        self._read_map()
        self._join(session[0])
        members = self._read_members()
        leader = self._read_leader(session[0])
        self._seen_at = time.monotonic()
        self._note(View(members, leader, self._note_gone(members)))

    def _look_at_grant(self, grant: Grant) -> None:
        before, self._odd_grant = self._odd_grant, trouble_with(grant.timeout_s, self._asked_s)
        if self._odd_grant and self._odd_grant != before:
            extra = {"event": "zookeeper.session", "timeout_s": grant.timeout_s}
            log.warning("%s", self._odd_grant, extra=extra)

    def _look_at_owner(self) -> None:
        """Once on each connection, and again as long as something is open. Raises ClusterError."""
        before = self._open_nodes
        self._open_nodes = trouble_with_owner(
            self._client, self._paths, self._settings.zookeeper.user
        )
        self._is_owned = self._open_nodes is None
        if self._open_nodes and self._open_nodes != before:
            log.warning("%s", self._open_nodes, extra={"event": "zookeeper.open"})

    def _note(self, seen: View | None) -> None:
        """Publish what was seen, and wake those who wait for a change."""
        before = self.view
        with self._changed:
            self.view = seen or before
            self._changed.notify_all()
        if self.view != before:
            self._on_change()

    def _event(self, event: WatchedEvent) -> None:
        self._wake.set()

    def _join(self, session: int) -> None:
        """Be there: by a node of this session, not by one that an earlier session left."""
        path = self._paths.member(self.me.name)
        stat = self._client.exists(path)
        if stat is not None and stat.owner_session_id != session:
            with suppress(NoNodeError):
                self._client.delete(path)
            stat = None
        if stat is None:
            try:
                self._client.create(
                    path, msgspec.json.encode(self.me), ephemeral=True, makepath=True
                )
            except NodeExistsError:
                # An earlier request of ours that was thought lost; the next turn looks at it.
                self._wake.set()

    def _read_members(self) -> tuple[Member, ...]:
        names = self._client.get_children(self._paths.members, watch=self._event)
        found, unreadable = {}, set()
        for name in names:
            known = self._known.get(name)
            try:
                found[name] = known or msgspec.json.decode(
                    self._client.get(self._paths.member(name))[0], type=Member
                )
            except NoNodeError:
                continue
            except (msgspec.DecodeError, NoAuthError) as error:
                unreadable.add(name)
                if name not in self._unreadable:
                    extra = {"event": "process.unreadable", "member": name}
                    text = "member %s cannot be read and is passed over: %r"
                    log.warning(text, name, error, extra=extra)
        self._unreadable = unreadable
        self._known = found
        return tuple(found[name] for name in sorted(found))

    def _note_gone(self, members: tuple[Member, ...]) -> frozenset[int]:
        present = {member.number for member in members}
        for member in self.view.members:
            if member.number not in present and member.number not in self._gone:
                extra = {"event": "process.gone", "member": member.name}
                log.info("process %s is gone", member.name, extra=extra)
                self._gone[member.number] = None
        for number in present & self._gone.keys():
            del self._gone[number]
        while len(self._gone) > _GONE_MAX:
            del self._gone[next(iter(self._gone))]
        return frozenset(self._gone)

    def _read_map(self) -> None:
        try:
            data, _ = self._client.get(self._paths.shard_map, watch=self._event)
        except NoNodeError:
            data = None
        self.map.take(data)

    # --- leading ----------------------------------------------------------------------------

    def _read_leader(self, session: int) -> Leader | None:
        """Who leads; takes the empty seat, keeps or leaves this process's own."""
        looked_at = time.monotonic()
        seat = read_seat(self._client, self._paths, self._event)
        asked = read_hand_over(self._client, self._paths, self._event)
        if asked != self._hand_over:
            self._hand_over, self._asked_at = asked, time.monotonic()
        if seat is None and self.view.leader and self._vacant_since is None:
            self._vacant_since = looked_at
        if seat is None:
            return None if self._has_to_abstain() else self._stand()
        leader = seat.leader
        self._vacant_since = None
        if leader.member.instance != self.me.instance:
            self._stop_leading(f"{leader.member.name} leads")
            return leader
        is_mine = seat.session == session and leader.epoch == self._epoch
        is_asked = asked is not None and asked.epoch == leader.epoch
        if is_mine and not (is_asked or self._is_leaving or self._timeout_s < LEAD_MIN_S):
            self._renew_lease()
            return leader
        # Handed over, or a seat of an earlier session of this process.
        self._stop_leading("handed over" if is_mine else "its session has ended")
        end_term(self._client, self._paths, leader.epoch)
        return None

    def _has_to_abstain(self) -> bool:
        """Whether somebody else is to lead: this process ends, its coordinator has been asked to
        step down just now, or its session is too short.
        """
        if self._is_leaving or self._timeout_s < LEAD_MIN_S:
            return True
        asked = self._hand_over
        if asked is None or asked.coordinator != self.me.coordinator:
            return False
        is_recent = time.monotonic() - self._asked_at < _ABSTAIN_S
        return is_recent and asked.epoch == read_epoch(self._client, self._paths)[0]

    def _renew_lease(self) -> None:
        """Prove that the session lives, by a write: a server that is cut off from the others still
        answers reads, for longer than they wait for the session.
        """
        asked_at = lease_clock()
        self._client.set(self._paths.member(self.me.name), msgspec.json.encode(self.me))
        self._lease.renew(asked_at, self._grant, self._asked_s)

    def _stand(self) -> Leader | None:
        asked_at = lease_clock()
        epoch = stand(self._client, self._paths, self.me)
        if epoch is None:
            # Somebody else was first; the watch on the leader's node wakes this thread.
            return None
        self._epoch = epoch
        self._lease.renew(asked_at, self._grant, self._asked_s)
        vacant_since, self._vacant_since = self._vacant_since, None
        self._on_elected(time.monotonic() - vacant_since if vacant_since else None)
        extra = {"event": "leader.elected", "member": self.me.name, "epoch": epoch}
        log.info("%s leads, in term %d", self.me.name, epoch, extra=extra)
        return Leader(epoch, self.me)

    def _stop_leading(self, why: str) -> None:
        if self.leads:
            extra = {"event": "leader.ended", "member": self.me.name, "epoch": self._epoch}
            log.info("%s leads no more: %s", self.me.name, why, extra=extra)
        self._lease.drop()


def _end(client: Client) -> None:
    """End a session, and with it its nodes."""
    client.stop()
    client.close()
