"""From locks to writes: which tickets can be decided, and what each shard then writes."""

from collections import defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.engine.planning import EMPTY_PLAN, Plan, Sorted, plan, sort_out
from coordinator.engine.tickets import Latch, Ticket
from ledger.chain import first_link
from ledger.model import Account, Reason, Refusal, Transfer
from shard_client.branch import slots_of
from shard_client.records import Locked, StoredTransfer

ALL = [(0, 4095)]
NOW = 1000


def account(id_: str, balance: int = 100) -> Account:
    return Account(id_, "EUR", balance, 0, "open", 0, 0, first_link(id_, "EUR"))


def ticket(
    source: str, destination: str, *, id_: str = "", batch: object = None, amount: int = 1
) -> Ticket:
    """Account `1a` is on shard s1."""
    name = id_ or f"{source}>{destination}"
    transfer = Transfer(name, name, source, destination, amount, "EUR", None, "xa", 0)
    made = Ticket(transfer, 1e12, Latch(1), batch)
    made.shards = (f"s{source[0]}", f"s{destination[0]}")
    return made


def locked(
    *ids: str,
    slots: list[tuple[int, int]] = ALL,
    is_writable: bool = True,
    known: Iterable[StoredTransfer] = (),
    latest: int = NOW,
) -> Locked:
    return Locked(
        slots_of(tuple(slots)),
        is_writable,
        {id_: account(id_) for id_ in ids},
        {stored.transfer.id: stored for stored in known},
        latest,
    )


def stored(one: Ticket) -> StoredTransfer:
    return StoredTransfer(one.transfer, "earlier", "committed", None, None, 1)


def parts(result: Sorted) -> tuple[list[Ticket], list[Ticket], list[Ticket], list[Ticket]]:
    return (
        result.ready,
        result.passed_over,
        result.moved,
        [known for known, _ in result.known],
    )


# --- sorting out ----------------------------------------------------------------------------


def test_all_locked_is_all_ready_in_order() -> None:
    tickets = [ticket("1b", "2a"), ticket("1a", "2b"), ticket("2b", "1a")]
    answers = {"s1": locked("1a", "1b"), "s2": locked("2a", "2b")}
    assert parts(sort_out(tickets, answers, set(), NOW)) == (tickets, [], [], [])


@pytest.mark.parametrize("missing", ["1a", "2a"])
def test_an_account_that_is_locked_by_others(missing: str) -> None:
    one, free = ticket("1a", "2a"), ticket("1b", "2b")
    ids = {"1a", "1b", "2a", "2b"} - {missing}
    answers = {f"s{n}": locked(*(i for i in ids if i[0] == n)) for n in "12"}
    assert parts(sort_out([one, free], answers, set(), NOW)) == ([free], [one], [], [])


@pytest.mark.parametrize("missing", ["1a", "2a"])
def test_an_account_that_does_not_exist_can_be_decided(missing: str) -> None:
    one = ticket("1a", "2a")
    ids = {"1a", "2a"} - {missing}
    answers = {f"s{n}": locked(*(i for i in ids if i[0] == n)) for n in "12"}
    assert parts(sort_out([one], answers, {missing}, NOW)) == ([one], [], [], [])


@pytest.mark.parametrize(
    "answers",
    [
        {"s1": locked("1a")},
        {"s2": locked("2a")},
        {},
        {"s1": locked("1a", is_writable=False), "s2": locked("2a")},
        {"s1": locked("1a"), "s2": locked("2a", is_writable=False)},
        {"s1": locked("1a", slots=[]), "s2": locked("2a")},
        {"s1": locked("1a"), "s2": locked("2a", slots=[])},
    ],
)
def test_a_shard_that_is_not_what_it_should_be(answers: dict[str, Locked]) -> None:
    one = ticket("1a", "2a")
    assert parts(sort_out([one], answers, set(), NOW)) == ([], [], [one], [])


