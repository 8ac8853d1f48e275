"""A transfer by TC/C or Saga whose coordinator has died on the way."""

import time
import uuid
from contextlib import closing

from coordinator.engine.in_flight import InFlight, Position, Task, begin, go_on, wanted
from ledger.ids import transfer_id
from ledger.model import Transfer
from shard_client.phases import MySqlLocalTransaction
from shard_client.xid import Gtrid
from tests.contract.http import EUR, Town, connect


class Begun:
    """It has made its first visit; `visit` makes one more, until its phase is as wanted. `time_ms`
    is when its group was formed, if not now.
    """

    def __init__(
        self,
        town: Town,
        protocol: str,
        source: str,
        destination: str,
        amount: int,
        time_ms: int | None = None,
    ) -> None:
        self._town = town
        self._deadline = time.monotonic() + 60
        key = uuid.uuid4().hex
        cluster = town.cluster.settings.cluster.id
        shard = town.shard_of(source)
        now_ms = time.time_ns() // 10**6
        self.gtrid = str(Gtrid(cluster, shard, "zz", time_ms or now_ms, uuid.uuid4().int % 2**64))
        self.id = transfer_id(source, key)
        wished = Transfer(
            self.id, key, source, destination, amount, EUR, None, protocol, now_ms * 1000
        )
        position = Position(None, Task.BEGIN)
        self.flight = InFlight(wished, self.gtrid, position, time.monotonic(), None)
        self.visit()

    @property
    def phase(self) -> str:
        return str(self.flight.position.phase)

    def visit(self) -> None:
        flight = self.flight
        shard = self._town.shard_of(flight.where)
        with closing(connect(self._town.cluster, shard)) as connection:
            visit = MySqlLocalTransaction(connection, self.gtrid)
            found = visit.lock(wanted([flight]), self._deadline).get()
            now = time.time_ns() // 1000
            if flight.position.task is Task.BEGIN:
                plan, _ = begin([flight], found, now, now)
            else:
                # Whoever is not there does not exist: nobody else is at work here.
                absent = {flight.transfer.destination}
                plan = go_on([flight], found, absent, now, 0)
            assert not plan.blocked
            visit.commit(plan.writes, self._deadline).get()
        ((_, flight.position),) = plan.positions

    def until(self, phase: str) -> "Begun":
        if phase == "cancelling":
            assert self.flight.expire(None)
        while self.phase != phase:
            self.visit()
        return self
