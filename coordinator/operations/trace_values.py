"""A transfer's trace, as operators are told it."""

from enum import StrEnum
from typing import NamedTuple

from ledger.model import Entry, Transfer
from shard_client.records import StoredTransfer
from shard_client.xid import Gtrid


class Outcome(StrEnum):
    COMMITTED = "committed"
    REJECTED = "rejected"
    PENDING = "pending"
    # Its home alone knows, and cannot be asked.
    UNKNOWN = "unknown"


class Decision(StrEnum):
    """What home shows of a group's decision."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    NONE = "none"
    # Every branch has finished, so it is kept no longer.
    COLLECTED = "collected"
    # Collected, or never needed, as the group wrote on one shard alone: that cannot be told apart.
    NOT_KEPT = "not-kept"
    UNKNOWN = "unknown"


class Stage(StrEnum):
    """How far a transfer is on one of its shards."""

    NOTHING = "nothing"
    WRITTEN = "written"
    PREPARED = "prepared"
    # By TC/C: what it needs is kept for it, its balance is unchanged.
    RESERVED = "reserved"
    COMMITTED = "committed"
    # By TC/C and Saga: it was refused here, or given back, for good.
    UNDONE = "undone"
    UNKNOWN = "unknown"


class Part(NamedTuple):
    """A shard's part in a transfer: whose accounts, how far, and by what that is known."""

    shard: str
    accounts: list[str]
    stage: Stage
    because: str
    entries: list[Entry]


class TransferTrace(NamedTuple):
    """A transfer's trace so far. Without `stored` it is in this process's queue, and without a
    group as far as can be seen. `home` is the shard whose commit decides, `phase` that of one
    by TC/C or Saga that is not finished.
    """

    transfer: Transfer
    outcome: Outcome
    stored: StoredTransfer | None
    gtrid: Gtrid | None
    decision: Decision | None
    parts: list[Part]
    home: str | None = None
    phase: str | None = None