def test_a_slot_that_is_elsewhere_is_never_an_account_that_does_not_exist() -> None:
    one = ticket("1a", "1b")
    moved = {"s1": locked(slots=[])}
    assert parts(sort_out([one], moved, {"1a", "1b"}, NOW)) == ([], [], [one], [])


def test_one_with_an_outcome_is_known_whatever_is_locked() -> None:
    again = ticket("1a", "2a")
    outcome = stored(again)
    result = sort_out([again], {"s1": locked(known=[outcome])}, set(), NOW)
    assert result.known == [(again, outcome)]
    assert parts(result)[:3] == ([], [], [])


def test_an_outcome_on_a_shard_that_lost_the_slot_does_not_count() -> None:
    again = ticket("1a", "1b")
    answers = {"s1": locked("1a", "1b", slots=[], known=[stored(again)])}
    assert parts(sort_out([again], answers, set(), NOW)) == ([], [], [again], [])


def test_one_id_twice_runs_once() -> None:
    first, again = ticket("1a", "1b", id_="t"), ticket("1a", "1c", id_="t")
    other = ticket("1a", "1b", id_="u")
    answers = {"s1": locked("1a", "1b", "1c")}
    result = sort_out([first, again, other], answers, set(), NOW)
    assert parts(result) == ([first, other], [again], [], [])


def test_one_that_waits_holds_back_its_batch() -> None:
    batch, other = object(), object()
    late = ticket("1a", "1x", batch=batch)
    after = ticket("1a", "1b", batch=batch)
    beyond = ticket("1b", "1c", batch=batch)
    free = ticket("1d", "1e", batch=batch)
    strange = [ticket("1a", "1b", id_="o", batch=other), ticket("1a", "1b", id_="n")]
    answers = {"s1": locked("1a", "1b", "1c", "1d", "1e")}
    result = sort_out([late, after, beyond, free, *strange], answers, set(), NOW)
    assert parts(result) == ([free, *strange], [late, after, beyond], [], [])


def test_one_that_has_moved_holds_back_its_batch() -> None:
    batch = object()
    lost, after = ticket("1a", "2a", batch=batch), ticket("1a", "1b", batch=batch)
    result = sort_out([lost, after], {"s1": locked("1a", "1b")}, set(), NOW)
    assert parts(result) == ([], [after], [lost], [])


def test_one_with_an_outcome_holds_nothing_back() -> None:
    batch = object()
    again, after = ticket("1a", "1x", batch=batch), ticket("1a", "1b", batch=batch)
    result = sort_out([again, after], {"s1": locked("1a", "1b", known=[stored(again)])}, set(), NOW)
    assert parts(result) == ([after], [], [], [again])


_ids = st.sampled_from([f"{shard}{name}" for shard in "12" for name in "abc"])


@given(
    st.lists(st.tuples(_ids, _ids, st.integers(0, 2), st.booleans()), max_size=20),
    st.sets(_ids),
    st.sets(_ids),
    st.sampled_from([("s1", "s2"), ("s1",), ()]),
)
def test_every_ticket_is_in_one_place_and_batches_keep_their_order(
    wishes: list[tuple[str, str, int, bool]],
    free: set[str],
    absent: set[str],
    answering: tuple[str, ...],
) -> None:
    batches = [None, object(), object()]
    tickets = [
        ticket(source, destination, id_=f"t{n}", batch=batches[batch])
        for n, (source, destination, batch, _) in enumerate(wishes)
    ]
    before = [stored(t) for t, wish in zip(tickets, wishes, strict=True) if wish[3]]
    answers = {name: locked(*(i for i in free if i[0] == name[1])) for name in answering}
    for name, answer in answers.items():
        answer.known.update(
            {s.transfer.id: s for s in before if f"s{s.transfer.source[0]}" == name}
        )
    result = sort_out(tickets, answers, absent - free, NOW)
    everything = [one for part in parts(result) for one in part]
    assert sorted(map(id, everything)) == sorted(map(id, tickets))
    ready = list(map(id, result.ready))
    assert ready == [id(t) for t in tickets if id(t) in set(ready)]
    waiting: set[tuple[int, str]] = set()
    for one in tickets:
        ends = [one.transfer.source, one.transfer.destination]
        if id(one) in set(ready):
            assert all(end in free or end in absent for end in ends)
            assert not any((id(one.batch), end) in waiting for end in ends)
        elif one.batch and one not in [known for known, _ in result.known]:
            waiting.update((id(one.batch), end) for end in ends)


