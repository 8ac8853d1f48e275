"""A node on real files: answers follow durability, and what fails ends it without a lie."""

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventstore.commands import Packer
from eventstore.machine.machine import Limits as MachineLimits
from eventstore.node.errors import Busy, NoRoom, NotServing, NotTaken, OutcomeUnknown
from eventstore.node.intake import Limits
from eventstore.node.node import Node
from eventstore.rows import Code, Outcomes, pack_texts, place
from eventstore.segments.errors import Differs, FolderInUse
from eventstore.segments.files import Disk
from eventstore.segments.frame import Body, Draft
from eventstore.segments.reader import Reader
from eventstore.segments.writer import List
from ledger.errors import Bug
from ledger.ids import slot_of, transfer_id
from tests.cluster import wait_until
from tests.eventstore.groups import (
    GROUP,
    PATIENCE_S,
    SETTINGS,
    accounts,
    balances,
    codes,
    new_folder,
    opened,
    transfers,
    wish,
)

MANY = 30_000


class SlowDisk(Disk):
    """Flushes when it is let, or fails as it is told; is as full as is said."""

    def __init__(self) -> None:
        self.may_flush = threading.Event()
        self.may_flush.set()
        self.fails: OSError | None = None
        self.room_bytes: int | None = None

    def flush(self, file: int) -> None:
        assert self.may_flush.wait(PATIENCE_S)
        if self.fails:
            raise self.fails
        super().flush(file)

    def room(self, folder: Path) -> int:
        return super().room(folder) if self.room_bytes is None else self.room_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return new_folder(tmp_path / "group")


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    made = opened(folder)
    yield made
    made.stop()


def test_commands_are_decided_in_their_order(node: Node) -> None:
    assert codes(node.submit(*accounts("bank", "a", "b")).result(PATIENCE_S)) == [Code.DONE] * 3
    answer = node.submit(
        *transfers(
            wish("1", "a", "b", 5),
            wish("2", "bank", "a", 7),
            wish("3", "a", "b", 5),
            wish("4", "nobody", "b", 5),
        )
    ).result(PATIENCE_S)
    assert codes(answer) == [Code.FUNDS, Code.DONE, Code.DONE, Code.NO_SOURCE]
    (piece,) = answer.pieces
    assert piece.outcomes.details[["command", "a"]].tolist() == [(0, 0)]
    assert balances(node, "bank", "a", "b") == [-7, 2, 5]


def test_nothing_is_taken_from_no_command(node: Node) -> None:
    assert node.submit(*transfers()).result(PATIENCE_S).pieces == []


def test_an_account_that_is_opened_with_its_first_transfer(node: Node) -> None:
    packed = accounts("bank", "a")
    both = node.submit(*packed), node.submit(*transfers(wish("1", "bank", "a", 1)))
    assert [codes(one.result(PATIENCE_S)) for one in both] == [[Code.DONE] * 2, [Code.DONE]]


def test_what_is_no_command_is_not_taken(node: Node) -> None:
    commands, texts = transfers(wish("1", "bank", "a", 1))
    commands["amount"] = 0
    with pytest.raises(Bug, match="moves 1 or more"):
        node.submit(commands, texts)
    commands["amount"] = 1
    with pytest.raises(Bug, match="texts"):
        node.submit(commands, texts[:-1])
    commands["text"] -= 1
    with pytest.raises(Bug, match="texts"):
        node.submit(commands, texts[:-1])
    assert codes(node.submit(*accounts("bank")).result(PATIENCE_S)) == [Code.DONE]


def test_an_id_that_others_have_taken_is_refused_by_itself(node: Node) -> None:
    node.submit(*accounts("a", "b")).result(PATIENCE_S)
    first, other = wish("k", "a", "b", 1), wish("", "b", "a", 1)
    taken = other._replace(id=f"{slot_of('b'):03x}{transfer_id('a', 'k')[3:]}")
    for wishes in ([first, taken, taken], [taken]):
        answer = node.submit(*transfers(*wishes)).result(PATIENCE_S)
        assert codes(answer)[-1] == Code.REUSED
    assert balances(node, "a", "b") == [-1, 1]


def test_numbers_that_no_account_has_are_refused_by_themselves(node: Node) -> None:
    node.submit(*accounts("a", "b")).result(PATIENCE_S)
    sides = [(0, 1), (0, 2), (2, 0), (2**32 - 2, 7), (1, 1)]
    commands, _ = transfers(*(wish(f"k{n}", "x", "y", 5) for n in range(len(sides))))
    pieces = [pack_texts([f"k{n}", "{}", "", ""]) for n in range(len(sides))]
    for row, numbers, piece in zip(commands, sides, pieces, strict=True):
        row["source"], row["destination"] = numbers
        row["text"] = len(piece)
    texts = b"".join(pieces)
    commands.flags.writeable = False

    def submitted() -> list[Code]:
        return codes(node.submit(commands, texts).result(PATIENCE_S))

    refused = [Code.DONE, Code.NO_DESTINATION, Code.NO_SOURCE, Code.NO_SOURCE, Code.SAME_ACCOUNT]
    again = [Code.REPLAYED if code != Code.NO_SOURCE else code for code in refused]
    assert [submitted(), submitted()] == [refused, again]
    # What was refused for want of an account stays so when there is one: it was another one.
    node.submit(*accounts("c")).result(PATIENCE_S)
    assert submitted() == [again[0], Code.REUSED, Code.DONE, *again[3:]]
    assert balances(node, "a", "b", "c") == [0, 5, -5]
    with pytest.raises(Bug, match="texts"):
        node.submit(commands, texts + b"x")


