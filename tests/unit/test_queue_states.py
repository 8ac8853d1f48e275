"""A ticket's way to its one answer: who may say that nothing has happened, and until when."""

import random
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from coordinator.engine.scheduler import Closed, InUse, Overloaded
from coordinator.engine.tickets import (
    Latch,
    NotExecuted,
    NotExecutedReason,
    State,
    Ticket,
    too_late,
)
from tests.unit.tickets import ANSWER, GONE, Shards, has_nothing, queue, take, ticket

# --- deadlines, trouble ---------------------------------------------------------------------


def test_one_whose_time_is_up_is_answered_and_not_taken() -> None:
    waiting = queue()
    late, good = ticket("1a", "1b", deadline_s=-0.01), ticket("1a", "1b")
    waiting.put([late, good])
    assert take(waiting).tickets == [good]
    assert isinstance(late.answer, NotExecuted)
    assert late.answer.reason is NotExecutedReason.ACCOUNT_BUSY
    assert late.latch.wait(0)


def test_one_that_may_be_written_is_settled_not_written_anew_after_its_deadline() -> None:
    """Its id was not found under the locks: what was sent has come to nothing."""
    waiting = queue()
    sent = ticket("1a", "1b", deadline_s=0.02)
    waiting.put([sent])
    group = take(waiting)
    assert waiting.claim_for_writing([sent], "g1") == [sent]
    time.sleep(0.03)
    waiting.finished(group, [sent])
    assert take(waiting).tickets == [sent]
    assert sent.answer is None
    assert waiting.claim_for_writing([sent], "g2") == []
    assert sent.answer is not None
    assert sent.answer == too_late(sent)


def test_who_is_too_late_hears_what_has_kept_it() -> None:
    def told(**kept: object) -> str:
        late = ticket("1a", "1b", deadline_s=-0.01)
        for name, value in kept.items():
            setattr(late, name, value)
        waiting = queue()
        waiting.put([late])
        assert has_nothing(waiting)
        assert isinstance(late.answer, NotExecuted)
        return f"{late.answer.reason.value}: {late.answer.detail}"

    assert "account-busy: other transfers were in front of it" in told()
    assert "account-busy: its accounts stayed locked by other transfers" in told(skips=1)
    assert "account-busy: its accounts stayed locked by other transfers" in told(waits=1)
    refused = NotExecuted(
        NotExecutedReason.SHARD_UNAVAILABLE, "until its deadline: shard s1: too big"
    )
    assert (
        told(skips=3, blocked_by=refused)
        == "shard-unavailable: until its deadline: shard s1: too big"
    )


def test_a_shard_in_trouble_concerns_its_own_transfers_only() -> None:
    shards = Shards()
    waiting = queue(shards, shard_patience_s=0.5)
    shards.trouble["s2"] = 0.1
    stuck, good = ticket("1a", "2a"), ticket("1a", "1b")
    waiting.put([stuck, good])
    group = take(waiting)
    assert group.tickets == [good]
    waiting.finished(group, [])
    # There is some patience; after it the answer says which shard and why.
    assert has_nothing(waiting)
    assert stuck.answer is None
    shards.trouble["s2"] = 0.6
    assert has_nothing(waiting)
    assert isinstance(stuck.answer, NotExecuted)
    assert stuck.answer.reason is NotExecutedReason.SHARD_UNAVAILABLE
    assert "s2 is down" in stuck.answer.detail


def test_one_that_may_be_written_is_not_answered_for_trouble() -> None:
    shards = Shards()
    waiting = queue(shards)
    sent = ticket("1a", "2a")
    waiting.put([sent])
    group = take(waiting)
    waiting.claim_for_writing([sent], "g")
    shards.trouble["s2"] = 1e9
    waiting.finished(group, [sent])
    assert has_nothing(waiting)
    assert sent.answer is None
    shards.trouble.clear()
    assert take(waiting).tickets == [sent]


def test_the_shards_of_a_ticket_are_looked_up_when_it_is_taken() -> None:
    """The map may change while it waits."""
    shards = Shards()
    waiting = queue(shards)
    moved = ticket("1a", "2a")
    waiting.put([moved])
    group = take(waiting)
    assert moved.shards == ("s1", "s2")
    shards.moved = {"2": "s9"}
    waiting.finished(group, group.tickets)
    assert take(waiting).tickets[0].shards == ("s1", "s9")


