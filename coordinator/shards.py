"""The shards of the map in force, as one process holds them, and their return after a failure."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from coordinator.addresses import service_address
from coordinator.settings import Settings
from shard_client.errors import ConnectionLost, ShardError, ShardUnavailable
from shard_client.shard import Limits, Shard
from shard_client.shard_map import ShardMap

log = logging.getLogger(__name__)

# How often an unavailable shard is tried, in seconds. Only this thread waits for it.
_PROBE_INTERVAL_S = 0.5
# How often those in use are checked for settings that were changed, in seconds.
_CHECK_INTERVAL_S = 30.0
# Connections of a process to one shard with which transfers by TC/C and Saga are finished.
FINISHING_CONNECTIONS = 2
# Connections of a process to one shard for reads and recovery.
_READ_CONNECTIONS = 8


class NoShardMap(Exception):
    """No shard map has been read yet: nothing can be placed."""


class Shards:
    """Every shard of the map in force. `look_again` is called when a shard says that a slot has
    moved.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._map: ShardMap | None = None
        self._shards: dict[str, Shard] = {}
        self._wake = threading.Event()
        self._stopping = False
        self._check_at = time.monotonic() + _CHECK_INTERVAL_S
        self._thread = threading.Thread(target=self._probe, name="shard-probe", daemon=True)
        self.look_again: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=2)
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
        settings = self._settings
        limits = Limits(
            connect_timeout_s=settings.mysql.connect_timeout_ms / 1000,
            idle_timeout_s=settings.mysql.idle_timeout_s,
            # One for each executor, one for a read of many shards at one moment, and those of the
            # finisher of transfers by TC/C and Saga.
            connections=settings.engine.executors + 1 + FINISHING_CONNECTIONS,
            reading_connections=_READ_CONNECTIONS,
        )
        shards = {}
        for name, where in new.shards.items():
            address = service_address(settings, name, where)
            known = self._shards.get(name)
            if known and (known.address, known.server_uuid) == (address, where.server_uuid):
                shards[name] = known
                continue
            shards[name] = Shard(
                address,
                settings.cluster.id,
                where.server_uuid,
                limits,
                refuse_weak_durability=settings.mysql.weak_durability == "refuse",
            )
        retired = [shard for name, shard in self._shards.items() if shards.get(name) is not shard]
        self._shards, self._map = shards, new
        for shard in retired:
            shard.close()
        self._wake.set()

    def shard_of(self, account: str) -> str:
        return self.map.shard_of(account)

    def __getitem__(self, shard: str) -> Shard:
        """Raises ShardUnavailable if the map does not have it."""
        try:
            return self._shards[shard]
        except KeyError:
            raise ShardUnavailable(shard, "the shard map does not have it") from None

    def all(self) -> list[Shard]:
        return list(self._shards.values())

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

    def note(self, error: ShardError) -> None:
        """Learn from an error: give up the shard if it may be in trouble, until a probe says that
        it is not.
        """
        if not isinstance(error, ConnectionLost | ShardUnavailable):
            return
        shard = self._shards.get(error.shard)
        if shard is None:
            return
        shard.give_up(error)
        self._wake.set()

    def admit_all(self) -> None:
        """Try every shard that is not available, all at once, once."""
        waiting = [shard for shard in self.all() if not shard.is_available]
        if waiting:
            with ThreadPoolExecutor(len(waiting)) as pool:
                list(pool.map(self._admit, waiting))

    def _admit(self, shard: Shard) -> None:
        try:
            shard.admit()
        except ShardError as error:
            extra = {"event": "shard.not_admitted", "shard": shard.id, "code": error.code}
            log.debug("%s", error, extra=extra)

    def _check_all(self) -> None:
        for shard in self.all():
            try:
                if shard.is_available:
                    shard.check_again()
            except ShardError as error:
                self.note(error)

    def _probe(self) -> None:
        while not self._stopping:
            self._wake.wait(_PROBE_INTERVAL_S)
            self._wake.clear()
            if self._stopping:
                return
            try:
                self.admit_all()
                if time.monotonic() > self._check_at:
                    self._check_at = time.monotonic() + _CHECK_INTERVAL_S
                    self._check_all()
            except Exception:
                log.exception(
                    "the probe of shards met a bug and goes on", extra={"event": "shard.bug"}
                )
            if any(not shard.is_available for shard in self.all()):
                # A failed probe is not repeated at once, however often it is asked for.
                time.sleep(_PROBE_INTERVAL_S / 5)
