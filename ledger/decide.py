"""The money rules, and the only place for them.

Every protocol and every engine calls these functions. They depend on their arguments alone.
"""

from collections.abc import Mapping, Sequence

from ledger.chain import next_link
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
        if refusal or source is None or destination is None:
            assert refusal is not None
            outcomes.append(refusal)
            continue
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
    for account in (source, destination):
        if account.status == Status.CLOSED:
            return Refusal(Reason.ACCOUNT_CLOSED, f"account {account.id} is closed")
    if source.status == Status.FROZEN:
        detail = f"account {source.id} is frozen: nothing can be debited"
        return Refusal(Reason.ACCOUNT_FROZEN, detail)
    for account in (source, destination):
        if account.currency != transfer.currency:
            detail = (
                f"the transfer is in {transfer.currency}, "
                f"account {account.id} in {account.currency}"
            )
            return Refusal(Reason.CURRENCY_MISMATCH, detail)
    return _refuse_amount(transfer, source, destination)


def _refuse_amount(transfer: Transfer, source: Account, destination: Account) -> Refusal | None:
    left = source.balance - transfer.amount
    if left < source.lowest_balance and source.overdraft_limit is not None:
        detail = (
            f"account {source.id} has {source.balance} {source.currency} and may go down to "
            f"{source.lowest_balance}; {transfer.amount} would leave {left}"
        )
        return Refusal(Reason.INSUFFICIENT_FUNDS, detail)
    for account, balance in ((source, left), (destination, destination.balance + transfer.amount)):
        if not BALANCE_MIN <= balance <= BALANCE_MAX:
            detail = f"account {account.id} would come to {balance}, beyond what can be kept"
            return Refusal(Reason.BALANCE_OVERFLOW, detail)
    return None


def _post(transfer: Transfer, account: Account, amount: int, stamp: int) -> tuple[Entry, Account]:
    """One entry, and its account after it."""
    id_, currency, balance, overdraft_limit, status, entry_count, _, chain = account
    balance += amount
    entry_count += 1
    counterparty = transfer.destination if amount < 0 else transfer.source
    fields = (id_, entry_count, transfer.id, amount, balance, counterparty, stamp)
    chain = next_link(chain, *fields)
    return (
        Entry(*fields, chain),
        Account(id_, currency, balance, overdraft_limit, status, entry_count, stamp, chain),
    )


def change_status(account: Account, status: Status) -> Refusal | None:
    """Whether an account may take this status; None is yes."""
    if status == Status.CLOSED and account.balance != 0:
        detail = (
            f"account {account.id} still has {account.balance} {account.currency}; "
            "it can be closed at balance zero only"
        )
        return Refusal(Reason.ACCOUNT_NOT_EMPTY, detail)
    return None


def refuse_reuse(stored: Transfer, asked: Transfer) -> Refusal | None:
    """Refuse a key that comes again with another body, field by field; None is the same body."""
    fields = ("destination", "amount", "currency", "metadata", "protocol")
    differences = [
        f"{field} was {getattr(stored, field)}, now {getattr(asked, field)}"
        for field in fields
        if getattr(stored, field) != getattr(asked, field)
    ]
    if not differences:
        return None
    detail = (
        f"the idempotency key {asked.key!r} of {asked.source} is used: {'; '.join(differences)}"
    )
    return Refusal(Reason.IDEMPOTENCY_KEY_REUSED, detail, is_recorded=False)
