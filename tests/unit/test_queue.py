"""The queue: what waits, what may run together, and who may say that nothing has happened."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.engine import scheduler as queues
from coordinator.engine.grouping import pause_after
from coordinator.engine.scheduler import Overloaded, Queue
from coordinator.engine.tickets import Group, Ticket
from tests.unit.tickets import (
    ANSWER,
    FAR_S,
    GONE,
    Shards,
    has_nothing,
    picked,
    queue,
    take,
    take_at_once,
    ticket,
)

# --- groups ---------------------------------------------------------------------------------


def test_what_waits_is_taken_together_in_order() -> None:
    waiting = queue()
    tickets = [ticket("1a", "1b") for _ in range(5)]
    waiting.put(tickets[:2])
    waiting.put(tickets[2:])
    group = take(waiting)
    assert group.tickets == tickets
    assert group.accounts == {"1a", "1b"}
    assert waiting.unsettled == 5


def test_a_group_has_a_size() -> None:
    waiting = queue(group_max=3)
    tickets = [ticket(f"1a{n}", f"1b{n}") for n in range(7)]
    waiting.put(tickets)
    assert [take(waiting).tickets for _ in range(3)] == [tickets[:3], tickets[3:6], tickets[6:]]


def test_fewer_and_then_smaller_groups_while_others_are_at_the_same_accounts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues, "_OLD_S", FAR_S)
    waiting = queue(group_max=1000, waiting_max=20_000)
    waiting.put([ticket(f"1a{n}", f"2b{n}") for n in range(15_000)])
    # Four at once, which all meet others: from then on there is one, and the next is half as large.
    for group in [take(waiting) for _ in range(4)]:
        waiting.met_others(group, 20, 100)
        waiting.finished(group, [])
    sizes = []
    for taken in (20, 20, 20, 10, 0, 0):
        group = take(waiting)
        beside = picked(waiting)
        assert waiting._linger_s(beside) > 0
        sizes.append(len(group.tickets))
        waiting.met_others(group, taken, 100)
        waiting.finished(group, [])
    assert sizes == [500, 250, 250, 250, 250, 281]


def test_more_groups_run_at_once_again_when_others_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues, "_OLD_S", FAR_S)
    waiting = queue(group_max=100, waiting_max=10_000)
    waiting.put([ticket(f"1a{n}", f"2b{n}") for n in range(2000)])
    for _ in range(2):
        group = take(waiting)
        waiting.met_others(group, 20, 100)
        waiting.finished(group, [])
    first = take(waiting)
    assert waiting._linger_s(picked(waiting)) > 0
    waiting.met_others(first, 0, 100)
    take(waiting)
    assert waiting._linger_s(picked(waiting)) > 0
    waiting.finished(first, [])
    assert waiting._linger_s(picked(waiting)) == 0


def test_a_large_group_that_is_long_on_its_way_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues, "_OLD_S", 0.0)
    waiting = queue(group_max=100, waiting_max=10_000)
    waiting.put([ticket(f"1a{n}", f"2b{n}") for n in range(300)])
    for taken in (100, 100):
        group = take(waiting)
        waiting.met_others(group, taken, 200)
    assert waiting._abreast == 1
    assert waiting._linger_s(picked(waiting)) == 0


def test_one_account_that_others_have_does_not_make_groups_smaller() -> None:
    waiting = queue(group_max=1000, waiting_max=10_000)
    waiting.put([ticket(f"1a{n}", "2hot") for n in range(2000)])
    group = take(waiting)
    waiting.met_others(group, 1, len(group.accounts))
    waiting.finished(group, group.tickets)
    assert len(take(waiting).tickets) == 1000


def test_small_groups_do_not_say_how_large_the_others_may_be() -> None:
    waiting = queue(group_max=1000, waiting_max=10_000)
    waiting.put([ticket("1a", "2b")])
    group = take(waiting)
    for taken in (2, 0):
        waiting.met_others(group, taken, 2)
    waiting.finished(group, [])
    waiting.put([ticket(f"1a{n}", f"2b{n}") for n in range(1000)])
    assert len(take(waiting).tickets) == 1000


def test_the_size_of_a_group_is_for_each_of_its_shards() -> None:
    waiting = queue(group_max=3)
    round_ = [ticket(f"{a}{n}", f"{b}{n}") for n in "xyzv" for a, b in ("12", "23", "34", "41")]
    waiting.put(round_)
    group = take(waiting)
    # Each shard has two for each round: the first one that is full ends the group.
    assert group.tickets == round_[:5]
    assert group.at == {"s1": 3, "s2": 3, "s3": 2, "s4": 2}


def test_an_account_that_all_want_fills_its_shard() -> None:
    waiting = queue(group_max=3)
    tickets = [ticket(f"{n % 4 + 2}a{n}", "1hot") for n in range(7)]
    waiting.put(tickets)
    assert take(waiting).tickets == tickets[:3]


def test_accounts_of_a_group_under_way_are_claimed() -> None:
    waiting = queue(group_max=1)
    first, same, free = ticket("1a", "1b"), ticket("1b", "1c"), ticket("1d", "1e")
    waiting.put([first, same, free])
    group = take(waiting)
    assert take(waiting).tickets == [free]
    assert has_nothing(waiting)
    waiting.finished(group, [])
    assert take(waiting).tickets == [same]


def test_what_waits_for_a_claimed_account_still_waits_in_its_place() -> None:
    waiting = queue(waiting_max=3)
    waiting.put([ticket("1a", "1b")])
    group = take(waiting)
    kept, gone, other = ticket("1b", "1c"), ticket("1d", "1a"), ticket("1e", "1f")
    waiting.put([kept, gone, other])
    assert take(waiting).tickets == [other]
    assert waiting.waiting == 2
    later = [ticket("1c", "1a"), ticket("1g", "1h")]
    with pytest.raises(Overloaded):
        waiting.put(later)
    # What has its answer takes no room.
    waiting.withdraw([gone], GONE)
    waiting.put(later)
    assert waiting.waiting == 3
    assert take(waiting).tickets == later[1:]
    waiting.finished(group, [])
    assert take(waiting).tickets == [kept, later[0]]
    assert waiting.waiting == 0


def test_what_runs_again_comes_back_at_its_old_place() -> None:
    waiting = queue(group_max=2)
    tickets = [ticket("1a", "1b") for _ in range(4)]
    waiting.put(tickets)
    group = take(waiting)
    waiting.settle([(tickets[0], ANSWER)])
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
        assert max(group.at.values()) <= group_max
        assert len(group.tickets) <= min(t.limit for t in group.tickets)
        done += group.tickets
        waiting.finished(group, [])
    assert sorted(t.number for t in done) == [t.number for t in tickets]
    for account in {
        account for source, destination, _ in ends for account in (source, destination)
    }:
        order = [t.number for t in done if account in (t.transfer.source, t.transfer.destination)]
        assert order == sorted(order)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(_accounts, _accounts, st.sampled_from("xyz")), max_size=16),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_the_order_of_a_batch_holds_while_groups_overlap(
    ends: list[tuple[str, str, str]], group_max: int, chance: random.Random
) -> None:
    """Transfers come and groups end in any order, and some run again: those of one batch that share
    an account are done in their order, and whatever may run can be taken.
    """
    waiting = queue(group_max=group_max)
    batches = {name: object() for name in "xyz"}
    coming = [ticket(source, to, batch=batches[name]) for source, to, name in ends]
    here: list[Ticket] = []
    under_way: list[Group] = []
    while coming or here:
        if coming and (not here or chance.random() < 0.5):
            waiting.put(coming[:3])
            here += coming[:3]
            del coming[:3]
        assert waiting._candidates(waiting._waiting) == _may_run(here, under_way, group_max)
        if not has_nothing(waiting) and (not under_way or chance.random() < 0.6):
            under_way.append(take_at_once(waiting))
        elif under_way:
            group = under_way.pop(chance.randrange(len(under_way)))
            again: list[Ticket] = []
            for one in group.tickets:
                is_taken = one.skips < 2 and chance.random() < 0.2
                if is_taken or any(_shares(one, other) for other in again):
                    one.skips += is_taken
                    again.append(one)
                else:
                    assert not any(_shares(one, t) and t.number < one.number for t in here)
                    waiting.settle([(one, ANSWER)])
                    here.remove(one)
            waiting.finished(group, again)
    assert waiting.waiting == waiting.unsettled == 0


def _may_run(here: list[Ticket], under_way: list[Group], group_max: int) -> list[Ticket]:
    """Those whose accounts no group has, and nothing before them in their batch that waits; as far
    as a shard has room.
    """
    claimed = {account for group in under_way for account in group.accounts}
    taken = {id(one) for group in under_way for one in group.tickets}
    chosen: list[Ticket] = []
    left: list[Ticket] = []
    for one in here:
        accounts = {one.transfer.source, one.transfer.destination}
        if id(one) in taken:
            continue
        if claimed & accounts or any(_shares(one, other) for other in left):
            left.append(one)
            continue
        chosen.append(one)
        if max(Group(chosen).at.values()) >= group_max:
            break
    return chosen


def _shares(one: Ticket, other: Ticket) -> bool:
    """Whether two tickets of one batch share an account."""
    accounts = {one.transfer.source, one.transfer.destination}
    shared = not accounts.isdisjoint((other.transfer.source, other.transfer.destination))
    return one.batch is other.batch and shared


# --- groups that were spoilt ----------------------------------------------------------------


def test_halving_the_limit_isolates_the_one_that_spoils() -> None:
    """As the executor does it: a group that is refused runs again in halves."""
    waiting = queue()
    tickets = [ticket("1a", "1b") for _ in range(16)]
    suspect = tickets[11]
    waiting.put(tickets)
    done: list[Ticket] = []
    rounds = 0
    while waiting.unsettled:
        rounds += 1
        group = take(waiting)
        if suspect not in group.tickets:
            for good in group.tickets:
                waiting.settle([(good, ANSWER)])
            done += group.tickets
            waiting.finished(group, [])
        elif len(group.tickets) == 1:
            waiting.settle([(suspect, GONE)])
            waiting.finished(group, [])
        else:
            for member in group.tickets:
                member.limit = len(group.tickets) // 2
            waiting.finished(group, group.tickets)
    assert done == [good for good in tickets if good is not suspect]
    assert suspect.answer is GONE
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


# --- lingering ------------------------------------------------------------------------------


def running(waiting: Queue) -> Group:
    """A group that has just been taken, at s1 and s2."""
    waiting.put([ticket("1a", "2b")])
    return take(waiting)


def test_an_under_filled_group_lingers_until_the_one_at_its_shards_ends() -> None:
    waiting = queue()
    first = running(waiting)
    one, another = ticket("1c", "2c"), ticket("2d", "3d")
    waiting.put([one])
    assert 0 < waiting._linger_s(picked(waiting)) <= 0.03
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take, waiting)
        waiting.put([another])
        waiting.finished(first, [])
        group = taken.result()
    assert group.tickets[0] is one


def test_a_group_does_not_linger_for_long() -> None:
    waiting = queue()
    running(waiting)
    one = ticket("1c", "2c")
    waiting.put([one])
    began = time.monotonic()
    assert take(waiting).tickets == [one]
    assert time.monotonic() - began < 1


def test_a_group_does_not_linger_for_groups_at_other_shards() -> None:
    waiting = queue()
    running(waiting)
    waiting.put([ticket("3c", "4c")])
    assert waiting._linger_s(picked(waiting)) == 0


def test_a_full_group_waits_for_nobody() -> None:
    waiting = queue(group_max=5)
    running(waiting)
    waiting.put([ticket(f"1c{n}", f"2c{n}") for n in range(5)])
    assert waiting._linger_s(picked(waiting)) == 0


def test_a_shard_that_has_all_it_may_waits_for_nobody() -> None:
    waiting = queue(group_max=5)
    running(waiting)
    waiting.put([ticket(f"1c{n}", f"{n + 2}c{n}") for n in range(5)])
    assert waiting._linger_s(picked(waiting)) == 0


def test_with_more_shards_a_group_lingers_for_more() -> None:
    """A group costs each of its shards the same."""
    waiting = queue()
    running(waiting)
    waiting.put([ticket(f"{n % 4 + 1}c{n}", f"{(n + 1) % 4 + 1}d{n}") for n in range(100)])
    assert waiting._linger_s(picked(waiting)) > 0
    waiting.put([ticket(f"{n % 4 + 1}e{n}", f"{(n + 1) % 4 + 1}f{n}") for n in range(100)])
    assert waiting._linger_s(picked(waiting)) == 0


def test_one_that_is_to_go_alone_waits_for_nobody() -> None:
    waiting = queue()
    running(waiting)
    alone = ticket("1c", "2c")
    alone.limit = 1
    waiting.put([alone])
    assert waiting._linger_s(picked(waiting)) == 0


def test_a_large_group_waits_for_nobody() -> None:
    waiting = queue()
    running(waiting)
    waiting.put([ticket(f"1c{n}", f"2c{n}") for n in range(100)])
    assert waiting._linger_s(picked(waiting)) == 0


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


# --- pauses ---------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
def test_pauses_grow_to_a_tenth_of_a_second(skips: int) -> None:
    longest = pause_after(skips, chance=lambda: 1.0)
    assert longest <= pause_after(skips + 1, chance=lambda: 1.0) <= 0.1
    assert 0 <= pause_after(skips) <= longest
    assert pause_after(0, chance=lambda: 1.0) == 0.002


# --- protocols ------------------------------------------------------------------------------


def test_each_group_runs_by_one_protocol() -> None:
    waiting = queue()
    names = ("xa", "tcc", "xa", "saga", "tcc", "saga")
    tickets = [ticket(f"1a{n}", f"2b{n}", protocol=name) for n, name in enumerate(names)]
    waiting.put(tickets)
    groups = [take(waiting) for _ in range(3)]
    assert [group.protocol for group in groups] == ["xa", "tcc", "saga"]
    assert [group.tickets for group in groups] == [tickets[0::2][:2], tickets[1::3], tickets[3::2]]


def test_on_one_shard_there_is_nothing_to_agree_upon() -> None:
    waiting = queue()
    waiting.put([ticket("1a", "1b", protocol="saga"), ticket("1c", "1d", protocol="tcc")])
    assert take(waiting).protocol == "xa"


@pytest.mark.parametrize("protocol", ["tcc", "saga"])
def test_whoever_lacks_what_a_batch_brings_pays_on_in_a_later_group(protocol: str) -> None:
    batch, waiting = object(), queue()
    first, on, back = (
        ticket(*ends, batch=batch, protocol=protocol)
        for ends in (("1a", "2b"), ("2b", "1c"), ("1c", "2d"))
    )
    waiting.put([first, on, back])
    together = take(waiting)
    assert together.tickets == [first, on, back]
    on.has_waited = back.has_waited = True
    waiting.finished(together, [first, on, back])
    for expected in (first, on, back):
        group = take(waiting)
        assert group.tickets == [expected]
        waiting.finished(group, [])


def test_other_protocols_keep_the_order_of_a_batch() -> None:
    batch, waiting = object(), queue()
    first = ticket("1a", "2b", batch=batch)
    second = ticket("2b", "1c", batch=batch, protocol="saga")
    third = ticket("1c", "2d", batch=batch)
    waiting.put([first, second, third])
    group = take(waiting)
    assert group.tickets == [first]
    waiting.finished(group, [])
    assert take(waiting).tickets == [second]


def test_what_is_left_to_be_finished_holds_back_its_batch() -> None:
    batch, waiting = object(), queue()
    first, second = (
        ticket(*ends, batch=batch, protocol="saga") for ends in (("1a", "2b"), ("2b", "1c"))
    )
    other = ticket("2b", "1d", protocol="saga")
    second.has_waited = True
    waiting.put([first, second, other])
    group = take(waiting)
    assert group.tickets == [first, other]
    waiting.hold_back([first, other])
    waiting.finished(group, [])
    assert has_nothing(waiting)
    waiting.let_go([first])
    assert take(waiting).tickets == [second]
