"""The values that everything else speaks of: accounts, transfers, entries, refusals.

Amounts and balances are integers in the currency's minor unit. Stamps are microseconds since
the epoch, UTC.
"""

from enum import StrEnum
from typing import NamedTuple

AMOUNT_MAX = 2**63 - 1
BALANCE_MAX = 2**63 - 1
BALANCE_MIN = -(2**63 - 1)


class Status(StrEnum):
    """What an account lets through."""

    OPEN = "open"
    FROZEN = "frozen"  # no debits
    CLOSED = "closed"  # neither; only at balance zero


class Account(NamedTuple):
    """An account as it stands on its shard.

    `overdraft_limit` says how far below zero the balance may go; None is without limit.
    `entry_count` is also the number of the last entry; `stamp_floor` is the earliest stamp that
    the next entry may carry. `chain` is that of the last entry, see `ledger/chain.py`.

    `held` is reserved for transfers that are not finished and cannot be spent otherwise; `expected`
    is what such transfers will bring, for which there must be room.
    """

    id: str
    currency: str
    balance: int
    overdraft_limit: int | None
    status: str
    entry_count: int
    stamp_floor: int
    chain: str
    held: int = 0
    expected: int = 0

    @property
    def available(self) -> int:
        return self.balance - self.held

    @property
    def lowest_balance(self) -> int:
        return BALANCE_MIN if self.overdraft_limit is None else -self.overdraft_limit


class Transfer(NamedTuple):
    """The user's wish. `metadata` is JSON text or None; `created_at` is when it was first taken."""

    id: str
    key: str
    source: str
    destination: str
    amount: int
    currency: str
    metadata: str | None
    protocol: str
    created_at: int


class Entry(NamedTuple):
    """One signed line in one account's history; `balance` and `chain` are those after it."""

    account: str
    number: int
    transfer: str
    amount: int
    balance: int
    counterparty: str
    stamp: int
    chain: str


class Reason(StrEnum):
    """Why a transfer is refused for good."""

    SAME_ACCOUNT = "same-account"
    ACCOUNT_NOT_FOUND = "account-not-found"
    ACCOUNT_CLOSED = "account-closed"
    ACCOUNT_FROZEN = "account-frozen"
    CURRENCY_MISMATCH = "currency-mismatch"
    INSUFFICIENT_FUNDS = "insufficient-funds"
    BALANCE_OVERFLOW = "balance-overflow"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    ACCOUNT_NOT_EMPTY = "account-not-empty"


class Refusal(NamedTuple):
    """No, for good: `detail` says what was wrong, with the values."""

    reason: Reason
    detail: str
    # False when there is no source account under whose lock the refusal could be kept.
    is_recorded: bool = True


class Posting(NamedTuple):
    """Yes: the two entries of a transfer, which carry the same stamp."""

    debit: Entry
    credit: Entry
