"""The money rules, and the only place for them.

Every protocol and every engine calls these functions. They depend on their arguments alone.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from ledger.chain import next_link
from ledger.errors import Bug
from ledger.model import (
    BALANCE_MAX,
    BALANCE_MIN,
    Account,
    Entry,
    Posting,
    Reason,
    Refusal,
    Status,
    Transfer,
)

Outcome = Posting | Refusal


def decide(
    accounts: Mapping[str, Account], transfers: Sequence[Transfer], now: int
) -> tuple[list[Outcome], dict[str, Account]]:
    """Decide transfers in their order: an outcome for each, and the accounts as they are after.

    `accounts` holds every account that the transfers name and that exists; one that is not in it
    does not exist. `now` is a stamp in microseconds. The second value holds only the accounts
    that have changed.
    """
    changed: dict[str, Account] = {}
    outcomes: list[Outcome] = []
    for transfer in transfers:
        source = changed.get(transfer.source) or accounts.get(transfer.source)
        destination = changed.get(transfer.destination) or accounts.get(transfer.destination)
        refusal = _refuse(transfer, source, destination)
        if refusal:
            outcomes.append(refusal)
            continue
        if source is None or destination is None:
            raise Bug(f"{transfer} is allowed from {source} to {destination}, of which one is none")
        stamp = max(now, source.stamp_floor, destination.stamp_floor)
        debit, changed[source.id] = _post(transfer, source, -transfer.amount, stamp)
        credit, changed[destination.id] = _post(transfer, destination, transfer.amount, stamp)
        outcomes.append(Posting(debit, credit))
    return outcomes, changed


def _refuse(
    transfer: Transfer, source: Account | None, destination: Account | None
) -> Refusal | None:
    """The ladder of refusals, in its fixed order."""
    if source is None:
        detail = f"there is no source account {transfer.source}"
        return Refusal(Reason.ACCOUNT_NOT_FOUND, detail, is_recorded=False)
    if transfer.source == transfer.destination:
        detail = f"source and destination are both {transfer.source}"
        return Refusal(Reason.SAME_ACCOUNT, detail)
    if destination is None:
        detail = f"there is no destination account {transfer.destination}"
        return Refusal(Reason.ACCOUNT_NOT_FOUND, detail)
    return (
        _refuse_closed(source)
        or _refuse_closed(destination)
        or _refuse_frozen(source)
        or _refuse_currency(transfer, source)
        or _refuse_currency(transfer, destination)
        or _refuse_debit(transfer, source)
        or _refuse_credit(transfer, destination)
    )


def _refuse_closed(account: Account) -> Refusal | None:
    if account.status == Status.CLOSED:
        return Refusal(Reason.ACCOUNT_CLOSED, f"account {account.id} is closed")
    return None


def _refuse_frozen(source: Account) -> Refusal | None:
    if source.status == Status.FROZEN:
        detail = f"account {source.id} is frozen: nothing can be debited"
        return Refusal(Reason.ACCOUNT_FROZEN, detail)
    return None


def _refuse_currency(transfer: Transfer, account: Account) -> Refusal | None:
    if account.currency != transfer.currency:
        detail = (
            f"the transfer is in {transfer.currency}, account {account.id} in {account.currency}"
        )
        return Refusal(Reason.CURRENCY_MISMATCH, detail)
    return None


def _refuse_debit(transfer: Transfer, source: Account) -> Refusal | None:
    left = source.balance - source.held - transfer.amount
    if left < source.lowest_balance and source.overdraft_limit is not None:
        held = f", {source.held} of it held," if source.held else ""
        detail = (
            f"account {source.id} has {source.balance} {source.currency}{held} and may go down to "
            f"{source.lowest_balance}; {transfer.amount} would leave {left}"
        )
        return Refusal(Reason.INSUFFICIENT_FUNDS, detail)
    return None if left >= BALANCE_MIN else _overflow(source, left)


def lacks_funds(transfer: Transfer, source: Account, more: int) -> bool:
    """Whether a debit that was refused for want of funds would be so with `more` in the account."""
    left = source.balance - source.held + more - transfer.amount
    return left < source.lowest_balance


def _refuse_credit(transfer: Transfer, destination: Account) -> Refusal | None:
    balance = destination.balance + destination.expected + transfer.amount
    return None if balance <= BALANCE_MAX else _overflow(destination, balance)


def _overflow(account: Account, balance: int) -> Refusal:
    detail = f"account {account.id} would come to {balance}, beyond what can be kept"
    return Refusal(Reason.BALANCE_OVERFLOW, detail)


def _post(transfer: Transfer, account: Account, amount: int, stamp: int) -> tuple[Entry, Account]:
    """One entry, and its account after it."""
    id_, currency, balance, overdraft_limit, status, entry_count, _, chain, *rest = account
    balance += amount
    entry_count += 1
    counterparty = transfer.destination if id_ == transfer.source else transfer.source
    fields = (id_, entry_count, transfer.id, amount, balance, counterparty, stamp)
    chain = next_link(chain, *fields)
    return (
        Entry(*fields, chain),
        Account(id_, currency, balance, overdraft_limit, status, entry_count, stamp, chain, *rest),
    )


# --- one side by itself ---------------------------------------------------------------------


class Move(StrEnum):
    """What a protocol of several transactions does to one account in one of them."""

    RESERVE = "reserve"
    RELEASE = "release"
    PAY = "pay what is reserved"
    EXPECT = "expect"
    EXPECT_NO_MORE = "expect no more"
    RECEIVE = "receive what is expected"
    DEBIT = "debit"
    CREDIT = "credit"
    REFUND = "refund"


class Moved(NamedTuple):
    """An account after a move, and the entry that the move has made, if it makes one."""

    account: Account
    entry: Entry | None


def move(what: Move, transfer: Transfer, account: Account | None, now: int) -> Moved | Refusal:
    """One side of a transfer by itself. What was reserved is always paid or released, and what is
    expected always received: these, and a RELEASE, are never refused.

    `account` is None if it does not exist; `now` is a stamp in microseconds. Raises Bug if there is
    less held, or expected, than the move is to take, or if the account is gone.
    """
    refusal = _REFUSE[what](transfer, account) if what in _REFUSE else None
    if refusal:
        return refusal
    if account is None:
        raise Bug(f"{what} of {transfer}: its account is gone")
    signs = _SIGNS[what]
    held = account.held + signs.held * transfer.amount
    expected = account.expected + signs.expected * transfer.amount
    if held < 0 or expected < 0:
        raise Bug(
            f"{what} of {transfer} on {account}: {held} would be held and {expected} expected, "
            "and neither can be less than nothing"
        )
    account = account._replace(held=held, expected=expected)
    if not signs.balance:
        return Moved(account, None)
    stamp = max(now, account.stamp_floor)
    entry, account = _post(transfer, account, signs.balance * transfer.amount, stamp)
    return Moved(account, entry)


class _Signs(NamedTuple):
    """How an amount goes into each of an account's sums."""

    balance: int = 0
    held: int = 0
    expected: int = 0