# --- withdrawing ----------------------------------------------------------------------------


def test_withdrawn_before_written() -> None:
    waiting = queue()
    gone = ticket("1a", "1b")
    waiting.put([gone])
    group = take(waiting)
    waiting.withdraw([gone], GONE)
    assert gone.answer is GONE
    assert waiting.claim_for_writing([gone], "g") == []
    waiting.finished(group, [gone])
    assert has_nothing(waiting)
    assert waiting.unsettled == 0


def test_written_before_withdrawn() -> None:
    waiting = queue()
    sent = ticket("1a", "1b")
    waiting.put([sent])
    take(waiting)
    assert waiting.claim_for_writing([sent], "g") == [sent]
    waiting.withdraw([sent], GONE)
    assert sent.answer is None
    assert sent.state is State.SENT
    waiting.settle([(sent, ANSWER)])
    assert sent.answer is ANSWER


def test_undone_and_then_withdrawn() -> None:
    waiting = queue()
    sent = ticket("1a", "1b")
    waiting.put([sent])
    take(waiting)
    waiting.claim_for_writing([sent], "g")
    waiting.reopen([sent], "g")
    assert sent.state is State.OPEN
    waiting.withdraw([sent], GONE)
    assert sent.answer is GONE
    waiting.reopen([sent], "g")
    assert waiting.claim_for_writing([sent], "g") == []


def test_one_whose_time_is_up_is_not_written() -> None:
    waiting = queue()
    late = ticket("1a", "1b", deadline_s=0.02)
    waiting.put([late])
    take(waiting)
    time.sleep(0.03)
    assert waiting.claim_for_writing([late], "g") == []


def test_the_first_answer_holds() -> None:
    waiting = queue()
    latch = Latch(2)
    one = ticket("1a", "1b", latch=latch)
    waiting.put([one])
    waiting.settle([(one, ANSWER)])
    waiting.settle([(one, GONE)])
    waiting.withdraw([one], GONE)
    assert one.answer is ANSWER
    # It has counted once.
    assert not latch.wait(0)


