"""One side of a transfer by itself: the compiled moves and `ledger.move` say and do the same."""

from itertools import product

import numpy as np
import pytest

from eventstore.machine.currencies import Currencies
from eventstore.machine.moves import BROKEN, SUM_OVERFLOW, MoveKind
from eventstore.machine.moves import move as compiled_move
from eventstore.machine.rules import (
    BALANCE,
    CHANGES,
    COUNT,
    CURRENCY_AT,
    EXPECTED,
    HELD,
    LIMIT,
    META,
    STAMP,
    UNLIMITED_BIT,
    Rows,
)
from eventstore.rows import Code, StatusCode, currency_number
from ledger.decide import Move, Moved, move
from ledger.errors import Bug
from ledger.model import (
    AMOUNT_MAX,
    BALANCE_MAX,
    BALANCE_MIN,
    Account,
    Reason,
    Refusal,
    Status,
    Transfer,
)

_BALANCES = [BALANCE_MIN, BALANCE_MIN + 1, -7, 0, 7, BALANCE_MAX - 1, BALANCE_MAX]
_SUMS = [0, 1, 7, BALANCE_MAX]
_LIMITS = [None, 0, 7, AMOUNT_MAX]
_AMOUNTS = [1, 7, 8, 2**62, AMOUNT_MAX - 1, AMOUNT_MAX]
_REASONS = {
    Code.NO_SOURCE: Reason.ACCOUNT_NOT_FOUND,
    Code.NO_DESTINATION: Reason.ACCOUNT_NOT_FOUND,
    Code.SOURCE_CLOSED: Reason.ACCOUNT_CLOSED,
    Code.DESTINATION_CLOSED: Reason.ACCOUNT_CLOSED,
    Code.SOURCE_FROZEN: Reason.ACCOUNT_FROZEN,
    Code.SOURCE_CURRENCY: Reason.CURRENCY_MISMATCH,
    Code.DESTINATION_CURRENCY: Reason.CURRENCY_MISMATCH,
    Code.FUNDS: Reason.INSUFFICIENT_FUNDS,
    Code.SOURCE_OVERFLOW: Reason.BALANCE_OVERFLOW,
    Code.DESTINATION_OVERFLOW: Reason.BALANCE_OVERFLOW,
    SUM_OVERFLOW: Reason.BALANCE_OVERFLOW,
}
# The first is another one than an empty row's.
_CODES = ["USD", "EUR", "EUR00000"]
_CURRENCIES = Currencies(len(_CODES))
_CURRENCIES.table[:] = len(_CODES), *map(currency_number, _CODES)


def _row(account: Account) -> Rows:
    row = np.zeros((1, 8), np.int64)
    limit = account.overdraft_limit
    row[0, [BALANCE, HELD, EXPECTED]] = account.balance, account.held, account.expected
    row[0, [LIMIT, STAMP]] = AMOUNT_MAX if limit is None else limit, account.stamp_floor
    unlimited = UNLIMITED_BIT if limit is None else 0
    status = StatusCode[Status(account.status).name]
    row[0, META] = status | unlimited | _CODES.index(account.currency) << CURRENCY_AT
    return row


def _check(what: Move, account: Account, amount: int, now: int = 100) -> int:
    """Compare one move; gives its outcome."""
    transfer = Transfer("t", "k", "a", "a", amount, "EUR", None, "tcc", 0)
    row = _row(account)
    before = row.copy()
    kind, currency = MoveKind[what.name], currency_number("EUR")
    code = compiled_move(row, _CURRENCIES.table, 0, kind, amount, currency, now)
    try:
        found = move(what, transfer, account, now)
    except Bug:
        assert code == BROKEN
        found = None
    if isinstance(found, Moved) and abs(found.account.balance) > BALANCE_MAX:
        # The ledger's numbers have no end; such an account had no room that was kept for it.
        assert code == BROKEN
        found = None
    if isinstance(found, Moved):
        after = found.account
        assert code == Code.DONE
        sums = [after.balance, after.held, after.expected]
        assert row[0, [BALANCE, HELD, EXPECTED]].tolist() == sums
        assert row[0, [COUNT, STAMP]].tolist() == [after.entry_count, after.stamp_floor]
        assert row[0, CHANGES] == 1
        assert row[0, [LIMIT, META]].tolist() == before[0, [LIMIT, META]].tolist()
    else:
        assert row.tolist() == before.tolist()
    if isinstance(found, Refusal):
        assert _REASONS[code] == found.reason, (what, account, amount)
    return int(code)


@pytest.mark.parametrize("what", list(Move), ids=lambda what: what.name)
def test_whatever_stands_in_an_account_a_move_does_the_same(what: Move) -> None:
    reached = set()
    for balance, limit, held, expected in product(_BALANCES, _LIMITS, _SUMS, _SUMS):
        account = Account("a", "EUR", balance, limit, "open", 0, 100, "", held, expected)
        reached |= {_check(what, account, amount) for amount in _AMOUNTS}
    assert Code.DONE in reached
    assert reached > {Code.DONE}, "nothing was ever refused"


@pytest.mark.parametrize("what", list(Move), ids=lambda what: what.name)
def test_status_currency_and_stamps_are_looked_at_alike(what: Move) -> None:
    for status, currency, floor in product(Status, _CODES, [99, 100, 101]):
        account = Account("a", currency, 9, 0, status.value, 0, floor, "", 5, 5)
        _check(what, account, 5)


@pytest.mark.parametrize("what", list(Move), ids=lambda what: what.name)
def test_an_account_that_is_not_there(what: Move) -> None:
    rows = np.zeros((1, 8), np.int64)
    kind, currency = MoveKind[what.name], currency_number("EUR")
    code = compiled_move(rows, _CURRENCIES.table, -1, kind, 1, currency, 1)
    transfer = Transfer("t", "k", "a", "b", 1, "EUR", None, "tcc", 0)
    try:
        found = move(what, transfer, None, 1)
    except Bug:
        assert code == BROKEN
    else:
        assert isinstance(found, Refusal)
        assert code == (Code.NO_DESTINATION if found.is_recorded else Code.NO_SOURCE)
    assert not rows.any()
