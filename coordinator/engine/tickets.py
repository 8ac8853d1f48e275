"""A transfer on its way through the coordinator, and the answers that it can get."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

from coordinator.telemetry.tracing import Origin
from ledger.model import Refusal, Transfer
from shard_client.records import StoredTransfer

# The protocol of two-phase commit, and of what is on one shard.
XA = "xa"


class State(Enum):
    OPEN = "nothing was written for it"
    SENT = "it may have been written"
    DONE = "it has an answer"


class Settled(NamedTuple):
    """The transfer has its final outcome, and it is durable."""

    stored: StoredTransfer
    is_replay: bool


class Refused(NamedTuple):
    """Refused for good, without a record of its own."""

    refusal: Refusal


class NotExecutedReason(Enum):
    """Why nothing has happened."""

    ACCOUNT_BUSY = "account-busy"
    SHARD_UNAVAILABLE = "shard-unavailable"
    INTERNAL_ERROR = "internal-error"
    KEY_IN_USE = "idempotency-key-in-use"
    PROTOCOL = "protocol-not-offered"


class NotExecuted(NamedTuple):
    """Nothing has happened by this request; it may be sent again."""

    reason: NotExecutedReason
    detail: str


Answer = Settled | Refused | NotExecuted

TOO_LATE = NotExecuted(
    NotExecutedReason.ACCOUNT_BUSY,
    "its accounts stayed locked by other transfers until its deadline",
)
_IN_FRONT = NotExecuted(
    NotExecutedReason.ACCOUNT_BUSY, "other transfers were in front of it until its deadline"
)


def in_use(asked: Transfer) -> NotExecuted:
    """Another request with this key is on its way, and nothing is recorded of it: whatever this one
    asks for, it may be what becomes of the key.
    """
    detail = (
        f"a request with the key {asked.key!r} of {asked.source} is being worked on at this moment"
    )
    return NotExecuted(NotExecutedReason.KEY_IN_USE, detail)


class Latch:
    """Opens when it has been counted down to zero."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self._opened = threading.Event()
        if count == 0:
            self._opened.set()

    def count_down(self, count: int = 1) -> None:
        with self._lock:
            self._left -= count
            if self._left == 0:
                self._opened.set()

    def wait(self, deadline: float) -> bool:
        """Wait until it is open, or the deadline; says whether it is open."""
        return self._opened.wait(max(deadline - time.monotonic(), 0))


class Ticket:
    """One transfer on its way through the coordinator."""

    __slots__ = (
        "answer",
        "asked",
        "batch",
        "blocked_by",
        "caller",
        "deadline",
        "gtrid",
        "has_waited",
        "is_pending_told",
        "latch",
        "limit",
        "not_before",
        "number",
        "origin",
        "protocol",
        "request_id",
        "shards",
        "skips",
        "state",
        "transfer",
        "waits",
    )

    def __init__(
        self,
        transfer: Transfer,
        deadline: float,
        latch: Latch,
        batch: object,
        request_id: str | None = None,
        origin: Origin | None = None,
        default: str = XA,
        caller: str = "",
    ) -> None:
        # As it was asked for: without a protocol, if none was named, and with the default then.
        self.asked = transfer
        named = transfer.protocol
        self.transfer = transfer if named else transfer._replace(protocol=default)
        self.deadline = deadline
        self.latch = latch
        # Of the request that it came with; the origin if that is traced.
        self.request_id = request_id
        self.origin = origin
        # Transfers of one batch that share accounts keep their order.
        self.batch = batch
        # With whom it shares its part of the turns and of the room.
        self.caller = caller
        self.state = State.OPEN
        self.answer: Answer | None = None
        # Its turn; those of a batch count up.
        self.number = 0
        self.shards: tuple[str, str] = ("", "")
        # The protocol by which it runs: on one shard nothing has to be agreed upon.
        self.protocol = XA
        # How often it was passed over, and how often one of its accounts was waited for in vain.
        self.skips = 0
        self.waits = 0
        self.not_before = 0.0
        # Why it has to wait once more, if not for the accounts that others have locked.
        self.blocked_by: NotExecuted | None = None
        # How large a group it may be part of: halved when one member may have spoilt the group.
        self.limit = 1 << 30
        # A group by phases could not decide it, as its account lacked what one before it in its
        # batch might bring.
        self.has_waited = False
        # The group that may have written it last: an outcome from there is no replay.
        self.gtrid = ""
        # Its client was told "pending" and may ask or send again.
        self.is_pending_told = False


def too_late(ticket: Ticket) -> NotExecuted:
    """What a ticket is answered of which nothing was written until its deadline."""
    was_tried = ticket.skips or ticket.waits
    return ticket.blocked_by or (TOO_LATE if was_tried else _IN_FRONT)


@dataclass(frozen=True)
class Group:
    """Tickets to be committed together, in their order."""

    tickets: list[Ticket]

    @cached_property
    def protocol(self) -> str:
        """The protocol by which it runs: that of the first one that is not on one shard."""
        return next((ticket.protocol for ticket in self.tickets if ticket.protocol != XA), XA)

    @cached_property
    def at(self) -> Counter[str]:
        """How many of its tickets are at each of its shards."""
        return Counter(shard for ticket in self.tickets for shard in set(ticket.shards))

    @cached_property
    def accounts(self) -> set[str]:
        return {
            account
            for ticket in self.tickets
            for account in (ticket.transfer.source, ticket.transfer.destination)
        }


def ends(ticket: Ticket) -> tuple[str, str]:
    return ticket.transfer.source, ticket.transfer.destination


def accounts_in_batch(ticket: Ticket) -> list[tuple[int, str]]:
    """A ticket's accounts within its batch."""
    batch = id(ticket.batch)
    return [(batch, ticket.transfer.source), (batch, ticket.transfer.destination)]


def too_crowded(account: str, limit: int) -> NotExecuted:
    """What is told of a transfer that is one too many for an account."""
    detail = f"account {account} stays locked, and {limit} transfers wait for it in this process"
    return NotExecuted(NotExecutedReason.ACCOUNT_BUSY, detail)


def outcome_of(answer: object) -> tuple[str, str | None]:
    """How an answer counts, and why the transfer has not happened."""
    if isinstance(answer, Settled):
        reason = answer.stored.reason
        return ("replayed", None) if answer.is_replay else (answer.stored.status, reason)
    if isinstance(answer, Refused):
        return "rejected", answer.refusal.reason.value
    if isinstance(answer, NotExecuted):
        return "withdrawn", answer.reason.value
    return "pending", None
