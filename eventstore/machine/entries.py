"""All that is in an index, piece by piece: to keep it, and to fill another one with it.

Where an id stands in a table is not kept. So the other index may have another key, and what is kept
takes half as much room, or less.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import Number, compiled, types
from eventstore.machine.index import (
    ENTRIES,
    TABLES,
    Entries,
    Index,
    Tables,
    fetch,
    find,
    gather,
    hash_of,
    put,
)
from eventstore.machine.memory import Fill
from ledger.errors import Bug

_WORDS = 3
ENTRY_BYTES = _WORDS * 8
# So many are in a piece; of so many the slots are fetched in advance.
_PIECE = 2**15
_AHEAD = 64


def dump(index: Index) -> Iterator[memoryview]:
    """All ids and their numbers, in no order. A piece is overwritten by the next one."""
    entries = np.empty((_PIECE, _WORDS), np.uint64)
    for table, slot in index.slots:
        slot, count = gather(table, slot, entries)
        while count:
            yield _bytes_of(entries[:count])
            slot, count = gather(table, slot, entries)


def load(index: Index, count: int, fill: Fill) -> None:
    """Put so many ids that were dumped into an empty index.

    Raises Bug for an id that comes twice, and what `fill` raises: the index is of no use then.
    """
    index.make_room(count)
    room, hashes = np.empty((_PIECE, _WORDS), np.uint64), np.empty(_AHEAD, np.uint64)
    for start in range(0, count, _PIECE):
        entries = room[: count - start]
        fill(_bytes_of(entries))
        if (done := _put_all(index.tables, entries, hashes)) < len(entries):
            twice = entries[done].tolist()
            raise Bug(f"among {count} ids that were dumped one comes twice, at last as {twice}")
    index.hurry()


def _bytes_of(entries: Entries) -> memoryview:
    return entries.reshape(-1).view(np.uint8).data


@compiled(types.int64(TABLES, ENTRIES, types.uint64[::1]))
def _put_all(tables: Tables, entries: Entries, hashes: NDArray[np.uint64]) -> Number:
    """Put these, up to the first that is there already; gives how many were put."""
    for start in range(0, len(entries), len(hashes)):
        end = min(start + len(hashes), len(entries))
        for i in range(start, end):
            hashes[i - start] = hash_of(tables, entries[i, 0], entries[i, 1])
            fetch(tables, hashes[i - start])
        for i in range(start, end):
            first, second = entries[i, 0], entries[i, 1]
            known, at = find(tables, first, second, hashes[i - start])
            if known >= 0:
                return i
            put(tables, at, first, second, np.int64(entries[i, 2]))
    return len(entries)
