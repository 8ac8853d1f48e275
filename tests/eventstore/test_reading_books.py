"""Books stay as they were when they were opened, whatever comes after, page by page."""

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eventstore.reading.books import Books
from eventstore.reading.errors import BooksClosed, Ended
from eventstore.reading.heads import Heads
from eventstore.reading.id_order import IdOrder
from eventstore.rows import place
from eventstore.wire.questions import Booked
from ledger.model import Entry, Status
from tests.eventstore.test_reading_model import NOW, Group, Model, random_frames
from tests.unit.eventstore.machine_books import Change, Opening, Wish


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    group = Group(tmp_path / "list")
    yield group
    group.close()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "reading"
    folder.mkdir()
    return folder


def paged(ask: Callable[[Any, int], list[Any]], start: Any, position: Callable[[Any], Any]) -> Any:
    """All pages of each size, which are to be the same in all."""
    sizes = {}
    for limit in (1, 7, 1000):
        found, after = [], start
        while page := ask(after, limit):
            assert len(page) <= limit
            found += page
            after = position(page[-1])
        sizes[limit] = found
    assert sizes[1] == sizes[7] == sizes[1000]
    return sizes[1]


def check(books: Books, model: Model) -> None:
    """Whether books are what the model was then."""
    ids = sorted(model.accounts)
    accounts = paged(books.accounts, "", lambda account: account.id)
    assert accounts == [model.accounts[account] for account in ids]
    everything = [entry for account in ids for entry in model.entries[account]]
    stamps = sorted({entry.stamp for entry in everything}) or [NOW]
    ranges = [
        (None, None),
        (stamps[len(stamps) // 3], None),
        (None, stamps[len(stamps) // 2]),
        (stamps[len(stamps) // 3] + 1, stamps[-1]),
        (stamps[-1] + 1, None),
    ]
    for account in (None, *ids, "absent"):
        for since, until in ranges:

            def ask(after: tuple[str, int], limit: int) -> list[Entry]:
                return books.entries(after, limit, account, since, until)  # noqa: B023

            assert paged(ask, ("", 0), lambda entry: (entry.account, entry.number)) == [
                entry
                for entry in everything
                if account in (None, entry.account)
                and (since is None or since <= entry.stamp)
                and (until is None or entry.stamp < until)
            ]
    found: list[Booked] = paged(books.transfers, 0, lambda booked: booked.place)
    expected = [(id_, reason, at) for id_, (_, reason, at) in model.transfers.items()]
    assert [(b.transfer.id, b.reason, b.time_us) for b in found] == [
        (id_, reason, at.time_us) for id_, reason, at in expected
    ]
    for booked, (wish, _, at) in zip(found, model.transfers.values(), strict=True):
        assert booked.transfer == wish.transfer()._replace(created_at=at.time_us)
        assert booked.place >> 16 == at.seq


@pytest.mark.parametrize("seed", range(3))
def test_books_stay_as_they_were(group: Group, kept: Path, seed: int) -> None:
    frames = random_frames(random.Random(seed), 24)
    side = group.open(kept)
    opened: list[tuple[Books, Model]] = []
    for at, commands in enumerate(frames):
        if at in (0, 1, 9, 20):
            opened.append((side.open_books(), copy.deepcopy(group.model)))
        group.add(commands)
        group.follow(side)
    side.seal()
    for books, model in opened:
        assert books.as_of == model.as_of
        check(books, model)
        assert books.close() == model.as_of
    side.close()


def test_a_status_is_what_it_was_in_each_of_the_books(group: Group, kept: Path) -> None:
    side = group.open(kept)
    group.add([Opening("a"), Opening("b", None)])
    group.follow(side)
    all_books = []
    for status in (Status.FROZEN, Status.OPEN, Status.CLOSED):
        all_books.append(side.open_books())
        group.add([Change("a", status), Change("a", status)])
        group.follow(side)
    assert [books.accounts("", 1)[0].status for books in all_books] == ["open", "frozen", "open"]
    assert [books.accounts("a", 1)[0].id for books in all_books] == ["b"] * 3
    side.close()


def test_closed_books_are_closed(group: Group, kept: Path) -> None:
    group.add([Opening("a")])
    side = group.open(kept)
    group.follow(side)
    books, others = side.open_books(), side.open_books()
    books.close()
    books.close()
    for ask in (
        lambda: books.accounts("", 1),
        lambda: books.entries(("", 0), 1),
        lambda: books.transfers(0, 1),
    ):
        with pytest.raises(BooksClosed, match="open new ones"):
            ask()
    assert len(others.accounts("", 9)) == 1
    side.close()
    with pytest.raises(Ended):
        others.accounts("", 9)


def test_transfers_go_on_in_the_middle_of_a_frame(group: Group, kept: Path) -> None:
    group.add([Opening("bank", None), Opening("a")])
    group.add([Wish("bank", "a", 1, f"{n}") for n in range(5)] + [Wish("a", "bank", 99, "dear")])
    side = group.open(kept)
    group.follow(side)
    found = side.open_books().transfers(place(2, 3), 10)
    assert [booked.place for booked in found] == [place(2, 4), place(2, 5)]
    assert [booked.reason for booked in found] == [None, "insufficient-funds"]
    side.close()


def test_ids_are_in_the_order_of_python() -> None:
    chance = random.Random(1)
    letters = "AZaz09_.:{}-"
    ids = {"".join(chance.choices(letters, k=chance.randrange(1, 65))) for _ in range(20_000)}
    heads = Heads(len(ids) + 1)
    for account in ids:
        heads.open(account, "EUR", 1)
    heads.open("later", "EUR", 1)
    order = IdOrder(heads, len(ids))
    assert [heads.id_of(int(number)) for number in order.numbers] == sorted(ids)
    for at, account in list(enumerate(sorted(ids)))[::997]:
        assert (order.first_from(account), order.first_behind(account)) == (at, at + 1)
    assert IdOrder(heads, 0).first_from("a") == 0
