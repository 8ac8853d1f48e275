"""A machine's state, dumped and loaded, is the same state: it decides the same from then on."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eventstore.machine import entries
from eventstore.machine.errors import LimitReached
from eventstore.machine.index import Index
from eventstore.machine.machine import VERSION, Limits, Machine
from eventstore.node.node import MACHINE_VERSION
from ledger.errors import Bug
from ledger.model import Status
from tests.unit.eventstore.machine_books import (
    KEY,
    LIMITS,
    NOW,
    Change,
    Command,
    Node,
    Opening,
    Wish,
    pack,
)
from tests.unit.eventstore.test_machine_index import count_wrong, put_all

OTHER_KEY = b"another key, 16B"
IDS = ["a", "b", "c", "long.{x}." + "y" * 55]


def dumped(machine: Machine) -> bytes:
    return b"".join(bytes(piece) for piece in machine.dump())


def giving(content: bytes) -> Callable[[memoryview], None]:
    """Fills memory with a content, from its beginning on; nothing may be left of it."""
    left = memoryview(content)

    def fill(memory: memoryview) -> None:
        nonlocal left
        assert len(left) >= len(memory)
        memory[:] = left[: len(memory)]
        left = left[len(memory) :]

    return fill


def reloaded(node: Node, key: bytes = OTHER_KEY, limits: Limits = LIMITS) -> Node:
    """Another machine with the same list, that was given the state."""
    other = Node(key, limits)
    other.frames = list(node.frames)
    other.machine.load(node.machine.sizes, giving(dumped(node.machine)))
    return other


_ids = st.sampled_from(IDS)
_openings = st.builds(
    Opening, _ids, st.sampled_from([None, 0, 20]), st.sampled_from(["EUR", "USD"])
)
_wishes = st.builds(
    Wish,
    source=_ids,
    destination=_ids,
    amount=st.integers(1, 9),
    key=st.integers(0, 40).map(str),
    currency=st.sampled_from(["EUR", "EUR", "USD"]),
    metadata=st.none(),
    protocol=st.just("xa"),
    by_name=st.booleans(),
)
_changes = st.builds(Change, _ids, st.sampled_from(list(Status)))
_frames = st.lists(
    st.lists(st.one_of(_openings, *[_wishes] * 4, _changes), max_size=20), max_size=5
)


@given(_frames, _frames)
def test_a_state_that_was_kept_is_the_same(
    before: list[list[Command]], behind: list[list[Command]]
) -> None:
    node = Node()
    for frame in before:
        node.apply(frame)
    other = reloaded(node)
    assert len(dumped(node.machine)) == node.machine.sizes.dump_bytes
    assert other.machine.sizes == node.machine.sizes
    assert other.machine.digest() == node.machine.digest()
    for frame in behind:
        assert other.apply(frame, NOW + 1) == node.apply(frame, NOW + 1)
        assert other.machine.digest() == node.machine.digest()
    assert [other.machine.number_of(id_) for id_ in IDS] == [
        node.machine.number_of(id_) for id_ in IDS
    ]
    assert [other.machine.account(n) for n in range(len(other.machine))] == [
        node.machine.account(n) for n in range(len(node.machine))
    ]


def test_a_state_goes_into_a_new_machine_that_has_room() -> None:
    node = Node()
    node.apply([Opening("a", None), Opening("b"), Wish("a", "b", 1)])
    sizes, content = node.machine.sizes, dumped(node.machine)
    with pytest.raises(Bug, match="not into one after frame 1"):
        node.machine.load(sizes, giving(content))
    for limits, told in (
        (Limits(1, 9), "limit of 1 accounts"),
        (Limits(9, 0), "limit of 0 transfers"),
        (Limits(9, 9, 0), "limit of 0 currencies"),
    ):
        with pytest.raises(LimitReached, match=told):
            Node(limits=limits).machine.load(sizes, giving(content))
    assert reloaded(node, limits=Limits(2, 1, 1)).machine.digest() == node.machine.digest()


def test_what_was_loaded_in_part_is_of_no_use() -> None:
    node, other = Node(), Node()
    node.apply([Opening("a", None), Opening("b"), Wish("a", "b", 1)])

    def fail(memory: memoryview) -> None:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        other.machine.load(node.machine.sizes, fail)
    for use in (
        lambda: other.machine.apply(NOW, 2, *pack(node.machine, [])),
        lambda: other.machine.load(node.machine.sizes, fail),
        lambda: dumped(other.machine),
    ):
        with pytest.raises(Bug):
            use()


def test_the_version_is_that_of_frames() -> None:
    assert VERSION == MACHINE_VERSION


# --- an index -----------------------------------------------------------------------------------


def _index(ids: NDArray[np.uint64], chunk: int) -> Index:
    """Grown in steps, as frames make it grow."""
    index = Index(KEY)
    for start in range(0, len(ids), chunk):
        some = ids[start : start + chunk]
        index.make_room(len(some))
        assert put_all(index.tables, some, start) >= 0
    return index


# None, few, just before and after a table is full, while it moves, and many pieces.
@pytest.mark.parametrize("count", [0, 1, 640, 641, 700, 1279, 1281, 1300, 40_000, 45_000, 200_000])
def test_an_index_is_filled_with_what_another_one_has(count: int) -> None:
    ids = np.random.default_rng(count).integers(0, 2**64, (count + 30_000, 2), dtype=np.uint64)
    index = _index(ids[:count], 64)
    content = b"".join(bytes(piece) for piece in entries.dump(index))
    assert len(content) == count * entries.ENTRY_BYTES
    other = Index(OTHER_KEY)
    entries.load(other, count, giving(content))
    assert (len(other), other.sums()) == (count, index.sums())
    assert count_wrong(other.tables, ids[:count], 0) == 0
    for start in range(count, len(ids), 500):
        for each in (index, other):
            each.make_room(500)
            assert put_all(each.tables, ids[start : start + 500], start) >= 0
    assert count_wrong(other.tables, ids, 0) == 0
    assert other.sums() == index.sums()


def test_an_id_that_comes_twice_is_our_own_mistake() -> None:
    ids = np.random.default_rng(1).integers(0, 2**64, (100, 2), dtype=np.uint64)
    content = b"".join(bytes(piece) for piece in entries.dump(_index(ids, 100)))
    with pytest.raises(Bug, match="one comes twice"):
        entries.load(Index(KEY), 101, giving(content + content[:24]))


@pytest.mark.parametrize("count", [100_000, 250_000, 300_000, 320_000])
def test_an_index_that_was_filled_at_once_prepares_the_next_table_in_time(count: int) -> None:
    ids = np.random.default_rng(1).integers(0, 2**64, (330_000, 2), dtype=np.uint64)
    index = Index(KEY)
    content = np.column_stack([ids[:count], np.arange(count, dtype=np.uint64)]).tobytes()
    entries.load(index, count, giving(content))
    table = index.tables.table
    while index.tables.table is table:
        prepared, start = index._prepared_bytes, len(index)
        index.make_room(100)
        assert put_all(index.tables, ids[start : start + 100], start) >= 0
    # But for what the last step itself has prepared.
    assert prepared >= index.tables.table.nbytes * 0.98
    assert index._pace_bytes == 320
