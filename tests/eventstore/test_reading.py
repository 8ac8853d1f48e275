"""The read side answers as a model in plain Python does, whatever the commands are and wherever it
was stopped.
"""

import logging
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.reading.errors import CatchingUp, Ended, NotYet
from eventstore.reading.follower import Follower
from eventstore.reading.keeper import Sizes
from eventstore.reading.side import drop
from eventstore.segments.errors import Differs, FolderInUse
from eventstore.segments.reader import Reader
from eventstore.verify import replay
from ledger.errors import Bug
from ledger.model import Status
from tests.eventstore.groups import GROUP, PATIENCE_S
from tests.eventstore.test_reading_model import (
    NOW,
    Group,
    check,
    new_machine,
    random_frames,
)
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


def fill(group: Group, frames: int = 30, seed: int = 1) -> None:
    for commands in random_frames(random.Random(seed), frames):
        group.add(commands)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 12, 40]), st.integers(2, 4))
def test_all_answers_are_those_of_the_model(seed: int, entries: int, merged: int) -> None:
    chance, sizes = random.Random(seed), Sizes(entries, merged)
    with tempfile.TemporaryDirectory() as place:
        group, kept = Group(Path(place) / "list"), Path(place) / "reading"
        kept.mkdir()
        side = group.open(kept, sizes=sizes)
        for commands in random_frames(chance, 20):
            group.add(commands, chance.choice([1, 1000]))
            group.follow(side)
            if chance.random() < 0.1:
                check(side, group.model, [chance.randrange(1, 5)])
            if chance.random() < 0.1:
                side.seal()
            if chance.random() < 0.1:
                side.close()
                side = group.open(kept, sizes=sizes)
                group.follow(side)
        check(side, group.model, [2, 1000])
        side.seal()
        check(side, group.model, [1000])
        side.verify()
        side.close()
        group.close()


def test_every_moment_is_seen(group: Group, kept: Path) -> None:
    """What was asked after each frame is what the model had then."""
    side = group.open(kept)
    for commands in random_frames(random.Random(3), 12):
        group.add(commands)
        group.follow(side)
        check(side, group.model, [2])
    side.close()


def test_entries_of_one_frame_on_one_account_are_in_their_order(group: Group, kept: Path) -> None:
    group.add([Opening("bank", None), Opening("a")])
    group.add([Wish("bank", "a", n, f"{n}") for n in range(1, 40)] + [Wish("a", "bank", 5, "b")])
    side = group.open(kept)
    group.follow(side)
    found = side.entries("a", None, 100).entries
    assert found is not None
    assert [entry.amount for entry in found] == [*range(1, 40), -5]
    check(side, group.model)
    side.close()


def test_a_status_that_changes_nothing_updates_nothing(group: Group, kept: Path) -> None:
    group.add([Opening("a")])
    group.add([Change("a", Status.OPEN)])
    side = group.open(kept)
    group.follow(side)
    (a,) = side.accounts(["a"]).accounts
    assert a is not None
    assert a.created_at == a.updated_at == NOW + 10
    group.add([Change("a", Status.FROZEN)])
    group.follow(side)
    (a,) = side.accounts(["a"]).accounts
    assert a is not None
    assert (a.created_at, a.updated_at) == (NOW + 10, NOW + 30)
    side.close()


# --- after a start ------------------------------------------------------------------------------


def test_nothing_is_answered_before_it_has_seen_again_what_it_had(group: Group, kept: Path) -> None:
    fill(group)
    side = group.open(kept)
    group.follow(side)
    side.seal()
    side.close()
    side = group.open(kept)
    assert side.next_seq == 1
    frames = list(group.frames())
    for frame in frames[:-1]:
        side.apply(frame)
        for ask in (
            lambda: side.accounts(["account-1"]),
            lambda: side.entries("account-1", None, 1),
            lambda: side.balance_at("account-1", 0),
            lambda: side.entries_of("account-1", "no id"),
            side.open_books,
        ):
            with pytest.raises(CatchingUp, match="and was at 31 before"):
                ask()
    assert not side.wait_for(0, 0)
    entries = side.stock.entries
    side.apply(frames[-1])
    assert side.stock.entries == entries
    assert side.wait_for(0, 0)
    check(side, group.model)
    side.close()


