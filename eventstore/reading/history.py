"""The entries of one account, wherever they stand: in runs, and behind those in blocks."""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np

from eventstore.reading.shapes import ENTRY, Entries
from ledger.errors import Bug

# Fewer than this are read, and looked through, at once.
_FEW = 128


class Part(Protocol):
    """Consecutive entries of one account; `first` is the number of the first."""

    @property
    def first(self) -> int: ...

    @property
    def length(self) -> int: ...

    def read(self, start: int, end: int) -> Entries:
        """Those from `start` on and before `end`, counted from the first."""


class Stretch(Protocol):
    """Entries of consecutive frames."""

    def find(self, account: int) -> Part | None:
        """Those of an account; None if there are none."""


Stretches = Sequence[Stretch]
Field = Literal["stamp", "seq"]


def between(stretches: Stretches, account: int, first: int, last: int) -> Entries:
    """The entries with these numbers, both included, which must be there, in their order.

    `stretches` follow on each other. Raises Bug if one is missing, and as reading does.
    """
    found: list[Entries] = []
    for part in _newest_first(stretches, account):
        if first > last:
            break
        start, end = max(first - part.first, 0), last + 1 - part.first
        if end > part.length:
            break
        if start < end:
            found.append(part.read(start, end))
            last = part.first + start - 1
    if first <= last:
        raise Bug(f"entries {first} to {last} of account number {account} are nowhere")
    return np.concatenate([np.empty(0, ENTRY), *reversed(found)])


def last_until(
    stretches: Stretches,
    account: int,
    count: int,
    field: Field,
    value: int,
) -> np.void | None:
    """Of an account's first `count` entries the last one whose `field` is at most `value`; None if
    there is none. It never falls from one entry to the next.
    """
    for part in _newest_first(stretches, account):
        length = min(part.length, count + 1 - part.first)
        place = _count_until(part, length, field, value)
        if place:
            found: np.void = part.read(place - 1, place)[0]
            return found
    return None


def _newest_first(stretches: Stretches, account: int) -> Iterator[Part]:
    for stretch in reversed(stretches):
        if (part := stretch.find(account)) is not None:
            yield part


def _count_until(part: Part, length: int, field: str, value: int) -> int:
    """How many of a part's first entries have at most this value."""
    low, high = 0, max(length, 0)
    while high - low > _FEW:
        middle = (low + high) // 2
        if part.read(middle, middle + 1)[field][0] <= value:
            low = middle + 1
        else:
            high = middle
    return low + int(np.searchsorted(part.read(low, high)[field], value, side="right"))
