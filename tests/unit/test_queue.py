"""The queue: what waits, what may run together, and who may say that nothing has happened."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.queue import (
    Closed,
    Excuse,
    Group,
    Latch,
    NotDone,
    Overloaded,
    Queue,
    Refused,
    State,
    Ticket,
    pause_after,
)
from ledger.model import Reason, Refusal, Transfer

FAR_S = 60.0
GONE = NotDone(Excuse.ACCOUNT_BUSY, "withdrawn")
ANSWER = Refused(Refusal(Reason.SAME_ACCOUNT, "an answer like any other"))


class Shards:
    """Account `1a` is on shard `s1`; a shard is in trouble since so many seconds."""

    def __init__(self) -> None:
        self.trouble: dict[str, float] = {}
        self.moved: dict[str, str] = {}

    def shard_of(self, account: str) -> str:
        return self.moved.get(account[0], f"s{account[0]}")

    def trouble_with(self, shard: str) -> tuple[str, float] | None:
        return (f"{shard} is down", self.trouble[shard]) if shard in self.trouble else None


def queue(shards: Shards | None = None, **limits: Any) -> Queue:
    shards = shards or Shards()
    given_limits = {"waiting_max": 1000, "group_max": 100, "skips_max": 3, "shard_patience_s": 0.5}
    return Queue(
        **(given_limits | limits), shard_of=shards.shard_of, trouble_with=shards.trouble_with
    )


def ticket(
    source: str,
    destination: str,
    *,
    batch: object = None,
    deadline_s: float = FAR_S,
    id_: str = "",
    latch: Latch | None = None,
) -> Ticket:
    name = id_ or f"{source}>{destination}#{random.getrandbits(32):x}"
    transfer = Transfer(name, name, source, destination, 1, "EUR", None, "xa", 0)
    return Ticket(transfer, time.monotonic() + deadline_s, latch or Latch(1), batch)


def take(waiting: Queue) -> Group:
    group = waiting.take()
    assert group is not None
    return group


def has_nothing(waiting: Queue) -> bool:
    """Whether nothing can be taken now."""
    return waiting._pick() is None


# --- groups ---------------------------------------------------------------------------------


def test_what_waits_is_taken_together_in_order() -> None:
    waiting = queue()
    tickets = [ticket("1a", "1b") for _ in range(5)]
    waiting.put(tickets[:2])
    waiting.put(tickets[2:])
    group = take(waiting)
    assert group.tickets == tickets
    assert group.accounts == {"1a", "1b"}
    assert group.in_line is None
    assert waiting.unsettled == 5


def test_a_group_has_a_size() -> None:
    waiting = queue(group_max=3)
    tickets = [ticket(f"1a{n}", f"1b{n}") for n in range(7)]
    waiting.put(tickets)
    assert [take(waiting).tickets for _ in range(3)] == [tickets[:3], tickets[3:6], tickets[6:]]


def test_accounts_of_a_group_under_way_are_claimed() -> None:
    waiting = queue(group_max=1)
    first, same, free = ticket("1a", "1b"), ticket("1b", "1c"), ticket("1d", "1e")
    waiting.put([first, same, free])
    group = take(waiting)
    assert take(waiting).tickets == [free]
    assert has_nothing(waiting)
    waiting.finished(group, [])
    assert take(waiting).tickets == [same]


def test_what_runs_again_comes_back_at_its_old_place() -> None:
    waiting = queue(group_max=2)
    tickets = [ticket("1a", "1b") for _ in range(4)]
    waiting.put(tickets)
    group = take(waiting)
    waiting.settle(tickets[0], ANSWER)
    waiting.finished(group, [tickets[1], tickets[0]])
    # The one that has its answer is not run again.
    assert take(waiting).tickets == tickets[1:3]


def test_what_is_put_back_later_comes_back_at_its_old_place() -> None:
    waiting = queue(group_max=1)
    first, second = ticket("1a", "1b"), ticket("1a", "1b")
    waiting.put([first, second])
    waiting.finished(take(waiting), [])
    waiting.put_back([first])
    assert take(waiting).tickets == [first]


def test_a_pause_is_kept() -> None:
    waiting = queue()
    later, now = ticket("1a", "1b"), ticket("1a", "1b")
    later.not_before = time.monotonic() + 0.05
    waiting.put([later, now])
    group = take(waiting)
    assert group.tickets == [now]
    waiting.finished(group, [])
    assert take(waiting).tickets == [later]
    assert time.monotonic() >= later.not_before


def test_one_shard_alone_does_not_wait_for_others() -> None:
    waiting = queue()
    local, other, more = ticket("1a", "1b"), ticket("2a", "2b"), ticket("1c", "1d")
    waiting.put([local, other, more])
    assert take(waiting).tickets == [local, more]
    assert take(waiting).tickets == [other]


def test_transfers_across_shards_share_a_group_and_locals_ride_along() -> None:
    waiting = queue()
    tickets = [
        ticket("1a", "1b"),
        ticket("3a", "3b"),
        ticket("1c", "2c"),
        ticket("2d", "2e"),
        ticket("2f", "1f"),
    ]
    waiting.put(tickets)
    riding = [tickets[0], *tickets[2:]]
    assert take(waiting).tickets == riding
    assert take(waiting).tickets == [tickets[1]]


def test_a_local_first_whose_shard_nothing_leaves_goes_alone() -> None:
    waiting = queue()
    local, crossing = ticket("3a", "3b"), ticket("1a", "2a")
    waiting.put([local, crossing])
    assert take(waiting).tickets == [local]
    assert take(waiting).tickets == [crossing]


_accounts = st.sampled_from([f"{shard}{name}" for shard in "123" for name in "ab"])


@settings(deadline=None)
@given(st.lists(st.tuples(_accounts, _accounts, st.integers(1, 4)), max_size=14), st.integers(1, 5))
def test_in_order_and_each_once_however_groups_are_formed(
    ends: list[tuple[str, str, int]], group_max: int
) -> None:
    """Executed one group after the other, transfers that share an account keep their order."""
    waiting = queue(group_max=group_max)
    tickets = []
    for source, destination, limit in ends:
        made = ticket(source, destination)
        made.limit = limit
        tickets.append(made)
    waiting.put(tickets)
    done: list[Ticket] = []
    while len(done) < len(tickets):
        group = take(waiting)
        assert len(group.tickets) <= min(group_max, *(t.limit for t in group.tickets))
        done += group.tickets
        waiting.finished(group, [])
    assert sorted(t.number for t in done) == [t.number for t in tickets]
    for account in {
        account for source, destination, _ in ends for account in (source, destination)
    }:
        order = [t.number for t in done if account in (t.transfer.source, t.transfer.destination)]
        assert order == sorted(order)


# --- groups that were spoilt ----------------------------------------------------------------


def test_halving_the_limit_isolates_the_one_that_spoils() -> None:
    """As the executor does it: a group that is refused runs again in halves."""
    waiting = queue()
    tickets = [ticket("1a", "1b") for _ in range(16)]
    spoiler = tickets[11]
    waiting.put(tickets)
    done: list[Ticket] = []
    rounds = 0
    while waiting.unsettled:
        rounds += 1
        group = take(waiting)
        if spoiler not in group.tickets:
            for good in group.tickets:
                waiting.settle(good, ANSWER)
            done += group.tickets
            waiting.finished(group, [])
        elif len(group.tickets) == 1:
            waiting.settle(spoiler, GONE)
            waiting.finished(group, [])
        else:
            for member in group.tickets:
                member.limit = len(group.tickets) // 2
            waiting.finished(group, group.tickets)
    assert done == [good for good in tickets if good is not spoiler]
    assert spoiler.answer is GONE
    assert rounds <= 16


def test_a_small_limit_ends_a_group_before_it() -> None:
    waiting = queue()
    tickets = [ticket("1a", "1b") for _ in range(4)]
    tickets[2].limit = 1
    waiting.put(tickets)
    sizes = []
    for _ in range(3):
        group = take(waiting)
        sizes.append(len(group.tickets))
        waiting.finished(group, [])
    assert sizes == [2, 1, 1]


# --- order within a batch -------------------------------------------------------------------


def test_one_that_waits_holds_back_its_batch_as_far_as_accounts_are_shared() -> None:
    waiting = queue()
    batch = object()
    late = ticket("1a", "1b", batch=batch)
    after, beyond = ticket("1b", "1c", batch=batch), ticket("1c", "1d", batch=batch)
    free, stranger = ticket("1x", "1y", batch=batch), ticket("1b", "1e")
    late.not_before = time.monotonic() + FAR_S
    waiting.put([late, after, beyond, free, stranger])
    # `beyond` shares no account with `late`, but with `after`, which waits.
    assert take(waiting).tickets == [free, stranger]


def test_another_batch_is_not_held_back() -> None:
    waiting = queue()
    late = ticket("1a", "1b", batch=object())
    late.not_before = time.monotonic() + FAR_S
    other = ticket("1a", "1b", batch=object())
    waiting.put([late, other])
    assert take(waiting).tickets == [other]


def test_a_claimed_account_holds_back_a_batch() -> None:
    waiting = queue(group_max=1)
    waiting.put([ticket("1a", "1b")])
    under_way = take(waiting)
    batch = object()
    blocked, after = ticket("1b", "1c", batch=batch), ticket("1c", "1d", batch=batch)
    waiting.put([blocked, after])
    assert has_nothing(waiting)
    waiting.finished(under_way, [])
    assert take(waiting).tickets == [blocked]


def test_a_shard_in_trouble_holds_back_a_batch() -> None:
    shards = Shards()
    waiting = queue(shards)
    shards.trouble["s2"] = 0.0
    batch = object()
    stuck, after = ticket("1a", "2a", batch=batch), ticket("1a", "1b", batch=batch)
    waiting.put([stuck, after])
    assert has_nothing(waiting)
    shards.trouble.clear()
    assert take(waiting).tickets == [stuck, after]


# --- in line --------------------------------------------------------------------------------


@pytest.mark.parametrize(("skips", "is_in_line"), [(0, False), (3, False), (4, True), (9, True)])
def test_one_that_was_passed_over_too_often_waits_in_line(skips: int, is_in_line: bool) -> None:
    waiting = queue(skips_max=3)
    usual, unlucky = ticket("1a", "1b"), ticket("1c", "1d")
    unlucky.skips = skips
    waiting.put([usual, unlucky])
    assert take(waiting).in_line is (unlucky if is_in_line else None)


def test_only_the_first_waits_in_line() -> None:
    waiting = queue(skips_max=0)
    tickets = [ticket("1a", "1b") for _ in range(3)]
    tickets[1].skips = tickets[2].skips = 5
    waiting.put(tickets)
    assert take(waiting).in_line is tickets[1]


@given(st.integers(0, 10_000))
def test_pauses_grow_to_a_tenth_of_a_second(skips: int) -> None:
    longest = pause_after(skips, lambda: 1.0)
    assert longest <= pause_after(skips + 1, lambda: 1.0) <= 0.1
    assert 0 <= pause_after(skips) <= longest
    assert pause_after(0, lambda: 1.0) == 0.002


# --- deadlines, trouble ---------------------------------------------------------------------


def test_one_whose_time_is_up_is_answered_and_not_taken() -> None:
    waiting = queue()
    late, good = ticket("1a", "1b", deadline_s=-0.01), ticket("1a", "1b")
    waiting.put([late, good])
    assert take(waiting).tickets == [good]
    assert isinstance(late.answer, NotDone)
    assert late.answer.excuse is Excuse.ACCOUNT_BUSY
    assert late.latch.wait(0)


def test_one_that_may_be_written_has_no_deadline() -> None:
    waiting = queue()
    sent = ticket("1a", "1b", deadline_s=0.02)
    waiting.put([sent])
    group = take(waiting)
    assert waiting.claim_for_writing([sent], "g1") == [sent]
    time.sleep(0.03)
    waiting.finished(group, [sent])
    assert take(waiting).tickets == [sent]
    assert sent.answer is None
    assert waiting.claim_for_writing([sent], "g2") == [sent]
    assert sent.gtrid == "g2"


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
    assert isinstance(stuck.answer, NotDone)
    assert stuck.answer.excuse is Excuse.SHARD_UNAVAILABLE
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
    waiting.settle(sent, ANSWER)
    assert sent.answer is ANSWER


def test_undone_and_then_withdrawn() -> None:
    waiting = queue()
    sent = ticket("1a", "1b")
    waiting.put([sent])
    take(waiting)
    waiting.claim_for_writing([sent], "g")
    waiting.reopen([sent])
    assert sent.state is State.OPEN
    waiting.withdraw([sent], GONE)
    assert sent.answer is GONE
    waiting.reopen([sent])
    assert sent.state is State.DONE


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
    waiting.settle(one, ANSWER)
    waiting.settle(one, GONE)
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
    waiting.settle(one, ANSWER)
    assert waiting.find("t1") is None


def test_the_younger_of_two_with_one_id_is_found() -> None:
    waiting = queue()
    elder, younger = ticket("1a", "1b", id_="t1"), ticket("1a", "1b", id_="t1")
    waiting.put([elder])
    waiting.put([younger])
    waiting.settle(elder, ANSWER)
    assert waiting.find("t1") is younger


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
    waiting.settle(last, ANSWER)
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
    waiting.settle(last, ANSWER)
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
                    waiting.settle(one, ANSWER)
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
