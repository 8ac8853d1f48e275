"""Transfers as a shard keeps them, and how to tell one that is not there from one undecided."""

from collections.abc import Sequence
from typing import Any

import msgspec

from ledger.model import Transfer
from shard_client.connection import Result, ShardConnection
from shard_client.records import StoredTransfer, Undecided
from shard_client.statements import (
    DIRTY,
    FIND_SETTLED_TRANSFERS,
    FIND_TRANSFERS,
    TOUCH,
    listing,
)

_decode = msgspec.json.Decoder(list[Any]).decode


def probe(
    connection: ShardConnection, transfers: Sequence[str], deadline: float
) -> dict[str, StoredTransfer | Undecided]:
    """Look for transfers, also in branches that are not finished.

    One that is not in the answer is held by no transaction on this shard, finished or not, at this
    moment. What is returned as stored is durable. Raises ShardError.
    """
    settled, _, dirty = connection.query(
        [
            listing(connection, FIND_SETTLED_TRANSFERS, transfers),
            DIRTY,
            listing(connection, FIND_TRANSFERS, transfers),
        ],
        deadline,
    )
    if settled.rows:
        make_durable(connection, deadline)
    found: dict[str, StoredTransfer | Undecided] = {
        stored.transfer.id: Undecided(stored) for stored in stored_of(connection, dirty)
    }
    found.update((stored.transfer.id, stored) for stored in stored_of(connection, settled))
    return found


def glimpse(
    connection: ShardConnection, transfers: Sequence[str], deadline: float
) -> list[StoredTransfer]:
    """Those of these transfers whose row stands in any transaction, finished or not: only what may
    be. Raises ShardError.
    """
    found = connection.query([DIRTY, listing(connection, FIND_TRANSFERS, transfers)], deadline)[1]
    return stored_of(connection, found)


def stored_of(connection: ShardConnection, found: Result) -> list[StoredTransfer]:
    """The rows of FIND_TRANSFERS. Raises ShardUnavailable if one did not fit into its text."""
    rows = []
    for (text,) in found.rows:
        if text is None:
            raise connection.not_whole(
                f"a transfer is NULL; max_allowed_packet is {connection.packet_max}"
            )
        rows.append(_decode(text))
    return [StoredTransfer(Transfer(*row[:9]), *row[9:]) for row in rows]


def make_durable(connection: ShardConnection, deadline: float) -> None:
    """Make what was read on this shard before count (rule R2). Raises ShardError."""
    if not connection.is_durable_before_visible:
        connection.query([TOUCH], deadline)
