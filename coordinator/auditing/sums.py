"""Transfers compared across shards as sums of digests, so that only those behind sums that differ
are looked at one by one.

For each part of the transfers' ids, what a transfer's row says is taken from three sums, to which
its debit, its credit, and the step at its destination are added: if all fits, all three are zero.

The two entries of a transfer by two-phase commit carry one time, which is digested too. Those by
Try-Confirm/Cancel and Saga do not, and an entry does not say by which protocol it came. So all
shards note first, in a field of bits, of which transfers they have a step; what has its bit set is
digested without the time. A transfer that only shares a bit with another is, too: few, and others
in every audit.

A Saga that was refused has given its source the money back: debit and refund cancel each other.
"""

from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b
from operator import add
from typing import NamedTuple
from zlib import crc32

from ledger.transfer_audit import ARRIVED, REFUSED, TRIED
from shard_client.books import PhaseOf, StepOf, Terms, TransferRow

# What is on its way makes it look at a small part of the transfers one by one.
PARTS = 2**16
# 2 MiB: with a million steps some 6 % of the other transfers share a bit.
_FIELD_BITS = 24
_SHIFT = 32 - _FIELD_BITS
_WITH_ENTRIES = {*ARRIVED.values(), REFUSED}


class Sums(NamedTuple):
    """What a shard adds to the comparison across all: the balances of each currency, three sums for
    each part, and the `open` parts, which are to be looked at whatever the sums say.
    """

    totals: Counter[str]
    debits: list[int]
    credits: list[int]
    steps: list[int]
    open: set[int]

    @classmethod
    def zero(cls) -> "Sums":
        return cls(Counter(), [0] * PARTS, [0] * PARTS, [0] * PARTS, set())

    def add(self, other: "Sums") -> None:
        self.totals.update(other.totals)
        self.open.update(other.open)
        for mine, theirs in zip(self[1:4], other[1:4], strict=True):
            mine[:] = map(add, mine, theirs)

    @property
    def parts(self) -> list[int]:
        """The parts to look at."""
        each = enumerate(zip(self.debits, self.credits, self.steps, strict=True))
        return sorted({*(part for part, sums in each if any(sums)), *self.open})


class Adding:
    """One shard's sums while they are added up; steps come first.

    `key` is drawn for each audit: nobody can prepare rows whose sums are those of others.
    """

    def __init__(self, key: bytes) -> None:
        self.sums = Sums.zero()
        self._key = key
        self._spread = int.from_bytes(key[:4]) | 1
        # Bits of the transfers whose entries carry times of their own; None if there are none.
        self.field: bytearray | None = None

    def phase(self, phase: PhaseOf) -> None:
        self.sums.open.add(crc32(phase.transfer.encode()) % PARTS)

    def step(self, step: StepOf) -> None:
        crc = crc32(step.transfer.encode())
        if step.state == TRIED:
            self.sums.open.add(crc % PARTS)
        if step.state in ARRIVED.values():
            self.sums.steps[crc % PARTS] += self._step_digest(*step[:4])
        if step.state in _WITH_ENTRIES:
            if self.field is None:
                self.field = bytearray(2**_FIELD_BITS // 8)
            bit = (crc * self._spread & 0xFFFFFFFF) >> _SHIFT
            self.field[bit >> 3] |= 1 << (bit & 7)

    def refunds(self, made: Iterable[tuple[str, Terms]], allowed: dict[str, Terms]) -> None:
        """Those refunds that no transfer allows are to be looked at."""
        self.sums.open.update(
            crc32(transfer.encode()) % PARTS
            for transfer, terms in made
            if allowed.get(transfer) != terms
        )

    def committed(self, row: TransferRow, *, has_step: bool) -> None:
        """What the row of a committed transfer says of its entries, and of its step."""
        id_, _, source, destination, amount, currency, stamp, _, gtrid = row
        crc = crc32(id_.encode())
        part = crc % PARTS
        digest = self.digest(crc, id_, source, destination, amount, currency, stamp)
        self.sums.debits[part] -= digest
        self.sums.credits[part] -= digest
        if has_step:
            self.sums.steps[part] -= self._step_digest(id_, gtrid, destination, amount)

    def digest(
        self,
        crc: int,
        transfer: str,
        source: str,
        destination: str,
        amount: int,
        currency: str,
        stamp: int,
    ) -> int:
        """What stands for one side of a transfer; `crc` is its id's crc32."""
        when: int | None = stamp
        if self.field is not None:
            bit = (crc * self._spread & 0xFFFFFFFF) >> _SHIFT
            if self.field[bit >> 3] >> (bit & 7) & 1:
                when = None
        text = f"{transfer}|{source}|{destination}|{amount}|{currency}|{when}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8, key=self._key).digest())

    def _step_digest(self, transfer: str, gtrid: str, account: str, amount: int) -> int:
        text = f"{transfer}|{gtrid}|{account}|{amount}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8, key=self._key).digest())


def united(fields: Iterable[bytearray | None]) -> bytearray | None:
    """All bits that are set in any field."""
    some = [field for field in fields if field is not None]
    if not some:
        return None
    number = 0
    for field in some:
        number |= int.from_bytes(field)
    return bytearray(number.to_bytes(2**_FIELD_BITS // 8))