def test_more_than_a_frame_holds_is_answered_as_one(node: Node) -> None:
    node.submit(*accounts("bank", "a"))
    wishes = [wish(f"{n}", "bank", "a", 1 + n % 3, metadata="{}" * 20) for n in range(MANY)]
    refused = wish("refused", "a", "a", 1)
    answer = node.submit(*transfers(*wishes, refused)).result(PATIENCE_S)
    assert codes(answer) == [Code.DONE] * MANY + [Code.SAME_ACCOUNT]
    assert len(answer.pieces) > 2
    assert [p.first for p in answer.pieces[1:]] == [
        p.first + len(p.outcomes.codes) for p in answer.pieces[:-1]
    ]
    assert [p.seq for p in answer.pieces] == sorted({p.seq for p in answer.pieces})
    assert balances(node, "a") == [sum(1 + n % 3 for n in range(MANY))]


# --- answers follow durability ------------------------------------------------------------------


def test_nothing_is_told_before_it_is_durable(folder: Path) -> None:
    disk = SlowDisk()
    node = opened(folder, files=disk)
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    disk.may_flush.clear()
    done = node.submit(*transfers(wish("1", "bank", "a", 5)))
    refused = node.submit(*transfers(wish("2", "a", "bank", 50)))
    again = node.submit(*transfers(wish("1", "bank", "a", 5)))
    seen = node.look(lambda machine: machine.account(machine.number_of("a")).account.balance)
    # The machine is ahead: all of it is decided.
    wait_until(lambda: node._machine.seq > node.answerable, PATIENCE_S, "it decides nothing")
    assert not any(future.done() for future in (done, refused, again, seen))
    disk.may_flush.set()
    assert codes(done.result(PATIENCE_S)) == [Code.DONE]
    assert codes(refused.result(PATIENCE_S)) == [Code.FUNDS]
    assert codes(again.result(PATIENCE_S)) == [Code.REPLAYED]
    assert seen.result(PATIENCE_S) == 5
    node.stop()


def test_a_flush_that_fails_ends_it(folder: Path) -> None:
    disk, deaths = SlowDisk(), []
    node = opened(folder, files=disk, on_death=deaths.append)
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    disk.fails = OSError(errno.EIO, "Input/output error")
    lost = node.submit(*transfers(wish("1", "bank", "a", 5)))
    with pytest.raises(OutcomeUnknown, match="Input/output error"):
        lost.result(PATIENCE_S)
    disk.fails = None
    with pytest.raises(NotServing):
        # It has failed, and does not believe a flush that succeeds later.
        node.submit(*transfers(wish("2", "bank", "a", 5)))
    with pytest.raises(NotServing):
        node.look(len)
    node.stop()
    assert len(deaths) == 1
    after = opened(folder)
    # Written, and now flushed by who has opened it again: it may have happened, and has.
    assert codes(after.submit(*transfers(wish("1", "bank", "a", 5))).result(PATIENCE_S))[0] in (
        Code.DONE,
        Code.REPLAYED,
    )
    assert balances(after, "a") == [5]
    after.stop()


def test_what_waits_when_it_fails_was_not_taken(folder: Path) -> None:
    disk = SlowDisk()
    node = opened(folder, files=disk)
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    disk.may_flush.clear()
    futures = [node.submit(*transfers(wish(f"{n}", "bank", "a", 1))) for n in range(5)]
    disk.fails = OSError(errno.EIO, "Input/output error")
    disk.may_flush.set()
    errors = [type(future.exception(PATIENCE_S)) for future in futures]
    assert set(errors) <= {OutcomeUnknown, NotServing}
    assert errors[0] is OutcomeUnknown
    node.stop()


def test_stopping_answers_all_that_was_taken(folder: Path) -> None:
    node = opened(folder)
    futures = [node.submit(*accounts("bank", "a"))]
    futures += [node.submit(*transfers(wish(f"{n}", "bank", "a", 1))) for n in range(50)]
    node.stop()
    assert {code for future in futures for code in codes(future.result(0))} == {Code.DONE}
    with pytest.raises(NotServing, match="ending"):
        node.submit(*accounts("late"))


# --- the same again -----------------------------------------------------------------------------


