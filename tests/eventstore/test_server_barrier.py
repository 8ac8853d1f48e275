"""Barriers of a node, and who is told how far its list is durable."""

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventstore.machine.machine import Limits as MachineLimits
from eventstore.node import node as node_module
from eventstore.node.durable import At, Durable
from eventstore.node.errors import NodeError, NoRoom, NotServing, NotTaken
from eventstore.node.node import AHEAD_MAX, Node
from eventstore.segments.frame import Frame
from tests.cluster import wait_until
from tests.eventstore.groups import (
    PATIENCE_S,
    SETTINGS,
    accounts,
    codes,
    new_folder,
    opened,
    transfers,
    wish,
)
from tests.eventstore.test_node import SlowDisk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return new_folder(tmp_path / "group")


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
def node(folder: Path, disk: SlowDisk) -> Iterator[Node]:
    made = opened(folder, files=disk)
    yield made
    disk.may_flush.set()
    made.stop()


def frames(node: Node) -> list[Frame]:
    return list(node._list.read())


# --- barriers -----------------------------------------------------------------------------------


def test_an_idle_node_makes_a_frame_at_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "PAUSE_S", 10 * PATIENCE_S)
    before = node.durable
    at = node.barrier().result(PATIENCE_S)
    assert at.seq == before.seq + 1
    assert at.time_us > before.time_us
    assert node.barrier().result(PATIENCE_S).seq == at.seq + 1
    made = frames(node)[at.seq - 1]
    assert (made.header.seq, made.header.time_us, len(made.body.commands)) == (*at, 0)


def test_it_is_vouched_for(node: Node) -> None:
    at = node.barrier().result(PATIENCE_S)
    wait_until(lambda: node.answerable > at.seq, PATIENCE_S, "no frame follows")
    *_, last = frames(node)
    assert last.header.flushed >= at.seq


def test_under_load_it_is_the_next_frame(node: Node, disk: SlowDisk) -> None:
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    done = node.submit(*transfers(wish("1", "bank", "a", 1)))
    (piece,) = done.result(PATIENCE_S).pieces
    disk.may_flush.clear()
    # What comes together is in one frame; what is ahead of the disk is not waited for.
    waiting = [node.submit(*transfers(wish(f"b{n}", "bank", "a", 1))) for n in range(50)]
    barrier, again = node.barrier(), node.barrier()
    after = node.submit(*transfers(wish("after", "bank", "a", 1)))
    wait_until(lambda: node._machine.seq > piece.seq, PATIENCE_S, "it decides nothing")
    assert not barrier.done()
    disk.may_flush.set()
    at = barrier.result(PATIENCE_S)
    seqs = [future.result(PATIENCE_S).pieces[0].seq for future in waiting]
    assert piece.seq < seqs[-1] <= at.seq <= again.result(PATIENCE_S).seq
    assert at.seq <= after.result(PATIENCE_S).pieces[0].seq
    assert frames(node)[at.seq - 1].header.time_us == at.time_us


def test_a_frame_that_is_refused_leaves_its_barrier_a_frame(folder: Path, disk: SlowDisk) -> None:
    settings = SETTINGS._replace(machine=MachineLimits(accounts=1))
    node = opened(folder, settings, files=disk)
    node.submit(*accounts("bank")).result(PATIENCE_S)
    disk.may_flush.clear()
    ahead = []
    while node._room_ahead._value:
        ahead.append(node.barrier())
        wait_until(lambda: not node._intake._queue, PATIENCE_S, "it decides nothing")
    assert len(ahead) >= AHEAD_MAX - 1
    # The decider holds one more, which finds no room: what comes now is gathered as one.
    held = node.barrier()
    wait_until(lambda: not node._intake._queue, PATIENCE_S, "it decides nothing")
    refused, barrier = node.submit(*accounts("a")), node.barrier()
    disk.may_flush.set()
    with pytest.raises(NotTaken, match="limit of 1 accounts"):
        refused.result(PATIENCE_S)
    assert barrier.result(PATIENCE_S).seq > held.result(PATIENCE_S).seq
    node.stop()


