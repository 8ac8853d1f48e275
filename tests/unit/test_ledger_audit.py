"""The invariants as functions: what the ledger writes passes, and each way to be wrong is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.audit import Line, Record, Violation, check_history, check_transfer
from ledger.decide import decide
from ledger.model import Account, Entry, Posting, Transfer

NOW = 5000


def rules(found: list[Violation]) -> list[str]:
    return [rule for rule, _ in found]


# --- one account ----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40), st.integers(0, 9)), max_size=20))
def test_what_the_ledger_writes_is_right(wishes: list[tuple[bool, int, int]]) -> None:
    accounts = {
        "a": Account("a", "EUR", 0, 30, "open", 0, 0),
        "b": Account("b", "EUR", 0, None, "open", 0, 0),
    }
    history: list[Entry] = []
    for is_debit, amount, clock in wishes:
        ends = ("a", "b") if is_debit else ("b", "a")
        wish = Transfer("t", "k", *ends, amount, "EUR", None, "xa", NOW)
        (outcome,), changed = decide(accounts, [wish], NOW + clock)
        accounts |= changed
        if isinstance(outcome, Posting):
            history += [entry for entry in outcome if entry.account == "a"]
    assert check_history(accounts["a"], history) == []


def account(balance: int = 60, count: int = 3, limit: int | None = 0) -> Account:
    return Account("a", "EUR", balance, limit, "open", count, 30)


def entries() -> list[Entry]:
    return [
        Entry("a", 1, "t1", 100, 100, "b", 10),
        Entry("a", 2, "t2", -70, 30, "c", 20),
        Entry("a", 3, "t3", 30, 60, "b", 30),
    ]


def test_a_right_history() -> None:
    assert check_history(account(), entries()) == []
    assert check_history(account(balance=0, count=0), []) == []


def test_a_missing_entry() -> None:
    first, _, third = entries()
    found = check_history(account(), [first, third])
    assert "entries-without-gaps" in rules(found)
    assert "3 follows" in found[0][1]


def test_an_entry_that_stands_twice() -> None:
    first, second, third = entries()
    found = check_history(account(), [first, second, second, third])
    assert "entries-without-gaps" in rules(found)


def test_a_missing_last_entry() -> None:
    found = check_history(account(), entries()[:2])
    assert rules(found) == ["balance-is-sum-of-entries", "entry-count"]
    assert "60" in found[0][1]
    assert "30" in found[0][1]


def test_a_changed_amount() -> None:
    first, second, third = entries()
    found = check_history(account(), [first, second._replace(amount=-60), third])
    assert rules(found) == ["balance-after-entry"]
    assert "it says 30" in found[0][1]


def test_a_changed_balance_of_the_account() -> None:
    assert rules(check_history(account(balance=61), entries())) == ["balance-is-sum-of-entries"]


def test_a_wrong_count() -> None:
    assert rules(check_history(account(count=4), entries())) == ["entry-count"]


def test_time_that_goes_backwards() -> None:
    first, second, third = entries()
    found = check_history(account(), [first, second._replace(stamp=9), third])
    assert rules(found) == ["entries-in-time-order"]
    # The same moment twice is in order.
    assert check_history(account(), [first, second._replace(stamp=10), third]) == []


def test_a_debit_beyond_the_limit() -> None:
    first, second, third = entries()
    wrong = [first, second._replace(amount=-101, balance=-1), third._replace(balance=29)]
    found = check_history(account(balance=29), wrong)
    assert rules(found) == ["overdraft-limit"]
    assert check_history(account(balance=29, limit=1), wrong) == []
    assert check_history(account(balance=29, limit=None), wrong) == []


# --- one transfer ---------------------------------------------------------------------------


def record(status: str = "committed", shard: str = "s1") -> Record:
    return Record(shard, status, "a", "b", 7, "tandem.s1.c1.x.y")


def lines() -> list[Line]:
    return [Line("s1", "a", -7, "b", NOW), Line("s2", "b", 7, "a", NOW)]


def test_a_transfer_with_both_entries() -> None:
    assert check_transfer([record()], lines()) == []
    assert check_transfer([record()], lines()[::-1]) == []


def test_a_rejected_transfer_without_any() -> None:
    assert check_transfer([record("rejected")], []) == []


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        lines()[:1],
        lines()[1:],
        lines() * 2,
        [*lines(), Line("s2", "c", 7, "a", NOW)],
        [lines()[0], lines()[1]._replace(amount=8)],
        [lines()[0], lines()[1]._replace(account="c")],
        [lines()[0], lines()[1]._replace(counterparty="c")],
    ],
)
def test_a_committed_transfer_with_anything_else(wrong: list[Line]) -> None:
    assert rules(check_transfer([record()], wrong)) == ["all-entries-or-none"]


@pytest.mark.parametrize("wrong", [lines(), lines()[:1]])
def test_a_rejected_transfer_with_entries(wrong: list[Line]) -> None:
    assert rules(check_transfer([record("rejected")], wrong)) == ["all-entries-or-none"]


def test_entries_of_different_times() -> None:
    debit, credit = lines()
    found = check_transfer([record()], [debit, credit._replace(stamp=NOW + 1)])
    assert rules(found) == ["entries-at-one-time"]


def test_entries_without_a_transfer() -> None:
    found = check_transfer([], lines())
    assert rules(found) == ["entry-has-transfer"]
    assert "s1, s2" in found[0][1]


def test_a_transfer_on_two_shards() -> None:
    found = check_transfer([record(), record(shard="s2")], lines())
    assert rules(found) == ["one-transfer-per-id"]
    assert "s1, s2" in found[0][1]
