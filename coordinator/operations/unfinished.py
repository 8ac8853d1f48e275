"""What operators ask of transfers by TC/C and Saga that are not finished: what happens next, and to
finish them now. Nothing here decides an outcome: it goes on from where the phase table says.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping

from coordinator.engine.in_flight import PROTOCOLS, InFlight, taken_over
from coordinator.operations.answers import ResolvedView, UnfinishedView
from coordinator.operations.wording import EXPLANATIONS, NextStep, Side, in_words
from coordinator.protocols.recovery import RecoveryView, recovery_duty
from coordinator.recovery.phased import PhasedResolver
from coordinator.recovery.retry_pool import PAUSE_MAX_S
from coordinator.recovery.scanner import age_of
from coordinator.shards.registry import Shards
from shard_client.errors import ShardError
from shard_client.records import PhaseRow, StoredTransfer, Unfinished
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 3.0
_RESOLVE_TIMEOUT_S = 8.0


# Shard -> what is unfinished on it.
Found = Mapping[str, list[Unfinished]]


class UnfinishedTransfers:
    """See the module."""

    def __init__(self, shards: Shards, resolver: PhasedResolver, interval_s: float) -> None:
        self._shards = shards
        self._resolver = resolver
        self._interval_s = interval_s

    # --- looking on -------------------------------------------------------------------------

    def describe(
        self, items: Iterable[tuple[str, Unfinished]], around: RecoveryView, actor: str
    ) -> list[UnfinishedView]:
        """What is unfinished on these shards, in this order; `actor` finishes what others have left
        behind.
        """
        found = list(items)
        rows = self._examples(found)
        flights: dict[str, list[InFlight]] = defaultdict(list)
        for flight in self._resolver.pool.unfinished():
            flights[flight.gtrid].append(flight)
        return [
            self._describe(shard, item, rows.get(item.transfer), flights, around, actor)
            for shard, item in found
        ]

    def _examples(self, found: Iterable[tuple[str, Unfinished]]) -> dict[str, PhaseRow]:
        """The one transfer that is named of each group, as far as it is there still."""
        names: dict[str, list[str]] = defaultdict(list)
        for shard, item in found:
            names[shard].append(item.transfer)
        rows: dict[str, PhaseRow] = {}
        for shard, transfers in names.items():
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            try:
                of_all = self._shards[shard].reads.phases_of(transfers, deadline)
            except ShardError:
                continue
            rows |= {row.transfer.id: row for row in of_all}
        return rows

    def _describe(
        self,
        shard: str,
        item: Unfinished,
        row: PhaseRow | None,
        flights: Mapping[str, list[InFlight]],
        around: RecoveryView,
        actor: str,
    ) -> UnfinishedView:
        phase = PROTOCOLS[item.protocol].phase(item.phase)
        mine = [c for c in flights.get(str(item.gtrid), ()) if c.position.phase is phase]
        flight = next((c for c in mine if c.transfer.id == item.transfer), None)
        age_s = age_of(item.gtrid)
        duty = recovery_duty(item.gtrid, age_s, around)
        in_s: float | None = duty.in_s + max(self._interval_s, PAUSE_MAX_S)
        if row is None:
            words = "it is being worked on now"
        else:
            is_here = EXPLANATIONS[phase].side is Side.SOURCE
            account = row.transfer.source if is_here else row.transfer.destination
            place = shard if is_here else self._shards.shard_of(account)
            trouble = self._shards.trouble_with(place)
            away = trouble[0] if trouble else None
            in_s = None if away else in_s
            blocked_by = flight.error if flight else None
            step = NextStep(account, place, actor, duty.why, duty.in_s, away, blocked_by)
            words = in_words(phase, step)
        return UnfinishedView(
            gtrid=str(item.gtrid),
            shard=shard,
            coordinator=item.gtrid.coordinator,
            protocol=item.protocol,  # type: ignore[arg-type]
            phase=item.phase,  # type: ignore[arg-type]
            transfers=item.transfers,
            transfer=item.transfer,
            age_seconds=round(age_s, 3),
            attempts=max([item.attempts, *(c.attempts for c in mine)]),
            reason=item.reason,
            detail=item.detail,
            next=words,
            next_in_seconds=None if in_s is None else round(in_s, 3),
        )

    # --- finishing now ----------------------------------------------------------------------

    def resolve(self, gtrid: Gtrid, shards: list[str]) -> tuple[list[ResolvedView], dict[str, str]]:
        """Go on with a group's transfers now, without waiting for its turn: what came of
        each, and shard -> why something is left, or cannot be looked for, on it.
        """
        rows: dict[str, list[PhaseRow]] = {}
        away: dict[str, str] = {}
        for shard in shards:
            try:
                rows[shard] = self._shards[shard].reads.read_phases([str(gtrid)], _CALL_TIMEOUT_S)
            except ShardError as error:
                away[shard] = error.text
        every = [row for some in rows.values() for row in some]
        extra = {"event": "phases.asked", "gtrid": str(gtrid), "count": len(every)}
        log.info("transfers of group %s are to be finished now, as asked", gtrid, extra=extra)
        self._resolver.add(*(taken_over(row, time.monotonic()) for row in every))
        self._resolver.pool.hurry(lambda flight: flight.gtrid == str(gtrid))
        deadline = time.monotonic() + _RESOLVE_TIMEOUT_S
        self._resolver.pool.wait_for(
            lambda flights: all(c.gtrid != str(gtrid) or self._waits_for_shard(c) for c in flights),
            deadline,
        )
        resolved: list[ResolvedView] = []
        for shard, some in rows.items():
            resolved += self._what_became(shard, some)
            if left := next((item for item in resolved if item.phase), None):
                away.setdefault(shard, left.reason or "it takes long")
        return resolved, away

    def _waits_for_shard(self, flight: InFlight) -> bool:
        """Its last try has failed, and its next step is on a shard that cannot be used."""
        place = self._shards.shard_of(flight.where)
        return bool(flight.error) and self._shards.trouble_with(place) is not None

    def _what_became(self, shard: str, rows: list[PhaseRow]) -> list[ResolvedView]:
        """Of these transfers, by what their shard has now: others may have finished them."""
        ids = [row.transfer.id for row in rows]
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        try:
            calls = self._shards[shard].reads
            left = {row.attempt: row for row in calls.phases_of(ids, deadline)}
            stored = calls.find_transfers(ids, deadline)
        except ShardError as error:
            return [
                ResolvedView(row.transfer.id, "unknown", row.phase, error.text)  # type: ignore[arg-type]
                for row in rows
            ]
        flights = {flight.attempt: flight for flight in self._resolver.pool.unfinished()}
        found = []
        for row in rows:
            known, now = stored.get(row.transfer.id), left.get(row.attempt)
            # Another attempt may have come to an outcome since: this one has none.
            is_its = isinstance(known, StoredTransfer) and known.gtrid == row.gtrid
            status = now.outcome if now else "lapsed"
            if isinstance(known, StoredTransfer) and is_its:
                status = known.status
            why = self._why(row, now, flights.get(row.attempt)) if now else None
            phase = now.phase if now else None
            found.append(ResolvedView(row.transfer.id, status, phase, why))  # type: ignore[arg-type]
        return found

    def _why(self, row: PhaseRow, now: PhaseRow, flight: InFlight | None) -> str:
        """Why a transfer is still in the phase table."""
        phase = PROTOCOLS[row.transfer.protocol].phase(now.phase)
        is_here = EXPLANATIONS[phase].side is Side.SOURCE
        place = self._shards.shard_of(row.transfer.source if is_here else row.transfer.destination)
        if trouble := self._shards.trouble_with(place):
            return f"it waits for {place} ({trouble[0]})"
        return (flight.error if flight else None) or "it takes long"


def by_age(shard: str, item: Unfinished) -> tuple[object, ...]:
    """Sorts what is unfinished: the oldest first, then by name."""
    return item.gtrid.time_ms, item.gtrid, shard, item.phase
