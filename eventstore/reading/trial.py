"""The trial balance of a moment: of each currency what was taken, what was given, and what all
accounts had. All entries are read for it, piece by piece, while frames go on.
"""

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np

from eventstore.machine.machine import Machine
from eventstore.reading.block import Block
from eventstore.reading.heads import OPENED, Heads
from eventstore.reading.history import Stretch, Stretches
from eventstore.reading.run import Run
from eventstore.reading.shapes import ENTRY_WORDS, Words
from eventstore.reading.summing import (
    BALANCES,
    CREDITS,
    DEBITS,
    SUM_WORDS,
    Sums,
    add_balances,
    add_entries,
    total,
)
from eventstore.wire.questions import At, CurrencySums
from ledger.errors import Bug

# So many entries are read at once: some 6 MB.
_AT_ONCE = 2**16


class Trial:
    """What is summed up: entries made up to a frame and stamped up to a time, of the accounts that
    were opened by then. Neither they nor their currencies ever change.
    """

    def __init__(self, machine: Machine, heads: Heads, as_of: At, time_us: int) -> None:
        """To be made in a look, which it does not keep for long; the rest is for any time later."""
        self._machine, self._seq, self._time_us = machine, as_of.seq, time_us
        # Accounts are numbered in the order of their openings.
        opened = heads.rows[: len(heads), OPENED]
        self._accounts = bisect_right(range(len(heads)), time_us, key=lambda n: int(opened[n]))

    def of(self, stretches: Stretches) -> list[CurrencySums]:
        """The sums of all currencies that an account was opened in, in alphabetical order;
        `stretches` have all entries. Raises as reading does.
        """
        currencies, names = self._machine.currencies(self._accounts)
        sums: Sums = np.zeros((len(names), SUM_WORDS), np.int64)
        balances = np.zeros(self._accounts, np.int64)
        for stretch in stretches:
            for words in _pieces(stretch):
                add_entries(words, currencies, self._seq, self._time_us, sums, balances)
        add_balances(balances, currencies, sums)
        counts = np.bincount(currencies, minlength=len(names)).tolist()
        return sorted(
            (
                _sums(sums, index, names[index], count)
                for index, count in enumerate(counts)
                if count
            ),
            key=lambda each: each.currency,
        )


def _sums(sums: Sums, index: int, currency: str, accounts: int) -> CurrencySums:
    of_entries = (str(total(sums, index, which)) for which in (DEBITS, CREDITS, BALANCES))
    return CurrencySums(currency, accounts, *of_entries)


def _pieces(stretch: Stretch) -> Iterator[Words]:
    """The entries of a stretch as words, those of each account in their order."""
    match stretch:
        case Run():
            for start in range(0, stretch.header.entries, _AT_ONCE):
                found = stretch.entries(start, min(start + _AT_ONCE, stretch.header.entries))
                yield found.view(np.uint64).reshape(-1, ENTRY_WORDS)
        case Block():
            yield stretch.words[: stretch.filled]
        case _:
            raise Bug(f"{stretch} is neither a run nor a block")
