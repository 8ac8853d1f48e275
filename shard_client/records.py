"""What is asked of a shard and what it answers: values, whatever kind of shard it is.

Stamps are in microseconds since 1970, UTC. What a phase and a state mean, the protocols know; here
they are text.
"""

from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from ledger.model import Account, Entry, Refusal, Transfer
from shard_client.xid import Gtrid

# How far a stamp may be ahead of a shard's clock: much more than clocks that are looked after
# differ, and little enough to wait for.
STAMP_AHEAD_MAX_US = 60_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PENDING, LAPSED = "pending", "lapsed"

# Whose attempt at which transfer: its id and the gtrid.
Attempt = tuple[str, str]


class TransferStatus(StrEnum):
    COMMITTED = "committed"
    REJECTED = "rejected"


class AsOf(NamedTuple):
    """A frame of a shard's list: its number and its stamp. All frames up to it were seen."""

    seq: int
    stamp: int


class Since(NamedTuple):
    """A frame that an answer is to have seen. `check`, the first digits of its hash, tells it from
    one of another list; `command` is the index of one in it. Without them neither is looked at.
    """

    seq: int
    command: int | None = None
    check: str = ""


class StoredTransfer(NamedTuple):
    """A transfer with its final outcome; `reason` and `detail` are those of a rejected one, and
    `seq` is the frame in which it was decided, on shards that keep a list.
    """

    transfer: Transfer
    gtrid: str
    status: str
    reason: str | None
    detail: str | None
    decided_at: int
    seq: int | None = None


class Undecided(NamedTuple):
    """A transfer's row stands in a branch that is not finished; its home knows the outcome."""

    stored: StoredTransfer


class AccountState(NamedTuple):
    """An account with its dates; on shards that keep a list `as_of` which frame it was so, and the
    number that it has there.
    """

    account: Account
    created_at: int
    updated_at: int
    as_of: AsOf | None = None
    number: int | None = None


class Statement(NamedTuple):
    """A page of an account's entries; `as_of` as in AccountState."""

    entries: list[Entry]
    as_of: AsOf | None = None


class BalanceThen(NamedTuple):
    """An account as it is, and its balance as it was at a time; `as_of` as in AccountState."""

    account: Account
    balance: int
    as_of: AsOf | None = None


class CurrencyTotals(NamedTuple):
    """Of all accounts in a currency: how many there were, the amounts that were taken from them and
    given to them in all, and what they had together. Sums may take more than 64 bits.
    """

    currency: str
    accounts: int
    debits: int
    credits: int
    balances: int


class TrialBalance(NamedTuple):
    """What all accounts had at a time, by currencies; `as_of` as in AccountState."""

    stamp: int
    currencies: list[CurrencyTotals]
    as_of: AsOf


class Terms(NamedTuple):
    """What an account is opened with."""

    id: str
    currency: str
    overdraft_limit: int | None


# --- groups --------------------------------------------------------------------------------------


class Locked(NamedTuple):
    """What a lock packet found; `slots` are those that the shard owns.

    `accounts` are locked and ours until the branch ends; an account that was asked for and is not
    in there is locked by somebody else or does not exist. `known` are transfers that have an
    outcome already; it counts only for those whose source account is in `accounts`. No account is
    brought to a stamp beyond `latest`, which is a little ahead of the shard's clock: it
    would keep such a stamp, and hand it on, for as long as the clock takes to come there.
    """

    slots: frozenset[int]
    is_writable: bool
    accounts: dict[str, Account]
    known: dict[str, StoredTransfer]
    latest: int


class Writes(NamedTuple):
    """All that a group writes on one shard."""

    accounts: list[Account]
    entries: list[Entry]
    transfers: list[StoredTransfer]


class PreparedBranch(NamedTuple):
    """A branch that has voted yes and waits for its group's decision."""

    gtrid: Gtrid
    shard: str


class DecisionOutcome(Enum):
    COMMITTED = "committed"
    ABORTED = "aborted"


class Look(Enum):
    """What a shard shows of a branch that XA says it does not know."""

    COMMITTED = "committed, its marker is there"
    BUSY = "about to be finished by somebody"
    ABSENT = "neither prepared nor committed here"


class Decision(NamedTuple):
    """A decision row; `branches` are the other shards of a committed group."""

    gtrid: str
    outcome: DecisionOutcome
    branches: list[str]
    decided_at: int


# --- shards that decide --------------------------------------------------------------------------


