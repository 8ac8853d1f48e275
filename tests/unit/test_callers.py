"""Turns and room are shared out by caller."""

import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.engine.fairness import Callers
from coordinator.engine.scheduler import Overloaded, Queue
from coordinator.engine.tickets import Ticket
from tests.unit.tickets import ANSWER, has_nothing, queue, take, take_at_once, ticket

# --- turns ----------------------------------------------------------------------------------


def of(caller: str, count: int, *, is_batch: bool = True, name: str = "") -> list[Ticket]:
    """Transfers of a caller between accounts that nobody else has."""
    batch = object() if is_batch else None
    name = name or f"{caller}{random.getrandbits(32):x}"
    return [
        ticket(f"1{name}s{n}", f"1{name}d{n}", batch=batch, caller=caller) for n in range(count)
    ]


def test_of_one_caller_it_is_first_come_first_served() -> None:
    waiting = queue(group_max=4)
    tickets = of("a", 5) + of("a", 5)
    waiting.put(tickets[:5])
    waiting.put(tickets[5:])
    assert [t for _ in range(3) for t in take(waiting).tickets] == tickets


def test_who_comes_behind_a_large_batch_has_every_other_turn() -> None:
    waiting = queue(group_max=20)
    large, small = of("a", 200), of("b", 15)
    waiting.put(large)
    first = take_at_once(waiting)
    assert first.tickets == large[:20]
    waiting.put(small)
    second, third = take_at_once(waiting), take_at_once(waiting)
    assert Counter(t.caller for t in second.tickets) == {"a": 10, "b": 10}
    assert [t for t in third.tickets if t.caller == "b"] == small[10:]
    # Both keep their own order.
    mine = [t for group in (first, second, third) for t in group.tickets if t.caller == "a"]
    assert mine == large[: len(mine)]