def test_no_barrier_on_a_full_disk_nor_of_a_node_that_ends(node: Node, disk: SlowDisk) -> None:
    disk.room_bytes = SETTINGS.intake.size_bytes
    with pytest.raises(NoRoom, match="make room"):
        node.barrier()
    disk.room_bytes = None
    last = node.barrier()
    node.stop()
    assert last.result(0).seq == node.durable.seq - 1
    with pytest.raises(NotServing):
        node.barrier()


def test_a_node_that_dies_answers_no_barrier(node: Node, disk: SlowDisk) -> None:
    disk.may_flush.clear()
    barriers = [node.barrier() for _ in range(100)]
    disk.fails = OSError(errno.EIO, "it is gone")
    disk.may_flush.set()
    for barrier in barriers:
        with pytest.raises(NodeError, match="it is gone"):
            barrier.result(PATIENCE_S)


def test_it_counts_what_it_writes(node: Node) -> None:
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    counts = node.counts
    for n in range(3):
        node.submit(*transfers(wish(f"{n}", "bank", "a", 1))).result(PATIENCE_S)
    assert node.counts.commands == counts.commands + 3
    assert node.counts.frames >= counts.frames + 3
    assert node.counts.flushes >= counts.flushes + 3
    assert node.counts.flush_seconds > counts.flush_seconds > 0


# --- who follows --------------------------------------------------------------------------------


class Told:
    """Keeps what it is told; waits in between if it is to."""

    def __init__(self) -> None:
        self.at: list[At] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def tell(self, at: At) -> None:
        self.at.append(at)
        assert self.may_go_on.wait(PATIENCE_S)


def test_followers_are_told_of_the_last_frame(node: Node) -> None:
    told = Told()
    node.follow(told.tell)
    wait_until(lambda: told.at == [node.durable], PATIENCE_S, "it is not told how it is")
    at = node.barrier().result(PATIENCE_S)
    wait_until(lambda: told.at[-1] >= at, PATIENCE_S, "it is not told of a frame")
    assert told.at == sorted(set(told.at))


def test_a_slow_one_holds_up_nobody_and_is_told_the_last(node: Node) -> None:
    slow = Told()
    node.follow(slow.tell)
    wait_until(lambda: slow.at, PATIENCE_S, "it is not told")
    slow.may_go_on.clear()
    for _ in range(10):
        node.barrier().result(PATIENCE_S)
    last = node.durable
    slow.may_go_on.set()
    wait_until(lambda: slow.at[-1] >= last, PATIENCE_S, "it is not told in the end")
    assert len(slow.at) < 8


def test_those_who_fail_or_leave_are_told_no_more() -> None:
    durable, told, leaving, failing = Durable(), Told(), Told(), Told()

    def fail(at: At) -> None:
        failing.tell(at)
        raise ZeroDivisionError("it fails")

    durable.follow(told.tell, after=1)
    leave = durable.follow(leaving.tell)
    durable.follow(fail)
    durable.rise(At(1, 10))
    assert durable.at == At(1, 10)
    wait_until(lambda: leaving.at and failing.at, PATIENCE_S, "they are not told")
    leave()
    durable.rise(At(2, 20))
    wait_until(lambda: told.at == [At(2, 20)], PATIENCE_S, "it is not told")
    durable.rise(At(3, 30))
    # What is left to tell is told at the end.
    durable.close()
    assert told.at == [At(2, 20), At(3, 30)]
    assert failing.at == leaving.at == [At(1, 10)]


def test_codes_stay_as_they_were(node: Node) -> None:
    """Barriers between commands change no outcome."""
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    answers = []
    for n in range(20):
        answers.append(node.submit(*transfers(wish(f"{n % 10}", "bank", "a", 1))))
        node.barrier()
    found = [codes(answer.result(PATIENCE_S))[0].name for answer in answers]
    assert found == ["DONE"] * 10 + ["REPLAYED"] * 10