def test_withdrawing_and_writing_never_both_win() -> None:
    """Many tickets, each fought for by a client whose time is up and an executor."""
    waiting = queue(waiting_max=10_000, group_max=10_000)
    tickets = [ticket(f"1a{n}", f"1b{n}") for n in range(3000)]
    waiting.put(tickets)
    take(waiting)
    written: list[Ticket] = []
    start = threading.Barrier(3)

    def withdraw() -> None:
        start.wait()
        for one in tickets:
            waiting.withdraw([one], GONE)

    def write(mine: Sequence[Ticket]) -> None:
        start.wait()
        for one in reversed(mine):
            written.extend(waiting.claim_for_writing([one], "g"))

    threads = [
        threading.Thread(target=withdraw),
        threading.Thread(target=write, args=[tickets[::2]]),
        threading.Thread(target=write, args=[tickets[1::2]]),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written_ids = {id(one) for one in written}
    for one in tickets:
        is_withdrawn = one.answer is GONE
        assert is_withdrawn != (id(one) in written_ids)
        assert one.state is (State.DONE if is_withdrawn else State.SENT)
    assert waiting.unsettled == len(written)


# --- limits, ends ---------------------------------------------------------------------------


def test_beyond_its_limit_all_or_nothing_is_taken() -> None:
    waiting = queue(waiting_max=3)
    waiting.put([ticket("1a", "1b") for _ in range(2)])
    refused = [ticket("1a", "1b", id_="over1"), ticket("1a", "1b", id_="over2")]
    with pytest.raises(Overloaded):
        waiting.put(refused)
    assert waiting.find("over1") is None
    assert waiting.unsettled == 2
    waiting.put(refused[:1])
    # What is under way no longer waits.
    take(waiting)
    waiting.put([ticket("1a", "1b") for _ in range(3)])


def test_what_is_worked_on_is_found_until_it_is_answered() -> None:
    waiting = queue()
    one = ticket("1a", "1b", id_="t1")
    assert waiting.find("t1") is None
    waiting.put([one])
    assert waiting.find("t1") is one
    take(waiting)
    assert waiting.find("t1") is one
    waiting.settle([(one, ANSWER)])
    assert waiting.find("t1") is None


def test_of_two_with_one_id_the_one_that_may_be_written_is_found() -> None:
    waiting = queue()
    elder, younger = ticket("1a", "1b", id_="t1"), ticket("1a", "1b", id_="t1")
    waiting.put([elder])
    waiting.put([younger])
    assert waiting.find("t1") is elder
    waiting.claim_for_writing([younger], "g")
    assert waiting.find("t1") is younger
    waiting.settle([(elder, ANSWER)])
    assert waiting.find("t1") is younger


def test_undone_is_what_the_last_group_wrote() -> None:
    waiting = queue()
    sent = ticket("1a", "1b")
    waiting.put([sent])
    take(waiting)
    waiting.claim_for_writing([sent], "g2")
    waiting.reopen([sent], "g1")
    assert sent.state is State.SENT


def test_one_at_work_is_not_taken_a_second_time() -> None:
    waiting = queue()
    first, second = ticket("1a", "1b", id_="t1"), ticket("1a", "1b", id_="t1")
    waiting.put([first], alone=True)
    with pytest.raises(InUse) as caught:
        waiting.put([second], alone=True)
    assert caught.value.ticket is first
    assert waiting.unsettled == 1


def test_a_closed_queue_takes_nothing_and_empties() -> None:
    waiting = queue()
    last = ticket("1a", "1b")
    waiting.put([last])
    assert not waiting.close(time.monotonic() + 0.01)
    with pytest.raises(Closed):
        waiting.put([ticket("1a", "1b")])
    group = take(waiting)
    assert group.tickets == [last]
    waiting.finished(group, [last])
    assert take(waiting).tickets == [last]
    waiting.settle([(last, ANSWER)])
    assert waiting.close(time.monotonic())
    assert waiting.take() is None


def test_closing_wakes_those_who_wait() -> None:
    waiting = queue()
    last = ticket("1a", "1b")
    waiting.put([last])
    take(waiting)
    results: list[object] = []
    taker = threading.Thread(target=lambda: results.append(waiting.take()))
    closer = threading.Thread(target=lambda: results.append(waiting.close(time.monotonic() + 9)))
    begun = time.monotonic()
    taker.start()
    closer.start()
    time.sleep(0.05)
    waiting.settle([(last, ANSWER)])
    taker.join(5)
    closer.join(5)
    assert sorted(map(str, results)) == ["None", "True"]
    assert time.monotonic() - begun < 2


@pytest.fixture
def executors() -> Iterator[list[threading.Thread]]:
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_groups_under_way_never_share_an_account(executors: list[threading.Thread]) -> None:
    waiting = queue(waiting_max=10_000, group_max=7)
    chance = random.Random(7)
    names = [f"{shard}{n}" for shard in (1, 2) for n in range(12)]
    tickets = [ticket(*chance.sample(names, 2)) for _ in range(600)]
    lock, busy, faults = threading.Lock(), set[str](), list[set[str]]()

    def execute() -> None:
        while group := waiting.take():
            with lock:
                if busy & group.accounts:
                    faults.append(busy & group.accounts)
                busy.update(group.accounts)
            again = [t for t in group.tickets if chance.random() < 0.2]
            with lock:
                busy.difference_update(group.accounts)
            for one in group.tickets:
                if one not in again:
                    waiting.settle([(one, ANSWER)])
            waiting.finished(group, again)

    executors += [threading.Thread(target=execute) for _ in range(4)]
    for thread in executors:
        thread.start()
    waiting.put(tickets)
    assert waiting.close(time.monotonic() + 20)
    assert not faults
    assert all(one.answer is ANSWER for one in tickets)


# --- latches --------------------------------------------------------------------------------


def test_a_latch_opens_at_zero() -> None:
    latch = Latch(2)
    latch.count_down()
    assert not latch.wait(time.monotonic() + 0.01)
    latch.count_down()
    assert latch.wait(0)
    assert Latch(0).wait(0)
