"""A shard's books as they are at one moment, and what else audits and exports ask of a shard,
whatever kind of shard it is.

Everything here raises ShardError. ShardUnavailable: the shard cannot be reached, or what it answers
is not whole.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, groupby
from typing import NamedTuple, Protocol

from ledger.model import Account, Entry
from ledger.transfer_audit import RESERVING, Traces
from shard_client.records import PreparedBranch, StoredTransfer


class TransferRow(NamedTuple):
    """A transfer as the audit of a shard needs it; `stamp` is when it was decided. `gtrid` is ""
    for one by two-phase commit, and for one that a ledger group has decided by itself.
    """

    id: str
    status: str
    source: str
    destination: str
    amount: int
    currency: str
    stamp: int
    protocol: str
    gtrid: str


class PhaseOf(NamedTuple):
    """A row of the phase table as the audit of a shard needs it."""

    transfer: str
    gtrid: str
    protocol: str
    phase: str
    source: str
    amount: int

    @property
    def is_reserving(self) -> bool:
        """Whether its amount is held on the source."""
        return (self.protocol, self.phase) == RESERVING


class StepOf(NamedTuple):
    """A step as the audit of a shard needs it."""

    transfer: str
    gtrid: str
    account: str
    amount: int
    state: str


class Terms(NamedTuple):
    """What a transfer says that it moves."""

    source: str
    destination: str
    amount: int
    currency: str


class GroupRow(NamedTuple):
    """On the home: a committed decision and the shards of its branches. Elsewhere: a marker."""

    gtrid: str
    is_decision: bool
    shards: tuple[str, ...]
    found_on: str


class Books(ABC):
    """All that a shard holds, at the moment in which this is made; to be closed. What a kind of
    shard does not have is empty.

    For one thread. Streams of accounts, entries, transfers, phases and steps may be read side by
    side; of the others one at a time.
    """

    shard: str

    @abstractmethod
    def close(self) -> None:
        """The books are no longer needed."""

    # --- accounts and entries -------------------------------------------------------------------

    @abstractmethod
    def accounts(self) -> Iterator[Account]:
        """Every account, in the order of their ids."""

    @abstractmethod
    def account(self, id_: str) -> Account | None:
        """One account; None if it is not there."""

    @abstractmethod
    def entries(self, account: str | None = None, stamps: range | None = None) -> Iterator[Entry]:
        """Every entry, in the order of accounts and numbers; those of one account; those stamped
        within a range. There is no index by time: the others are passed over.
        """

    def histories(
        self, stamps: range | None = None
    ) -> Iterator[tuple[Account | str, Iterator[Entry]]]:
        """Every account with its entries, or those stamped within a range; and the id alone of what
        has entries and is no account. Entries are to be read before the next account is.
        """
        groups = groupby(self.entries(stamps=stamps), key=lambda entry: entry.account)
        group = next(groups, None)
        for account in self.accounts():
            while group and group[0] < account.id:
                yield group
                group = next(groups, None)
            if group and group[0] == account.id:
                yield account, group[1]
                group = next(groups, None)
            else:
                yield account, iter(())
        if group:
            yield from chain([group], groups)

    # --- transfers ------------------------------------------------------------------------------

    @abstractmethod
    def transfers(self) -> Iterator[TransferRow]:
        """Every transfer that has an outcome, once, in an order of the shard's own."""

    @abstractmethod
    def phases(self, source: str | None = None) -> Iterator[PhaseOf]:
        """Every row of the phase table, or those of one source."""

    @abstractmethod
    def steps(self, account: str | None = None, state: str = "") -> Iterator[StepOf]:
        """Every step, or those of one account in a state."""

    @abstractmethod
    def refunded(self, transfers: Collection[str]) -> dict[str, Terms]:
        """Those of these transfers that are rejected Sagas: they alone may have a refund."""

    @abstractmethod
    def by_transfer(self, parts: Iterable[int], of: int) -> Iterator[Traces]:
        """What this shard holds of each transfer whose id's crc32 modulo `of` is in `parts`, in
        the order of the ids.
        """

    @abstractmethod
    def of_transfers(
        self, transfers: Collection[str], accounts: Collection[str]
    ) -> Iterator[Traces]:
        """What this shard holds of some transfers, as far as it is on some accounts, in the order
        of the ids.
        """

    @abstractmethod
    def ends_of(self, transfers: Collection[str]) -> set[str]:
        """The accounts that transfers name in their rows and their rows of the phase table."""

    @abstractmethod
    def groups(self) -> Iterator[GroupRow]:
        """Committed decisions and markers, in the order of their gtrids."""

    # --- the shard itself -----------------------------------------------------------------------

    @abstractmethod
    def clock(self) -> int:
        """What the shard's clock says now, as a stamp."""

    @abstractmethod
    def ahead(self) -> Iterator[tuple[str, int]]:
        """The accounts that are stamped ahead of the clock, and their floors."""

    @abstractmethod
    def slots(self) -> list[tuple[int, int]]:
        """The ranges of slots that the shard says it owns, in their order."""


class AuditCalls(Protocol):
    """What audits and exports ask of a shard beside its books, as it is now; to be closed. For one
    thread. A deadline is a time of `time.monotonic()`.
    """

    def is_durable_before_visible(self) -> bool:
        """Whether what can be read is there for good (rule R2)."""

    def make_durable(self, deadline: float) -> None:
        """What anybody has read here before is there for good when this returns."""

    def read_clock(self, deadline: float) -> int:
        """The shard's clock, as a stamp."""

    def raise_floors(
        self, account: str | None, after: str, stamp: int, deadline: float
    ) -> str | None:
        """Let no later entry be stamped before `stamp`: on the next accounts behind `after`, or on
        one account. Gives the last of them, None if there are none left. May be repeated.

        Raises TryAgain when a group is at work on one of them and does not end within a second.
        """

    def glimpse(self, ids: Sequence[str], deadline: float) -> list[StoredTransfer]:
        """Those of these transfers whose row stands in any transaction, finished or not: only what
        may be.
        """

    def list_prepared(self, deadline: float) -> list[PreparedBranch]:
        """The branches that are prepared and wait for a decision."""

    def close(self) -> None:
        """Nothing more will be asked."""
