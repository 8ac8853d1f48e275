"""A batch whose transfers run in different ways comes out as if one were done after the other, and
in groups that are worth it.
"""

from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.engine.batch_order import BatchOrder
from coordinator.engine.in_flight import InFlight, LocalPlan, begin_of, begin_together, go_on
from coordinator.engine.scheduler import Queue
from coordinator.engine.tickets import Group, Ticket
from ledger.decide import decide
from ledger.ids import SLOT_COUNT
from ledger.model import Account, Posting, Status
from shard_client.records import Found, Locked, PhaseRow, StepRow
from tests.unit.books import NOW, account
from tests.unit.tickets import ANSWER, Shards, queue, ticket

ALL_SLOTS = frozenset(range(SLOT_COUNT))


class Books:
    """All shards in one, and what is done to them by groups."""

    def __init__(self, accounts: dict[str, Account]) -> None:
        self.accounts = dict(accounts)
        self.statuses: dict[str, str] = {}
        self._phases: dict[tuple[str, str], PhaseRow] = {}
        self._steps: dict[tuple[str, str], StepRow] = {}

    def run(self, group: Group, gtrid: str) -> list[Ticket]:
        """Run a group to its end; gives those that wait once more."""
        if group.protocol == "xa":
            self._decide(group.tickets)
            return []
        again: list[Ticket] = []
        active: list[InFlight] = []
        found = dict.fromkeys(group.at, self._found())
        flights = [(one.shards[0], begin_of(one, gtrid, 0.0)) for one in group.tickets]
        for visit, _ in begin_together(flights, found, NOW, NOW).values():
            again += [flight.ticket for flight, _ in visit.blocked if flight.ticket]
            active += self._apply(visit)
        for one in again:
            one.has_waited = True
        while active := [flight for flight in active if not flight.is_done]:
            self._apply(go_on(active, self._found(), set(), NOW, 1))
        assert not self._phases
        return again

    def _decide(self, tickets: list[Ticket]) -> None:
        transfers = [one.transfer for one in tickets]
        outcomes, changed = decide(self.accounts, transfers, NOW)
        self.accounts |= changed
        for transfer, outcome in zip(transfers, outcomes, strict=True):
            is_posted = isinstance(outcome, Posting)
            self.statuses[transfer.id] = "committed" if is_posted else "rejected"

    def _found(self) -> Found:
        standing = {attempt: row.phase for attempt, row in self._phases.items()}
        locked = Locked(ALL_SLOTS, True, self.accounts, {}, 2**63)
        return Found(locked, self._phases, standing, self._steps)

    def _apply(self, visit: LocalPlan) -> list[InFlight]:
        writes = visit.writes
        self.accounts |= writes.accounts
        self.statuses |= {row.transfer.id: row.status for row in writes.transfers}
        self._phases |= {row.attempt: row for row in writes.begun}
        for attempt, was, state in writes.changed:
            row = self._phases.pop(attempt)
            assert row.phase == was
            if state:
                names = ("phase", "outcome", "source_state", "destination_state")
                changes = {name: getattr(state, name) for name in names}
                self._phases[attempt] = row._replace(**changes)
        self._steps |= {row.attempt: row for row in writes.new_steps + writes.next_steps}
        for flight, position in visit.positions:
            flight.position = position
        return [flight for flight, _ in visit.positions]


def run_all(waiting: Queue, tickets: list[Ticket], books: Books) -> list[Group]:
    """One group after the other, until all are done."""
    waiting.put(tickets)
    groups: list[Group] = []
    while waiting.unsettled:
        group = waiting.take()
        assert group is not None
        groups.append(group)
        again = books.run(group, f"g{len(groups)}")
        waiting.settle((one, ANSWER) for one in group.tickets if one not in again)
        waiting.finished(group, again)
    return groups


def batch_of(*items: tuple[str, str, int, str]) -> list[Ticket]:
    """Of source, destination, amount and protocol."""
    batch = object()
    made = []
    for number, (source, destination, amount, protocol) in enumerate(items):
        one = ticket(source, destination, batch=batch, protocol=protocol, id_=f"t{number}")
        one.transfer = one.transfer._replace(amount=amount)
        made.append(one)
    return made


