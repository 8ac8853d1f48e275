"""Accounts that others keep locked: who waits for them, who does not, and who gets them then."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.engine.lock_waits import LockWaits
from coordinator.engine.scheduler import LockWait, Queue
from coordinator.engine.tickets import Group, NotExecuted, NotExecutedReason, Ticket
from tests.unit.tickets import ANSWER, Shards, has_nothing, queue, take, take_at_once, ticket

# --- the lock waits -------------------------------------------------------------------------------


def test_one_is_waited_for_at_a_time_and_first_the_one_that_was_waited_for_least() -> None:
    lock_waits, wanted = LockWaits(), {"a": 1, "b": 1, "c": 1}
    for account in "abc":
        lock_waits.keep(account, 0.0)
    lock_waits.awaited = lock_waits.next(0.0, wanted)
    assert lock_waits.awaited == "a"
    assert lock_waits.next(0.0, wanted) is None
    lock_waits.timed_out("a", 1.0)
    assert lock_waits.next(9.0, wanted) == "b"
    lock_waits.drop("b")
    assert lock_waits.next(9.0, wanted) == "c"
    lock_waits.drop("c")
    assert lock_waits.next(9.0, wanted) == "a"
    assert list(lock_waits.stuck()) == ["a"]


def test_an_account_that_nobody_wants_is_waited_for_once_and_forgotten() -> None:
    lock_waits = LockWaits()
    lock_waits.keep("a", 0.0)
    assert lock_waits.next(0.0, {}) == "a"
    lock_waits.timed_out("a", 1.0)
    assert lock_waits.next(3.0, {}) is None
    assert lock_waits.next(3.0, {"a": 1}) == "a"
    assert lock_waits.forgotten(3.0, {}) == []
    assert lock_waits.forgotten(9.0, {"a": 1}) == []
    assert lock_waits.forgotten(9.0, {}) == ["a"]


def test_while_one_is_waited_for_the_others_are_tried_with_growing_pauses() -> None:
    lock_waits, wanted = LockWaits(), {"a": 1, "b": 1}
    lock_waits.keep("a", 0.0)
    lock_waits.keep("b", 0.0)
    lock_waits.awaited = "a"
    now, pauses = 0.0, []
    for _ in range(6):
        assert lock_waits.tries(now, wanted) == ["b"]
        assert not lock_waits.keeps("b")
        lock_waits.keep("b", now)
        at = lock_waits.next_at({"b": 1})
        assert at is not None
        pauses.append(round(at - now, 3))
        assert lock_waits.tries(at - 0.01, wanted) == []
        now = at
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


# --- in the queue ---------------------------------------------------------------------------


def missed(waiting: Queue, one: Ticket, account: str) -> None:
    """A group of this ticket alone runs, and others have one of its accounts locked."""
    with waiting._changed:
        group = take_at_once(waiting)
    assert group.tickets == [one]
    one.skips = 9
    waiting.finished(group, [one], {account})


def lock_wait_of(waiting: Queue) -> LockWait:
    lock_wait = waiting.take_lock_wait()
    assert lock_wait is not None
    return lock_wait


@pytest.mark.parametrize(("skips", "is_kept"), [(0, False), (3, False), (4, True), (9, True)])
def test_an_account_that_was_missed_too_often_is_waited_for(skips: int, is_kept: bool) -> None:
    waiting = queue(skips_max=3)
    one = ticket("1a", "2b")
    waiting.put([one])
    group = take(waiting)
    one.skips = skips
    waiting.finished(group, [one], {"2b"})
    if not is_kept:
        assert take(waiting).tickets == [one]
        return
    assert has_nothing(waiting)
    assert lock_wait_of(waiting) == LockWait("2b", "s2", one)


def test_who_waits_for_a_payee_leaves_the_payer_to_others() -> None:
    waiting = queue()
    stuck = ticket("1hot", "2stuck")
    waiting.put([stuck])
    missed(waiting, stuck, "2stuck")
    others = [ticket("1hot", f"2b{n}") for n in range(3)]
    more = ticket("1hot", "2stuck")
    waiting.put([more, *others])
    lock_wait = lock_wait_of(waiting)
    # Nobody tries the stuck one, and the hot one is free.
    group = take(waiting)
    assert group.tickets == others
    waiting.timed_out(lock_wait)
    waiting.finished(group, [])
    assert has_nothing(waiting)
    assert (stuck.waits, more.waits) == (1, 1)
    assert waiting.stuck == (1, 2)
    # It is waited for again, and when the lock is had, all that want it go together.
    group = waiting.had(lock_wait_of(waiting))
    assert group is not None
    assert group.tickets == [stuck, more]
    assert waiting.stuck == (0, 0)
    waiting.finished(group, [])
    new = ticket("1hot", "2stuck")
    waiting.put([new])
    assert take(waiting).tickets == [new]


def test_what_comes_while_an_account_is_stuck_is_not_tried() -> None:
    waiting = queue()
    stuck = ticket("1hot", "2stuck")
    waiting.put([stuck])
    missed(waiting, stuck, "2stuck")
    waiting.timed_out(lock_wait_of(waiting))
    waiting.settle([(stuck, ANSWER)])
    # Nobody wants it at this moment, and it is remembered all the same.
    waiting.put([ticket(f"1c{n}", "2stuck") for n in range(300)])
    assert has_nothing(waiting)
    assert waiting.stuck == (1, 300)


def test_of_several_stuck_accounts_each_is_tried_beside_the_wait_for_one() -> None:
    waiting = queue()
    tickets = [ticket("1hot", f"2stuck{n}") for n in range(3)]
    waiting.put(tickets)
    group = take(waiting)
    for one in tickets:
        one.skips = 9
    waiting.finished(group, tickets, {"2stuck0", "2stuck1", "2stuck2"})
    lock_wait = lock_wait_of(waiting)
    group = take(waiting)
    assert group.tickets == [one for one in tickets if one is not lock_wait.ticket]
    # One of them could be locked; the other one is left alone for a while.
    done, again = group.tickets
    waiting.settle([(done, ANSWER)])
    waiting.finished(group, [again], {again.transfer.destination})
    assert has_nothing(waiting)
    assert len(waiting._lock_waits) == 2
    assert take(waiting).tickets == [again]


def test_the_order_of_a_batch_holds_behind_a_stuck_account() -> None:
    waiting, batch = queue(), object()
    stuck = ticket("1a", "2stuck", batch=batch)
    waiting.put([stuck])
    missed(waiting, stuck, "2stuck")
    behind, stranger = ticket("1a", "1b", batch=batch), ticket("1a", "1c")
    waiting.put([behind])
    waiting.put([stranger])
    group = take(waiting)
    assert group.tickets == [stranger]
    waiting.finished(group, [])
    assert has_nothing(waiting)
    group = waiting.had(lock_wait_of(waiting))
    assert group is not None
    assert group.tickets == [stuck]
    assert has_nothing(waiting)
    waiting.finished(group, [])
    assert take(waiting).tickets == [behind]


def test_who_has_the_lock_is_next_when_its_other_account_is_at_work() -> None:
    waiting = queue()
    stuck = ticket("1hot", "2stuck")
    waiting.put([stuck])
    missed(waiting, stuck, "2stuck")
    others = [ticket("1hot", f"2b{n}") for n in range(2)]
    waiting.put(others[:1])
    running = take(waiting)
    waiting.put(others[1:])
    lock_wait, groups = lock_wait_of(waiting), []
    waiter = threading.Thread(target=lambda: groups.append(waiting.had(lock_wait)))
    waiter.start()
    give_up = time.monotonic() + 5
    while waiting._heir is None and time.monotonic() < give_up:
        time.sleep(0.001)
    waiting.finished(running, [])
    waiter.join()
    assert [group.tickets for group in groups] == [[stuck]]
    assert has_nothing(waiting)
    waiting.finished(groups[0], [])
    assert take(waiting).tickets == others[1:]


def test_whoever_looks_while_its_other_account_changes_hands_keeps_nobody_away() -> None:
    waiting = queue()
    stuck = ticket("1hot", "2stuck")
    waiting.put([stuck])
    missed(waiting, stuck, "2stuck")
    other = ticket("1hot", "2b")
    waiting.put([other])
    running = take(waiting)
    lock_wait, groups = lock_wait_of(waiting), []
    waiter = threading.Thread(target=lambda: groups.append(waiting.had(lock_wait)))
    waiter.start()
    give_up = time.monotonic() + 5
    while waiting._heir is None and time.monotonic() < give_up:
        time.sleep(0.001)
    with waiting._changed:
        waiting.finished(running, [])
        # As an executor does that is first at the lock: it puts aside what wants the hot account.
        assert waiting._pick() is None
    waiter.join()
    assert [group.tickets for group in groups] == [[stuck]]


def test_nobody_looks_again_and_again_while_one_is_waited_for() -> None:
    lock_waits, wanted = LockWaits(), {"a": 1}
    lock_waits.keep("a", 0.0)
    assert lock_waits.next_at(wanted) is None
    lock_waits.awaited = "a"
    assert lock_waits.next_at(wanted) is None


def test_a_lock_is_not_in_hand_for_long() -> None:
    waiting = queue()
    stuck = ticket("1hot", "2stuck")
    waiting.put([stuck])
    missed(waiting, stuck, "2stuck")
    waiting.put([ticket("1hot", "2b")])
    running = take(waiting)
    began = time.monotonic()
    assert waiting.had(lock_wait_of(waiting)) is None
    assert time.monotonic() - began < 2
    # The account is as any other one then.
    waiting.finished(running, [])
    assert take(waiting).tickets == [stuck]


def test_a_shard_in_trouble_is_not_waited_for_and_told_of() -> None:
    shards = Shards()
    waiting = queue(shards)
    stuck = ticket("1a", "2stuck")
    waiting.put([stuck])
    missed(waiting, stuck, "2stuck")
    shards.trouble["s2"] = 9.0
    with waiting._changed:
        assert waiting._next_lock_wait() is None
    assert has_nothing(waiting)
    assert isinstance(stuck.answer, NotExecuted)
    assert stuck.answer.reason is NotExecutedReason.SHARD_UNAVAILABLE


def test_an_account_that_nobody_could_wait_for_is_tried_as_any_other_one() -> None:
    waiting = queue()
    stuck = ticket("1a", "2stuck")
    waiting.put([stuck])
    missed(waiting, stuck, "2stuck")
    waiting.lost(lock_wait_of(waiting))
    assert take(waiting).tickets == [stuck]


def test_a_group_that_had_begun_with_an_account_lets_go_of_it_to_the_lock_waits_alone() -> None:
    """By TC/C and Saga what cannot go on is left, and the account is kept."""
    waiting = queue()
    one = ticket("1hot", "2stuck", protocol="saga")
    waiting.put([one])
    group = take(waiting)
    waiting.finished(group, [], (), {"2stuck"})
    other, stuck = ticket("1hot", "2b"), ticket("1hot", "2stuck")
    waiting.put([stuck, other])
    assert take(waiting).tickets == [other]
    assert lock_wait_of(waiting).account == "2stuck"


# --- limits ---------------------------------------------------------------------------------


@pytest.fixture
def stuck() -> Iterator[Queue]:
    """A queue with room for ten, in which five wait for a stuck account, of ten that may."""
    waiting = queue(waiting_max=10, stuck_max=10)
    one = ticket("1hot", "2stuck", caller="a")
    waiting.put([one])
    missed(waiting, one, "2stuck")
    waiting.timed_out(lock_wait_of(waiting))
    waiting.put([ticket("1hot", "2stuck", caller="a") for _ in range(4)])
    assert has_nothing(waiting)
    assert waiting.stuck == (1, 5)
    return waiting


def test_too_many_for_a_stuck_account_are_told_at_once(stuck: Queue) -> None:
    batch = object()
    ends = ["2stuck", "2b"] * 5
    tickets = [ticket(f"1s{n}", end, batch=batch, caller="a") for n, end in enumerate(ends)]
    stuck.put(tickets)
    assert take(stuck).tickets == tickets[1::2]
    assert stuck.stuck == (1, 10)
    more = [ticket("1x", "2stuck", caller="b") for _ in range(2)]
    stuck.put(more[:1])
    assert isinstance(more[0].answer, NotExecuted)
    assert more[0].answer.reason is NotExecutedReason.ACCOUNT_BUSY
    assert "2stuck" in more[0].answer.detail
    assert more[0].latch.wait(0)
    assert stuck.waiting == 10


def test_what_waits_for_a_stuck_account_takes_no_room_from_others(stuck: Queue) -> None:
    stuck.put([ticket("1hot", "2stuck", caller="a") for _ in range(5)])
    assert has_nothing(stuck)
    stuck.put([ticket("1a", "1b", caller="a") for _ in range(10)])
    assert stuck.waiting == 20


# --- whatever happens -----------------------------------------------------------------------

_accounts = st.sampled_from([f"{shard}{name}" for shard in "12" for name in "abc"])


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(_accounts, _accounts, st.sampled_from("xyz-")), max_size=14),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_nothing_is_lost_or_overtaken_whatever_is_locked(
    ends: list[tuple[str, str, str]], group_max: int, chance: random.Random
) -> None:
    """Accounts are found locked, waited for in vain or had, beside groups that run, in any order.
    No two groups have an account in common, nobody tries what is waited for, those of one batch
    that share an account are done in their order, and in the end all are done.
    """
    waiting = queue(group_max=group_max, skips_max=0)
    batches = {name: object() for name in "xyz"}
    coming = [ticket(source, to, batch=batches.get(name), caller=name) for source, to, name in ends]
    here: list[Ticket] = []
    under_way: list[Group] = []
    lock_wait: LockWait | None = None
    for step in range(10_000):
        if not coming and not here:
            break
        # In the end nothing is locked any more.
        is_locked = (lambda: chance.random() < 0.3) if step < 60 else (lambda: False)
        if coming and (not here or chance.random() < 0.3):
            waiting.put(coming[:1])
            here += coming[:1]
            del coming[:1]
        if lock_wait is None:
            with waiting._changed:
                lock_wait = waiting._next_lock_wait()
        elif is_locked():
            waiting.timed_out(lock_wait)
            lock_wait = None
        elif not under_way or chance.random() < 0.5:
            with patch("coordinator.engine.scheduler._HEIR_PATIENCE_S", 0):
                begin(waiting.had(lock_wait), under_way, waiting)
            lock_wait = None
        if not has_nothing(waiting) and chance.random() < 0.6:
            begin(take_at_once(waiting), under_way, waiting)
        elif under_way:
            end(waiting, under_way.pop(chance.randrange(len(under_way))), here, is_locked)
        # No time passes here but this.
        for wait in waiting._lock_waits._waits.values():
            wait.next_at = 0.0
    assert not here
    assert waiting.waiting == waiting.unsettled == waiting.callers == 0


def begin(group: Group | None, under_way: list[Group], waiting: Queue) -> None:
    if group is None:
        return
    assert not any(group.accounts & other.accounts for other in under_way)
    assert not any(map(waiting._lock_waits.keeps, group.accounts))
    under_way.append(group)


def end(waiting: Queue, group: Group, here: list[Ticket], is_locked: Callable[[], bool]) -> None:
    """Some of its accounts were locked; what needed none of them is done, in order."""
    missed = {account for account in group.accounts if is_locked()}
    again: list[Ticket] = []
    for one in group.tickets:
        if ends_of(one) & missed or any(is_behind(one, other) for other in again):
            one.skips += 1
            again.append(one)
            continue
        assert not any(is_behind(one, t) and t.number < one.number for t in here)
        waiting.settle([(one, ANSWER)])
        here.remove(one)
    waiting.finished(group, again, missed)


def ends_of(one: Ticket) -> set[str]:
    return {one.transfer.source, one.transfer.destination}


def is_behind(one: Ticket, other: Ticket) -> bool:
    return (
        one.batch is not None and one.batch is other.batch and bool(ends_of(one) & ends_of(other))
    )
