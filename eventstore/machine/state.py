"""The accounts: their rows, their ids, and where to find them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine import entries
from eventstore.machine.currencies import Currencies
from eventstore.machine.entries import ENTRY_BYTES
from eventstore.machine.index import Index
from eventstore.machine.memory import Fill, reserve_bytes, reserve_words
from eventstore.machine.name_cache import NameCache, Named
from eventstore.machine.rules import (
    CURRENCY_AT,
    CURRENCY_BITS,
    META,
    STATUS_BITS,
    UNFINISHED_AT,
    UNFINISHED_BITS,
    UNLIMITED_BIT,
    Rows,
)
from eventstore.machine.texts import ID_BYTES_MAX, account_words
from eventstore.rows import StatusCode
from ledger.errors import Bug
from ledger.model import Account, Status

_ROW_WORDS = 8
_END_BYTES = 8
# In a dump, besides its id.
ACCOUNT_BYTES = _ROW_WORDS * 8 + _END_BYTES + ENTRY_BYTES


class Standing(NamedTuple):
    """An account, without its chain, which is a projection's; how often anything of it was changed;
    and how many transfers from it are not finished.
    """

    account: Account
    changes: int
    unfinished: int


class Accounts:
    """All accounts, by numbers that are given in the order of their openings: 0, 1, 2, ...

    `rows` is of shape (limit, 8), see `rules.py`. The compiled loop opens accounts in it, `index`
    and `currencies`; `add_id` follows with each one's id.
    """

    def __init__(self, key: bytes, limit: int, currencies_limit: int) -> None:
        if currencies_limit > CURRENCY_BITS + 1:
            raise Bug(f"rows have room for {CURRENCY_BITS + 1} currencies, not {currencies_limit}")
        self.rows: Rows = reserve_words(limit * _ROW_WORDS).view(np.int64).reshape(limit, -1)
        self.index = Index(key)
        self.names = NameCache(key)
        self.currencies = Currencies(currencies_limit)
        # Where each id ends, in the ids one after the other.
        self._ends: NDArray[np.uint64] = reserve_words(limit)
        self._ids: NDArray[np.uint8] = reserve_bytes(limit * ID_BYTES_MAX)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add_id(self, account: str) -> None:
        """The id of the account that was opened next."""
        encoded = account.encode("ascii")
        start = self._end_before(self._count)
        end = start + len(encoded)
        self._ids[start:end] = np.frombuffer(encoded, np.uint8)
        self._ends[self._count] = end
        self._count += 1

    @property
    def named(self) -> Named:
        """What the names of accounts are looked up in first."""
        return Named(self.names.lines, self._ids, self._ends)

    def id_of(self, number: int) -> str:
        """The id of the account with this number. Raises Bug if there is none."""
        if not 0 <= number < self._count:
            raise Bug(f"account number {number} was not given: there are {self._count} accounts")
        start, end = self._end_before(number), self._end_before(number + 1)
        return self._ids[start:end].tobytes().decode("ascii")

    def ids_from(self, first: int, most: int) -> tuple[bytes, NDArray[np.uint32]]:
        """The ids of accounts from a number on, `most` at most: one after the other, and where each
        of them ends.
        """
        end = min(first + most, self._count)
        if first >= end:
            return b"", np.empty(0, np.uint32)
        start = self._end_before(first)
        ends = (self._ends[first:end] - np.uint64(start)).astype(np.uint32)
        return self._ids[start : start + int(ends[-1])].tobytes(), ends

    def number_of(self, account: str) -> int | None:
        """The number of the account with this id; None if there is none."""
        return self.index.find(*account_words(account))

    def currencies_of(self, count: int) -> NDArray[np.int64]:
        """Of each of the first accounts, so many, the index of its currency."""
        indexes: NDArray[np.int64] = self.rows[:count, META] >> CURRENCY_AT & CURRENCY_BITS
        return indexes

    def standing(self, number: int) -> Standing:
        """An account as it is now."""
        account, row = self.id_of(number), self.rows[number].tolist()
        currency = self.currencies.text_of(row[META] >> CURRENCY_AT & CURRENCY_BITS)
        return _standing(account, currency, row)

    def bytes_of_rows(self) -> memoryview:
        """The rows of all accounts."""
        return self.rows[: self._count].reshape(-1).view(np.uint8).data

    def bytes_of_ids(self) -> tuple[memoryview, memoryview]:
        """All ids one after the other, and where each ends."""
        ends = self._ends[: self._count]
        return self._ids[: self._end_before(self._count)].data, ends.view(np.uint8).data

    def dump(self) -> Iterator[memoryview]:
        """All that there is of them, piece by piece; each is to be used before the next."""
        yield self.bytes_of_rows()
        yield from self.bytes_of_ids()
        yield self.currencies.bytes_of_all()
        yield from entries.dump(self.index)

    def load(self, count: int, id_bytes: int, currencies: int, fill: Fill) -> None:
        """Take so many that were dumped, where there is none yet and room for them; `id_bytes`
        is how long all ids are. Raises as `entries.load` does.
        """
        self._count = count
        fill(self.bytes_of_rows())
        fill(self._ids[:id_bytes].data)
        fill(self._ends[:count].view(np.uint8).data)
        self.currencies.load(currencies, fill)
        entries.load(self.index, count, fill)

    def _end_before(self, number: int) -> int:
        return int(self._ends[number - 1]) if number else 0


def _standing(account: str, currency: str, row: list[int]) -> Standing:
    balance, limit, held, expected, stamp, count, changes, meta = row
    overdraft_limit = None if meta & UNLIMITED_BIT else limit
    status = Status[StatusCode(meta & STATUS_BITS).name].value
    terms = (account, currency, balance, overdraft_limit, status)
    found = Account(*terms, count, stamp, chain="", held=held, expected=expected)
    return Standing(found, changes, meta >> UNFINISHED_AT & UNFINISHED_BITS)
