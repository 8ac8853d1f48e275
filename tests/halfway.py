"""Transfers by TC/C and Saga that a test takes from step to step, on real shards."""

import time
import uuid
from contextlib import closing

from coordinator.cluster import read_map
from coordinator.engine.in_flight import InFlight, LocalPlan, Position, Task, begin, go_on, wanted
from coordinator.shards.addresses import service_address
from ledger.ids import transfer_id
from ledger.model import Transfer
from shard_client.connection import ShardConnection
from shard_client.phases import MySqlLocalTransaction
from shard_client.records import Found
from shard_client.xid import Gtrid
from tests.cluster import Cluster

_CALL_S = 5.0


class Halfway:
    """One transfer. No coordinator goes on with it: its gtrid is that of another cluster."""

    def __init__(
        self, cluster: Cluster, source: str, destination: str, amount: int, protocol: str
    ) -> None:
        self._cluster = cluster
        self._map = read_map(cluster.settings)
        key, now = uuid.uuid4().hex, time.time_ns() // 1000
        self.id = transfer_id(source, key)
        wish = Transfer(self.id, key, source, destination, amount, "EUR", None, protocol, now)
        number = uuid.uuid4().int >> 64
        gtrid = Gtrid("another", self._map.shard_of(source), "zz", now // 1000, number)
        position = Position(None, Task.BEGIN)
        self.flight = InFlight(wish, str(gtrid), position, time.monotonic(), None)

    @property
    def is_done(self) -> bool:
        return self.flight.is_done

    def step(self) -> None:
        """Make the next visit."""
        shard, deadline = self._map.shard_of(self.flight.where), time.monotonic() + _CALL_S
        address = service_address(self._cluster.settings, shard, self._map.shards[shard])
        with closing(ShardConnection(address, _CALL_S, 60)) as connection:
            visit = MySqlLocalTransaction(connection, self.flight.gtrid)
            found = visit.lock(wanted([self.flight]), deadline).get()
            planned = self._planned(found, time.time_ns() // 1000)
            visit.commit(planned.writes, deadline).get()
        assert planned.blocked == []
        ((_, self.flight.position),) = planned.positions

    def steps(self, count: int) -> "Halfway":
        for _ in range(count):
            self.step()
        return self

    def expire(self) -> None:
        """Its time is over before it could be tried."""
        assert self.flight.expire(None)

    def finish(self) -> "Halfway":
        while not self.is_done:
            self.step()
        return self

    def _planned(self, found: Found, now: int) -> LocalPlan:
        if self.flight.position.task is Task.BEGIN:
            visited, (refusal,) = begin([self.flight], found, now, now)
            assert refusal is None
            return visited
        account = self.flight.account
        absent = {account} - found.locked.accounts.keys() if account else set()
        return go_on([self.flight], found, absent, now, 0)
