"""Traces of Try-Confirm/Cancel and Saga: what a visit to a shard does is the product's own plan."""

from enum import StrEnum

from coordinator.engine.in_flight import (
    NOTHING_FOUND,
    InFlight,
    Position,
    Task,
    begin,
    begin_of,
    go_on,
    has_to_lock,
    taken_over,
    wanted,
)
from ledger.model import Status
from shard_client.phases import MySqlLocalTransaction
from shard_client.records import LAPSED
from tests.traces.world import (
    FIRST,
    GRACE_US,
    GTRID,
    NOW,
    OTHER,
    SHARDS,
    Shard,
    Trace,
    ticket_of,
    transfer_by,
    two_shards,
)


class Attempt:
    """One attempt at a transfer: `first` is the flight of the coordinator that begins it."""

    def __init__(self, protocol: str, destination: Status = Status.OPEN) -> None:
        transfer = transfer_by(protocol)
        self.shards = two_shards(destination)
        self.trace = Trace(transfer, self.shards.values())
        self.first = begin_of(ticket_of(transfer), str(GTRID), 0.0)

    def take_over(self, who: str) -> InFlight:
        """As recovery does, by what the phase table says."""
        source = self.shards[SHARDS[self.first.transfer.source]]
        self.trace.takes_over(who)
        return taken_over(source.tables.rows["phases"], 0.0)

    def finish(self, who: str, flight: InFlight) -> None:
        """Take a flight on to its end; its client is told as soon as it can be."""
        is_told = False
        while not flight.is_done:
            self.visit(who, flight)
            if flight.position.stored and flight.can_be_answered and not is_told:
                self.trace.tells_client(who, flight.position.stored)
                is_told = True
        if flight.position.outcome == LAPSED:
            self.trace.says(who, flight.position.outcome)

    def visit(self, who: str, flight: InFlight) -> None:
        """One visit, to the shard that the flight needs next."""
        shard, before = self.shards[SHARDS[flight.where]], flight.position
        visit = MySqlLocalTransaction(shard, flight.gtrid)  # type: ignore[arg-type]
        found = NOTHING_FOUND
        if before.task is Task.BEGIN or has_to_lock([flight]):
            self.trace.send(who, shard, visit.lock, wanted([flight]), 0)
            found = shard.found
        if before.task is Task.BEGIN:
            planned = begin([flight], found, NOW, NOW + GRACE_US).plan
        else:
            planned = go_on([flight], found, set(), NOW, 1)
        ((_, after),) = planned.positions
        self._tell_step(who, flight, before, after)
        if planned.writes.is_empty:
            self.trace.send(who, shard, visit.roll_back, 0)
        else:
            shard.bring(planned.writes)
            self.trace.send(who, shard, visit.commit, planned.writes, 0)
        self._tell_answer(who, shard, before, after)
        flight.position = after

    def _tell_step(self, who: str, flight: InFlight, before: Position, after: Position) -> None:
        """What the visit makes durable: a step, if nobody else has made it meanwhile."""
        protocol = flight.protocol
        phase: StrEnum | None = before.phase or protocol.begin
        event = before.event or protocol.accepted
        if after.phase is phase or phase is None or before.task is Task.CALL:
            return
        _, source, call, outcome = protocol.step(phase, event)
        parts = [
            f"source: {source}" if source else "",
            f"record {outcome}" if outcome else "",
            f"call {call}" if call else "",
        ]
        what = "; ".join(filter(None, parts)) or "forget it"
        self.trace.says(who, f"{event}: {phase} -> {after.phase}, {what}")

    def _tell_answer(self, who: str, shard: Shard, before: Position, after: Position) -> None:
        """What a call has led to; or that a step was made by somebody else."""
        if before.task is Task.CALL:
            because = f": {after.refusal.detail}" if after.refusal else ""
            self.trace.answers(shard, who, f"{after.event}{because}")
        elif after.task is Task.LOOK:
            self.trace.says(who, after.task.value)


def try_expires() -> Trace:
    """The coordinator is frozen before it calls: another one cancels, and the try is too late."""
    attempt = Attempt("tcc")
    attempt.visit(FIRST, attempt.first)
    attempt.trace.stops(FIRST, "is frozen", attempt.shards.values())
    attempt.finish(OTHER, attempt.take_over(OTHER))
    attempt.trace.says(FIRST, "goes on")
    attempt.finish(FIRST, attempt.first)
    return attempt.trace


def saga_refunded() -> Trace:
    """The destination is closed: the money has left its source already, and comes back."""
    attempt = Attempt("saga", Status.CLOSED)
    attempt.finish(FIRST, attempt.first)
    return attempt.trace
