"""A transfer's trace through its phases, as far as its shards show it, for operators.

Nothing here waits for a row that is locked, and nothing decides anything.
"""

import time
from typing import NamedTuple

from coordinator.engine.commands import Commands
from coordinator.engine.scheduler import Queue
from coordinator.operations.phased_trace import PhasedTraces
from coordinator.operations.trace_values import Decision, Outcome, Part, Stage, TransferTrace
from coordinator.shards.registry import Shards
from ledger.ids import slot_of_transfer
from ledger.model import Entry
from shard_client.errors import ShardError
from shard_client.records import DecisionOutcome, Look, StoredTransfer, TransferStatus, Undecided
from shard_client.xid import Gtrid

_CALL_TIMEOUT_S = 3.0
# A group may be finished between two looks; then all are taken again.
_LOOKS = 3


class Known(NamedTuple):
    """A transfer's record, settled or not, and what home has said of its group."""

    stored: StoredTransfer
    is_settled: bool
    gtrid: Gtrid | None
    said: DecisionOutcome | ShardError | None

    @property
    def outcome(self) -> Outcome:
        if self.is_settled or self.said is DecisionOutcome.COMMITTED:
            return Outcome(self.stored.status)
        return Outcome.UNKNOWN if isinstance(self.said, ShardError) else Outcome.PENDING


class TransferTraces:
    """See the module."""

    def __init__(self, shards: Shards, queue: Queue, commands: Commands) -> None:
        self._shards = shards
        self._queue = queue
        self._commands = commands
        self._phased = PhasedTraces(shards, _CALL_TIMEOUT_S)

    def trace_of(self, transfer: str) -> TransferTrace | None:
        """A transfer's trace; None if nothing is known of it. Raises ShardError, NoShardMap."""
        slot = slot_of_transfer(transfer)
        if slot is None:
            return None
        shard = self._shards.map.shard_of_slot(slot)
        found = self._probe(shard, transfer)
        for _ in range(_LOOKS):
            if found is None:
                return self._queued(transfer)
            trace = self._trace_of(found)
            if not isinstance(found, Undecided):
                break
            again = self._probe(shard, transfer)
            if again == found:
                break
            found = again
        return trace

    def _queued(self, transfer: str) -> TransferTrace | None:
        ticket = self._queue.find(transfer) or self._commands.find(transfer)
        return (
            TransferTrace(ticket.transfer, Outcome.PENDING, None, None, None, [])
            if ticket
            else None
        )

    def _probe(self, shard: str, transfer: str) -> StoredTransfer | Undecided | None:
        found = self._shards[shard].reads.find_transfers([transfer], _soon())
        return found.get(transfer)

    def _trace_of(self, found: StoredTransfer | Undecided) -> TransferTrace:
        is_settled = isinstance(found, StoredTransfer)
        stored = found if isinstance(found, StoredTransfer) else found.stored
        gtrid = Gtrid.parse(stored.gtrid)
        if self._phased.has(stored.transfer):
            return self._phased.trace_of(stored, gtrid)
        said = self._decision(gtrid) if gtrid else None
        known = Known(stored, is_settled, gtrid, said)
        by_shard = self._accounts_by_shard(stored)
        parts = [self._part(known, shard, accounts) for shard, accounts in by_shard.items()]
        decision = judge_decision(said, is_settled=is_settled, crosses_shards=len(by_shard) > 1)
        home = gtrid.home if gtrid else None
        return TransferTrace(stored.transfer, known.outcome, stored, gtrid, decision, parts, home)

    def _accounts_by_shard(self, stored: StoredTransfer) -> dict[str, list[str]]:
        """The shards that a transfer writes on, and with which accounts; the source's first."""
        transfer = stored.transfer
        accounts_by_shard = {self._shards.shard_of(transfer.source): [transfer.source]}
        # A refusal is recorded with the source alone.
        if stored.status == TransferStatus.COMMITTED:
            destination = self._shards.shard_of(transfer.destination)
            accounts_by_shard.setdefault(destination, []).append(transfer.destination)
        return accounts_by_shard

    def _decision(self, gtrid: Gtrid) -> DecisionOutcome | ShardError | None:
        name = str(gtrid)
        try:
            return self._shards[gtrid.home].reads.read_decisions([name], _soon()).get(name)
        except ShardError as error:
            return error

    def _part(self, known: Known, shard: str, accounts: list[str]) -> Part:
        try:
            return Part(shard, accounts, *self._see(known, shard, accounts))
        except ShardError as error:
            return Part(shard, accounts, Stage.UNKNOWN, error.text, [])

    def _see(self, known: Known, shard: str, accounts: list[str]) -> tuple[Stage, str, list[Entry]]:
        stored, calls, deadline = known.stored, self._shards[shard].reads, _soon()
        # In this order: what was prepared before may be committed by then.
        prepared = calls.list_prepared(deadline)
        seen = calls.branch_status([stored.gtrid], deadline)[stored.gtrid]
        if known.outcome is Outcome.COMMITTED:
            found = (
                calls.entry_of(name, stored.transfer.id, stored.decided_at, deadline)
                for name in accounts
            )
            if entries := [entry for entry in found if entry]:
                return Stage.COMMITTED, "its entries stand", entries
        is_prepared = any(str(branch.gtrid) == stored.gtrid for branch in prepared)
        has_record = stored.transfer.source in accounts
        return *judge_part(known, shard, seen, is_prepared, has_record), []


def _soon() -> float:
    """By when a shard has to have answered."""
    return time.monotonic() + _CALL_TIMEOUT_S


def judge_decision(
    said: DecisionOutcome | ShardError | None, *, is_settled: bool, crosses_shards: bool
) -> Decision:
    """What is known of a decision, when home has said this (or could not be asked).

    A record that is settled stands, whatever home says: who asks late, when the decision was
    collected, leaves *aborted* there.
    """
    if isinstance(said, ShardError):
        return Decision.UNKNOWN
    if said is DecisionOutcome.COMMITTED:
        return Decision.COMMITTED
    if is_settled:
        return Decision.COLLECTED if crosses_shards else Decision.NOT_KEPT
    return Decision.ABORTED if said is DecisionOutcome.ABORTED else Decision.NONE


def judge_part(
    known: Known, shard: str, seen: Look, is_prepared: bool, has_record: bool
) -> tuple[Stage, str]:
    """How far a transfer is on a shard where no entries of it can be seen. `has_record`: its record
    is on this shard.
    """
    if seen is Look.COMMITTED:
        return Stage.COMMITTED, "its marker stands"
    if has_record and known.is_settled:
        return Stage.COMMITTED, "its record stands"
    if known.said is DecisionOutcome.COMMITTED and known.gtrid and shard == known.gtrid.home:
        return Stage.COMMITTED, "it was committed in one transaction with the decision"
    if seen is Look.ABSENT and not has_record:
        return Stage.NOTHING, "nothing of it can be seen here: not yet, or not any more"
    if is_prepared:
        return (
            Stage.PREPARED,
            "it has voted yes, and holds its accounts until it hears the decision",
        )
    return Stage.WRITTEN, "it is written, in a transaction that is not finished"
