"""Books for tests of the money rules: accounts and transfers in few words."""

from collections.abc import Mapping

from ledger.chain import first_link
from ledger.decide import Outcome, decide
from ledger.model import Account, Reason, Refusal, Status, Transfer

NOW = 1_000_000
Books = dict[str, Account]


def account(
    id_: str,
    balance: int = 0,
    limit: int | None = 0,
    *,
    currency: str = "EUR",
    status: Status = Status.OPEN,
    count: int = 0,
    floor: int = 0,
) -> Account:
    chain = first_link(id_, currency)
    return Account(id_, currency, balance, limit, status.value, count, floor, chain)


def transfer(
    source: str, destination: str, amount: int, currency: str = "EUR", id_: str = "t"
) -> Transfer:
    return Transfer(id_, "key", source, destination, amount, currency, None, "xa", NOW)


def books(*accounts: Account) -> Books:
    return {item.id: item for item in accounts}


def one(accounts: Mapping[str, Account], item: Transfer, now: int = NOW) -> Outcome:
    (outcome,), _ = decide(accounts, [item], now)
    return outcome


def reason(outcome: Outcome) -> Reason | None:
    return outcome.reason if isinstance(outcome, Refusal) else None
