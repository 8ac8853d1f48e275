"""The events of a ledger group as they go out: a text for each, by the rules of server-sent events;
pure.
"""

import re
from typing import Literal

import msgspec
from msgspec import Struct

from coordinator.http.schemas import (
    FRAME_PATTERN,
    AccountId,
    Currency,
    Key,
    Time,
    TransferView,
    time_text,
    transfer_view,
)
from eventstore.wire.questions import (
    WHOLE_FRAME,
    AccountOpened,
    Event,
    EventsAre,
    Position,
    StatusSet,
    TransferDecided,
)
from shard_client.records import StoredTransfer, TransferStatus

_POSITION = re.compile(FRAME_PATTERN)


class AccountOpenedEvent(Struct):
    """`account-opened`"""

    account: AccountId
    currency: Currency
    overdraft_limit: int | None
    created_at: Time


class AccountStatusEvent(Struct):
    """`account-status-set`. The account may have had this status before."""

    account: AccountId
    status: Literal["open", "frozen", "closed"]
    updated_at: Time


class TransferEvent(TransferView, kw_only=True):
    """`transfer-committed` and `transfer-rejected`: a transfer has its outcome, for good."""

    idempotency_key: Key


EventData = AccountOpenedEvent | AccountStatusEvent | TransferEvent


def parse_position(text: str) -> Position | None:
    """A position that a client names; None if the text is none."""
    if not _POSITION.fullmatch(text):
        return None
    seq, index, check = [*text.split("-"), "", ""][:3]
    return Position(int(seq), int(index) if index else WHOLE_FRAME, check)


def position_text(position: Position) -> str:
    """The text by which a client names a position: the `id` of an event."""
    seq, index, check = position.seq, position.index, position.check
    if check:
        return f"{seq}-{index}-{check}"
    return f"{seq}" if index == WHOLE_FRAME else f"{seq}-{index}"


def page_text(after: Position, found: EventsAre) -> bytes:
    """What a stream sends of a page behind a position. Of one without events it is a comment, and
    an `id` if the position has moved: so who comes again need not have those frames looked through.
    """
    if found.events:
        return b"".join(map(event_text, found.events))
    moved = b"id: %b\n" % position_text(found.end).encode() if found.end != after else b""
    return moved + b": nothing else up to frame %d\n\n" % found.end.seq


def event_text(event: Event) -> bytes:
    """What a stream sends of one event."""
    kind, data = event_data(event)
    where = position_text(event.position)
    return f"id: {where}\nevent: {kind}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


def event_data(event: Event) -> tuple[str, EventData]:
    """The kind of an event, and what is told of it."""
    at = time_text(event.time_us)
    match event:
        case AccountOpened(account=account, currency=currency, overdraft_limit=limit):
            return "account-opened", AccountOpenedEvent(account, currency, limit, at)
        case StatusSet(account=account, status=status):
            return "account-status-set", AccountStatusEvent(account, status, at)  # type: ignore[arg-type]
        case TransferDecided(transfer=transfer, reason=reason, detail=detail):
            outcome = TransferStatus.REJECTED if reason else TransferStatus.COMMITTED
            when = event.time_us, event.position.seq
            stored = StoredTransfer(transfer, "", outcome, reason, detail, *when)
            view = msgspec.structs.asdict(transfer_view(stored))
            return f"transfer-{outcome}", TransferEvent(**view, idempotency_key=transfer.key)
