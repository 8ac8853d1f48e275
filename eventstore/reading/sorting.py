"""Entries in the order of their accounts, and of each account in theirs: compiled."""

import numpy as np
from numpy.typing import NDArray

from eventstore.reading.compiled import Number, compiled, inlined, types
from eventstore.reading.shapes import ACCOUNTS, ENTRY_WORDS, NUMBER, SPAN, SPAN_WORDS, Spans, Words

_BITS = 11
_BUCKETS = 1 << _BITS
_WORDS = types.uint64[:, ::1]
_ORDER = types.uint32[::1]
_PLACES = types.int64[::1]
_LOWER = np.uint64(0xFFFFFFFF)
_UPPER = np.uint64(32)

Order = NDArray[np.uint32]


def sorted_by_account(accounts: NDArray[np.uint32]) -> Order:
    """Where the entries stand, in the order of their accounts; those of one stay in theirs."""
    order, other = np.arange(len(accounts), dtype=np.uint32), np.empty(len(accounts), np.uint32)
    highest = int(accounts.max()) if len(accounts) else 0
    for shift in range(0, highest.bit_length(), _BITS):
        _sort_by_digit(accounts, shift, order, other, np.empty(_BUCKETS + 1, np.int64))
        order, other = other, order
    return order


@compiled(types.void(types.uint32[::1], types.int64, _ORDER, _ORDER, types.int64[::1]))
def _sort_by_digit(
    accounts: NDArray[np.uint32],
    shift: Number,
    order: Order,
    sorted_: Order,
    starts: NDArray[np.int64],
) -> None:
    """By some bits of the account, and by nothing else."""
    starts[:] = 0
    for i in range(len(order)):
        starts[(np.int64(accounts[order[i]]) >> shift & (_BUCKETS - 1)) + 1] += 1
    for i in range(_BUCKETS):
        starts[i + 1] += starts[i]
    for i in range(len(order)):
        bucket = np.int64(accounts[order[i]]) >> shift & (_BUCKETS - 1)
        sorted_[starts[bucket]] = order[i]
        starts[bucket] += 1


@inlined
def _copy(words: Words, i: Number, into: Words, at: Number) -> None:
    for k in range(ENTRY_WORDS):
        into[at, k] = words[i, k]


@compiled(types.void(_WORDS, _ORDER, _WORDS))
def gather(words: Words, order: Order, into: Words) -> None:
    """Copy the entries that stand in these places."""
    for i in range(len(order)):
        _copy(words, np.int64(order[i]), into, i)


def spans_of(words: Words, first: int) -> Spans:
    """The spans of entries that are sorted; the first of them stands at `first` in its run."""
    spans = np.empty((len(words), SPAN_WORDS), np.uint64)
    count = _write_spans(words, first, spans)
    return spans[:count].view(SPAN).reshape(-1)


@compiled(types.int64(_WORDS, types.int64, _WORDS))
def _write_spans(words: Words, first: Number, spans: Words) -> int:
    count = 0
    for i in range(len(words)):
        account = words[i, ACCOUNTS] & _LOWER
        if count > 0 and spans[count - 1, 0] & _LOWER == account:
            spans[count - 1, 0] += np.uint64(1) << _UPPER
        else:
            spans[count, 0] = account | np.uint64(1) << _UPPER
            spans[count, 1] = np.uint64(first + i)
            spans[count, 2] = words[i, NUMBER]
            count += 1
    return count


@compiled(
    types.int64(
        types.uint64[:, :, ::1], types.int64[::1], types.int64[::1], types.int64[::1], _WORDS
    )
)
def merge(
    pieces: NDArray[np.uint64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    are_last: NDArray[np.int64],
    into: Words,
) -> int:
    """Merge pieces that are each sorted, of which the earlier have the earlier entries of an
    account; gives how many entries were written.

    `pieces` is of shape (pieces, entries, ENTRY_WORDS); of each those from `starts` on and before
    `ends` are still to be merged. Ends when `into` is full, or when a piece is empty and not its
    source's last one. `starts` says how far it has come.
    """
    filled = 0
    while filled < len(into):
        chosen, least = -1, np.uint64(0)
        for p in range(len(pieces)):
            if starts[p] == ends[p]:
                if not are_last[p]:
                    return filled
                continue
            account = pieces[p, starts[p], ACCOUNTS] & _LOWER
            if chosen < 0 or account < least:
                chosen, least = p, account
        if chosen < 0:
            return filled
        while (
            filled < len(into)
            and starts[chosen] < ends[chosen]
            and pieces[chosen, starts[chosen], ACCOUNTS] & _LOWER == least
        ):
            for k in range(ENTRY_WORDS):
                into[filled, k] = pieces[chosen, starts[chosen], k]
            starts[chosen] += 1
            filled += 1
    return filled
