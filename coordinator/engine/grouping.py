"""Which tickets may run together, and how long one is left alone after a miss. Pure."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from coordinator.engine.batch_order import BatchOrder
from coordinator.engine.tickets import XA, Ticket, accounts_in_batch

# The pause before a transfer that found its accounts taken is tried again, in seconds: random,
# and growing with every try, so that groups that hold what the others need part ways.
PAUSE_MIN_S = 0.002
PAUSE_MAX_S = 0.1


class Room:
    """The room of a group: for so many tickets at each shard."""

    def __init__(self, at_each: int) -> None:
        self._at_each = at_each
        self._taken: defaultdict[str, int] = defaultdict(int)

    def takes_last(self, ticket: Ticket) -> bool:
        """Give a ticket its room; says whether it has taken the last that a shard had."""
        source, destination = ticket.shards
        taken = self._taken
        taken[source] += 1
        if destination != source:
            taken[destination] += 1
        return taken[source] >= self._at_each or taken[destination] >= self._at_each


def of_one_protocol(candidates: Sequence[Ticket], protocol: str) -> Sequence[Ticket]:
    """Those that can run by this protocol in one group, in their order.

    By two-phase commit a group is decided as a whole, one transfer after the other. By the others
    all that leave an account are tried before any arrives: an account pays with what it has before
    the group, and one that lacks what a batch is to bring it waits. It comes in a later group then.
    What else a batch of theirs has within one shard, or by the other one of them, goes with them:
    it may have to come between.
    """
    if protocol == XA and all(ticket.protocol == XA for ticket in candidates):
        return candidates
    phased = [ticket for ticket in candidates if ticket.protocol != XA] if protocol != XA else []
    mixed = {id(ticket.batch) for ticket in phased if ticket.batch is not None}
    chosen: list[Ticket] = []
    receiving: set[tuple[int, str]] = set()
    order = BatchOrder()
    for ticket in candidates:
        source, destination = accounts_in_batch(ticket)
        is_mixed = id(ticket.batch) in mixed and not _is_agreed_upon(ticket)
        goes = ticket.protocol == protocol or is_mixed
        can_pay = protocol == XA or not ticket.has_waited or source not in receiving
        if goes and can_pay and not order.blocks(ticket):
            chosen.append(ticket)
            # Within one shard it arrives at once.
            if ticket.batch is not None and ticket.protocol != XA:
                receiving.add(destination)
        else:
            order.hold(ticket)
    return chosen


def as_slow(candidates: Sequence[Ticket], slow: set[str]) -> Sequence[Ticket]:
    """Those that wait for the same slow shards as the first, and have nobody of their own batch
    before them who is left out.
    """
    if not slow:
        return candidates
    waits_for = slow.intersection(candidates[0].shards)
    chosen: list[Ticket] = []
    order = BatchOrder()
    for ticket in candidates:
        if slow.intersection(ticket.shards) == waits_for and not order.blocks(ticket):
            chosen.append(ticket)
        else:
            order.hold(ticket)
    return chosen


def _is_agreed_upon(ticket: Ticket) -> bool:
    """Whether it runs by two-phase commit across shards."""
    return ticket.protocol == XA and ticket.shards[0] != ticket.shards[1]


def together(candidates: Sequence[Ticket], group_max: int) -> list[Ticket]:
    """Which candidates to commit together with the first of them.

    Transfers across shards share one global transaction, and those within one of its shards ride
    along. A first one within one shard that no other leaves takes only its likes: they cost one
    local transaction. What is left out touches other shards, or comes after all that is chosen,
    so no order among shared accounts is lost.
    """
    first = candidates[0]
    crossing = {shard for t in candidates if t.shards[0] != t.shards[1] for shard in t.shards}
    shards = crossing if crossing.intersection(first.shards) else set(first.shards)
    chosen: list[Ticket] = []
    room = Room(group_max)
    limit = candidates[0].limit
    for ticket in candidates:
        if shards.issuperset(ticket.shards):
            limit = min(limit, ticket.limit)
            if len(chosen) >= limit:
                break
            chosen.append(ticket)
            if room.takes_last(ticket):
                break
    return chosen


def pause_after(skips: int, chance: Callable[[], float] = random.random) -> float:
    """How long to leave a transfer alone that was passed over `skips` times, in seconds."""
    pause: float = min(PAUSE_MIN_S * 2 ** min(skips, 10), PAUSE_MAX_S)
    return pause * chance()