def test_a_key_is_known_for_ever(folder: Path) -> None:
    first = opened(folder)
    first.submit(*accounts("bank", "a")).result(PATIENCE_S)
    once = wish("1", "bank", "a", 5, metadata='{"n":1}')
    (piece,) = first.submit(*transfers(once)).result(PATIENCE_S).pieces
    first.stop()
    again = opened(folder)
    other = once._replace(amount=6)
    (told,) = again.submit(*transfers(once, other, once)).result(PATIENCE_S).pieces
    assert told.outcomes.codes.tolist() == [Code.REPLAYED, Code.REUSED, Code.REPLAYED]
    assert set(told.outcomes.details["a"].tolist()) == {place(piece.seq, piece.at)}
    assert balances(again, "a") == [5]
    again.stop()


# --- bounds -------------------------------------------------------------------------------------


def test_more_than_may_wait_is_refused_at_once(folder: Path) -> None:
    disk = SlowDisk()
    node = opened(folder, SETTINGS._replace(intake=Limits(commands=10)), files=disk)
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    disk.may_flush.clear()
    taken = []

    def send_all() -> None:
        for n in range(1000):
            wishes = [wish(f"{n}.{i}", "bank", "a", 1) for i in range(4)]
            taken.append(node.submit(*transfers(*wishes)))

    # What is ahead of the disk has its bound, and what waits behind it too.
    with pytest.raises(Busy, match="nothing of it was taken"):
        send_all()
    disk.may_flush.set()
    assert {c for future in taken for c in codes(future.result(PATIENCE_S))} == {Code.DONE}
    assert balances(node, "a") == [len(taken) * 4]
    node.stop()


def test_a_disk_that_is_almost_full_takes_nothing(folder: Path) -> None:
    disk = SlowDisk()
    node = opened(folder, files=disk)
    disk.room_bytes = SETTINGS.intake.size_bytes
    with pytest.raises(NoRoom, match="make room"):
        node.submit(*accounts("bank"))
    disk.room_bytes = None
    # It does not have to be started again.
    assert codes(node.submit(*accounts("bank")).result(PATIENCE_S)) == [Code.DONE]
    node.stop()


def test_a_limit_of_the_machine_refuses_and_it_goes_on(folder: Path) -> None:
    node = opened(folder, SETTINGS._replace(machine=MachineLimits(accounts=3)))
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    with pytest.raises(NotTaken, match="limit of 3 accounts"):
        node.submit(*accounts("b", "c")).result(PATIENCE_S)
    assert codes(node.submit(*accounts("b")).result(PATIENCE_S)) == [Code.DONE]
    assert codes(node.submit(*transfers(wish("1", "bank", "b", 1))).result(PATIENCE_S)) == [
        Code.DONE
    ]
    node.stop()


def test_one_of_its_currencies_too(folder: Path) -> None:
    node = opened(folder, SETTINGS._replace(machine=MachineLimits(accounts=9, currencies=1)))
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    with pytest.raises(NotTaken, match="limit of 1 currencies"):
        node.submit(*Packer().open("b", "USDC2024").packed).result(PATIENCE_S)
    assert codes(node.submit(*accounts("b")).result(PATIENCE_S)) == [Code.DONE]
    node.stop()


# --- its list -----------------------------------------------------------------------------------


def test_an_idle_node_vouches_for_its_last_frame(node: Node) -> None:
    node.submit(*accounts("bank")).result(PATIENCE_S)
    answered = node.answerable
    wait_until(lambda: node.answerable > answered, PATIENCE_S, "no frame follows")
    *_, last = node._list.read()
    assert len(last.body.commands) == 0
    assert last.header.flushed >= answered


def test_a_node_that_is_stopped_vouches_for_its_last_frame(folder: Path) -> None:
    node = opened(folder)
    last = node.submit(*accounts("bank"))
    node.stop()
    (piece,) = last.result(0).pieces
    *_, vouching = Reader(folder, GROUP).read(until=Reader(folder, GROUP).tail().end.last.seq)
    assert len(vouching.body.commands) == 0
    assert vouching.header.flushed >= piece.seq


def test_each_start_is_an_epoch(folder: Path) -> None:
    for epoch in (1, 2, 3):
        node = opened(folder)
        assert node._list.last.epoch == epoch
        node.stop()


def test_two_nodes_do_not_share_a_folder(folder: Path, node: Node) -> None:
    with pytest.raises(FolderInUse):
        opened(folder)


def test_a_list_that_was_decided_otherwise_is_refused(folder: Path) -> None:
    """As a machine would that another version of the rules, or a bit of memory, has led astray."""
    commands, texts = accounts("bank", "a")
    with List.open(folder, GROUP, room_bytes_min=0) as list_:
        found = Outcomes(*(each.copy() for each in _outcomes_of(commands, texts)))
        found.codes[1] = Code.EXISTS
        list_.append([Draft(1, 1, 1, 1, 1, 1, Body(commands, found, texts))])
        list_.flush()
    with pytest.raises(Differs):
        opened(folder)


def _outcomes_of(commands, texts):
    from eventstore.machine.machine import Machine

    return Machine(bytes(16), lambda place: None).apply(1, 1, commands, texts)
