"""Of each account what its next entry has to follow on, and when it was opened and changed.

A row of twelve numbers of 64 bits, by the account's number; and of each its length and id, as they
stand in the chain's texts, one after the other.
"""

from binascii import a2b_base64
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.memory import reserve_bytes, reserve_words
from eventstore.machine.texts import ID_BYTES_MAX
from eventstore.rows import StatusCode
from ledger.chain import first_link
from ledger.errors import Bug
from ledger.ids import slot_of

HEAD_WORDS = 12
# CHAIN is four words: the digest of the account's last entry. STAMP is that of the last entry, or
# the time of the opening; CHANGED is when the status was last changed, or that time.
CHAIN, BALANCE, STAMP, COUNT, OPENED, CHANGED, NAME_AT, META = 0, 4, 5, 6, 7, 8, 9, 10
# META: the length of the name, which has the id's length in front; the slot; the status.
NAME_BITS, SLOT_AT, SLOT_BITS, STATUS_AT = 0xFF, 8, 0xFFF, 24
_NAME_BYTES_MAX = ID_BYTES_MAX + 3

Rows = NDArray[np.int64]
Names = NDArray[np.uint8]


class Head(NamedTuple):
    """An account as the read side has it; `chain` is as `ledger.chain` gives it."""

    balance: int
    stamp: int
    entries: int
    opened: int
    changed: int
    status: StatusCode
    chain: bytes


class Heads:
    """All of them. One thread changes them. What others see of an account that they know is its id;
    all else only while nothing is changed.
    """

    def __init__(self, limit: int) -> None:
        """Address space is reserved for `limit` accounts; memory is taken for those there are."""
        self._limit = limit
        self.rows: Rows = reserve_words(limit * HEAD_WORDS).view(np.int64).reshape(limit, -1)
        # Compiled functions read eight bytes at once, also at the end.
        self.names: Names = reserve_bytes(limit * _NAME_BYTES_MAX + 8)
        self.name_bytes = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def open(self, account: str, currency: str, now: int) -> int:
        """A new account; its number is the next one."""
        if self._count >= self._limit:
            raise Bug(f"there is room for {self._limit} accounts, as in the machine that has more")
        number, name = self._count, f"{len(account)}:{account}".encode("ascii")
        row, end = self.rows[number], self.name_bytes + len(name)
        self.names[self.name_bytes : end] = np.frombuffer(name, np.uint8)
        row[CHAIN : CHAIN + 4] = np.frombuffer(a2b_base64(first_link(account, currency)), "<i8")
        meta = len(name) | slot_of(account) << SLOT_AT
        row[BALANCE:] = 0, now, 0, now, now, self.name_bytes, meta, 0
        self.name_bytes = end
        self._count += 1
        return number

    def set_status(self, number: int, status: StatusCode, now: int) -> StatusCode | None:
        """The status that the account had, if this changes it."""
        self._check(number)
        row = self.rows[number]
        meta = int(row[META])
        before = StatusCode(meta >> STATUS_AT)
        if before == status:
            return None
        row[META] = meta & ((1 << STATUS_AT) - 1) | status << STATUS_AT
        row[CHANGED] = now
        return before

    def head(self, number: int) -> Head:
        """An account as it is now."""
        self._check(number)
        row = self.rows[number]
        _, _, _, _, balance, stamp, count, opened, changed, _, meta, _ = row.tolist()
        status = StatusCode(meta >> STATUS_AT)
        chain = row[CHAIN : CHAIN + 4].tobytes()
        return Head(balance, stamp, count, opened, max(stamp, changed), status, chain)

    def id_of(self, number: int) -> str:
        """The id of an account."""
        self._check(number)
        start, meta = self.rows[number, [NAME_AT, META]].tolist()
        name = self.names[start : start + (meta & NAME_BITS)].tobytes()
        return name.partition(b":")[2].decode("ascii")

    def load(self, rows: bytes, names: bytes) -> None:
        """Take accounts that were kept, behind those that are there."""
        count = len(rows) // (8 * HEAD_WORDS)
        end = self._count + count
        if end > self._limit:
            raise Bug(f"{end} accounts were kept, and there is room for {self._limit}")
        self.rows[self._count : end] = np.frombuffer(rows, "<i8").reshape(-1, HEAD_WORDS)
        self.names[self.name_bytes : self.name_bytes + len(names)] = np.frombuffer(names, np.uint8)
        self._count, self.name_bytes = end, self.name_bytes + len(names)

    def _check(self, number: int) -> None:
        if not 0 <= number < self._count:
            raise Bug(f"account number {number} was not given: there are {self._count} accounts")
