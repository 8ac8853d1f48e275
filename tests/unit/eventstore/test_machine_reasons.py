"""Each outcome that the machine knows, reached by hand; and the edges of 64 bits, one by one."""

from itertools import product

import pytest

from eventstore.machine.refusals import refusal
from eventstore.machine.rules import BALANCE, EXPECTED, HELD, LIMIT, META, UNLIMITED_BIT
from eventstore.rows import Code, place
from ledger.decide import decide
from ledger.errors import Bug
from ledger.model import AMOUNT_MAX, BALANCE_MAX, BALANCE_MIN, Account, Posting, Status
from tests.unit.eventstore.machine_books import (
    KEY,
    NOW,
    Change,
    Command,
    Ledger,
    Node,
    Opening,
    Wish,
    same_accounts,
)

_TWO: list[Command] = [Opening("a", None), Opening("b", None)]
_CASES: dict[Code, list[Command]] = {
    Code.DONE: [*_TWO, Wish("a", "b", 1)],
    Code.NO_SOURCE: [Opening("b"), Wish("a", "b", 1)],
    Code.SAME_ACCOUNT: [*_TWO, Wish("a", "a", 1)],
    Code.NO_DESTINATION: [*_TWO, Wish("a", "c", 1)],
    Code.SOURCE_CLOSED: [*_TWO, Change("a", Status.CLOSED), Wish("a", "b", 1)],
    Code.DESTINATION_CLOSED: [*_TWO, Change("b", Status.CLOSED), Wish("a", "b", 1)],
    Code.SOURCE_FROZEN: [*_TWO, Change("a", Status.FROZEN), Wish("a", "b", 1)],
    Code.SOURCE_CURRENCY: [Opening("a", 0, "XTS"), Opening("b"), Wish("a", "b", 1)],
    Code.DESTINATION_CURRENCY: [Opening("a"), Opening("b", 0, "XTS"), Wish("a", "b", 1)],
    Code.FUNDS: [Opening("a", 7), Opening("b"), Wish("a", "b", 8)],
    Code.SOURCE_OVERFLOW: [
        *_TWO,
        Opening("c", None),
        Wish("a", "b", AMOUNT_MAX),
        Wish("a", "c", 1),
    ],
    Code.DESTINATION_OVERFLOW: [
        *(*_TWO, Opening("c", None)),
        *(Wish("a", "b", AMOUNT_MAX), Wish("c", "b", 1)),
    ],
    Code.REPLAYED: [*_TWO, Wish("a", "b", 1), Wish("a", "b", 1)],
    Code.REUSED: [*_TWO, Wish("a", "b", 1), Wish("a", "b", 2)],
    Code.EXISTS: [Opening("a"), Opening("b"), Opening("b", 5, "USD")],
    Code.NO_ACCOUNT: [Change("a", Status.FROZEN)],
    Code.NOT_EMPTY: [*_TWO, Wish("a", "b", 1), Change("b", Status.CLOSED)],
}


def _keyed(commands: list[Command]) -> list[Command]:
    """With a key of its own for each source and destination, so that only REUSED uses one twice."""
    return [
        item._replace(key=item.destination) if isinstance(item, Wish) else item for item in commands
    ]


def test_there_is_a_case_for_each_outcome() -> None:
    # Those of steps are in test_machine_steps.py.
    assert set(_CASES) == {code for code in Code if code < Code.STEPPED}


@pytest.mark.parametrize("code", list(_CASES), ids=lambda code: code.name)
@pytest.mark.parametrize("at_once", [True, False])
def test_the_last_command_comes_to(code: Code, at_once: bool) -> None:
    node, ledger = Node(), Ledger()
    commands = _keyed(_CASES[code])
    frames = [commands] if at_once else [[command] for command in commands]
    for seq, frame in enumerate(frames, 1):
        answers = node.apply(frame)
        assert answers == [ledger.apply(item, place(seq, i)) for i, item in enumerate(frame)]
    assert answers[-1].code == code
    same_accounts(node, ledger)