@pytest.mark.parametrize("seq", [0, 5, 20, 31])
def test_a_machine_from_a_snapshot_is_taken_as_it_is(group: Group, kept: Path, seq: int) -> None:
    """Whether what is kept is behind it, or before it, or not there at all."""
    fill(group)
    side = group.open(kept)
    for frame in list(group.frames())[:18]:
        side.apply(frame)
    side.seal()
    side.close()
    for is_dropped in (False, True):
        if is_dropped:
            drop(kept)
        machine = new_machine(group.folder)
        for frame in list(group.frames())[:seq]:
            replay(frame, machine)
        side = group.open(kept, machine=machine)
        assert side.next_seq <= min(seq, 0 if is_dropped else 18) + 1
        group.follow(side)
        check(side, group.model, [3])
        side.close()


def test_one_that_has_seen_all_answers_at_once(group: Group, kept: Path) -> None:
    fill(group)
    side = group.open(kept)
    group.follow(side)
    side.seal()
    side.close()
    machine = new_machine(group.folder)
    for frame in group.frames():
        replay(frame, machine)
    side = group.open(kept, machine=machine)
    assert side.next_seq == 32
    check(side, group.model, [3])
    side.close()


def test_accounts_are_not_kept_with_each_run(group: Group, kept: Path) -> None:
    """Where there are many for few entries: they are made of the list again."""
    group.add([Opening(f"{n}", None) for n in range(40)])
    side = group.open(kept, sizes=Sizes(10, 3))
    heads = set()
    for n in range(30):
        group.add([Wish(f"{n}", f"{n + 1}", 5 + k, f"{k}") for k in range(5)])
        group.follow(side)
        heads.add(side.stock.heads)
    assert len(heads) <= 3
    side.close()
    side = group.open(kept, sizes=Sizes(10, 3))
    group.follow(side)
    check(side, group.model, [3])
    side.close()


