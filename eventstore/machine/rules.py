"""The money rules of `ledger.decide` on account rows, in the same order: see `_refuse` there.

An account is a row of eight numbers of 64 bits; sums are compared without leaving 64 bits. `rows`
is of shape (accounts, 8); an account is its number, -1 where there is none; `currencies` is the
table of those that rows name by an index. What is compared with these functions, and must stay
equal, is in `tests/unit/eventstore/test_machine_*.py`.
"""

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import Number, Truth, inlined
from eventstore.machine.currencies import Table, currency_at
from eventstore.rows import UNLIMITED, Code, StatusCode
from ledger.model import AMOUNT_MAX, BALANCE_MIN

Rows = NDArray[np.int64]

# What stands in an account's row. LIMIT is how far below zero the balance may go. COUNT is of
# entries; CHANGES of everything that has changed the row.
BALANCE, LIMIT, HELD, EXPECTED, STAMP, COUNT, CHANGES, META = range(8)
# META: the status; whether there is no limit (LIMIT is AMOUNT_MAX then); the currency's index; how
# many transfers from the account are not finished.
STATUS_BITS, UNLIMITED_BIT = 0b11, 0b100
CURRENCY_AT, CURRENCY_BITS = 8, 0xFFFFFF
UNFINISHED_AT, UNFINISHED_BITS = 32, 0xFFFFFFFF


@inlined
def status_in(meta: Number) -> Number:
    return meta & STATUS_BITS


@inlined
def is_unlimited_in(meta: Number) -> Truth:
    return meta & UNLIMITED_BIT != 0


@inlined
def currency_in(meta: Number, currencies: Table) -> Number:
    return currency_at(currencies, meta >> CURRENCY_AT & CURRENCY_BITS)


@inlined
def unfinished_in(meta: Number) -> Number:
    return meta >> UNFINISHED_AT & UNFINISHED_BITS


@inlined
def with_status(meta: Number, status: Number) -> Number:
    return (meta & ~STATUS_BITS) | status


@inlined
def new_row(rows: Rows, account: Number, limit: Number, currency: Number, now: Number) -> None:
    """An account as its opening leaves it; `currency` is an index. Its row must be all zero."""
    is_unlimited = limit == UNLIMITED
    rows[account, LIMIT] = AMOUNT_MAX if is_unlimited else limit
    rows[account, STAMP] = now
    rows[account, META] = currency << CURRENCY_AT | (UNLIMITED_BIT if is_unlimited else 0)


# --- sums that may leave 64 bits ----------------------------------------------------------------


@inlined
def minus(number: Number, less: Number) -> tuple[Number, Truth]:
    """`number` less something that is not negative; and whether that is below what fits."""
    left = np.int64(np.uint64(number) - np.uint64(less))
    return left, left > number


@inlined
def plus(number: Number, more: Number) -> tuple[Number, Truth]:
    """`number` and something that is not negative; and whether that is above what fits."""
    total = np.int64(np.uint64(number) + np.uint64(more))
    return total, total < number


# --- the ladder ---------------------------------------------------------------------------------


@inlined
def refuse(
    rows: Rows,
    currencies: Table,
    source: Number,
    destination: Number,
    amount: Number,
    currency: Number,
) -> Number:
    """The Code of a transfer from an account that exists; DONE allows it."""
    if source == destination:
        return Code.SAME_ACCOUNT
    if destination < 0:
        return Code.NO_DESTINATION
    giving, taking = rows[source, META], rows[destination, META]
    if status_in(giving) == StatusCode.CLOSED:
        return Code.SOURCE_CLOSED
    if status_in(taking) == StatusCode.CLOSED:
        return Code.DESTINATION_CLOSED
    if status_in(giving) == StatusCode.FROZEN:
        return Code.SOURCE_FROZEN
    if currency_in(giving, currencies) != currency:
        return Code.SOURCE_CURRENCY
    if currency_in(taking, currencies) != currency:
        return Code.DESTINATION_CURRENCY
    refused = refuse_debit(rows, source, amount)
    if refused != Code.DONE:
        return refused
    return refuse_credit(rows, destination, amount)


@inlined
def refuse_debit(rows: Rows, source: Number, amount: Number) -> Number:
    """FUNDS or SOURCE_OVERFLOW if the account cannot give so much; else DONE."""
    left, is_below = minus(rows[source, BALANCE], rows[source, HELD])
    if not is_below:
        left, is_below = minus(left, amount)
    is_below = is_below or left < BALANCE_MIN
    if is_unlimited_in(rows[source, META]):
        return Code.SOURCE_OVERFLOW if is_below else Code.DONE
    return Code.FUNDS if is_below or left < -rows[source, LIMIT] else Code.DONE


@inlined
def refuse_credit(rows: Rows, destination: Number, amount: Number) -> Number:
    """DESTINATION_OVERFLOW if the account cannot take so much; else DONE."""
    balance, is_above = plus(rows[destination, BALANCE], rows[destination, EXPECTED])
    if not is_above:
        balance, is_above = plus(balance, amount)
    return Code.DESTINATION_OVERFLOW if is_above else Code.DONE


@inlined
def refuse_closing(rows: Rows, account: Number) -> Number:
    """NOT_EMPTY if the account cannot be closed; else DONE."""
    sums = rows[account, BALANCE] | rows[account, HELD] | rows[account, EXPECTED]
    is_empty = sums == 0 and unfinished_in(rows[account, META]) == 0
    return Code.DONE if is_empty else Code.NOT_EMPTY


# --- postings -----------------------------------------------------------------------------------


@inlined
def post(rows: Rows, source: Number, destination: Number, amount: Number, now: Number) -> None:
    """Both entries of a transfer that is allowed, with one stamp."""
    stamp = max(now, rows[source, STAMP], rows[destination, STAMP])
    enter(rows, source, -amount, stamp)
    enter(rows, destination, amount, stamp)


@inlined
def enter(rows: Rows, account: Number, amount: Number, stamp: Number) -> None:
    """One entry. The sum must fit."""
    rows[account, BALANCE] += amount
    rows[account, COUNT] += 1
    rows[account, STAMP] = stamp
    rows[account, CHANGES] += 1
