"""Transfers on their way to shards that decide them: no lock is taken, and no group formed.

What waits is sent at once, all of it together, and answered when the shard has answered. What was
sent and not answered is sent again, with the same ids, until there is an outcome (rule E6): its
client may be told that it is pending, never that nothing has happened.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import chain

from coordinator.engine.column_batches import ColumnBatch
from coordinator.engine.fairness import Callers
from coordinator.engine.parcels import Parcel, answer_of, is_by_xa, loads, looked_up
from coordinator.engine.scheduler import Closed, InUse, Overloaded
from coordinator.engine.tickets import (
    XA,
    Answer,
    Latch,
    NotExecuted,
    NotExecutedReason,
    State,
    Ticket,
    too_late,
)
from coordinator.shards.registry import Shards
from ledger.errors import Bug
from shard_client.columns import DecidedTogether
from shard_client.errors import ConnectionLost, ShardError, StatementRefused
from shard_client.records import Decided

log = logging.getLogger(__name__)

# What a shard that decides keeps of a transfer for which no protocol was named.
_DEFAULT = "tcc"
# After an error a shard is left alone for so long.
_PAUSE_S = 0.02
_IDLE_S = 1.0
_LOOK_TIMEOUT_S = 3.0
# After a mistake of our own that would only be met again.
_BUG_PAUSE_S = 1.0
_BUG_MET = {"event": "commands.bug"}
_BUG = NotExecuted(NotExecutedReason.INTERNAL_ERROR, "a fault of the service; see its log")


class Commands:
    """See the module. `room` is for how many tickets may be here without an answer; a shard that
    cannot be used is waited for, for `patience_s`.
    """

    def __init__(self, shards: Shards, *, room: int, patience_s: float, default: str) -> None:
        self._shards = shards
        self._callers = Callers(room)
        self._patience_s = patience_s
        # The protocol of those that name none.
        self.default = _DEFAULT if default == XA else default
        self._changed = threading.Condition()
        self._waiting: deque[Parcel] = deque()
        self._by_id: dict[str, list[Ticket]] = {}
        # Those that have no answer, and are no tickets.
        self._columns: set[ColumnBatch] = set()
        self._unsettled = 0
        # Shard -> when it is tried again.
        self._not_before: dict[str, float] = {}
        self._is_closed = False
        self._thread = threading.Thread(target=self._send_all, name="commands", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # --- in -------------------------------------------------------------------------------------

    def put(self, tickets: Sequence[Ticket], *, alone: bool = False) -> None:
        """Take tickets, all or none. Raises Overloaded, Closed, and with `alone` InUse if one of
        their transfers is here already.
        """
        parcels: dict[str, Parcel] = {}
        for ticket in tickets:
            shard = self._shards.shard_of(ticket.transfer.source)
            parcels.setdefault(shard, Parcel(shard, [])).tickets.append(ticket)
            ticket.shards = (shard, shard)
        with self._changed:
            self._check(tickets[0].caller if tickets else "", len(tickets))
            if not tickets:
                return
            for ticket in tickets if alone else ():
                if at_work := self.find(ticket.transfer.id):
                    raise InUse(at_work)
            self._count_in(tickets[0].caller, len(tickets), is_batch=not alone)
            self._note_ids(tickets)
            self._waiting.extend(parcels.values())
            self._changed.notify_all()

    def put_columns(self, batch: ColumnBatch) -> None:
        """Take transfers as columns, all or none, and send them. Raises Overloaded, Closed."""
        with self._changed:
            self._check(batch.caller, batch.packed.size)
            self._count_in(batch.caller, batch.packed.size, is_batch=True)
            self._columns.add(batch)
        is_resting = self._not_before.get(batch.shard, 0) > time.monotonic()
        if is_resting or self._shards.trouble_with(batch.shard):
            self._go_on(batch, 0, State.OPEN)
        else:
            self._send_columns(batch)

    def _check(self, caller: str, count: int) -> None:
        """Whether so many of a caller can be taken. Raises Overloaded, Closed."""
        if self._is_closed:
            raise Closed
        if why := self._callers.no_room(caller, count, self._unsettled, 0):
            raise Overloaded(why)

    def _count_in(self, caller: str, count: int, *, is_batch: bool) -> None:
        self._callers.turns(caller, count, is_batch=is_batch)
        self._unsettled += count

    def _note_ids(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            self._by_id.setdefault(ticket.transfer.id, []).append(ticket)

    def find(self, transfer: str) -> Ticket | None:
        """As `Queue.find`; of one that goes as a column, a ticket that says so."""
        tickets = self._by_id.get(transfer, [])
        sent = (ticket for ticket in tickets if ticket.state is State.SENT)
        by_columns = (found for batch in list(self._columns) if (found := batch.find(transfer)))
        return next(chain(sent, by_columns, tickets), None)

    def withdraw(self, tickets: Iterable[Ticket]) -> None:
        """Answer those that were not sent that they are too late; the others stay on their way."""
        with self._changed:
            for ticket in tickets:
                if ticket.state is State.OPEN:
                    self._settle(ticket, too_late(ticket))

    @property
    def unsettled(self) -> int:
        """How many tickets have no answer yet."""
        return self._unsettled

    @property
    def callers(self) -> int:
        """How many callers have tickets without an answer."""
        return self._callers.count

    def close(self, deadline: float) -> bool:
        """Take nothing more and wait until all is answered, or the deadline; says whether it is."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: not self._unsettled, max(deadline - time.monotonic(), 0)
            )

    # --- out ------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        while (due := self._take()) is not None:
            by_shard: dict[str, list[Parcel]] = {}
            for parcel in due:
                by_shard.setdefault(parcel.shard, []).append(parcel)
            for shard, parcels in by_shard.items():
                for load in loads(parcels):
                    try:
                        self._send(shard, load)
                    except Exception:
                        # Whatever it is, all others wait for this thread.
                        log.exception("commands met a bug and go on", extra=_BUG_MET)
                        self._put_back(load, _BUG_PAUSE_S)

    def _take(self) -> list[Parcel] | None:
        """Wait for what can be sent now; None when this is closed and empty."""
        with self._changed:
            while not (self._is_closed and not self._unsettled):
                now = time.monotonic()
                resting = {s: at for s, at in self._not_before.items() if at > now}
                self._not_before = resting
                due = [parcel for parcel in self._waiting if parcel.shard not in resting]
                if due:
                    self._waiting = deque(p for p in self._waiting if p.shard in resting)
                    return due
                self._changed.wait(min(resting.values()) - now if resting else _IDLE_S)
            return None

    def _send(self, shard: str, parcels: list[Parcel]) -> None:
        """Send what may be sent; one message for all of it."""
        if trouble := self._shards.trouble_with(shard):
            self._wait_out(parcels, *trouble)
            return
        node = self._shards[shard]
        if node.decider is None:
            raise Bug(f"shard {shard} decides nothing, and {len(parcels)} parcels are for it")
        fresh = self._claim(parcels)
        self._look_up(shard, [t for p in parcels for t in p.tickets if is_by_xa(t)])
        tickets = [t for p in parcels for t in p.tickets if t.state is State.SENT]
        if not tickets:
            return
        try:
            answered = node.decider.decide([ticket.transfer for ticket in tickets])
        except ShardError as error:
            self._not_taken(shard, parcels, fresh, error)
            return
        except Exception:
            self._not_sent(shard, parcels, fresh)
            return
        answered.add_done_callback(partial(self._answered, shard, parcels, tickets, fresh))

    def _claim(self, parcels: Iterable[Parcel]) -> list[Ticket]:
        """From here on these may happen, and their clients are not told otherwise. Gives those of
        which that was not so before.
        """
        now, fresh = time.monotonic(), []
        with self._changed:
            for ticket in (ticket for parcel in parcels for ticket in parcel.tickets):
                if ticket.state is State.OPEN and ticket.deadline <= now:
                    self._settle(ticket, too_late(ticket))
                elif ticket.state is State.OPEN:
                    ticket.state = State.SENT
                    fresh.append(ticket)
        return fresh

    def _look_up(self, shard: str, tickets: list[Ticket]) -> None:
        """Answer those that name a protocol which does not reach here by what is recorded of their
        ids, or refuse them; none of them is sent.
        """
        if not tickets:
            return
        deadline = time.monotonic() + _LOOK_TIMEOUT_S
        ids = [ticket.transfer.id for ticket in tickets]
        answers: list[tuple[Ticket, Answer]]
        try:
            found = self._shards[shard].reads.find_transfers(ids, deadline)
            answers = [(ticket, looked_up(shard, ticket.asked, found)) for ticket in tickets]
        except ShardError as error:
            why = NotExecuted(NotExecutedReason.SHARD_UNAVAILABLE, error.text)
            answers = [(ticket, why) for ticket in tickets]
        except Exception:
            log.exception("commands met a bug and go on", extra=_BUG_MET)
            answers = [(ticket, _BUG) for ticket in tickets]
        with self._changed:
            self._settle_all(answers)

    # --- columns --------------------------------------------------------------------------------

    def _send_columns(self, batch: ColumnBatch) -> None:
        try:
            decider = self._shards[batch.shard].decider
            if decider is None:
                raise Bug(f"shard {batch.shard} decides nothing, and columns are for it")
            answered = decider.decide_packed(batch.packed)
        except Exception as error:
            # One by one it is found out whose mistake it is, if it is one of our own.
            self._note(error)
            self._go_on(batch, 0, State.OPEN)
        else:
            answered.add_done_callback(partial(self._columns_answered, batch))

    def _columns_answered(self, batch: ColumnBatch, future: "Future[DecidedTogether]") -> None:
        try:
            decided = future.result()
        except ShardError as error:
            self._note(error)
            is_unknown = isinstance(error, ConnectionLost)
            self._go_on(batch, 0, State.SENT if is_unknown else State.OPEN)
            return
        except Exception as error:
            self._note(error)
            self._go_on(batch, 0, State.SENT)
            return
        batch.decided = decided
        with self._changed:
            self._count_out(batch.caller, decided.taken)
        if decided.rest:
            self._note(decided.rest)
            self._go_on(batch, decided.taken, State.OPEN)
        else:
            self._columns.discard(batch)
            batch.ended.count_down()

    def _go_on(self, batch: ColumnBatch, first: int, state: State) -> None:
        """What has no answer, from `first` on, waits as tickets, in front of all else."""
        tickets = batch.go_on(first, state, self.default)
        with self._changed:
            self._note_ids(tickets)
            self._columns.discard(batch)
            self._waiting.appendleft(Parcel(batch.shard, tickets))
            self._changed.notify_all()
        batch.ended.count_down()

    def _note(self, error: Exception) -> None:
        if isinstance(error, ShardError):
            self._shards.note(error)
        else:
            log.error("commands met a bug and go on", exc_info=error, extra=_BUG_MET)

    # --- answers --------------------------------------------------------------------------------

    def _answered(
        self,
        shard: str,
        parcels: list[Parcel],
        tickets: list[Ticket],
        fresh: list[Ticket],
        future: "Future[list[Decided | ShardError]]",
    ) -> None:
        sent_before = set(map(id, tickets)) - set(map(id, fresh))
        left: ShardError | None = None
        answers = []
        try:
            for ticket, one in zip(tickets, future.result(), strict=True):
                if isinstance(one, ShardError):
                    left = one
                else:
                    answer = answer_of(ticket.asked, one, was_sent_before=id(ticket) in sent_before)
                    answers.append((ticket, answer))
        except ConnectionLost as error:
            # It may have happened: the same again gives what became of it.
            self._shards.note(error)
            self._put_back(parcels)
            return
        except ShardError as error:
            self._not_taken(shard, parcels, fresh, error)
            return
        except Exception:
            log.exception("commands met a bug and go on", extra=_BUG_MET)
            self._put_back(parcels, _BUG_PAUSE_S)
            return
        with self._changed:
            self._settle_all(answers)
        if left:
            self._not_taken(shard, parcels, [t for t in fresh if t.state is State.SENT], left)

    def _not_taken(
        self, shard: str, parcels: list[Parcel], fresh: list[Ticket], error: ShardError
    ) -> None:
        """Nothing has happened by this attempt; those that were not sent before are open again."""
        self._shards.note(error)
        why = NotExecuted(NotExecutedReason.SHARD_UNAVAILABLE, error.text)
        with self._changed:
            for ticket in fresh:
                ticket.state, ticket.blocked_by = State.OPEN, why
                # The same again would be refused again.
                if isinstance(error, StatementRefused):
                    self._settle(ticket, why)
        self._put_back(parcels)

    def _not_sent(self, shard: str, parcels: list[Parcel], fresh: list[Ticket]) -> None:
        """A mistake of our own in what was to be sent: whoever has none goes on."""
        log.exception("commands met a bug and go on", extra=_BUG_MET)
        is_one = len(parcels) == 1
        with self._changed:
            for ticket in fresh:
                ticket.state = State.OPEN
                if is_one:
                    self._settle(ticket, _BUG)
        if is_one:
            self._put_back(parcels, _BUG_PAUSE_S)
        else:
            for parcel in parcels:
                self._send(shard, [parcel])

    def _wait_out(self, parcels: list[Parcel], reason: str, since_s: float) -> None:
        """The shard cannot be used: after some patience those that were not sent are told so."""
        if since_s > self._patience_s:
            detail = f"shard {parcels[0].shard} takes no transfers now: {reason}"
            why = NotExecuted(NotExecutedReason.SHARD_UNAVAILABLE, detail)
            with self._changed:
                for ticket in (ticket for parcel in parcels for ticket in parcel.tickets):
                    if ticket.state is State.OPEN:
                        self._settle(ticket, why)
        self._put_back(parcels)

    def _put_back(self, parcels: list[Parcel], pause_s: float = _PAUSE_S) -> None:
        """What of these has no answer waits again, in front of all else, and for so long."""
        left = [
            Parcel(shard, waiting)
            for shard, tickets in parcels
            if (waiting := [ticket for ticket in tickets if ticket.state is not State.DONE])
        ]
        with self._changed:
            self._waiting.extendleft(reversed(left))
            for parcel in left:
                self._not_before[parcel.shard] = time.monotonic() + pause_s
            self._changed.notify_all()

    def _settle(self, ticket: Ticket, answer: Answer) -> None:
        self._settle_all([(ticket, answer)])

    def _settle_all(self, answers: Iterable[tuple[Ticket, Answer]]) -> None:
        """Give tickets their answers. The first one of each holds."""
        callers: Counter[str] = Counter()
        latches: Counter[Latch] = Counter()
        for ticket, answer in answers:
            if ticket.state is State.DONE:
                continue
            ticket.state, ticket.answer = State.DONE, answer
            callers[ticket.caller] += 1
            latches[ticket.latch] += 1
            likes = self._by_id[ticket.transfer.id]
            likes.remove(ticket)
            if not likes:
                del self._by_id[ticket.transfer.id]
        for caller, count in callers.items():
            self._count_out(caller, count)
        for latch, count in latches.items():
            latch.count_down(count)

    def _count_out(self, caller: str, count: int) -> None:
        """So many of a caller have their answers."""
        self._callers.answered(caller, count)
        self._unsettled -= count
        if not self._unsettled:
            self._changed.notify_all()