_SIGNS = {
    Move.RESERVE: _Signs(held=1),
    Move.RELEASE: _Signs(held=-1),
    Move.PAY: _Signs(balance=-1, held=-1),
    Move.EXPECT: _Signs(expected=1),
    Move.EXPECT_NO_MORE: _Signs(expected=-1),
    Move.RECEIVE: _Signs(balance=1, expected=-1),
    Move.DEBIT: _Signs(balance=-1),
    Move.CREDIT: _Signs(balance=1),
    Move.REFUND: _Signs(balance=1),
}


def _refuse_as_source(transfer: Transfer, source: Account | None) -> Refusal | None:
    if source is None:
        detail = f"there is no source account {transfer.source}"
        return Refusal(Reason.ACCOUNT_NOT_FOUND, detail, is_recorded=False)
    return (
        _refuse_closed(source)
        or _refuse_frozen(source)
        or _refuse_currency(transfer, source)
        or _refuse_debit(transfer, source)
    )


def _refuse_reserve(transfer: Transfer, source: Account | None) -> Refusal | None:
    refusal = _refuse_as_source(transfer, source)
    if refusal or source is None:
        return refusal
    return _refuse_sum(source, "held", source.held + transfer.amount)


def _refuse_expect(transfer: Transfer, destination: Account | None) -> Refusal | None:
    refusal = _refuse_as_destination(transfer, destination)
    if refusal or destination is None:
        return refusal
    return _refuse_sum(destination, "expected", destination.expected + transfer.amount)


