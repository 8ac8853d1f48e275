"""The index finds what was put, whatever the ids are, and no insertion moves more than it may."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eventstore.machine import index as machine_index
from eventstore.machine.compiled import njit, types
from eventstore.machine.index import SLOTS_MOVED, TABLES, Index
from eventstore.machine.siphash import siphash

KEY = bytes(range(16))
Words = NDArray[np.uint64]
_MOVED, _SLOTS = 4, 5


@njit(types.int64(TABLES, types.uint64[:, ::1], types.int64), _nrt=False)
def put_all(tables, ids, first):  # type: ignore[no-untyped-def]
    """Put ids with the numbers from `first` on; gives the most slots that one insertion has moved,
    or -1 if an id was there.
    """
    most = np.uint64(0)
    for i in range(len(ids)):
        hashed = machine_index.hash_of(tables, ids[i, 0], ids[i, 1])
        number, at = machine_index.find(tables, ids[i, 0], ids[i, 1], hashed)
        if number >= 0:
            return -1
        before = tables.old[_MOVED]
        machine_index.put(tables, at, ids[i, 0], ids[i, 1], first + i)
        most = max(most, tables.old[_MOVED] - before)
    return np.int64(most)


@njit(types.int64(TABLES, types.uint64[:, ::1], types.int64), _nrt=False)
def count_wrong(tables, ids, first):  # type: ignore[no-untyped-def]
    """How many of these ids are not found with the numbers from `first` on."""
    wrong = 0
    for i in range(len(ids)):
        hashed = machine_index.hash_of(tables, ids[i, 0], ids[i, 1])
        number, _ = machine_index.find(tables, ids[i, 0], ids[i, 1], hashed)
        wrong += number != first + i
    return wrong


@njit(types.uint64(*[types.uint64] * 4), _nrt=False)
def hash_words(key_0, key_1, first, second):  # type: ignore[no-untyped-def]
    return siphash(key_0, key_1, first, second)


def _random(count: int) -> Words:
    return np.random.default_rng(1).integers(0, 2**64, (count, 2), dtype=np.uint64)


def _sharing_bits(shift: int) -> Words:
    """Ids that differ in a few bits only."""
    ids = np.zeros((100_000, 2), np.uint64)
    ids[:, 0] = np.arange(100_000, dtype=np.uint64) << np.uint64(shift)
    return ids


def test_a_million_ids_are_found_and_each_insertion_moves_few_slots() -> None:
    index, ids, chunk = Index(KEY), _random(1_000_000), 8192
    grown = 0
    for start in range(0, len(ids), chunk):
        some = ids[start : start + chunk]
        table = index.tables.table
        index.make_room(len(some))
        grown += index.tables.table is not table
        assert 0 <= put_all(index.tables, some, start) <= SLOTS_MOVED
        assert count_wrong(index.tables, some, start) == 0
        # In the middle of a move too.
        assert count_wrong(index.tables, ids[:64], 0) == 0
    assert grown >= 6
    assert len(index) == len(ids)
    assert count_wrong(index.tables, ids, 0) == 0
    assert index.find(1, 2) is None
    assert index.find(*ids[77].tolist()) == 77


def test_a_large_table_grows_without_a_stop() -> None:
    index, ids, started = Index(KEY), _random(400_000), 300_000
    index.make_room(started)
    assert put_all(index.tables, ids[:started], 0) >= 0
    full, moved = len(index.tables.table), 0
    for at in range(started, len(ids)):
        index.make_room(1)
        was = int(index.tables.old[_MOVED])
        assert put_all(index.tables, ids[at : at + 1], at) >= 0
        # The room itself was made without moving anything.
        assert was in (moved, 0)
        moved = int(index.tables.old[_MOVED])
        assert moved - was <= SLOTS_MOVED
    assert len(index.tables.table) > full
    assert count_wrong(index.tables, ids, 0) == 0


@pytest.mark.parametrize("shift", [0, 12, 40, 47])
def test_ids_that_share_bits_are_spread(shift: int) -> None:
    index, ids = Index(KEY), _sharing_bits(shift)
    index.make_room(len(ids))
    assert put_all(index.tables, ids, 0) >= 0
    assert count_wrong(index.tables, ids, 0) == 0
    assert _longest_run(index.tables.table) < 200


def _longest_run(table: Words) -> int:
    """The most slots in a row that are filled."""
    filled = table[8:].reshape(-1, 3)[:, 2] != 0
    gaps = np.flatnonzero(~filled)
    return int(np.diff(gaps).max())


@given(st.lists(st.integers(1, 3000), max_size=12), st.binary(min_size=16, max_size=16))
def test_the_sums_depend_on_ids_and_numbers_alone(sizes: list[int], key: bytes) -> None:
    ids = _random(sum(sizes))
    one, other = Index(KEY), Index(key)
    start = 0
    for size in sizes:
        one.make_room(size)
        assert put_all(one.tables, ids[start : start + size], start) >= 0
        start += size
    other.make_room(len(ids))
    assert put_all(other.tables, ids, 0) >= 0
    assert one.sums() == other.sums()
    assert len(one) == len(other) == len(ids)
    if len(ids):
        changed = Index(KEY)
        changed.make_room(len(ids))
        put_all(changed.tables, ids, 1)
        assert changed.sums() != one.sums()


# --- the hash -----------------------------------------------------------------------------------

_MASK = 2**64 - 1


def _sip_round(v: list[int]) -> None:
    a, b, c, d = v
    a = a + b & _MASK
    b = _rotated(b, 13) ^ a
    a = _rotated(a, 32)
    c = c + d & _MASK
    d = _rotated(d, 16) ^ c
    a = a + d & _MASK
    d = _rotated(d, 21) ^ a
    c = c + b & _MASK
    b = _rotated(b, 17) ^ c
    v[:] = a, b, _rotated(c, 32), d


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 64 - bits) & _MASK


def _sip(rounds: int, last_rounds: int, key: bytes, data: bytes) -> int:
    """SipHash as its paper has it, for any bytes."""
    words = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    starts = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    v = [start ^ words[i % 2] for i, start in enumerate(starts)]
    padded = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        for _ in range(rounds):
            _sip_round(v)
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(last_rounds):
        _sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_the_hash_is_siphash(key: bytes, data: bytes) -> None:
    # The paper's own example, which has two and four rounds.
    assert _sip(2, 4, bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5
    words = np.frombuffer(key + data, "<u8")
    assert int(hash_words(*words)) == _sip(1, 3, key, data)
