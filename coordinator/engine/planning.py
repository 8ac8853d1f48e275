"""From what a group has locked to what it writes: pure, no I/O.

`sort_out` tells which tickets can be decided now; `plan` decides them by the money rules and lays
out what each shard is to write.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeGuard

from coordinator.engine.batch_order import BatchOrder
from coordinator.engine.tickets import Ticket
from ledger.decide import decide, refuse_reuse
from ledger.ids import slot_of
from ledger.model import Account, Posting, Refusal, Transfer
from shard_client.records import (
    PENDING,
    Locked,
    StoredTransfer,
    TransferStatus,
    Writes,
    clock_is_ahead,
    moment,
)

# So many are decided in some 20 ms, in which nothing else runs in this process.
_AT_ONCE = 1000


class Sorted(NamedTuple):
    """What becomes of the tickets of a group after its lock packets."""

    # To be decided now, in their order.
    ready: list[Ticket]
    # An account is locked by somebody else, or the same transfer is in the group already.
    passed_over: list[Ticket]
    # A shard is not what it should be: lost, read only, not the owner of a slot.
    moved: list[Ticket]
    # They have an outcome from before.
    known: list[tuple[Ticket, StoredTransfer]]
    # Their stamp would be ahead of a shard's clock, and why.
    ahead: list[tuple[Ticket, str]]


def sort_out(
    tickets: Sequence[Ticket],
    locked: Mapping[str, Locked],
    absent: frozenset[str] | set[str],
    now: int,
) -> Sorted:
    """Sort the tickets of a group by what its shards have answered.

    `locked` holds the answers of the shards that have given one; `absent` are accounts that are
    known not to exist; `now` is what this process's clock said when the shards read theirs.
    """
    result = Sorted([], [], [], [], [])
    is_early = _is_early(tickets, locked, now)
    seen: set[str] = set()
    order = BatchOrder()
    for ticket in tickets:
        transfer = ticket.transfer
        source, destination = transfer.source, transfer.destination
        from_, to = map(locked.get, ticket.shards)
        stored = _find(transfer, from_)
        if stored and has_answer(ticket, stored):
            result.known.append((ticket, stored))
            continue
        if not (_takes(from_, source) and _takes(to, destination)):
            result.moved.append(ticket)
        elif transfer.id in seen:
            result.passed_over.append(ticket)
            continue
        elif stored or (
            (order and order.blocks(ticket))
            or (source not in from_.accounts and source not in absent)
            or (destination not in to.accounts and destination not in absent)
        ):
            result.passed_over.append(ticket)
        else:
            seen.add(transfer.id)
            if not is_early and (why := why_ahead(ticket, from_, to, now)):
                result.ahead.append((ticket, why))
            else:
                result.ready.append(ticket)
            continue
        order.hold(ticket)
    return result


def has_answer(ticket: Ticket, stored: StoredTransfer) -> bool:
    """Whether what is recorded of a ticket's key settles what it is told: an outcome does, and that
    another body is pending; what is pending with its own body is waited for.
    """
    return stored.status != PENDING or refuse_reuse(stored.transfer, ticket.asked) is not None


def _find(transfer: Transfer, answer: Locked | None) -> StoredTransfer | None:
    """The transfer's outcome from before, on a shard that owns its source's slot."""
    if answer is None or not answer.known or slot_of(transfer.source) not in answer.slots:
        return None
    return answer.known.get(transfer.id)


def _takes(answer: Locked | None, account: str) -> TypeGuard[Locked]:
    return answer is not None and answer.is_writable and slot_of(account) in answer.slots


def _is_early(tickets: Sequence[Ticket], locked: Mapping[str, Locked], now: int) -> bool:
    """Whether no stamp of the group can be ahead of any shard's clock: nearly always, and then none
    of its transfers need be looked at closer.
    """
    answers = locked.values()
    floors = [account.stamp_floor for answer in answers for account in answer.accounts.values()]
    created = [ticket.transfer.created_at for ticket in tickets]
    furthest = max(now, max(floors, default=0), max(created, default=0))
    return furthest <= min((answer.latest for answer in answers), default=0)


def why_ahead(ticket: Ticket, from_: Locked, to: Locked, now: int) -> str | None:
    """Why a transfer cannot be stamped: both of its entries would carry one account's, or this
    process's, wrong time on to where it has not come yet.
    """
    transfer = ticket.transfer
    ours = max(now, transfer.created_at)
    sides = [
        (shard, answer.latest, answer.accounts.get(account))
        for shard, answer, account in zip(
            ticket.shards, (from_, to), (transfer.source, transfer.destination), strict=True
        )
    ]
    for shard, latest, _ in sides:
        if ours > latest:
            return f"shard {shard}: {clock_is_ahead(ours, latest)}"
    floors = [(account.stamp_floor, account.id) for _, _, account in sides if account]
    stamp, furthest = max(floors, default=(0, ""))
    for shard, latest, account in sides:
        if stamp > latest and account and account.stamp_floor < stamp:
            return (
                f"account {furthest} has come to {moment(stamp)}, ahead of the clock of shard "
                f"{shard}, and account {account.id} is not to follow it there"
            )
    return None


class Plan(NamedTuple):
    """What a group does: for each ticket its record, or a refusal that leaves none; and what each
    shard writes.
    """

    tickets: Sequence[Ticket]
    results: list[StoredTransfer | Refusal]
    writes: dict[str, Writes]


def plan(
    tickets: Sequence[Ticket],
    accounts: Mapping[str, Account],
    now: int,
    gtrid: str,
    pause: Callable[[], None] = lambda: None,
) -> Plan:
    """Decide tickets by the money rules and lay out the writes. `now` is a stamp; `pause` is called
    after every thousand tickets, so that in between others may have their turn.
    """
    writes: dict[str, Writes] = defaultdict(lambda: Writes([], [], []))
    results: list[StoredTransfer | Refusal] = []
    place: dict[str, str] = {}
    standing = dict(accounts)
    for first in range(0, len(tickets), _AT_ONCE):
        if first:
            pause()
        some = tickets[first : first + _AT_ONCE]
        outcomes, changed = decide(standing, [ticket.transfer for ticket in some], now)
        standing.update(changed)
        for ticket, outcome in zip(some, outcomes, strict=True):
            source_shard, destination_shard = ticket.shards
            if isinstance(outcome, Posting):
                writes[source_shard].entries.append(outcome.debit)
                writes[destination_shard].entries.append(outcome.credit)
                place[ticket.transfer.source] = source_shard
                place[ticket.transfer.destination] = destination_shard
                stored = _record(ticket.transfer, gtrid, None, outcome.debit.stamp)
            elif outcome.is_recorded:
                stored = _record(ticket.transfer, gtrid, outcome, now)
            else:
                results.append(outcome)
                continue
            writes[source_shard].transfers.append(stored)
            results.append(stored)
    for account, shard in place.items():
        writes[shard].accounts.append(standing[account])
    return Plan(tickets, results, dict(writes))


def _record(transfer: Transfer, gtrid: str, refusal: Refusal | None, stamp: int) -> StoredTransfer:
    if refusal is None:
        return StoredTransfer(transfer, gtrid, TransferStatus.COMMITTED.value, None, None, stamp)
    reason, detail, _ = refusal
    status = TransferStatus.REJECTED.value
    return StoredTransfer(transfer, gtrid, status, reason.value, detail, stamp)


EMPTY_PLAN = Plan([], [], {})
