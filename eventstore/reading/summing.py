"""Sums over entries that do not leave 64 bits, however many and large they are: compiled.

A sum is two numbers: that of the lower 32 bits of what was added, and that of the rest. So many
entries as a sum would take to overflow are more than a group can have.
"""

import numpy as np
from numpy.typing import NDArray

from eventstore.reading.compiled import Number, compiled, inlined, types
from eventstore.reading.shapes import AMOUNT, BALANCE, SEQ, STAMP, Words

# The parts of sums of each currency: debits, credits, balances.
DEBITS, CREDITS, BALANCES, SUM_WORDS = 0, 2, 4, 6

Sums = NDArray[np.int64]
_ENTRIES = types.Array(types.uint64, 2, "C", readonly=True)
_SUMS = types.int64[:, ::1]
_LOW = np.int64(0xFFFFFFFF)
_ACCOUNT = np.uint64(0xFFFFFFFF)
_UPPER = np.int64(32)


@inlined
def _add(sums: Sums, currency: Number, at: Number, number: Number) -> None:
    sums[currency, at] += number & _LOW
    sums[currency, at + 1] += number >> _UPPER


@compiled(types.void(_ENTRIES, types.int64[::1], types.int64, types.int64, _SUMS, types.int64[::1]))
def add_entries(
    entries: Words,
    currencies: NDArray[np.int64],
    seq: int,
    time_us: int,
    sums: Sums,
    balances: NDArray[np.int64],
) -> None:
    """Add those entries that were made up to frame `seq`, and are stamped `time_us` or before, to
    the debits and credits of their accounts' currencies. `balances` gets what an account had after
    the last of its entries: they come in their order.
    """
    for i in range(len(entries)):
        if np.int64(entries[i, SEQ]) > seq or np.int64(entries[i, STAMP]) > time_us:
            continue
        account = np.int64(entries[i, 0] & _ACCOUNT)
        amount = np.int64(entries[i, AMOUNT])
        if amount < 0:
            _add(sums, currencies[account], DEBITS, -amount)
        else:
            _add(sums, currencies[account], CREDITS, amount)
        balances[account] = np.int64(entries[i, BALANCE])


@compiled(types.void(types.int64[::1], types.int64[::1], _SUMS))
def add_balances(balances: NDArray[np.int64], currencies: NDArray[np.int64], sums: Sums) -> None:
    """Add what accounts had to the balances of their currencies."""
    for account in range(len(balances)):
        _add(sums, currencies[account], BALANCES, balances[account])


def total(sums: Sums, currency: int, at: int) -> int:
    """A sum as one number, which may take more than 64 bits."""
    return int(sums[currency, at]) + (int(sums[currency, at + 1]) << 32)
