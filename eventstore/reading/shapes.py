"""The shapes of what the read side keeps, in memory and in files: pure.

All numbers are little-endian. They stand in files, so none of this changes without a new version of
the files' formats.
"""

import numpy as np
from numpy.typing import NDArray

# One entry of an account, 96 bytes. `account` and `counterparty` are account numbers; `seq` is the
# frame that has made it, `transfer` the 128 bits of the transfer's id, `chain` the digest of
# `ledger.chain` after it. The rest is that of `ledger.model.Entry`.
ENTRY = np.dtype(
    [
        ("account", "<u4"),
        ("counterparty", "<u4"),
        ("number", "<i8"),
        ("seq", "<i8"),
        ("amount", "<i8"),
        ("balance", "<i8"),
        ("stamp", "<i8"),
        ("transfer", "<u8", (2,)),
        ("chain", "<u8", (4,)),
    ]
)
# The same as words of 64 bits, for compiled functions: (entries, ENTRY_WORDS).
ENTRY_WORDS = ENTRY.itemsize // 8
ACCOUNTS, NUMBER, SEQ, AMOUNT, BALANCE, STAMP, TRANSFER, CHAIN = 0, 1, 2, 3, 4, 5, 6, 8

# Where the entries of an account stand among entries that are sorted by accounts: `count` of them
# from `first` on, the first of which has this `number`.
SPAN = np.dtype([("account", "<u4"), ("count", "<u4"), ("first", "<i8"), ("number", "<i8")])
SPAN_WORDS = SPAN.itemsize // 8

Entries = NDArray[np.void]
Spans = NDArray[np.void]
Words = NDArray[np.uint64]


def as_entries(words: Words) -> Entries:
    """Entries that stand as words, in the same memory."""
    return words.view(ENTRY).reshape(-1)