def _refuse_sum(account: Account, what: str, amount: int) -> Refusal | None:
    """A sum of amounts has its end where a balance has: a balance far on the other side of zero
    leaves room for twice as much.
    """
    if amount <= BALANCE_MAX:
        return None
    detail = (
        f"account {account.id} would have {amount} {account.currency} {what} for transfers that "
        "are not finished, beyond what can be kept"
    )
    return Refusal(Reason.BALANCE_OVERFLOW, detail)


def _refuse_as_destination(transfer: Transfer, destination: Account | None) -> Refusal | None:
    if destination is None:
        detail = f"there is no destination account {transfer.destination}"
        return Refusal(Reason.ACCOUNT_NOT_FOUND, detail)
    return (
        _refuse_closed(destination)
        or _refuse_currency(transfer, destination)
        or _refuse_credit(transfer, destination)
    )


def _refuse_refund(transfer: Transfer, source: Account | None) -> Refusal | None:
    """Only room can be missing: an account with unfinished transfers is neither closed nor gone."""
    return _refuse_credit(transfer, source) if source else None


_REFUSE = {
    Move.RESERVE: _refuse_reserve,
    Move.DEBIT: _refuse_as_source,
    Move.EXPECT: _refuse_expect,
    Move.CREDIT: _refuse_as_destination,
    Move.REFUND: _refuse_refund,
}


def change_status(account: Account, status: Status, unfinished: int = 0) -> Refusal | None:
    """Whether an account may take this status; None is yes. `unfinished` counts the transfers from
    it that are not finished and may bring their money back.
    """
    if status != Status.CLOSED:
        return None
    if unfinished or account.held or account.expected:
        detail = (
            f"account {account.id} has transfers that are not finished ({unfinished} from it; "
            f"{account.held} {account.currency} held, {account.expected} expected); it can be "
            "closed when they are"
        )
        return Refusal(Reason.ACCOUNT_NOT_EMPTY, detail)
    if account.balance != 0:
        detail = (
            f"account {account.id} still has {account.balance} {account.currency}; "
            "it can be closed at balance zero only"
        )
        return Refusal(Reason.ACCOUNT_NOT_EMPTY, detail)
    return None


def refuse_reuse(stored: Transfer, asked: Transfer) -> Refusal | None:
    """Refuse a key, or an id that the client has drawn itself, that comes again with another body,
    field by field; None is the same body. Who asks without naming a protocol ("") takes any.
    """
    asked = asked._replace(protocol=asked.protocol or stored.protocol)
    # Source and key are the same wherever the id is made of them.
    fields = ("source", "key", "destination", "amount", "currency", "metadata", "protocol")
    differences = [
        f"{field} was {getattr(stored, field)}, now {getattr(asked, field)}"
        for field in fields
        if getattr(stored, field) != getattr(asked, field)
    ]
    if not differences:
        return None
    name = f"idempotency key {asked.key!r} of {asked.source}" if asked.key else f"id {asked.id}"
    detail = f"the {name} is used: {'; '.join(differences)}"
    return Refusal(Reason.IDEMPOTENCY_KEY_REUSED, detail, is_recorded=False)
