"""The lines that groups leave in the log."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.engine.tickets import Ticket
from coordinator.protocols.two_phase_commit import Phase
from coordinator.telemetry.logs import few
from shard_client.errors import ShardError
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)


def fields(gtrid: Gtrid, tickets: Sequence[Ticket]) -> dict[str, Any]:
    """What a line about a group has: its name, and its transfers and their requests."""
    return {
        "gtrid": str(gtrid),
        "transfers": len(tickets),
        "transfer_ids": few(ticket.transfer.id for ticket in tickets),
        "request_ids": few(dict.fromkeys(t.request_id for t in tickets if t.request_id)),
    }


def log_end(
    gtrid: Gtrid, tickets: Sequence[Ticket], phase: Phase, lost: Mapping[str, ShardError]
) -> None:
    """How a group has ended: of interest if a shard was lost on the way, or nobody knows how."""
    level = logging.INFO if lost else logging.DEBUG
    if phase is Phase.COMMITTED:
        extra: dict[str, Any] = {"event": "group.committed"}
    elif phase is Phase.ABORTED:
        extra = {"event": "group.aborted"}
    else:
        level, extra = logging.WARNING, {"event": "group.unsettled"}
    if not log.isEnabledFor(level):
        return
    extra |= fields(gtrid, tickets) | {"lost": sorted(lost)}
    why = "".join(f"; {error}" for error in lost.values())
    log.log(level, "group %s of %d: %s%s", gtrid, len(tickets), phase, why, extra=extra)


def log_refused(gtrid: Gtrid, tickets: Sequence[Ticket], error: ShardError) -> None:
    """The database has refused a statement, perhaps because of one member."""
    extra = {"event": "group.refused", **fields(gtrid, tickets), "shard": error.shard}
    text = "group %s of %d was refused: %s"
    log.warning(text, gtrid, len(tickets), error, extra=extra | {"code": error.code})


def log_bug(gtrid: Gtrid, tickets: Sequence[Ticket], phase: str) -> None:
    """To be called where the exception is caught."""
    extra = {"event": "group.bug", **fields(gtrid, tickets)}
    log.exception("group %s broke while %s", gtrid, phase, extra=extra)


def log_kept_waiting(gtrid: Gtrid, ticket: Ticket) -> None:
    """A transfer was passed over too often, and its wait for a lock has then timed out."""
    extra = {
        "event": "transfer.kept_waiting",
        "transfer_id": ticket.transfer.id,
        "request_id": ticket.request_id,
        "gtrid": str(gtrid),
        "shards": sorted(set(ticket.shards)),
        "skips": ticket.skips,
        "waits": ticket.waits,
    }
    text = "transfer %s has timed out %d times, waiting for accounts that others keep locked"
    log.info(text, ticket.transfer.id, ticket.waits, extra=extra)
