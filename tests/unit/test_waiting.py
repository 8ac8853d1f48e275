"""Thousands that wait: what is done with some of them does not go through all."""

from operator import attrgetter
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from coordinator.engine import waiting as module
from coordinator.engine.tickets import State, Ticket
from coordinator.engine.waiting import Blocked, Waiting
from tests.unit.tickets import ticket

_MANY = 4000


def _batch(count: int, source: str = "1a") -> list[Ticket]:
    batch = object()
    tickets = [ticket(source, f"2b{n}", batch=batch) for n in range(count)]
    for number, one in enumerate(tickets):
        one.number = number
    return tickets


def _numbers_read(lane: Waiting, *some: Ticket) -> int:
    """How often a turn is looked at while some are put back."""
    read = attrgetter("number")
    with patch.object(module, "NUMBER", side_effect=read) as number:
        lane.put_back(some)
    return int(number.call_count)


def test_what_is_put_back_at_the_front_leaves_those_behind_it_alone() -> None:
    lane, tickets = Waiting(), _batch(_MANY)
    lane.enter(tickets)
    lane.remove(tickets[:10])
    assert _numbers_read(lane, *tickets[:5]) < 100
    assert list(lane) == [*tickets[:5], *tickets[10:]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_the_order_of_turns_stays_whatever_is_taken_and_put_back(
    numbers: list[int], data: st.DataObject
) -> None:
    lane, tickets = Waiting(), _batch(len(numbers))
    for one, number in zip(tickets, sorted(numbers), strict=True):
        one.number = number
    lane.enter(tickets)
    taken = data.draw(st.lists(st.sampled_from(tickets), min_size=1, unique_by=id))
    lane.remove(taken)
    gone = set(map(id, taken))
    assert list(lane) == [one for one in tickets if id(one) not in gone]
    again = data.draw(st.lists(st.sampled_from(taken), unique_by=id))
    lane.put_back(again)
    found = list(lane)
    left = set(map(id, tickets)) - gone
    assert sorted(map(id, found)) == sorted(left | set(map(id, again)))
    assert [one.number for one in found] == sorted(one.number for one in found)


def test_a_lock_wait_in_vain_leaves_those_who_want_the_account_where_they_are() -> None:
    blocked, tickets = Blocked(), _batch(100)
    for one in tickets:
        blocked.add(one, "1a")
    tickets[0].state = State.DONE
    blocked.answered(tickets[0])
    with patch.object(module, "insort") as insort:
        blocked.lock_timed_out("1a")
    insort.assert_not_called()
    assert [one.waits for one in tickets] == [0] + [1] * 99
    # The one that has its answer holds back nobody any more.
    assert not blocked.are_before(tickets[1])
    assert blocked.are_before(tickets[2])
    assert blocked.release({"1a"}) == tickets[1:]
    assert not blocked.count


def test_a_lock_wait_in_vain_forgets_an_account_that_nobody_wants_any_more() -> None:
    blocked, (one,) = Blocked(), _batch(1)
    blocked.add(one, "1a")
    one.state = State.DONE
    blocked.answered(one)
    blocked.lock_timed_out("1a")
    assert blocked.release({"1a"}) == []