_names = [f"{shard}{name}" for shard in "12" for name in "abc"]
_accounts = st.tuples(
    *(
        st.builds(account, st.just(name), st.integers(0, 6), status=st.just(Status.OPEN))
        | st.builds(account, st.just(name), st.just(0), status=st.just(Status.CLOSED))
        for name in _names
    )
)
_items = st.lists(
    st.tuples(
        st.sampled_from(_names),
        st.sampled_from(_names),
        st.integers(1, 5),
        st.sampled_from(("xa", "tcc", "saga")),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=400)
@given(_accounts, _items, st.integers(1, 20))
def test_a_batch_comes_out_as_if_each_were_done_after_the_other(
    accounts: tuple[Account, ...], items: list[tuple[str, str, int, str]], group_max: int
) -> None:
    before = {one.id: one for one in accounts}
    tickets = batch_of(*items)
    books, serial = Books(before), Books(before)
    run_all(queue(Shards(), group_max=group_max), tickets, books)
    for one in tickets:
        serial._decide([one])
    assert books.statuses == serial.statuses
    balances = {name: one.balance for name, one in serial.accounts.items()}
    assert {name: one.balance for name, one in books.accounts.items()} == balances
    assert not any(one.held or one.expected for one in books.accounts.values())


_PAYEES = [f"{shard}{number}" for number in range(40) for shard in "12"]


@pytest.mark.parametrize("protocols", [["tcc"], ["saga"], ["tcc", "saga"]], ids="/".join)
@pytest.mark.parametrize(
    "ends",
    [
        [("1a", payee) for payee in _PAYEES],
        [(payee, "2a") for payee in _PAYEES],
        [(payee, "1a") for payee in _PAYEES] + [("1a", payee) for payee in _PAYEES],
        [(source, to) for source in ("1a", "1b", "1c") for to in ("1b", "2d", "1c", "2e") * 9],
        [pair for payee in _PAYEES for pair in (("2a", "1a"), ("1a", payee))],
        [("1a", "2a"), ("2a", "1a")] * 40,
        [(_PAYEES[n], _PAYEES[(n + 1 + n // 2 % 2) % 40]) for n in range(40)] * 2,
    ],
    ids=[
        "one payer",
        "one payee",
        "into one and out again",
        "a few that pay each other",
        "through one",
        "there and back",
        "round and round",
    ],
)
def test_same_shard_and_other_shard_in_turn_make_few_groups(
    ends: list[tuple[str, str]], protocols: list[str]
) -> None:
    accounts = {name: account(name, 1000) for pair in ends for name in pair}
    ways = cycle(protocols)
    items = [(source, to, 1, next(ways)) for source, to in ends if source != to]
    tickets = batch_of(*items)
    books = Books(accounts)
    groups = run_all(queue(), tickets, books)
    assert set(books.statuses.values()) == {"committed"}
    assert len(groups) <= 4, [len(group.tickets) for group in groups]


def test_a_refusal_that_rests_on_one_before_it_waits_for_that() -> None:
    """What the first one had taken comes back, as its destination is closed; so the second and the
    third have it. The fourth lacks more than can come back.
    """
    closed = account("2a", status=Status.CLOSED)
    names = {one.id: one for one in (account("1a", 10), closed, account("1b"), account("2b"))}
    tickets = batch_of(
        ("1a", "2a", 10, "tcc"),
        ("1a", "1b", 6, "tcc"),
        ("1a", "2b", 4, "tcc"),
        ("1a", "2b", 99, "tcc"),
    )
    books = Books(names)
    groups = run_all(queue(), tickets, books)
    assert {one.number: books.statuses[one.transfer.id] for one in tickets} == {
        0: "rejected",
        1: "committed",
        2: "committed",
        3: "rejected",
    }
    assert [len(group.tickets) for group in groups] == [4, 1, 2]


def test_what_waits_holds_back_what_shares_an_account_with_it_in_its_batch() -> None:
    batch, other = object(), object()
    order = BatchOrder([ticket("1a", "2b", batch=batch)])
    assert order.blocks(ticket("1a", "3c", batch=batch))
    assert order.blocks(ticket("3c", "1a", batch=batch))
    assert not order.blocks(ticket("3c", "4d", batch=batch))
    assert not order.blocks(ticket("1a", "2b", batch=other))
    assert not order.blocks(ticket("1a", "2b"))
    order.hold(ticket("3c", "4d", batch=batch))
    assert order.blocks(ticket("4d", "5e", batch=batch))


def test_single_ones_hold_back_nothing() -> None:
    order = BatchOrder([ticket("1a", "2b")])
    assert not order
    assert not order.blocks(ticket("1a", "2b"))
