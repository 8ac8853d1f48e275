"""One side of a transfer by itself, on one account row: `ledger.decide.move`, for TC/C and Saga."""

from enum import IntEnum

from eventstore.machine.compiled import Number, Truth, compiled, inlined, types
from eventstore.machine.currencies import TABLE, Table
from eventstore.machine.rules import (
    BALANCE,
    CHANGES,
    EXPECTED,
    HELD,
    META,
    STAMP,
    Rows,
    currency_in,
    enter,
    plus,
    refuse_credit,
    refuse_debit,
    status_in,
)
from eventstore.rows import Code, StatusCode
from ledger.model import BALANCE_MIN


class MoveKind(IntEnum):
    """The moves of `ledger.decide.Move`, by the same names."""

    RESERVE = 0
    RELEASE = 1
    PAY = 2
    EXPECT = 3
    EXPECT_NO_MORE = 4
    RECEIVE = 5
    DEBIT = 6
    CREDIT = 7
    REFUND = 8


# How the amount goes into each of the account's sums, by the kind of the move.
_BALANCE_SIGN = (0, 0, -1, 0, 0, 1, -1, 1, 1)
_HELD_SIGN = (1, -1, -1, 0, 0, 0, 0, 0, 0)
_EXPECTED_SIGN = (0, 0, 0, 1, -1, -1, 0, 0, 0)

# Beside those of `rows.Code` a move has two outcomes. What would be held, or expected, is beyond
# what can be kept:
SUM_OVERFLOW = 254
# Our own mistake, and nothing was changed: the account is gone, less is held or expected than the
# move takes, or a balance for which there was room has none.
BROKEN = 255


@inlined
def _refuse_as_source(
    rows: Rows, currencies: Table, source: Number, amount: Number, currency: Number
) -> Number:
    if source < 0:
        return Code.NO_SOURCE
    meta = rows[source, META]
    if status_in(meta) == StatusCode.CLOSED:
        return Code.SOURCE_CLOSED
    if status_in(meta) == StatusCode.FROZEN:
        return Code.SOURCE_FROZEN
    if currency_in(meta, currencies) != currency:
        return Code.SOURCE_CURRENCY
    return refuse_debit(rows, source, amount)


@inlined
def _refuse_as_destination(
    rows: Rows, currencies: Table, destination: Number, amount: Number, currency: Number
) -> Number:
    if destination < 0:
        return Code.NO_DESTINATION
    meta = rows[destination, META]
    if status_in(meta) == StatusCode.CLOSED:
        return Code.DESTINATION_CLOSED
    if currency_in(meta, currencies) != currency:
        return Code.DESTINATION_CURRENCY
    return refuse_credit(rows, destination, amount)


@inlined
def _refuse(
    rows: Rows,
    currencies: Table,
    account: Number,
    kind: Number,
    amount: Number,
    currency: Number,
) -> Number:
    if kind == MoveKind.RESERVE or kind == MoveKind.DEBIT:
        return _refuse_as_source(rows, currencies, account, amount, currency)
    if kind == MoveKind.EXPECT or kind == MoveKind.CREDIT:
        return _refuse_as_destination(rows, currencies, account, amount, currency)
    if kind == MoveKind.REFUND and account >= 0:
        return refuse_credit(rows, account, amount)
    return Code.DONE


@inlined
def _is_beyond(rows: Rows, account: Number, kind: Number, amount: Number) -> Truth:
    """Whether what is held, or expected, would leave 64 bits."""
    if kind == MoveKind.RESERVE:
        return plus(rows[account, HELD], amount)[1]
    return kind == MoveKind.EXPECT and plus(rows[account, EXPECTED], amount)[1]


@inlined
def _fits(balance: Number, sign: Number, amount: Number) -> Truth:
    if sign > 0:
        return not plus(balance, amount)[1]
    return sign == 0 or balance >= BALANCE_MIN + amount


@compiled(types.int64(types.int64[:, ::1], TABLE, *[types.int64] * 5))
def move(
    rows: Rows,
    currencies: Table,
    account: Number,
    kind: Number,
    amount: Number,
    currency: Number,
    now: Number,
) -> Number:
    """Do a move of an amount of 1 or more, or refuse it: DONE, a Code, SUM_OVERFLOW or BROKEN.

    `account` is its number, -1 if it does not exist; `currency` is the transfer's (see
    `rows.currency_number`); `now` is a stamp in microseconds.
    """
    refused = _refuse(rows, currencies, account, kind, amount, currency)
    if refused != Code.DONE:
        return refused
    if account < 0:
        return BROKEN
    if _is_beyond(rows, account, kind, amount):
        return SUM_OVERFLOW
    held = rows[account, HELD] + _HELD_SIGN[kind] * amount
    expected = rows[account, EXPECTED] + _EXPECTED_SIGN[kind] * amount
    sign = _BALANCE_SIGN[kind]
    if held < 0 or expected < 0 or not _fits(rows[account, BALANCE], sign, amount):
        return BROKEN
    rows[account, HELD] = held
    rows[account, EXPECTED] = expected
    if sign != 0:
        enter(rows, account, sign * amount, max(now, rows[account, STAMP]))
    else:
        rows[account, CHANGES] += 1
    return Code.DONE
