"""What becomes of transfers that a shard has refused, and what their clients are told of it."""

from collections.abc import Iterable, Mapping

from coordinator.engine import group_log
from coordinator.engine.scheduler import Queue
from coordinator.engine.tickets import NotExecuted, NotExecutedReason, Ticket
from coordinator.shards.clocks import ClockWatch
from coordinator.telemetry.metrics import Metrics
from shard_client.errors import ShardError, StatementRefused, TooLarge, is_busy
from shard_client.xid import Gtrid


def in_smaller_groups(
    queue: Queue, gtrid: Gtrid, tickets: list[Ticket], error: StatementRefused
) -> list[Ticket]:
    """Lets the members of a group that was refused run in smaller ones, and gives them; one that
    was alone is answered, if nothing can have been written for it before.
    """
    group_log.log_refused(gtrid, tickets, error)
    if len(tickets) == 1:
        queue.withdraw(tickets, refused_alone(error))
        return [ticket for ticket in tickets if ticket.answer is None]
    for ticket in tickets:
        ticket.limit = len(tickets) // 2
    return tickets


def after_too_much(
    queue: Queue, gtrid: Gtrid, tickets: list[Ticket], lost: Mapping[str, ShardError]
) -> list[Ticket]:
    """The same for those of these whose shards were asked for too much at once, or would have had
    to answer too much.
    """
    for shard, error in lost.items():
        if isinstance(error, TooLarge):
            theirs = [ticket for ticket in tickets if shard in ticket.shards]
            others = [ticket for ticket in tickets if shard not in ticket.shards]
            tickets = others + (in_smaller_groups(queue, gtrid, theirs, error) if theirs else [])
    return tickets


def refuse_ahead(
    queue: Queue, clocks: ClockWatch, metrics: Metrics, ahead: list[tuple[Ticket, str]]
) -> None:
    """Answer those that cannot be stamped, with why. Their accounts are locked and their ids not
    found: nothing has happened, by groups before either.
    """
    if not ahead:
        return
    metrics.stamps_refused.inc(len(ahead))
    clocks.refused(ahead[0][1])
    queue.settle(
        (ticket, NotExecuted(NotExecutedReason.SHARD_UNAVAILABLE, f"{why}; nothing has happened"))
        for ticket, why in ahead
    )


def refused_alone(error: StatementRefused) -> NotExecuted:
    """What is told of a transfer that the database has refused, and that was alone in its group."""
    kind = (
        NotExecutedReason.SHARD_UNAVAILABLE
        if isinstance(error, TooLarge)
        else NotExecutedReason.INTERNAL_ERROR
    )
    return NotExecuted(kind, f"the database refused it, nothing was written: {error}")


def note_what_blocks(ticket: Ticket, lost: Mapping[str, ShardError], shards: Iterable[str]) -> None:
    """Keep what was wrong with these shards for the client of a ticket, should nothing come of it
    until its deadline; nothing if others were faster.
    """
    errors = [lost[shard] for shard in shards if shard in lost]
    blocking = [error for error in errors if not is_busy(error)]
    ticket.blocked_by = None
    if blocking:
        detail = f"until its deadline: {blocking[0]}"
        ticket.blocked_by = NotExecuted(NotExecutedReason.SHARD_UNAVAILABLE, detail)