class Decided(NamedTuple):
    """What a shard that decides transfers itself says of one, for good: what is recorded of its id,
    and whether that was so before; or why it was refused without a record.
    """

    stored: StoredTransfer | None
    refusal: Refusal | None
    was_known: bool


# --- phases and steps (TC/C and Saga) ------------------------------------------------------------


class PhaseRow(NamedTuple):
    """A line of the phase table: an attempt at a transfer that is not finished.

    `outcome` is what is recorded of the transfer, "pending" or "lapsed" as long as nothing is.
    Stamps are in microseconds; the transfer is to be tried again at `next_attempt_at`.
    """

    transfer: Transfer
    gtrid: str
    phase: str
    outcome: str
    source_state: str
    destination_state: str
    attempts: int
    next_attempt_at: int
    expires_at: int
    updated_at: int
    reason: str | None
    detail: str | None

    @property
    def attempt(self) -> Attempt:
        return self.transfer.id, self.gtrid

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> "PhaseRow":
        return cls(Transfer(*row[:9]), *row[9:])


class StepRow(NamedTuple):
    """How far an attempt at a transfer is on its destination's shard; `is_empty` if it was
    cancelled there before it was tried; `reason` and `detail` say why it was refused.
    """

    transfer: str
    gtrid: str
    account: str
    amount: int
    state: str
    is_empty: int
    stamp: int
    reason: str | None
    detail: str | None

    @property
    def attempt(self) -> Attempt:
        return self.transfer, self.gtrid


class Wanted(NamedTuple):
    """What a local transaction locks and looks up: accounts, and by the ids of transfers their
    outcomes, their rows in the phase table, just the phases there, and their steps.
    """

    accounts: set[str]
    transfers: set[str]
    phases: set[str]
    standing: set[str]
    steps: set[str]


class Found(NamedTuple):
    """What it has found. Phases and steps are locked: who has them decides what comes next."""

    locked: Locked
    phases: dict[Attempt, PhaseRow]
    standing: dict[Attempt, str]
    steps: dict[Attempt, StepRow]


class PhaseState(NamedTuple):
    """What changes in a line of the phase table."""

    phase: str
    outcome: str
    source_state: str
    destination_state: str
    attempts: int
    next_attempt_at: int
    updated_at: int
    reason: str | None
    detail: str | None


class PhaseChange(NamedTuple):
    """A phase row that is found in the phase `was` comes to a new state; None takes it away. If it
    is in another phase by now, nothing of the transaction happens (TryAgain).
    """

    attempt: Attempt
    was: str
    state: PhaseState | None


class LocalWrites:
    """All that a local transaction writes."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.entries: list[Entry] = []
        self.transfers: list[StoredTransfer] = []
        self.begun: list[PhaseRow] = []
        self.changed: list[PhaseChange] = []
        self.new_steps: list[StepRow] = []
        self.next_steps: list[StepRow] = []
        # What was only read counts too: it is to be as durable as what is written (rule R2).
        self.rests_on_reading = False

    @property
    def is_empty(self) -> bool:
        lists = (self.entries, self.transfers, self.begun, self.changed)
        more = (self.new_steps, self.next_steps, self.accounts)
        return not any(lists) and not any(more) and not self.rests_on_reading


class Unfinished(NamedTuple):
    """The transfers of a group that are in one phase: how many, how often the worst of them was
    tried in vain, when the next one is tried, when the oldest was taken, and one of them.
    """

    gtrid: Gtrid
    protocol: str
    phase: str
    transfers: int
    attempts: int
    next_attempt_at: int
    created_at: int
    reason: str | None
    detail: str | None
    transfer: str


# --- reads at one moment -------------------------------------------------------------------------


class Held(NamedTuple):
    """Accounts that are locked against change, and the unfinished transfers from them."""

    accounts: dict[str, Account]
    phases: list[PhaseRow]


# --- clocks --------------------------------------------------------------------------------------


def clock_is_ahead(stamp: int, latest: int) -> str:
    """Why a stamp of this process's clock is not taken by a shard."""
    return (
        f"the clock of this coordinator says {moment(stamp)}, that of the shard "
        f"{moment(latest - STAMP_AHEAD_MAX_US)}: one of them is wrong, and nothing is stamped so"
    )


def moment(stamp: int) -> str:
    """A stamp for people."""
    try:
        return f"{_EPOCH + timedelta(microseconds=stamp):%Y-%m-%dT%H:%M:%SZ}"
    except OverflowError:
        return f"{stamp} us"
