"""From ids of 128 bits to numbers: a hash table that forgets nothing and grows without a stop.

Open addressing: a slot is three words, the two of the id and the number plus one (zero: the slot is
empty). Where an id belongs is the beginning of its keyed hash, so that nobody can choose ids that
crowd one place. A table that is full gets a successor of twice the size. From then on new ids go
there, each insertion takes SLOTS_MOVED slots of the old table along, and what is looked for is
looked for in both. Nothing is taken out of the old table, so that it stays true to its end.

The successor's memory is taken bit by bit beforehand: a page that is written to for the first time
costs as much as many insertions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import Number, Truth, Word, compiled, inlined, prefetch, types
from eventstore.machine.memory import reserve_words
from eventstore.machine.siphash import siphash

# A table: a header of a cache line, then the slots. The header has the hash's key, the size (slots
# = 2 ** bits), how many ids there are (in both tables); and of a table that has a successor, how
# many of its slots were moved, and of how many.
Table = NDArray[np.uint64]
# Ids as others see them: of shape (n, 3), the two words of each and its number.
Entries = NDArray[np.uint64]

_KEY_0, _KEY_1, _BITS, _COUNT, _MOVED, _SLOTS = range(6)
_HEADER = 8
_SLOT_WORDS = 3

# In eighths of the slots, when a table moves into its successor, and when that is prepared for.
# Fuller, and a look for what is not there would pass many slots.
_FULL, _PREPARED = 5, 3
# So a table of S slots has moved when S / 4 more ids are there, at 7/16 of its successor. That has
# 3/16 to go then, while it prepares twice its slots, of 24 bytes: 256 bytes for each id.
SLOTS_MOVED = 4
_PREPARED_BYTES = 320
_PAGE = 4096
# What is prepared at most for each id, where that has begun late.
_PREPARED_BYTES_MAX = 4 * _PAGE
_BITS_MIN = 10

# Words without a sign: what is read at such a place needs no check for places before the first.
_ZERO, _ONE, _FILLED, _SLOT, _FIRST = (np.uint64(n) for n in (0, 1, 2, _SLOT_WORDS, _HEADER))
_TWO, _THREE, _FOUR, _WIDTH = (np.uint64(n) for n in (2, 3, 4, 64))
_LANES = 4
_AHEAD = np.uint64(64)


class Tables(NamedTuple):
    """An index as compiled functions see it: its table, and the one that it grew out of."""

    table: Table
    old: Table


TABLES = types.NamedUniTuple(types.uint64[::1], 2, Tables)
ENTRIES = types.uint64[:, ::1]
_WORD = types.uint64

# --- compiled -----------------------------------------------------------------------------------


@inlined
def hash_of(tables: Tables, first: Word, second: Word) -> Word:
    """Where an id belongs, by which all else finds it."""
    return siphash(tables.table[_KEY_0], tables.table[_KEY_1], first, second)


@inlined
def _home(table: Table, hashed: Word) -> Word:
    """Where the slot begins at which an id is looked for first."""
    return _FIRST + (hashed >> (_WIDTH - table[_BITS])) * _SLOT


@inlined
def _probe(table: Table, first: Word, second: Word, hashed: Word) -> Word:
    """Where the slot begins that holds the id, or else the empty one where it would be put."""
    at, end = _home(table, hashed), np.uint64(len(table))
    while table[at + _FILLED] != _ZERO and (table[at] != first or table[at + _ONE] != second):
        at += _SLOT
        if at == end:
            at = _FIRST
    return at


@inlined
def _write(table: Table, at: Word, first: Word, second: Word, filled: Word) -> None:
    table[at] = first
    table[at + _ONE] = second
    table[at + _FILLED] = filled


@inlined
def _is_moving(tables: Tables) -> Truth:
    return tables.old[_MOVED] < tables.old[_SLOTS]


@inlined
def _hash_in(tables: Tables, slot: Word) -> Word:
    at = _FIRST + slot * _SLOT
    return hash_of(tables, tables.old[at], tables.old[at + _ONE])


@inlined
def _copy(tables: Tables, slot: Word, hashed: Word) -> None:
    table, old = tables
    at = _FIRST + slot * _SLOT
    if old[at + _FILLED] != _ZERO:
        free = _probe(table, old[at], old[at + _ONE], hashed)
        _write(table, free, old[at], old[at + _ONE], old[at + _FILLED])


@inlined
def _fetch_ahead(tables: Tables, slot: Word) -> None:
    """Begin to fetch four slots of the old table, and the eight where they will come to."""
    prefetch(tables.old, _FIRST + slot * _SLOT)
    prefetch(tables.old, _FIRST + slot * _SLOT + _FIRST)
    new = _FIRST + slot * _TWO * _SLOT
    for line in range(3):
        prefetch(tables.table, new + np.uint64(line) * _FIRST)


@inlined
def _move(tables: Tables, most: Word) -> None:
    """Copy the next slots of the old table, at most so many, in fours."""
    slot, end = tables.old[_MOVED], min(tables.old[_MOVED] + most, tables.old[_SLOTS])
    while slot < end:
        # First all hashes, so that none waits for where the one before it has led.
        second, third, fourth = slot + _ONE, slot + _TWO, slot + _THREE
        hash_1, hash_2 = _hash_in(tables, slot), _hash_in(tables, second)
        hash_3, hash_4 = _hash_in(tables, third), _hash_in(tables, fourth)
        _copy(tables, slot, hash_1)
        _copy(tables, second, hash_2)
        _copy(tables, third, hash_3)
        _copy(tables, fourth, hash_4)
        slot += _FOUR
        _fetch_ahead(tables, slot + _AHEAD)
    tables.old[_MOVED] = end


@inlined
def _fetch_slots(table: Table, hashed: Word) -> None:
    at = _home(table, hashed)
    prefetch(table, at)
    # Mostly the next slots, too, are looked at.
    prefetch(table, at + _FIRST)


@inlined
def fetch(tables: Tables, hashed: Word) -> None:
    """Begin to fetch what `find` will look at."""
    _fetch_slots(tables.table, hashed)
    if _is_moving(tables):
        _fetch_slots(tables.old, hashed)


@inlined
def find(tables: Tables, first: Word, second: Word, hashed: Word) -> tuple[Number, Word]:
    """The number of an id, -1 if it is not there; and, for `put`, where it would be put."""
    table, old = tables
    at = _probe(table, first, second, hashed)
    number = np.int64(table[at + _FILLED]) - 1
    if number < 0 and _is_moving(tables):
        number = np.int64(old[_probe(old, first, second, hashed) + _FILLED]) - 1
    return number, at


@inlined
def put(tables: Tables, at: Word, first: Word, second: Word, number: Number) -> None:
    """Keep an id that `find` has just not found. There must be room: `Index.make_room`."""
    _write(tables.table, at, first, second, np.uint64(number) + _ONE)
    tables.table[_COUNT] += _ONE
    if _is_moving(tables):
        _move(tables, np.uint64(SLOTS_MOVED))


@inlined
def change(tables: Tables, first: Word, second: Word, hashed: Word, number: Number) -> None:
    """Give an id that is there another number."""
    table, old = tables
    at = _probe(table, first, second, hashed)
    if table[at + _FILLED] != _ZERO:
        table[at + _FILLED] = np.uint64(number) + _ONE
    else:
        # It was not moved yet, and will be with this number.
        old[_probe(old, first, second, hashed) + _FILLED] = np.uint64(number) + _ONE


@inlined
def count_of(tables: Tables) -> Number:
    """How many ids there are."""
    return np.int64(tables.table[_COUNT])


@compiled(types.int64(TABLES, _WORD, _WORD))
def _look_up(tables: Tables, first: Word, second: Word) -> Number:
    return find(tables, first, second, hash_of(tables, first, second))[0]


@compiled(types.void(TABLES))
def _move_all(tables: Tables) -> None:
    _move(tables, tables.old[_SLOTS])


@compiled(types.void(_WORD[::1], types.int64, _WORD[::1]))
def _add_up(table: Table, start: Number, sums: Table) -> None:
    """Add a hash of each id and its number to `sums`, four words; from this slot on."""
    for at in range(_HEADER + start * _SLOT_WORDS, len(table), _SLOT_WORDS):
        if table[at + 2] != 0:
            for lane in range(_LANES):
                sums[lane] += siphash(table[at + 2], np.uint64(lane), table[at], table[at + 1])


@compiled(types.UniTuple(types.int64, 2)(_WORD[::1], types.int64, ENTRIES))
def gather(table: Table, start: Number, entries: Entries) -> tuple[Number, Number]:
    """Copy ids from this slot on into `entries`, as many as have room there; gives the slot to go
    on with, and how many were copied.
    """
    slots = (len(table) - _HEADER) // _SLOT_WORDS
    slot, count = start, 0
    while slot < slots and count < len(entries):
        at = _HEADER + slot * _SLOT_WORDS
        if table[at + 2] != 0:
            entries[count, 0] = table[at]
            entries[count, 1] = table[at + 1]
            entries[count, 2] = table[at + 2] - _ONE
            count += 1
        slot += 1
    return slot, count


# --- the face -----------------------------------------------------------------------------------


class Index:
    """An index, of which compiled functions get the `tables`; `make_room` changes these."""

    def __init__(self, key: bytes) -> None:
        """`key`, 16 bytes, is for the hash; what is found does not depend on it."""
        self.tables = Tables(_new_table(_BITS_MIN), np.zeros(_HEADER, np.uint64))
        self.tables.table[: _KEY_1 + 1] = np.frombuffer(key, "<u8", 2)
        self._next: Table | None = None
        self._prepared_bytes = 0
        # What is prepared for each id.
        self._pace_bytes = _PREPARED_BYTES

    def __len__(self) -> int:
        return int(self.tables.table[_COUNT])

    def find(self, first: int, second: int) -> int | None:
        """The number of an id of two words; None if it is not there."""
        number = _look_up(self.tables, np.uint64(first), np.uint64(second))
        return None if number < 0 else int(number)

    def sums(self) -> bytes:
        """32 bytes that are the same for the same ids with the same numbers, in whatever order they
        came. They find mistakes, not forgeries.
        """
        sums = np.zeros(_LANES, np.uint64)
        for table, start in self.slots:
            _add_up(table, start, sums)
        return sums.tobytes()

    @property
    def slots(self) -> tuple[tuple[Table, int], tuple[Table, int]]:
        """Where all ids stand: in each table from a slot on."""
        table, old = self.tables
        return (table, 0), (old, int(old[_MOVED]))

    def make_room(self, more: int) -> None:
        """Let so many ids be put. Takes time in proportion to that, however many there are."""
        bits, wanted = int(self.tables.table[_BITS]), len(self) + more
        if not self._is_moving:
            self._forget_old()
            if wanted > _eighths(bits, _PREPARED):
                self._prepare(bits + 1, more)
        if wanted > _eighths(bits, _FULL):
            self._grow(bits, wanted)

    def hurry(self) -> None:
        """From now on prepare faster, so that it is done when the table is full, although it was
        filled at once and nothing was prepared meanwhile.
        """
        bits = int(self.tables.table[_BITS])
        left = _eighths(bits, _FULL) - max(len(self), _eighths(bits, _PREPARED))
        wanted = _table_words(bits + 1) * 8 // max(left, 1)
        self._pace_bytes = min(max(wanted, _PREPARED_BYTES), _PREPARED_BYTES_MAX)

    @property
    def _is_moving(self) -> bool:
        old = self.tables.old
        return bool(old[_MOVED] < old[_SLOTS])

    def _forget_old(self) -> None:
        if len(self.tables.old) > _HEADER:
            self.tables = Tables(self.tables.table, np.zeros(_HEADER, np.uint64))

    def _prepare(self, bits: int, more: int) -> None:
        """Take some of the next table's memory, by writing the zeros that are there."""
        if self._next is None:
            self._next, self._prepared_bytes = _new_table(bits), _PAGE
        page = self._prepared_bytes + -self._prepared_bytes % _PAGE
        self._prepared_bytes += more * self._pace_bytes
        self._next.view(np.uint8)[page : self._prepared_bytes : _PAGE] = 0

    def _grow(self, bits: int, wanted: int) -> None:
        """Begin to move into a table that has room. What is still to be moved then is moved now:
        that is so only while the tables are small beside a frame.
        """
        _move_all(self.tables)
        new_bits = bits + 1
        while wanted > _eighths(new_bits, _FULL):
            new_bits += 1
        new, full = self._next, self.tables.table
        if new is None or new[_BITS] != new_bits:
            new = _new_table(new_bits)
        for word in (_KEY_0, _KEY_1, _COUNT):
            new[word] = full[word]
        full[_MOVED], full[_SLOTS] = 0, 1 << bits
        self.tables, self._next = Tables(new, full), None
        self._pace_bytes = _PREPARED_BYTES


def _new_table(bits: int) -> Table:
    table = reserve_words(_table_words(bits))
    table[_BITS] = bits
    return table


def _table_words(bits: int) -> int:
    return _HEADER + (_SLOT_WORDS << bits)


def _eighths(bits: int, count: int) -> int:
    """So many eighths of a table's slots."""
    return (1 << bits) // 8 * count
