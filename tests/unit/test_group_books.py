"""A ledger group's books, read by pages through a link in memory: whole, in order and of one
moment, whatever the pages.
"""

from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.shards.group import books as group_books
from coordinator.shards.group import portions
from coordinator.shards.group.books import GroupBooks
from ledger.model import Account
from ledger.transfer_audit import Line, Record, Traces
from shard_client.books import Books
from shard_client.errors import ShardUnavailable, TimedOut
from tests.unit.memory_link import BEGIN_US, SECOND_US, SHARD, MemoryLink, World, bank

# Ids with others right behind them, and before them.
NAMES = ["a", "a.", "aa", "a}", "b", "b:1", "{b}", "}"]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Some accounts, one of which may go below zero, and transfers of all outcomes."""
    world = World()
    for index, id_ in enumerate(draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))):
        world.open(id_, None if index == 0 else 0)
    names = st.sampled_from(sorted(world.accounts))
    anyone = st.sampled_from(NAMES)
    for source, destination, amount in draw(
        st.lists(st.tuples(names, anyone, st.integers(1, 9)), max_size=25)
    ):
        world.move(source, destination, amount)
    return world


def books_of(world: World, **how: Any) -> GroupBooks:
    return GroupBooks(MemoryLink(world, **how))  # type: ignore[arg-type]


sizes = st.integers(1, 12)


# --- pages ----------------------------------------------------------------------------------


@settings(max_examples=50)
@given(worlds(), sizes, sizes)
def test_all_is_read_once_and_in_order_however_small_the_pages(
    world: World, limit: int, page_max: int
) -> None:
    _, accounts, entries, booked = world.kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_books, "_PAGE", limit)
        patch.setattr(group_books, "_TRANSFERS_PAGE", limit)
        books = books_of(world, page_max=page_max)
        assert list(books.accounts()) == accounts
        assert list(books.entries()) == entries
        assert [(row.id, row.stamp) for row in books.transfers()] == [
            (one.transfer.id, one.time_us) for one in booked
        ]
        for id_ in NAMES:
            own = [entry for entry in entries if entry.account == id_]
            assert list(books.entries(id_)) == own
            assert books.account(id_) == world.accounts.get(id_)


@settings(max_examples=50)
@given(worlds(), sizes, st.integers(-1, 40), st.integers(-1, 40))
def test_a_range_is_half_open(world: World, limit: int, first: int, last: int) -> None:
    span = range(BEGIN_US + first * SECOND_US, BEGIN_US + last * SECOND_US)
    wanted = [entry for entry in world.kept().entries if span.start <= entry.stamp < span.stop]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_books, "_PAGE", limit)
        books = books_of(world)
        assert list(books.entries(stamps=span)) == wanted
        assert list(books.entries("a", span)) == [e for e in wanted if e.account == "a"]
        told = [(owner, list(entries)) for owner, entries in books.histories(span)]
    assert [owner for owner, _ in told] == world.kept().accounts
    assert [entry for _, entries in told for entry in entries] == wanted


@settings(max_examples=50)
@given(worlds(), sizes, st.sets(st.sampled_from(NAMES)))
def test_histories_name_what_has_entries_and_is_no_account(
    world: World, limit: int, gone: set[str]
) -> None:
    """They read accounts and entries side by side."""
    for id_ in gone & world.accounts.keys():
        del world.accounts[id_]
    _, accounts, entries, _ = world.kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_books, "_PAGE", limit)
        told = [(owner, list(entries)) for owner, entries in books_of(world).histories()]
    lost = {entry.account for entry in entries} - world.accounts.keys()
    ids = [owner.id if isinstance(owner, Account) else owner for owner, _ in told]
    assert ids == sorted([*world.accounts, *lost])
    assert [owner for owner, _ in told if isinstance(owner, Account)] == accounts
    assert [entry for _, entries in told for entry in entries] == entries


@settings(max_examples=50)
@given(st.sets(st.from_regex(r"[A-Za-z0-9_.:{}-]{1,64}", fullmatch=True), min_size=1), st.data())
def test_an_account_is_found_among_any_others(ids: set[str], data: st.DataObject) -> None:
    world = World()
    for id_ in ids:
        world.open(id_)
    known = data.draw(st.sampled_from(sorted(ids)))
    books = books_of(world)
    assert books.account(known) == world.accounts[known]
    for other in (f"{known}a", known[:-1], "", "~", "ä", f"{known}\n"):
        assert books.account(other) == world.accounts.get(other)


def test_books_stay_as_they_were_at_a_frame_that_is_not_before_the_answerable_one() -> None:
    world = bank()
    link = MemoryLink(world)
    was = world.kept()
    books = GroupBooks(link)  # type: ignore[arg-type]
    assert link.asked_min_seq == was.at.seq
    world.move("bank", "bob", 1)
    world.open("carol")
    assert (list(books.accounts()), list(books.entries())) == (was.accounts, was.entries)
    assert len(list(books.transfers())) == len(was.booked)
    books.close()
    assert link.is_closed


def test_pages_out_of_order_are_no_books(monkeypatch: pytest.MonkeyPatch) -> None:
    for again in (lambda items: [items[0], *items], lambda items: items[::-1]):
        monkeypatch.setattr(MemoryLink, "_page", lambda _, items, __, made=again: made(items))
        for stream in (Books.histories, GroupBooks.transfers):
            with pytest.raises(ShardUnavailable, match="not in order"):
                list(stream(books_of(bank())))  # type: ignore[arg-type]


def test_books_end_with_the_connection() -> None:
    """Another one would not know them, or take others for them."""
    link = MemoryLink(bank())
    books = GroupBooks(link)  # type: ignore[arg-type]
    link.fails_with = TimedOut(SHARD, "no answer in time")
    with pytest.raises(TimedOut):
        list(books.entries())
    assert link.is_closed
    link.fails_with = None
    with pytest.raises(ShardUnavailable, match="closed"):
        list(books.entries())


def test_a_link_is_closed_if_its_books_cannot_be_opened() -> None:
    link = MemoryLink(bank())
    link.fails_with = ShardUnavailable(SHARD, "its read side cannot be asked")
    with pytest.raises(ShardUnavailable, match="read side"):
        GroupBooks(link)  # type: ignore[arg-type]
    assert link.is_closed


# --- transfers one by one -------------------------------------------------------------------


def traces_of(world: World, id_: str, accounts: set[str] | None = None) -> Traces:
    """What a world holds of a transfer, read off it."""
    records = [
        Record(SHARD, "rejected" if one.reason else "committed", *one.transfer[2:6], "", "saga")
        for one in world.booked
        if one.transfer.id == id_
    ]
    lines = [
        Line(SHARD, e.account, e.amount, e.counterparty, e.stamp, "EUR")
        for e in world.kept().entries
        if e.transfer == id_ and (accounts is None or e.account in accounts)
    ]
    return Traces(id_, records, lines, [], [])


@settings(max_examples=50)
@given(worlds(), sizes, st.integers(1, 4), st.sets(st.integers(0, 3)))
def test_transfers_come_in_the_order_of_their_ids_however_many_are_held(
    world: World, limit: int, held: int, parts: set[int]
) -> None:
    ids = sorted(one.transfer.id for one in world.booked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_books, "_PAGE", limit)
        patch.setattr(portions, "HELD_MAX", held)
        found = list(books_of(world).by_transfer(parts, 4))
    assert found == [traces_of(world, id_) for id_ in ids if crc32(id_.encode()) % 4 in parts]


@settings(max_examples=50)
@given(worlds(), st.sets(st.sampled_from(NAMES)), st.data())
def test_some_transfers_on_some_accounts(
    world: World, accounts: set[str], data: st.DataObject
) -> None:
    ids = [one.transfer.id for one in world.booked]
    some = data.draw(st.sets(st.sampled_from([*ids, "no id", f"000-{0:032x}"])))
    books = books_of(world)
    known = sorted(some & set(ids))
    assert list(books.of_transfers(some, accounts)) == [
        traces_of(world, id_, accounts) for id_ in known
    ]
    named = [one.transfer for one in world.booked if one.transfer.id in some]
    assert books.ends_of(some) == {end for each in named for end in each[2:4]}


def test_an_entry_without_an_account_has_no_currency() -> None:
    world = bank()
    (first, *_) = world.booked
    del world.accounts["alice"]
    (found,) = books_of(world).of_transfers([first.transfer.id], ["alice", "bank"])
    assert [(line.account, line.currency) for line in found.lines] == [
        ("alice", ""),
        ("bank", "EUR"),
    ]
