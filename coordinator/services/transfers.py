"""Transfers as callers see them: handing them in, and asking what became of them."""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from coordinator.engine.commands import Commands
from coordinator.engine.known import known_answer
from coordinator.engine.scheduler import Closed, Overloaded, Queue
from coordinator.engine.tickets import (
    Answer,
    Latch,
    NotExecuted,
    State,
    Ticket,
    in_use,
    outcome_of,
)
from coordinator.shards.registry import Shards
from coordinator.telemetry import logs, tracing
from coordinator.telemetry.metrics import Metrics
from ledger.decide import refuse_reuse
from ledger.errors import Bug
from ledger.ids import slot_of_transfer
from ledger.model import Transfer
from shard_client.errors import ShardError
from shard_client.records import PENDING as UNSETTLED
from shard_client.records import DecisionOutcome, StoredTransfer, Undecided
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 3.0
# How long a transfer that is being written at its deadline is waited for, before "pending".
SETTLE_S = 1.0
_POLL_S = 0.05
# How long all looks behind an answer may take: it is late already.
_LOOK_S = 2.0
# So many tickets are made in some ms, in which nothing else runs in this process.
_AT_ONCE = 1000


class Pending:
    """The transfer may have happened; its outcome is being settled."""


PENDING = Pending()


class Transfers:
    """Hands transfers in and finds out about them. Those of shards that decide transfers themselves
    go by `commands`, others by the `queue`; `default` is the protocol of those that name none.
    """

    def __init__(
        self, shards: Shards, queue: Queue, commands: Commands, metrics: Metrics, default: str
    ) -> None:
        self._default = default
        self._shards = shards
        self._queue = queue
        self._commands = commands
        self._metrics = metrics

    @property
    def _engine(self) -> Queue | Commands:
        """What takes transfers to the shards of the map. Raises NoShardMap."""
        return self._commands if self._shards.map.has_groups else self._queue

    def submit(
        self, transfers: Sequence[Transfer], timeout_s: float, caller: str, *, is_batch: bool
    ) -> list[Ticket]:
        """Queue transfers of a caller, all or none.

        Raises Overloaded, Closed, NoShardMap, and for one that is no batch InUse.
        """
        engine = self._engine
        default = engine.default if isinstance(engine, Commands) else self._default
        latch = Latch(len(transfers))
        deadline = time.monotonic() + timeout_s
        batch = latch if is_batch else None
        request, span = logs.request_id.get(), tracing.request_span.get()
        origin = tracing.Origin(span, time.monotonic()) if span else None
        tickets: list[Ticket] = []
        for first in range(0, len(transfers), _AT_ONCE):
            if first:
                time.sleep(0)
            tickets += [
                Ticket(t, deadline, latch, batch, request, origin, default, caller)
                for t in transfers[first : first + _AT_ONCE]
            ]
        try:
            engine.put(tickets, alone=not is_batch)
        except (Overloaded, Closed):
            self._metrics.not_taken(tickets[0].transfer.protocol, "overloaded", len(transfers))
            raise
        return tickets

    def wait(self, tickets: Sequence[Ticket], patience_s: float = 0.0) -> list[Answer | Pending]:
        """Wait for the answers of tickets that were submitted together, until their deadline.

        What nothing was written for is withdrawn then. What was is waited for a little longer, or
        for `patience_s`, and is pending after that.
        """
        if not tickets:
            return []
        began = time.monotonic()
        answers = self._wait(tickets, patience_s)
        protocols = (ticket.transfer.protocol for ticket in tickets)
        outcomes = map(outcome_of, answers)
        counts = Counter((by, *outcome) for by, outcome in zip(protocols, outcomes, strict=True))
        self._metrics.answered(counts, time.monotonic() - began)
        return answers

    def _wait(self, tickets: Sequence[Ticket], patience_s: float) -> list[Answer | Pending]:
        latch, deadline = tickets[0].latch, tickets[0].deadline
        give_up = max(deadline, time.monotonic()) + max(SETTLE_S, patience_s)
        if not latch.wait(deadline):
            self._engine.withdraw(tickets)
            latch.wait(give_up)
        answers = [ticket.answer for ticket in tickets]
        for ticket, answer in zip(tickets, answers, strict=True):
            ticket.is_pending_told = answer is None
        # An earlier request with the same key may be about to take effect, or have taken it (R5).
        doubtful = [
            ticket
            for ticket, answer in zip(tickets, answers, strict=True)
            if isinstance(answer, NotExecuted)
        ]
        beneath = self._look_beneath(doubtful)
        while patience_s and PENDING in beneath.values() and time.monotonic() < give_up:
            time.sleep(_POLL_S)
            beneath = self._look_beneath(doubtful)
        told = [
            beneath.get(ticket.transfer.id, answer) if isinstance(answer, NotExecuted) else answer
            for ticket, answer in zip(tickets, (a or PENDING for a in answers), strict=True)
        ]
        given_up = [t for t, a in zip(tickets, told, strict=True) if isinstance(a, NotExecuted)]
        if given_up:
            _log_given_up(given_up)
        return told

    def _look_beneath(self, tickets: Iterable[Ticket]) -> dict[str, Answer | Pending]:
        """What stands of the transfers of these tickets on their shards, decided or not; what is
        not there, or cannot be looked at, is left out.
        """
        by_shard: dict[str, dict[str, Transfer]] = defaultdict(dict)
        undone = set()
        for ticket in tickets:
            transfer = ticket.asked
            by_shard[self._shard_of(transfer.id)][transfer.id] = transfer
            undone.add((transfer.id, ticket.gtrid))
        answers: dict[str, Answer | Pending] = {}
        deadline = time.monotonic() + _LOOK_S
        for shard, asked in by_shard.items():
            try:
                found = self._shards[shard].reads.find_transfers(list(asked), deadline)
            except ShardError:
                continue
            for id_, what in found.items():
                # The group that was to write it last is known to have been undone: its rows are
                # there only until its shard has rolled back.
                if isinstance(what, Undecided) and (id_, what.stored.gtrid) in undone:
                    continue
                answers[id_] = self._as_answer(asked[id_], what, deadline)
        return answers

    def _as_answer(
        self, asked: Transfer, found: StoredTransfer | Undecided, deadline: float
    ) -> Answer | Pending:
        """The answer to a transfer that an earlier request has brought about, or may have."""
        stored = found.stored if isinstance(found, Undecided) else found
        outcome: StoredTransfer | Pending = stored
        if isinstance(found, Undecided):
            try:
                outcome = self._ask_home(stored, deadline)
            except ShardError:
                outcome = PENDING
        if isinstance(outcome, Pending):
            # Of another body nothing is settled: neither that it is refused, nor that it may be.
            return in_use(asked) if refuse_reuse(stored.transfer, asked) else PENDING
        return known_answer(asked, outcome, is_replay=True)

    def find(self, transfer: str) -> StoredTransfer | Pending | None:
        """What became of a transfer; None if nothing is known of it. Raises ShardError."""
        if slot_of_transfer(transfer) is None:
            return None
        found = self._probe(transfer)
        if isinstance(found, Undecided):
            return self._ask_home(found.stored, time.monotonic() + _CALL_TIMEOUT_S)
        if found is None:
            ticket = self._engine.find(transfer)
            return PENDING if ticket and ticket.state is State.SENT else None
        return found

    def _probe(self, transfer: str) -> StoredTransfer | Undecided | None:
        """What stands of a transfer on its shard. Raises ShardError."""
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        shard = self._shards[self._shard_of(transfer)]
        return shard.reads.find_transfers([transfer], deadline).get(transfer)

    def _ask_home(self, stored: StoredTransfer, deadline: float) -> StoredTransfer | Pending:
        """The outcome of a transfer whose branch is not finished: what the group's home says.

        Raises ShardError if home cannot be asked: it may have said "committed" before.
        """
        gtrid = Gtrid.parse(stored.gtrid)
        if gtrid is None or stored.status == UNSETTLED:
            return PENDING
        home = self._shards[gtrid.home].reads
        decision = home.read_decisions([stored.gtrid], deadline).get(stored.gtrid)
        if decision is DecisionOutcome.COMMITTED:
            return stored
        # Meanwhile it may have been finished, and its decision collected.
        found = self._probe(stored.transfer.id)
        return found if isinstance(found, StoredTransfer) else PENDING

    def _shard_of(self, transfer: str) -> str:
        slot = slot_of_transfer(transfer)
        if slot is None:
            raise Bug(f"{transfer!r} is no transfer id: no shard is to be asked for it")
        return self._shards.map.shard_of_slot(slot)


def _log_given_up(tickets: Sequence[Ticket]) -> None:
    """One line for what was given up of a request, with what had kept it."""
    answers = [ticket.answer for ticket in tickets]
    extra = {
        "event": "transfer.given_up",
        "count": len(tickets),
        "transfer_ids": logs.few(ticket.transfer.id for ticket in tickets),
        "excuses": sorted({a.reason.value for a in answers if isinstance(a, NotExecuted)}),
        "skips": max(ticket.skips for ticket in tickets),
        "waits": max(ticket.waits for ticket in tickets),
        "gtrids": logs.few(dict.fromkeys(ticket.gtrid for ticket in tickets if ticket.gtrid)),
    }
    log.info("%d transfers are given up: nothing was written for them", len(tickets), extra=extra)
