"""The trace of a transfer by TC/C or Saga across shards: what its phase table, its destination's
step and its entries show. The commit on its source's shard that records the outcome decides.
"""

import time
from typing import NamedTuple

from coordinator.engine.in_flight import PROTOCOLS
from coordinator.operations.trace_values import Decision, Outcome, Part, Stage, TransferTrace
from coordinator.shards.registry import Shards
from ledger.model import Entry, Transfer
from shard_client.errors import ShardError
from shard_client.node import ShardCalls
from shard_client.records import PENDING, PhaseRow, StepRow, StoredTransfer
from shard_client.xid import Gtrid

_STAGES = {
    # The source's, by what the phase says of it.
    "reserved": (Stage.RESERVED, "the amount is reserved, and its balance is unchanged"),
    "paid": (Stage.COMMITTED, "what was reserved is paid"),
    "released": (Stage.UNDONE, "what was reserved is released"),
    "debited": (Stage.COMMITTED, "it is debited"),
    # The destination's, by its step.
    "tried": (Stage.RESERVED, "there will be room for the amount, and its balance is unchanged"),
    "confirmed": (Stage.COMMITTED, "it was confirmed"),
    "cancelled": (Stage.UNDONE, "it was cancelled before it was confirmed"),
    "credited": (Stage.COMMITTED, "it was credited"),
    "refused": (Stage.UNDONE, "it was refused here"),
}


class _Side(NamedTuple):
    """What one shard shows: the account's entries of it, and the phase row or the step."""

    entries: list[Entry]
    row: PhaseRow | None = None
    step: StepRow | None = None


class PhasedTraces:
    """See the module."""

    def __init__(self, shards: Shards, timeout_s: float) -> None:
        self._shards = shards
        self._timeout_s = timeout_s

    def has(self, transfer: Transfer) -> bool:
        """Whether it goes through phases: within one shard none does."""
        ends = {self._shards.shard_of(transfer.source), self._shards.shard_of(transfer.destination)}
        return transfer.protocol in PROTOCOLS and len(ends) > 1

    def trace_of(self, stored: StoredTransfer, gtrid: Gtrid | None) -> TransferTrace:
        """Its trace so far. Raises ShardError if its source's shard cannot be asked."""
        transfer = stored.transfer
        home = self._shards.shard_of(transfer.source)
        source = _source(self._shards[home].reads, stored, self._deadline())
        is_settled = stored.status != PENDING
        outcome = Outcome(stored.status)
        decision = Decision.NONE
        if is_settled:
            is_committed = outcome is Outcome.COMMITTED
            decision = Decision.COMMITTED if is_committed else Decision.ABORTED
        parts = [Part(home, [transfer.source], *judge_source(stored, source), source.entries)]
        if destination := self._destination(stored, source):
            parts.append(destination)
        phase = source.row.phase if source.row else None
        return TransferTrace(transfer, outcome, stored, gtrid, decision, parts, home, phase)

    def _destination(self, stored: StoredTransfer, source: _Side) -> Part | None:
        """Its destination's part; None if it was refused before it had one."""
        account = stored.transfer.destination
        shard = self._shards.shard_of(account)
        try:
            seen = _destination(self._shards[shard].reads, stored, self._deadline())
        except ShardError as error:
            return Part(shard, [account], Stage.UNKNOWN, error.text, [])
        if seen.step is None and source.row is None and not source.entries:
            return None
        return Part(shard, [account], *judge_destination(seen), seen.entries)

    def _deadline(self) -> float:
        """By when a shard has to have answered."""
        return time.monotonic() + self._timeout_s


def _source(calls: ShardCalls, stored: StoredTransfer, deadline: float) -> _Side:
    transfer = stored.transfer
    rows = calls.phases_of([transfer.id], deadline)
    row = next((row for row in rows if row.gtrid == stored.gtrid), None)
    # Saga debits when it begins, and gives back after the outcome; TC/C pays with the outcome.
    since = {transfer.created_at, stored.decided_at}
    return _Side(calls.entries_of(transfer.source, transfer.id, since, deadline), row=row)


def _destination(calls: ShardCalls, stored: StoredTransfer, deadline: float) -> _Side:
    transfer = stored.transfer
    rows = calls.read_steps([transfer.id], deadline)
    step = next((row for row in rows if row.gtrid == stored.gtrid), None)
    if step is None:
        return _Side([])
    account = transfer.destination
    entries = calls.entries_of(account, transfer.id, {step.stamp}, deadline)
    return _Side(entries, step=step)


def judge_source(stored: StoredTransfer, seen: _Side) -> tuple[Stage, str]:
    """How far a transfer is on its source's shard, and by what that is known."""
    if seen.row:
        stage, because = _STAGES[seen.row.source_state]
        return stage, f"its phase is {seen.row.phase}: {because}"
    if stored.status == PENDING:
        return Stage.NOTHING, "its phase has just changed"
    if len(seen.entries) > 1:
        return Stage.UNDONE, "it was debited, and has got the amount back"
    if seen.entries:
        return Stage.COMMITTED, "its entry stands"
    return Stage.COMMITTED, "its record stands"


def judge_destination(seen: _Side) -> tuple[Stage, str]:
    """The same of its destination's."""
    if seen.step is None:
        return Stage.NOTHING, "it was not called yet"
    stage, because = _STAGES[seen.step.state]
    return stage, seen.step.detail or because
