"""Accounts in the order of their ids."""

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.texts import ID_BYTES_MAX
from eventstore.reading.heads import META, NAME_AT, NAME_BITS, Heads

# So many ids are laid out at once.
_PIECE = 2**14
# Behind its length an id's text begins with the third byte, or with the fourth.
_TWO_DIGITS = 10


class IdOrder:
    """The first `count` accounts, by their numbers. Takes 4 bytes for each, and 72 more while it is
    made.
    """

    def __init__(self, heads: Heads, count: int) -> None:
        self._heads = heads
        ids = np.zeros(count, f"S{ID_BYTES_MAX}")
        for start in range(0, count, _PIECE):
            _lay_out(heads, start, ids[start : start + _PIECE])
        self.numbers: NDArray[np.uint32] = np.argsort(ids, kind="stable").astype(np.uint32)

    def first_from(self, account: str) -> int:
        """The place of the first account whose id is this one or comes behind it."""
        return bisect_left(self.numbers, account, key=self._id_of)

    def first_behind(self, account: str) -> int:
        """The place of the first account whose id comes behind this one."""
        return bisect_right(self.numbers, account, key=self._id_of)

    def _id_of(self, number: np.uint32) -> str:
        return self._heads.id_of(int(number))


def _lay_out(heads: Heads, start: int, ids: NDArray[np.bytes_]) -> None:
    """Write the ids of consecutive accounts."""
    rows = heads.rows[start : start + len(ids)]
    lengths = rows[:, META] & NAME_BITS
    # "9:" and "10:": the length is that of the whole name.
    skipped = np.where(lengths - 2 < _TWO_DIGITS, 2, 3)
    first, end = int(rows[0, NAME_AT]), int(rows[-1, NAME_AT] + lengths[-1])
    names = heads.names[first:end].tobytes()
    starts = rows[:, NAME_AT] - first
    pairs = zip((starts + skipped).tolist(), (starts + lengths).tolist(), strict=True)
    ids[:] = [names[at:to] for at, to in pairs]