# --- planning -------------------------------------------------------------------------------


def books(*ids: str) -> dict[str, Account]:
    return {id_: account(id_) for id_ in ids}


def test_each_shard_writes_its_own() -> None:
    one = ticket("1a", "2a", amount=30)
    made = plan([one], books("1a", "2a"), NOW, "g")
    home, remote = made.writes["s1"], made.writes["s2"]
    assert [(e.account, e.amount, e.balance, e.stamp) for e in home.entries] == [
        ("1a", -30, 70, NOW)
    ]
    assert [(e.account, e.amount, e.balance, e.stamp) for e in remote.entries] == [
        ("2a", 30, 130, NOW)
    ]
    assert [a.balance for a in home.accounts] == [70]
    assert [a.balance for a in remote.accounts] == [130]
    assert home.transfers == made.results
    assert remote.transfers == []
    (record,) = home.transfers
    assert record == StoredTransfer(one.transfer, "g", "committed", None, None, NOW)


def test_an_account_that_changes_often_is_written_once() -> None:
    tickets = [ticket("1a", "1b", id_=f"t{n}") for n in range(5)]
    made = plan(tickets, books("1a", "1b"), NOW, "g")
    assert made.writes.keys() == {"s1"}
    writes = made.writes["s1"]
    assert [(a.id, a.balance, a.entry_count) for a in writes.accounts] == [
        ("1a", 95, 5),
        ("1b", 105, 5),
    ]
    assert len(writes.entries) == 10
    assert len(writes.transfers) == 5


def test_a_large_group_lets_others_have_their_turn_and_is_decided_as_one() -> None:
    """2,500 payments to and fro: each can be made only after the one before it."""
    ways = (("1a", "2a"), ("2a", "1a"))
    tickets = [ticket(*ways[n % 2], id_=f"t{n}", amount=100) for n in range(2500)]
    accounts = {"1a": account("1a", 100), "2a": account("2a", 0)}
    turns: list[None] = []
    made = plan(tickets, accounts, 5, "g", lambda: turns.append(None))
    assert len(turns) == 2
    assert all(isinstance(one, StoredTransfer) for one in made.results)
    assert {one.status for one in made.results if isinstance(one, StoredTransfer)} == {"committed"}
    (left,), (right,) = made.writes["s1"].accounts, made.writes["s2"].accounts
    assert (left.balance, left.entry_count, right.balance) == (100, 2500, 0)
    assert [entry.number for entry in made.writes["s1"].entries] == list(range(1, 2501))


def test_a_refusal_is_recorded_where_the_source_is() -> None:
    one = ticket("1a", "2a", amount=101)
    made = plan([one], books("1a", "2a"), NOW, "g")
    assert made.writes.keys() == {"s1"}
    writes = made.writes["s1"]
    assert (writes.accounts, writes.entries) == ([], [])
    (record,) = writes.transfers
    assert (record.status, record.reason) == ("rejected", Reason.INSUFFICIENT_FUNDS)
    assert "101" in (record.detail or "")
    assert record.decided_at == NOW


def test_a_refusal_without_a_source_writes_nothing() -> None:
    made = plan([ticket("1a", "2a")], books("2a"), NOW, "g")
    assert made.writes == {}
    (result,) = made.results
    assert isinstance(result, Refusal)
    assert result.reason is Reason.ACCOUNT_NOT_FOUND


def test_a_transfer_carries_the_stamp_of_its_entries() -> None:
    later = books("1a", "2a") | {"2a": account("2a")._replace(stamp_floor=NOW + 7)}
    made = plan([ticket("1a", "2a")], later, NOW, "g")
    assert made.writes["s1"].transfers[0].decided_at == NOW + 7


