"""New entries in memory, in the order in which they were made, until they are written as a run."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.memory import reserve_bytes, reserve_words
from eventstore.reading.shapes import ENTRY_WORDS, NUMBER, Entries, Words, as_entries


class Block:
    """Entries that one thread adds, and others see up to `filled`. `first` and `last` are the
    frames that have made them.
    """

    def __init__(self, entries: int) -> None:
        """Room for so many; memory is taken for those there are."""
        self.words: Words = reserve_words(entries * ENTRY_WORDS).reshape(entries, -1)
        self.accounts: NDArray[np.uint32] = reserve_bytes(entries * 4).view(np.uint32)
        self.filled = 0

    def find(self, account: int) -> "InBlock | None":
        """The entries of an account that are in here; None if there are none."""
        at = np.flatnonzero(self.accounts[: self.filled] == account)
        if not len(at):
            return None
        return InBlock(self.words, at, int(self.words[at[0], NUMBER]))


class InBlock(NamedTuple):
    """Entries of one account: where they stand in a block, and the number of the first."""

    words: Words
    at: NDArray[np.int64]
    first: int

    @property
    def length(self) -> int:
        """How many there are."""
        return len(self.at)

    def read(self, start: int, end: int) -> Entries:
        """Those from `start` on and before `end`, counted from the first."""
        return as_entries(self.words[self.at[start:end]])
