"""What is sent together to a shard that decides, and what its answers mean to clients."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from coordinator.engine.known import known_answer
from coordinator.engine.tickets import (
    XA,
    Answer,
    NotExecuted,
    NotExecutedReason,
    Refused,
    Settled,
    State,
    Ticket,
)
from ledger.errors import Bug
from ledger.model import Transfer
from shard_client.records import Decided, StoredTransfer, Undecided

# What is sent at once: so many transfers, and so many characters of their metadata.
_LOAD_MAX = 20_000
_LOAD_METADATA_MAX = 4 << 20


class Parcel(NamedTuple):
    """Tickets for one shard that keep their order: those of one batch, or a single one."""

    shard: str
    tickets: list[Ticket]


def loads(parcels: Iterable[Parcel]) -> Iterator[list[Parcel]]:
    """Parcels that go in one message each. One that is large goes alone."""
    load: list[Parcel] = []
    count = size = 0
    for parcel in parcels:
        own = sum(len(ticket.transfer.metadata or "") for ticket in parcel.tickets)
        is_full = count + len(parcel.tickets) > _LOAD_MAX or size + own > _LOAD_METADATA_MAX
        if load and is_full:
            yield load
            load, count, size = [], 0, 0
        load.append(parcel)
        count, size = count + len(parcel.tickets), size + own
    if load:
        yield load


def is_by_xa(ticket: Ticket) -> bool:
    """Whether a ticket that is to be sent asks for two-phase commit."""
    return ticket.asked.protocol == XA and ticket.state is State.SENT


def looked_up(
    shard: str, asked: Transfer, found: Mapping[str, StoredTransfer | Undecided]
) -> Answer:
    """The answer to a transfer that asks for two-phase commit, by what was found of it."""
    stored = found.get(asked.id)
    if isinstance(stored, StoredTransfer):
        # A recorded outcome is answered whatever protocol is named now.
        return known_answer(asked._replace(protocol=""), stored, is_replay=True)
    detail = (
        f"protocol 'xa' was asked for, and shard {shard} is a ledger group, which takes part in no "
        "two-phase commit: leave the protocol out, or name 'tcc' or 'saga'; the key is not used"
    )
    return NotExecuted(NotExecutedReason.PROTOCOL, detail)


def answer_of(asked: Transfer, decided: Decided, *, was_sent_before: bool) -> Answer:
    """What a client is told of a transfer by what its shard has said."""
    stored, refusal, was_known = decided
    if stored is None:
        if refusal is None:
            raise Bug(f"{asked} was answered with neither an outcome nor a refusal")
        return Refused(refusal)
    if was_known:
        # What this request itself has brought about, and was not told of, is no replay.
        return known_answer(asked, stored, is_replay=not was_sent_before)
    return Settled(stored, is_replay=False)
