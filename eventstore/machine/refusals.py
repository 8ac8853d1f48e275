"""A stored outcome as the ledger's own refusal.

The accounts that the ladder looked at are built again from the details, and the ledger's own
functions are asked: no text is written twice.
"""

from typing import NamedTuple, Protocol

import numpy as np

from eventstore.machine.protocols import FIRST, REACTIONS
from eventstore.machine.texts import Body, account_id, transfer_of
from eventstore.rows import (
    NOBODY,
    CallCode,
    Code,
    Kind,
    ProtocolCode,
    StateCode,
    currency_text,
)
from ledger.decide import Move, change_status, decide, move, refuse_reuse
from ledger.errors import Bug
from ledger.model import Account, Posting, Refusal, Status, Transfer

# In front of a number that no account has, where an id stands else; no account's id begins so.
UNKNOWN_MARK = "#"
_TRANSFERS = range(Code.NO_SOURCE, Code.DESTINATION_OVERFLOW + 1)


class Terms(NamedTuple):
    """What an account's opening has said of it, for ever."""

    id: str
    currency: str


class Directory(Protocol):
    """Who knows what accounts there are. What is asked here never changes once it is so."""

    def number_of(self, account: str) -> int | None:
        """The number of the account with this id."""

    def terms(self, number: int) -> Terms:
        """The terms of the account with this number."""


def refusal(code: Code, body: Body, detail: np.void | None, directory: Directory) -> Refusal:
    """Why the ledger refused a command. `detail` is its row of `rows.DETAIL`, None if it has none.

    Raises Bug for an outcome that is no refusal of the ledger: DONE, REPLAYED, EXISTS, NO_ACCOUNT;
    and for what two commands are needed for: REUSED, see `reuse`, and REFUND_OVERFLOW, see
    `refund_refusal`.
    """
    kind = body.row["kind"]
    if kind in (Kind.BEGIN, Kind.CALL):
        transfer = transfer_of(body, lambda number: directory.terms(number).id)
        return _move_refusal(code, _first_move(body.row), transfer, detail)
    if kind == Kind.TRANSFER:
        transfer = transfer_of(body, lambda number: directory.terms(number).id)
        return transfer_refusal(code, transfer, detail)
    if code == Code.NOT_EMPTY and kind == Kind.STATUS:
        return closing_refusal(*directory.terms(_closed(body, directory)), detail)
    raise Bug(f"{code!r} of the command {body.row} is no refusal of the ledger")


def reuse(first: Body, asked: Body, directory: Directory) -> Refusal | None:
    """How a transfer differs from the first one with its id; None if it is the same. Source and key
    may differ too: a client that draws ids itself may have taken one that others have.
    """

    def id_of(number: int) -> str:
        return directory.terms(number).id

    return refuse_reuse(transfer_of(first, id_of), transfer_of(asked, id_of))


class _Numbers(NamedTuple):
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0


def _numbers(detail: np.void | None) -> _Numbers:
    return _Numbers(*(int(detail[name]) for name in "abcd")) if detail is not None else _Numbers()


def transfer_refusal(code: Code, transfer: Transfer, detail: np.void | None) -> Refusal:
    """Why the ledger refused a transfer; `code` and `detail` are its outcome. Raises Bug for an
    outcome that is no refusal.
    """
    numbers = _numbers(detail)
    if code in _TRANSFERS:
        source, destination = _accounts(code, transfer, numbers)
        accounts = {account.id: account for account in (source, destination) if account}
        (outcome,), _changed = decide(accounts, [transfer], now=0)
        if not isinstance(outcome, Posting):
            return outcome
    raise Bug(f"{code!r} of {transfer} with {numbers} is no refusal")


def refund_refusal(begin: Body, detail: np.void | None, directory: Directory) -> Refusal:
    """Why an attempt's money is not given back yet (REFUND_OVERFLOW); `begin` is its BEGIN."""
    transfer = transfer_of(begin, lambda number: directory.terms(number).id)
    return _move_refusal(Code.REFUND_OVERFLOW, Move.REFUND, transfer, detail)


def _first_move(row: np.void) -> Move:
    """What a BEGIN does to its source, or a CALL that may be refused to its destination."""
    if row["kind"] == Kind.BEGIN:
        kind = FIRST[ProtocolCode(int(row["protocol"]))].source
    else:
        kind = REACTIONS[StateCode.ABSENT, CallCode(int(row["step"]))].move
    if kind is None:
        raise Bug(f"{row} does nothing to its account, and was refused")
    return Move[kind.name]


def _move_refusal(code: Code, what: Move, transfer: Transfer, detail: np.void | None) -> Refusal:
    source, destination = _accounts(code, transfer, _numbers(detail))
    account = destination if what in (Move.EXPECT, Move.CREDIT) else source
    found = move(what, transfer, account, now=0)
    if not isinstance(found, Refusal):
        raise Bug(f"{code!r} is no refusal of {what} for {transfer}, by {_numbers(detail)}")
    return found


def closing_refusal(account: str, currency: str, detail: np.void | None) -> Refusal:
    """Why an account is not closed (NOT_EMPTY)."""
    balance, held, expected, unfinished = numbers = _numbers(detail)
    standing = _harmless(account, currency)._replace(balance=balance, held=held, expected=expected)
    found = change_status(standing, Status.CLOSED, unfinished)
    if found is None:
        raise Bug(f"account {account} was not closed, and {numbers} are no reason")
    return found


def _accounts(
    code: Code, transfer: Transfer, numbers: _Numbers
) -> tuple[Account | None, Account | None]:
    """Source and destination, as far as the ladder looked at them: up to the step of this code the
    transfer is allowed.
    """
    source = _harmless(transfer.source, transfer.currency)
    destination = _harmless(transfer.destination, transfer.currency)
    match code:
        case Code.NO_SOURCE:
            return None, None
        case Code.SAME_ACCOUNT | Code.NO_DESTINATION:
            return source, None
        case Code.SOURCE_CLOSED:
            source = source._replace(status=Status.CLOSED.value)
        case Code.DESTINATION_CLOSED:
            destination = destination._replace(status=Status.CLOSED.value)
        case Code.SOURCE_FROZEN:
            source = source._replace(status=Status.FROZEN.value)
        case Code.SOURCE_CURRENCY:
            source = source._replace(currency=currency_text(numbers.a))
        case Code.DESTINATION_CURRENCY:
            destination = destination._replace(currency=currency_text(numbers.a))
        case Code.FUNDS:
            limit = numbers.c
            source = source._replace(balance=numbers.a, held=numbers.b, overdraft_limit=limit)
        case Code.SOURCE_OVERFLOW | Code.HELD_OVERFLOW:
            source = source._replace(balance=numbers.a, held=numbers.b)
        case Code.REFUND_OVERFLOW:
            source = source._replace(balance=numbers.a, expected=numbers.b)
        case Code.DESTINATION_OVERFLOW | Code.EXPECTED_OVERFLOW:
            destination = destination._replace(balance=numbers.a, expected=numbers.b)
    return source, destination


def _harmless(account: str, currency: str) -> Account:
    """An account that lets everything through."""
    return Account(account, currency, 0, None, Status.OPEN.value, 0, 0, chain="")


def _closed(body: Body, directory: Directory) -> int:
    """The number of the account that was to be closed."""
    number: int | None = int(body.row["source"])
    if number == NOBODY:
        number = directory.number_of(account_id(body))
    if number is None:
        raise Bug(f"{body.row} was refused for an account that is not there: {account_id(body)}")
    return number