_BALANCES = [BALANCE_MIN, BALANCE_MIN + 1, -7, 0, 7, BALANCE_MAX - 1, BALANCE_MAX]
_HELD = [0, 7, BALANCE_MAX]
_LIMITS = [None, 0, 7, AMOUNT_MAX]
_AMOUNTS = [1, 7, 2**62, AMOUNT_MAX - 1, AMOUNT_MAX]
_SOURCES = [
    Account("a", "EUR", balance, limit, "open", 0, NOW, "", held, 0)
    for balance, held, limit in product(_BALANCES, _HELD, _LIMITS)
]
_DESTINATIONS = [
    Account("b", "EUR", balance, None, "open", 0, NOW, "", 0, expected)
    for balance, expected in product([BALANCE_MIN, 0, BALANCE_MAX - 7, BALANCE_MAX], _HELD)
]


def _set(node: Node, number: int, account: Account) -> None:
    row = node.machine._accounts.rows[number]
    limit = account.overdraft_limit
    row[BALANCE], row[HELD], row[EXPECTED] = account.balance, account.held, account.expected
    row[LIMIT] = AMOUNT_MAX if limit is None else limit
    row[META] = int(row[META]) & ~UNLIMITED_BIT | (UNLIMITED_BIT if limit is None else 0)


@pytest.mark.parametrize("amount", _AMOUNTS)
def test_at_the_edges_sums_are_those_of_numbers_without_an_end(amount: int) -> None:
    node = Node()
    node.apply([Opening("a"), Opening("b")])
    reached = set()
    for n, (source, destination) in enumerate(product(_SOURCES, _DESTINATIONS)):
        _set(node, 0, source)
        _set(node, 1, destination)
        wish = Wish("a", "b", amount, key=str(n))
        (outcome,), changed = decide({"a": source, "b": destination}, [wish.transfer()], NOW)
        (answer,) = node.apply([wish])
        reached.add(answer.code)
        if isinstance(outcome, Posting):
            assert answer.code == Code.DONE
            balances = [node.machine.account(n).account.balance for n in (0, 1)]
            assert balances == [changed["a"].balance, changed["b"].balance]
        else:
            assert answer.refusal == outcome
    assert reached >= {Code.DONE, Code.FUNDS, Code.SOURCE_OVERFLOW, Code.DESTINATION_OVERFLOW}


def test_what_is_held_expected_or_unfinished_keeps_an_account_open() -> None:
    for column in (HELD, EXPECTED):
        node = Node()
        node.apply([Opening("a")])
        node.machine._accounts.rows[0, column] = 3
        (answer,) = node.apply([Change("a", Status.CLOSED)])
        assert answer.code == Code.NOT_EMPTY
    node = Node()
    node.apply([Opening("a")])
    node.set_unfinished("a", 2)
    (answer,) = node.apply([Change("a", Status.CLOSED, by_name=True)])
    assert answer.refusal is not None
    assert "(2 from it; 0 EUR held, 0 expected)" in answer.refusal.detail


def test_changes_count_all_that_changes_an_account() -> None:
    node = Node(KEY)
    frozen, closed = Change("a", Status.FROZEN), Change("a", Status.CLOSED)
    node.apply([*_TWO, Wish("a", "b", 1), frozen, frozen, closed])
    standing = node.machine.account(0)
    assert (standing.changes, standing.account.entry_count, standing.unfinished) == (2, 1, 0)


def test_an_unrecorded_refusal_takes_no_key_and_a_recorded_one_does() -> None:
    node = Node()
    wish = Wish("a", "b", 1)
    codes = [
        answer.code
        for answer in node.apply([wish, Opening("a", 9), wish, Opening("b"), wish, wish])
    ]
    # Refused without a source, refused for good without a destination, and that again.
    assert codes[0] == Code.NO_SOURCE
    assert codes[2] == Code.NO_DESTINATION
    assert codes[4:] == [Code.REPLAYED, Code.REPLAYED]
    id_ = bytes.fromhex(wish.transfer().id[4:])
    assert node.machine.place_of(id_) == place(1, 2)


def test_what_is_no_refusal_has_no_text() -> None:
    node = Node()
    node.apply([Opening("a")])
    with pytest.raises(Bug, match="is no refusal of the ledger"):
        refusal(Code.EXISTS, node.body(place(1, 0)), None, node.machine)
