"""Transfers as callers see them: handing them in, and asking what became of them."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from coordinator.queue import Answer, Excuse, Latch, NotDone, Queue, State, Ticket
from coordinator.shards import Shards
from ledger.ids import slot_of_transfer
from ledger.model import Transfer
from shard_client.errors import ShardError
from shard_client.prepared import DecisionOutcome, read_decision
from shard_client.transfers import StoredTransfer, Undecided, probe
from shard_client.xid import Gtrid

_CALL_TIMEOUT_S = 3.0
# How long a transfer that is being written at its deadline is waited for, before "pending".
_SETTLE_S = 1.0


class Pending:
    """The transfer may have happened; its outcome is being settled."""


PENDING = Pending()


class Transfers:
    """Hands transfers in and finds out about them."""

    def __init__(self, shards: Shards, queue: Queue) -> None:
        self._shards = shards
        self._queue = queue

    def submit(
        self, transfers: Sequence[Transfer], timeout_s: float, *, is_batch: bool
    ) -> list[Ticket]:
        """Queue transfers, all or none. Raises Overloaded, Closed, NoShardMap."""
        _ = self._shards.map
        latch = Latch(len(transfers))
        deadline = time.monotonic() + timeout_s
        batch = latch if is_batch else None
        tickets = [Ticket(transfer, deadline, latch, batch) for transfer in transfers]
        self._queue.put(tickets)
        return tickets

    def wait(self, tickets: Sequence[Ticket], patience_s: float = 0.0) -> list[Answer | Pending]:
        """Wait for the answers of tickets that were submitted together, until their deadline.

        What nothing was written for is withdrawn then. What was is waited for a little longer, or
        for `patience_s`, and is pending after that.
        """
        if not tickets:
            return []
        latch, deadline = tickets[0].latch, tickets[0].deadline
        if not latch.wait(deadline):
            detail = "its accounts stayed locked by other transfers until its deadline"
            self._queue.withdraw(tickets, NotDone(Excuse.ACCOUNT_BUSY, detail))
            latch.wait(max(deadline, time.monotonic()) + max(_SETTLE_S, patience_s))
        not_done = [ticket for ticket in tickets if isinstance(ticket.answer, NotDone)]
        known = self._look_beneath([ticket.transfer.id for ticket in not_done])
        return [self._answer(ticket, known) for ticket in tickets]

    def _answer(self, ticket: Ticket, known: set[str]) -> Answer | Pending:
        answer = ticket.answer
        if answer is None:
            ticket.is_pending_told = True
            return PENDING
        # An earlier request with this key may be about to take effect (rule R5).
        if isinstance(answer, NotDone) and ticket.transfer.id in known:
            return PENDING
        return answer

    def _look_beneath(self, transfers: Iterable[str]) -> set[str]:
        """Which of these transfers stand on their shard, decided or not; what cannot be looked at
        is left out.
        """
        places: dict[str, list[str]] = defaultdict(list)
        for transfer in transfers:
            places[self._home_of(transfer)].append(transfer)
        found: set[str] = set()
        for shard, ids in places.items():
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            try:
                with self._shards[shard].connection(deadline) as connection:
                    found.update(probe(connection, ids, deadline))
            except ShardError as error:
                self._shards.note(error)
        return found

    def being_worked_on(self, transfer: str) -> Ticket | None:
        """The ticket of a transfer that this process has at hand."""
        return self._queue.find(transfer)

    def find(self, transfer: str) -> StoredTransfer | Pending | None:
        """What became of a transfer; None if nothing is known of it. Raises ShardError."""
        if slot_of_transfer(transfer) is None:
            return None
        shard = self._home_of(transfer)
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        try:
            with self._shards[shard].connection(deadline) as connection:
                found = probe(connection, [transfer], deadline).get(transfer)
        except ShardError as error:
            self._shards.note(error)
            raise
        if isinstance(found, Undecided):
            return self._ask_home(found.stored, deadline)
        if found is None:
            ticket = self._queue.find(transfer)
            return PENDING if ticket and ticket.state is State.SENT else None
        return found

    def _ask_home(self, stored: StoredTransfer, deadline: float) -> StoredTransfer | Pending:
        """The outcome of a transfer whose branch is not finished: what the group's home says."""
        gtrid = Gtrid.parse(stored.gtrid)
        if gtrid is None:
            return PENDING
        try:
            with self._shards[gtrid.home].connection(deadline) as home:
                decision = read_decision(home, stored.gtrid, deadline)
        except ShardError as error:
            self._shards.note(error)
            return PENDING
        return stored if decision is DecisionOutcome.COMMITTED else PENDING

    def _home_of(self, transfer: str) -> str:
        slot = slot_of_transfer(transfer)
        assert slot is not None
        return self._shards.map.shard_of_slot(slot)