class Clock:
    """Stands still, unless it is told to go on."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("coordinator.engine.scheduler.time", made)
    return made


def test_a_single_transfer_does_not_wait_behind_its_callers_batch(clock: Clock) -> None:
    waiting = queue(group_max=200)
    waiting.put(of("a", 900))
    running = take_at_once(waiting)
    (single,) = of("a", 1, is_batch=False)
    waiting.put([single])
    assert take_at_once(waiting).tickets == [single]
    waiting.finished(running, [])
    assert len(take_at_once(waiting).tickets) == 125


def test_few_of_a_batch_and_single_transfers_go_together() -> None:
    waiting = queue()
    few, (single,) = of("a", 50), of("b", 1, is_batch=False)
    waiting.put(few)
    waiting.put([single])
    assert set(map(id, take(waiting).tickets)) == set(map(id, [*few, single]))


def test_groups_of_batches_are_small_and_one_at_a_time_while_single_transfers_come(
    clock: Clock,
) -> None:
    waiting = queue(waiting_max=5000, group_max=2000)
    waiting.put(of("a", 4000))
    first = take_at_once(waiting)
    assert len(first.tickets) == 2000
    waiting.put(of("b", 1, is_batch=False))
    assert len(take_at_once(waiting).tickets) == 1
    assert has_nothing(waiting)
    waiting.finished(first, [])
    assert len(take_at_once(waiting).tickets) == 125
    assert has_nothing(waiting)
    # One that takes long waits for a shard, and does not keep the others.
    clock.now += 0.25
    waiting.put(of("b", 1, is_batch=False))
    assert [len(take_at_once(waiting).tickets) for _ in range(2)] == [1, 125]
    # No single transfer has come for some time.
    clock.now += 0.25
    assert len(take_at_once(waiting).tickets) == 2000 - 250


def test_batches_rest_after_a_large_group_for_as_long_as_it_took(clock: Clock) -> None:
    waiting = queue(waiting_max=5000, group_max=2000)
    waiting.put(of("b", 1, is_batch=False))
    waiting.put(of("a", 500))
    first = [take_at_once(waiting) for _ in range(2)][1]
    clock.now += 0.05
    waiting.finished(first, [])
    clock.now += 0.04
    assert has_nothing(waiting)
    (single,) = of("b", 1, is_batch=False)
    waiting.put([single])
    assert take_at_once(waiting).tickets == [single]
    assert has_nothing(waiting)
    assert waiting._pause() == pytest.approx(0.01)
    clock.now += 0.01
    assert len(take_at_once(waiting).tickets) == 125


def test_a_single_transfer_is_found_without_going_through_a_batch(clock: Clock) -> None:
    """While a batch rests nobody looks at its transfers."""
    asked: list[str] = []

    def shard_of(account: str) -> str:
        asked.append(account)
        return "s1"

    waiting = queue(waiting_max=20_000, group_max=2000)
    waiting._shard_of = shard_of
    waiting.put(of("a", 10_000))
    waiting.finished(take_at_once(waiting), [])
    asked.clear()
    waiting.put(of("b", 1, is_batch=False))
    assert len(take_at_once(waiting).tickets) == 1
    # To choose it, up to the number that may come with it is looked at, twice for each account.
    assert len(asked) <= 2 * (1 + 101)


def test_who_was_away_has_no_claim_and_no_debt() -> None:
    callers = Callers(1000)
    assert callers.turns("a", 500, is_batch=True) == range(500)
    for _ in range(500):
        callers.answered("a")
    # Nothing of them was taken: they are not counted against it.
    assert callers.turns("a", 2, is_batch=True) == range(2)
    callers.took(700)
    assert callers.turns("b", 2, is_batch=True) == range(700, 702)
    assert callers.turns("a", 2, is_batch=True) == range(700, 702)


@settings(deadline=None, max_examples=100)
@given(
    st.randoms(use_true_random=False),
    st.integers(1, 6),
    st.lists(st.integers(1, 40), min_size=2, max_size=4),
)
def test_whoever_waits_gets_an_equal_part_of_what_is_taken(
    chance: random.Random, group_max: int, sizes: list[int]
) -> None:
    """As long as two callers have something waiting, neither is served more than two more than the
    other, whatever they have sent and when, and however large groups are.
    """
    waiting = queue(group_max=group_max)
    callers = [str(n) for n in range(len(sizes))]
    left = {caller: of(caller, size) for caller, size in zip(callers, sizes, strict=True)}
    behind = dict.fromkeys(callers, 0)
    served: Counter[str] = Counter()
    since: dict[tuple[str, str], int] = {}
    while any(left.values()) or any(behind.values()):
        if senders := [caller for caller in callers if left[caller]]:
            sender = chance.choice(senders)
            count = chance.randint(1, len(left[sender]))
            waiting.put(left[sender][:count])
            del left[sender][:count]
            behind[sender] += count
        if has_nothing(waiting):
            continue
        both = [(a, b) for a in callers for b in callers if a < b and behind[a] and behind[b]]
        since = {pair: since.get(pair, served[pair[0]] - served[pair[1]]) for pair in both}
        group = take_at_once(waiting)
        for one in group.tickets:
            served[one.caller] += 1
            behind[one.caller] -= 1
            waiting.settle([(one, ANSWER)])
        waiting.finished(group, [])
        # Who had nothing left for a moment begins anew.
        since = {(a, b): was for (a, b), was in since.items() if behind[a] and behind[b]}
        for (a, b), was in since.items():
            assert abs(served[a] - served[b] - was) <= 2


# --- room -----------------------------------------------------------------------------------


def filled(caller: str, room: int = 10) -> Queue:
    waiting = queue(waiting_max=room)
    waiting.put(of(caller, room))
    return waiting


def test_who_is_alone_has_all_the_room_and_no_more() -> None:
    waiting = filled("a")
    with pytest.raises(Overloaded, match=r"10 transfers wait, 1 more do not .* for 10"):
        waiting.put(of("a", 1))
    assert waiting.unsettled == 10


def test_a_full_room_is_full_for_who_has_more_than_its_share() -> None:
    waiting = filled("a")
    waiting.put(of("b", 4))
    # With one request of any size, as long as there are not three times what there is room for.
    waiting.put(of("b", 6))
    with pytest.raises(
        Overloaded, match="10 of them are of this caller, whose share is 5 beside 1"
    ):
        waiting.put(of("a", 1))
    with pytest.raises(Overloaded):
        waiting.put(of("b", 1))
    waiting.put(of("c", 10))
    with pytest.raises(Overloaded):
        waiting.put(of("d", 1))


def test_what_is_answered_makes_room_again() -> None:
    waiting = filled("a")
    waiting.put(of("b", 4))
    group = take(waiting)
    waiting.settle([(one, ANSWER) for one in group.tickets])
    waiting.finished(group, [])
    assert waiting.callers == 0
    waiting.put(of("a", 10))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 12)), max_size=40))
def test_whoever_has_less_than_its_share_gets_in(requests: list[tuple[str, int]]) -> None:
    """A plain statement of the rule: there is room, or one has less than its part of it, and never
    are there more than three times as many.
    """
    waiting, has = queue(waiting_max=12), Counter[str]()
    for caller, count in requests:
        total = has.total()
        others = [other for other in has if other != caller]
        is_below = bool(others) and has[caller] < max(12 // (len(others) + 1), 1)
        may = total + count <= 12 or (is_below and total + count <= 36)
        try:
            waiting.put(of(caller, count))
            assert may
            has[caller] += count
        except Overloaded:
            assert not may
            has += Counter()