def test_a_list_that_was_set_back_is_read_anew(
    tmp_path: Path, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place, seed, frames in (("old", 1, 30), ("shorter", 2, 12), ("longer", 3, 50)):
        group = Group(tmp_path / place)
        fill(group, frames, seed)
        with caplog.at_level(logging.ERROR):
            side = group.open(kept)
        assert side.next_seq == 1
        group.follow(side)
        check(side, group.model, [3])
        side.seal()
        side.close()
        group.close()
    events = [getattr(record, "event", "") for record in caplog.records]
    assert events == ["reading.discarded"] * 2
    assert "no frame 31 with hash" in caplog.text


def test_dropped_and_made_anew(group: Group, kept: Path) -> None:
    fill(group)
    side = group.open(kept)
    with pytest.raises(FolderInUse):
        drop(kept)
    group.follow(side)
    side.seal()
    assert len(list(kept.iterdir())) > 3
    side.close()
    drop(kept)
    assert [path.name for path in kept.iterdir()] == ["holder"]
    side = group.open(kept)
    assert (side.next_seq, side.stock.entries) == (1, 0)
    assert side.as_of.seq == 0
    assert side.accounts(["account-1"]).accounts == [None]
    group.follow(side)
    check(side, group.model, [3])
    side.close()


# --- what it refuses ----------------------------------------------------------------------------


def test_a_time_that_is_not_past_is_not_answered(group: Group, kept: Path) -> None:
    group.add([Opening("a")])
    side = group.open(kept)
    group.follow(side)
    assert side.balance_at("a", NOW + 10).balance == 0
    with pytest.raises(NotYet, match=f"the balance at {NOW + 11} is not known yet"):
        side.balance_at("a", NOW + 11)
    side.close()


def test_frames_come_one_after_the_other(group: Group, kept: Path) -> None:
    fill(group, 3)
    side = group.open(kept)
    with pytest.raises(Bug, match="frame 2 was given to a read side whose next one is 1"):
        side.apply(list(group.frames())[1])
    with pytest.raises(Ended, match="frame 2 was given"):
        side.accounts([])
    side.close()


def test_another_outcome_ends_it(group: Group, kept: Path) -> None:
    """Nothing of such a frame is shown, and nothing else any more."""
    group.add([Opening("bank", None), Opening("a")])
    group.add([Wish("bank", "a", 5)])
    side = group.open(kept)
    first, second = group.frames()
    side.apply(first)
    codes = second.body.outcomes.codes.copy()
    codes[0] = 3
    wrong = second.body._replace(outcomes=second.body.outcomes._replace(codes=codes))
    with pytest.raises(Differs):
        side.apply(second._replace(body=wrong))
    for ask in (lambda: side.accounts(["a"]), lambda: side.wait_for(0, 1), side.seal):
        with pytest.raises(Ended, match="frame 2, command 0: the list says"):
            ask()
    side.close()
    with pytest.raises(Ended):
        side.accounts(["a"])


# --- many at once -------------------------------------------------------------------------------


def test_readers_beside_a_follower_see_moments(group: Group, kept: Path) -> None:
    """Money is neither there twice nor gone, whenever it is looked at; and `wait_for` wakes."""
    names = ["bank", "a", "b", "c"]
    group.add([Opening(name, None) for name in names])
    chance = random.Random(5)
    for n in range(150):
        sides = chance.sample(names, 2)
        group.add([Wish(*sides, 1 + k, f"{n}-{k}", by_name=False) for k in range(10)])
    side = group.open(kept, sizes=Sizes(100, 3))
    died: list[BaseException] = []
    follower = Follower(side, Reader(group.folder, GROUP), died.append)
    wrong: list[str] = []
    seen: list[set[int]] = [set(), set(), set()]
    last = group.machine.seq

    def look(moments: set[int]) -> None:
        while side.as_of.seq < last:
            found = side.accounts(names)
            moments.add(found.as_of.seq)
            accounts = [each.account for each in found.accounts if each]
            if sum(account.balance for account in accounts):
                wrong.append(f"{found}")
            for name in names:
                page = side.entries(name, None, 7, True)
                for entry in page.entries or []:
                    if entry != group.model.entries[name][entry.number - 1]:
                        wrong.append(f"{entry}")

    threads = [threading.Thread(target=look, args=(moments,)) for moments in seen]
    follower.start()
    for thread in threads:
        thread.start()
    for seq in range(1, last + 1):
        follower.tell(seq)
    assert side.wait_for(last, PATIENCE_S)
    for thread in threads:
        thread.join(PATIENCE_S)
    follower.stop()
    assert not died
    assert not wrong
    assert len(set.union(*seen)) > 20
    check(side, group.model, [50])
    side.close()


def test_a_follower_reads_no_further_than_it_was_told(group: Group, kept: Path) -> None:
    fill(group, 10)
    side = group.open(kept)
    follower = Follower(side, Reader(group.folder, GROUP), lambda error: None)
    follower.start()
    follower.tell(4)
    assert side.wait_for(4, PATIENCE_S)
    follower.tell(2)
    follower.stop()
    assert (side.as_of.seq, follower.answerable) == (4, 4)
    side.close()


def test_a_follower_tells_of_its_death(group: Group, kept: Path) -> None:
    fill(group, 3)
    side = group.open(kept)
    died: list[BaseException] = []
    is_dead = threading.Event()
    follower = Follower(
        side, Reader(group.folder, GROUP), lambda error: (died.append(error), is_dead.set())[1]
    )
    side.close()
    follower.start()
    follower.tell(4)
    assert is_dead.wait(PATIENCE_S)
    assert isinstance(died[0], Ended)
    follower.stop()


def test_one_process_to_a_folder(group: Group, kept: Path) -> None:
    side = group.open(kept)
    with pytest.raises(FolderInUse):
        group.open(kept)
    side.close()
    group.open(kept).close()