def test_no_tickets_no_writes() -> None:
    assert plan([], {}, NOW, "g") == EMPTY_PLAN


_amounts = st.integers(1, 150)


@given(st.lists(st.tuples(_ids, _ids, _amounts), max_size=20), st.sets(_ids))
def test_a_plan_writes_every_outcome_once_and_in_its_place(
    wishes: list[tuple[str, str, int]], present: set[str]
) -> None:
    tickets = [
        ticket(source, destination, id_=f"t{n}", amount=amount)
        for n, (source, destination, amount) in enumerate(wishes)
    ]
    before = books(*present)
    made = plan(tickets, before, NOW, "g")
    _check_places(made)
    records = [s for s in made.results if isinstance(s, StoredTransfer)]
    written = [s for writes in made.writes.values() for s in writes.transfers]
    assert sorted(s.transfer.id for s in written) == sorted(s.transfer.id for s in records)
    sums: dict[str, int] = defaultdict(int)
    for writes in made.writes.values():
        for entry in writes.entries:
            sums[entry.account] += entry.amount
    after = {a.id: a.balance for writes in made.writes.values() for a in writes.accounts}
    assert after == {id_: before[id_].balance + change for id_, change in sums.items()}
    assert sum(sums.values()) == 0


def _check_places(made: Plan) -> None:
    assert len(made.results) == len(made.tickets)
    for shard, writes in made.writes.items():
        assert any(writes)
        assert all(f"s{entry.account[0]}" == shard for entry in writes.entries)
        assert all(f"s{one.id[0]}" == shard for one in writes.accounts)
        assert all(f"s{s.transfer.source[0]}" == shard for s in writes.transfers)


# --- clocks ---------------------------------------------------------------------------------


def hit(answer: Locked, id_: str, floor: int) -> Locked:
    """The same with an account that has come so far."""
    return answer._replace(
        accounts=answer.accounts | {id_: account(id_)._replace(stamp_floor=floor)}
    )


@pytest.mark.parametrize("behind", ["s1", "s2"])
def test_a_clock_that_is_ahead_of_one_shard_is_enough(behind: str) -> None:
    one, free = ticket("1a", "2a"), ticket("1b", "1c") if behind == "s2" else ticket("2b", "2c")
    answers = {"s1": locked("1a", "1b", "1c"), "s2": locked("2a", "2b", "2c")}
    answers[behind] = answers[behind]._replace(latest=NOW - 1)
    result = sort_out([one, free], answers, set(), NOW)
    assert result.ready == [free]
    ((refused, why),) = result.ahead
    assert refused is one
    assert f"shard {behind}: the clock of this coordinator" in why


def test_a_request_that_was_stamped_by_a_clock_that_is_right_again() -> None:
    one = ticket("1a", "2a")
    one.transfer = one.transfer._replace(created_at=NOW + 1)
    result = sort_out([one], {"s1": locked("1a"), "s2": locked("2a")}, set(), NOW)
    assert [refused for refused, _ in result.ahead] == [one]


@pytest.mark.parametrize("far", ["1a", "2a"])
def test_an_account_that_was_hit_takes_nobody_along(far: str) -> None:
    answers = {"s1": locked("1a"), "s2": locked("2a")}
    answers[f"s{far[0]}"] = hit(answers[f"s{far[0]}"], far, NOW + 1)
    ((_, why),) = sort_out([ticket("1a", "2a")], answers, set(), NOW).ahead
    assert f"account {far} has come to" in why


def test_accounts_that_have_come_as_far_go_on() -> None:
    """Neither comes further by it; one that has come less far would."""
    one = ticket("1a", "2a")
    same = {"s1": hit(locked(), "1a", NOW + 9), "s2": hit(locked(), "2a", NOW + 9)}
    assert sort_out([one], same, set(), NOW).ready == [one]
    less = same | {"s2": hit(locked(), "2a", NOW + 8)}
    assert sort_out([one], less, set(), NOW).ready == []
