"""Batches that come as columns and stay so up to their shard: some 20 times as cheap as one by one.

They mean the same, and are answered the same, as transfers that are handed in as such.
"""

import time
from collections import Counter
from collections.abc import Mapping

from coordinator.engine.column_batches import ColumnBatch
from coordinator.engine.commands import Commands
from coordinator.engine.parcels import answer_of
from coordinator.engine.scheduler import Closed, Overloaded
from coordinator.engine.tickets import Answer, outcome_of
from coordinator.services.transfers import PENDING, SETTLE_S, Pending, Transfers
from coordinator.shards.registry import NoShardMap, Shards
from coordinator.telemetry import logs
from coordinator.telemetry.metrics import Metrics
from ledger.columns import Columns, NumberedColumns
from ledger.errors import Bug

# After so many answers that are told one by one others of this process have their turn: whoever
# sends a whole batch again has thousands.
_TURN = 500


class ColumnTransfers:
    """See the module."""

    def __init__(
        self, shards: Shards, commands: Commands, metrics: Metrics, transfers: Transfers
    ) -> None:
        self._shards = shards
        self._commands = commands
        self._metrics = metrics
        self._transfers = transfers

    @property
    def are_taken(self) -> bool:
        """Whether all accounts are on one shard that decides transfers itself."""
        try:
            shards = self._shards.map
        except NoShardMap:
            return False
        return shards.has_groups and len(shards.shards) == 1

    def submit(
        self, columns: Columns | NumberedColumns, timeout_s: float, caller: str
    ) -> ColumnBatch:
        """Hand in a batch of a caller, all of it or nothing. Raises Overloaded, Closed; ShardError
        if accounts are named by numbers, and their ids cannot be learnt.
        """
        (name,) = self._shards.map.shards
        if not (decider := self._shards[name].decider):
            raise Bug(f"shard {name} decides nothing, and columns are handed in for it")
        default = self._commands.default
        deadline = time.monotonic() + timeout_s
        packed = decider.pack(columns, default, time.time_ns() // 1000, deadline)
        batch = ColumnBatch(name, packed, deadline, caller, logs.request_id.get())
        try:
            self._commands.put_columns(batch)
        except (Overloaded, Closed):
            self._metrics.not_taken(default, "overloaded", packed.size)
            raise
        return batch

    def wait(self, batch: ColumnBatch, patience_s: float) -> dict[int, Answer | Pending]:
        """As `Transfers.wait`. Gives the answers of those that were *not* committed just now, by
        their index.
        """
        began = time.monotonic()
        give_up = max(batch.deadline, began) + max(SETTLE_S, patience_s)
        if not batch.ended.wait(give_up):
            batch.is_pending_told = True
            answers: dict[int, Answer | Pending] = dict.fromkeys(range(batch.packed.size), PENDING)
            self._count(batch, batch.packed.size, answers, began)
            return answers
        answers = {}
        if batch.decided:
            for number, (index, decided) in enumerate(batch.decided.others.items()):
                if number % _TURN == _TURN - 1:
                    _give_way()
                asked = batch.packed.asked(index)
                answers[index] = answer_of(asked, decided, was_sent_before=False)
            self._count(batch, batch.decided.taken, answers, began)
        if batch.tickets:
            told = self._transfers.wait(list(batch.tickets.values()), patience_s)
            answers |= zip(batch.tickets, told, strict=True)
        return answers

    def _count(
        self, batch: ColumnBatch, count: int, others: Mapping[int, Answer | Pending], began: float
    ) -> None:
        """The first `count` were answered, and are committed but for those."""
        packed = batch.packed
        protocol_of = {index: packed.protocol_of(index) for index in others}
        committed = packed.protocols(count) - Counter(protocol_of.values())
        counts: Counter[tuple[str, str, str | None]] = Counter(
            (protocol_of[index], *outcome_of(answer)) for index, answer in others.items()
        )
        for protocol, number in committed.items():
            counts[protocol, "committed", None] += number
        self._metrics.answered(counts, time.monotonic() - began)


def _give_way() -> None:
    time.sleep(0)
