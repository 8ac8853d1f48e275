"""The currencies of a group: an account's row has room for the index of its own in them alone.

A currency is the number that its letters make: see `rows.currency_number`.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import Number, Truth, inlined, types
from eventstore.machine.memory import Fill
from eventstore.rows import currency_text

# How many there are; then they, in the order in which accounts were first opened in them.
Table = NDArray[np.int64]
TABLE = types.int64[::1]
_COUNT, _FIRST = 0, 1

# --- compiled -----------------------------------------------------------------------------------


@inlined
def currency_at(table: Table, index: Number) -> Number:
    return table[_FIRST + index]


@inlined
def index_for(table: Table, currency: Number) -> Number:
    """The index of a currency; one that is new gets the next. For that there must be room."""
    count = table[_COUNT]
    for index in range(count):
        if currency_at(table, index) == currency:
            return index
    table[_FIRST + count] = currency
    table[_COUNT] = count + 1
    return count


def _reaching(byte: int) -> np.uint64:
    """Added to eight bytes below 0x80, this sets the top bit of those that are `byte` or more."""
    return np.uint64((0x80 - byte) * 0x0101010101010101)


_REACHING_0, _BEYOND_9 = _reaching(ord("0")), _reaching(ord("9") + 1)
_REACHING_A, _BEYOND_Z = _reaching(ord("A")), _reaching(ord("Z") + 1)
_REACHING_1 = _reaching(1)
_TOPS, _FIRST_TOP, _THIRD_TOP = (np.uint64(n) for n in (0x8080808080808080, 0x80, 0x800000))
_BYTE = np.uint64(8)
_ZERO = np.uint64(0)


@inlined
def is_currency(number: Number) -> Truth:
    """Whether `currency_number` can have made it; looks at all bytes at once."""
    letters = np.uint64(number)
    if letters & _TOPS != _ZERO:
        return False
    is_there = (letters + _REACHING_1) & _TOPS
    # The only one that has none before it is the first: there is no gap.
    begins = is_there & ~(is_there << _BYTE)
    if begins != _FIRST_TOP or is_there & _THIRD_TOP == _ZERO:
        return False
    is_digit = (letters + _REACHING_0) & ~(letters + _BEYOND_9)
    is_capital = (letters + _REACHING_A) & ~(letters + _BEYOND_Z)
    return (is_digit | is_capital) & _TOPS == is_there


# --- the face -----------------------------------------------------------------------------------


class Currencies:
    """The list, of which compiled functions get the `table`. An opening looks through it."""

    def __init__(self, limit: int) -> None:
        self.table: Table = np.zeros(_FIRST + limit, np.int64)

    def __len__(self) -> int:
        return int(self.table[_COUNT])

    def text_of(self, index: int) -> str:
        """The letters of the currency with this index, which must be there."""
        return currency_text(int(self._all[index]))

    def count_new(self, currencies: Iterable[int]) -> int:
        """How many currencies there are among these that are not in the list."""
        named = set(currencies)
        return len(named.difference(self._all.tolist())) if named else 0

    def bytes_of_all(self) -> memoryview:
        """All of them, in their order."""
        return self._all.view(np.uint8).data

    def load(self, count: int, fill: Fill) -> None:
        """Take so many that `bytes_of_all` gave, into an empty list that has room for them."""
        self.table[_COUNT] = count
        fill(self._all.view(np.uint8).data)

    @property
    def _all(self) -> Table:
        return self.table[_FIRST : _FIRST + len(self)]
