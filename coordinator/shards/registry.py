"""The shards of the map in force, as one process holds them, and their return after a failure."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from coordinator.settings import Settings
from coordinator.shards.addresses import service_address
from coordinator.shards.clocks import ClockWatch
from coordinator.shards.probe import Probe
from shard_client.errors import (
    LOCK_WAIT_TIMEOUT,
    ConnectionLost,
    Hurried,
    ShardError,
    ShardUnavailable,
    SlotMoved,
)
from shard_client.node import ShardNode
from shard_client.shard import Limits, Shard
from shard_client.shard_map import ShardAddress, ShardKind, ShardMap

if TYPE_CHECKING:
    from coordinator.shards.group.node import LedgerGroup

log = logging.getLogger(__name__)

# So long a look at a shard that is on its way holds up the end of the process, at most.
_STOP_S = 2.0
# Threads of a process that may be finishing groups on one shard.
RECOVERING_THREADS = 6
# Connections of a process to one shard with which transfers by TC/C and Saga are finished.
FINISHING_CONNECTIONS = 2
# Connections of a process to one shard for reads; and for recovery, one for each thread that may be
# at work there, one to look for more, and one to collect.
_READ_CONNECTIONS = 8
_RECOVERY_CONNECTIONS = RECOVERING_THREADS + 2


class NoShardMap(Exception):
    """No shard map has been read yet: nothing can be placed."""


class Shards:
    """Every shard of the map in force. `look_again` is called when a shard says that a slot has
    moved.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._map: ShardMap | None = None
        self._shards: dict[str, Shard | LedgerGroup] = {}
        self._probes: dict[str, Probe] = {}
        self._lock = threading.Lock()
        self._is_probing = False
        self.look_again: Callable[[], None] = lambda: None
        self.clocks = ClockWatch(self.all)

    def start(self) -> None:
        """Look after every shard, from now on."""
        with self._lock:
            self._is_probing = True
            self._look_after()
        self.clocks.start()

    def stop(self) -> None:
        self.clocks.stop()
        with self._lock:
            self._is_probing = False
            for probe in self._probes.values():
                probe.stop()
        deadline = time.monotonic() + _STOP_S
        for probe in self._probes.values():
            probe.stop(max(deadline - time.monotonic(), 0.01))
        for shard in self._shards.values():
            shard.close()

    # --- the map ----------------------------------------------------------------------------

    @property
    def map(self) -> ShardMap:
        """The map in force. Raises NoShardMap."""
        if self._map is None:
            raise NoShardMap("no shard map has been read from ZooKeeper yet")
        return self._map

    def use_map(self, new: ShardMap) -> None:
        """Put a new map in force; shards that have not changed keep their connections."""
        shards: dict[str, Shard | LedgerGroup] = {
            name: self._group(name, where)
            if where.kind is ShardKind.LEDGER
            else self._server(name, where)
            for name, where in new.shards.items()
        }
        retired = [shard for name, shard in self._shards.items() if shards.get(name) is not shard]
        self._shards, self._map = shards, new
        for shard in retired:
            shard.close()
        with self._lock:
            self._look_after()

    def _server(self, name: str, where: ShardAddress) -> Shard:
        """The shard on a server; the one that there is, if nothing of it has changed."""
        settings = self._settings
        address, known = service_address(settings, name, where), self._shards.get(name)
        if isinstance(known, Shard) and (known.address, known.server_uuid) == (
            address,
            where.server_uuid,
        ):
            return known
        limits = Limits(
            connect_timeout_s=settings.mysql.connect_timeout_ms / 1000,
            idle_timeout_s=settings.mysql.idle_timeout_s,
            # One for each executor, one for who waits in line, one for a read of many shards at one
            # moment, and those with which transfers by TC/C and Saga are finished.
            connections=settings.engine.executors + 2 + FINISHING_CONNECTIONS,
            reading_connections=_READ_CONNECTIONS,
            recovering_connections=_RECOVERY_CONNECTIONS,
        )
        return Shard(
            address,
            settings.cluster.id,
            where.server_uuid,
            limits,
            refuse_weak_durability=settings.mysql.weak_durability == "refuse",
            clock_problem=partial(self.clocks.problem_of, name),
            note=self.note,
        )

    def _group(self, name: str, where: ShardAddress) -> "LedgerGroup":
        """The same for a ledger group."""
        # Takes an extra that others need not have.
        from coordinator.shards.group.node import LedgerGroup

        settings, known = self._settings, self._shards.get(name)
        if isinstance(known, LedgerGroup) and known.address == where:
            return known
        return LedgerGroup(
            name,
            where,
            settings.cluster.id,
            settings.eventstore.secret,
            settings.mysql.connect_timeout_ms / 1000,
            clock_problem=partial(self.clocks.problem_of, name),
            note=self.note,
        )

    def shard_of(self, account: str) -> str:
        return self.map.shard_of(account)

    def __getitem__(self, shard: str) -> ShardNode:
        """Raises ShardUnavailable if the map does not have it."""
        try:
            return self._shards[shard]
        except KeyError:
            raise ShardUnavailable(shard, "the shard map does not have it") from None

    def all(self) -> list[ShardNode]:
        return list(self._shards.values())

    def _look_after(self) -> None:
        """Let each shard of the map have a probe of its own, and no other shard one."""
        if not self._is_probing:
            return
        for name, probe in list(self._probes.items()):
            if self._shards.get(name) is not probe.shard:
                self._probes.pop(name).stop()
        for name, shard in self._shards.items():
            if name not in self._probes:
                self._probes[name] = Probe(shard)
                self._probes[name].start()
                self._probes[name].wake()

    # --- availability -----------------------------------------------------------------------

    def trouble_with(self, shard: str) -> tuple[str, float] | None:
        """Why a shard cannot be used, and since how many seconds; None if it can."""
        known = self._shards.get(shard)
        if known is None:
            return "the shard map does not have it", 1e9
        reason = known.unavailable_because
        if reason is None:
            return None
        return reason, time.monotonic() - known.unavailable_since

    def slow(self) -> set[str]:
        """Those that keep groups waiting; none if there are no others to be kept from waiting."""
        shards = self.all()
        slow = {shard.id for shard in shards if shard.is_available and shard.is_slow}
        return slow if any(s.is_available and s.id not in slow for s in shards) else set()

    def note(self, error: ShardError) -> None:
        """Learn from an error: give up the shard if it is in trouble, until a probe says that it is
        not; let a probe look whether it is, if that is open. If a slot has moved, the map is read
        again.
        """
        if isinstance(error, SlotMoved):
            self.look_again()
        shard = self._shards.get(error.shard)
        if shard is None:
            return
        if isinstance(error, Hurried) or error.code == LOCK_WAIT_TIMEOUT:
            shard.is_doubted = True
        elif isinstance(error, ConnectionLost | ShardUnavailable):
            shard.give_up(error)
        else:
            return
        if probe := self._probes.get(error.shard):
            probe.wake()

    def admit_all(self) -> None:
        """Try every shard that is not available, all at once, once."""
        waiting = [shard for shard in self.all() if not shard.is_available]
        if waiting:
            with ThreadPoolExecutor(len(waiting)) as pool:
                list(pool.map(self._admit, waiting))

    def _admit(self, shard: ShardNode) -> None:
        try:
            shard.admit()
        except ShardError as error:
            extra = {"event": "shard.not_admitted", "shard": shard.id, "code": error.code}
            log.debug("%s", error, extra=extra)
