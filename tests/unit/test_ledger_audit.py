"""The invariants as functions: what the ledger writes passes, and each way to be wrong is named."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ledger.audit import Violation, check_history, check_holdings, recompute
from ledger.chain import first_link, next_link
from ledger.decide import decide
from ledger.model import Account, Entry, Posting, Transfer

NOW = 5000


def rules(found: Iterable[Violation]) -> list[str]:
    return [rule for rule, _ in found]


# --- one account ----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40), st.integers(0, 9)), max_size=20))
def test_what_the_ledger_writes_is_right(wishes: list[tuple[bool, int, int]]) -> None:
    accounts = {
        "a": Account("a", "EUR", 0, 30, "open", 0, 0, first_link("a", "EUR")),
        "b": Account("b", "EUR", 0, None, "open", 0, 0, first_link("b", "EUR")),
    }
    history: list[Entry] = []
    for is_debit, amount, clock in wishes:
        ends = ("a", "b") if is_debit else ("b", "a")
        wish = Transfer("t", "k", *ends, amount, "EUR", None, "xa", NOW)
        (outcome,), changed = decide(accounts, [wish], NOW + clock)
        accounts |= changed
        if isinstance(outcome, Posting):
            history += [entry for entry in outcome if entry.account == "a"]
    assert list(check_history(accounts["a"], history)) == []


def chained(*entries: Entry) -> list[Entry]:
    """The entries with the chain that they would have been written with."""
    chain, found = first_link("a", "EUR"), []
    for entry in entries:
        chain = next_link(chain, *entry[:-1])
        found.append(entry._replace(chain=chain))
    return found


def account(history: list[Entry], limit: int | None = 0) -> Account:
    """The account as it is after these entries."""
    last = history[-1] if history else Entry("a", 0, "", 0, 0, "", 0, first_link("a", "EUR"))
    return Account("a", "EUR", last.balance, limit, "open", last.number, 30, last.chain)


def entries() -> list[Entry]:
    return chained(
        Entry("a", 1, "t1", 100, 100, "b", 10, ""),
        Entry("a", 2, "t2", -70, 30, "c", 20, ""),
        Entry("a", 3, "t3", 30, 60, "b", 30, ""),
    )


def check(*history: Entry, was: list[Entry] | None = None) -> list[Violation]:
    """What is found wrong with this history of the account with another one."""
    return list(check_history(account(was or entries()), history))


def test_a_right_history() -> None:
    assert check(*entries()) == []
    assert list(check_history(account([]), [])) == []


def test_a_missing_entry() -> None:
    first, _, third = entries()
    found = check(first, third)
    assert rules(found) == ["entries-without-gaps", "balance-after-entry"]
    assert "3 follows" in found[0][1]


def test_an_entry_that_stands_twice() -> None:
    first, second, third = entries()
    assert "entries-without-gaps" in rules(check(first, second, second, third))


def test_a_missing_last_entry() -> None:
    found = check(*entries()[:2])
    assert rules(found) == ["balance-is-sum-of-entries", "entry-count", "account-ends-its-chain"]
    assert "60" in found[0][1]
    assert "30" in found[0][1]


def test_a_changed_balance_of_the_account() -> None:
    wrong = account(entries())._replace(balance=61)
    assert rules(check_history(wrong, entries())) == ["balance-is-sum-of-entries"]


def test_a_wrong_count() -> None:
    wrong = account(entries())._replace(entry_count=4)
    assert rules(check_history(wrong, entries())) == ["entry-count"]


def test_time_that_goes_backwards() -> None:
    first, second, third = entries()
    wrong = chained(first, second._replace(stamp=9), third)
    assert rules(check(*wrong, was=wrong)) == ["entries-in-time-order"]
    # The same moment twice is in order.
    right = chained(first, second._replace(stamp=10), third)
    assert check(*right, was=right) == []


def test_a_debit_beyond_the_limit() -> None:
    first, second, third = entries()
    wrong = chained(first, second._replace(amount=-101, balance=-1), third._replace(balance=29))
    assert rules(check(*wrong, was=wrong)) == ["overdraft-limit"]
    assert list(check_history(account(wrong, limit=1), wrong)) == []
    assert list(check_history(account(wrong, limit=None), wrong)) == []


# --- its chain ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"amount": -60}, "entry 2: its amount was -70 and now is -60"),
        ({"balance": 31}, "entry 2: its balance was 30 and now is 31"),
        (
            {"amount": -60, "balance": 40},
            "entry 2: its amount was -70 and now is -60, its balance was 30 and now is 40",
        ),
        ({"transfer": "t9"}, "entry 2: its transfer, counterparty or stamp was changed"),
        ({"counterparty": "z"}, "entry 2: its transfer, counterparty or stamp was changed"),
        ({"stamp": 21}, "entry 2: its transfer, counterparty or stamp was changed"),
        ({"chain": "x"}, "entry 2: its chain was changed, and nothing else"),
    ],
)
@pytest.mark.parametrize("is_last", [False, True])
def test_what_was_changed_is_named(change: dict[str, Any], told: str, is_last: bool) -> None:
    first, second, *rest = entries()
    rest = [] if is_last else rest
    found = check(first, second._replace(**change), *rest, was=[first, second, *rest])
    assert [detail for rule, detail in found if rule == "entry-as-written"] == [told]


def test_entries_that_have_changed_places() -> None:
    first, second, third = entries()
    found = check(first, third._replace(number=2), second._replace(number=3))
    assert ("entry-as-written", "entry 2: it has changed places with entry 3") in found


def test_an_entry_put_in_between() -> None:
    first, second, third = entries()
    added = Entry("a", 2, "t9", 5, 105, "b", 15, second.chain)
    found = check(first, added, second._replace(number=3), third._replace(number=4))
    details = [detail for rule, detail in found if rule == "entry-as-written"]
    assert details[0] == "entry 2: it was put in; entry 3 stood in its place"
    assert "entry 4: its number was 3 and now is 4" in details


def test_an_entry_taken_out_and_the_others_moved_up() -> None:
    first, _, third = entries()
    found = check(first, third._replace(number=2))
    assert "entry-as-written" in rules(found)


def test_the_first_entry_rests_on_the_account_and_its_currency() -> None:
    wrong = account(entries())._replace(currency="USD")
    found = list(check_history(wrong, entries()))
    assert rules(found) == ["entry-as-written"]
    assert found[0][1].startswith("entry 1: ")


@st.composite
def _histories(draw: st.DrawFn) -> list[Entry]:
    ids, amounts = st.text("ab|:1", max_size=4), st.integers(-3, 3).filter(bool)
    rows = draw(st.lists(st.tuples(ids, amounts, ids, st.integers(0, 1)), min_size=1, max_size=6))
    balance = stamp = 0
    found = []
    for number, (transfer, amount, counterparty, later) in enumerate(rows, 1):
        balance, stamp = balance + amount, stamp + later
        found.append(Entry("a", number, transfer, amount, balance, counterparty, stamp, ""))
    return chained(*found)


def _tamper(draw: Any, rows: list[Entry]) -> list[Entry]:
    """The rows with one field of one changed, two swapped, one removed or one put in; numbered
    again or not.
    """
    place = draw(st.integers(0, len(rows) - 1))
    changed = list(rows)
    how = draw(st.sampled_from(["field", "swap", "remove", "insert"]))
    if how == "field":
        field = draw(st.sampled_from(Entry._fields[1:]))
        value = getattr(rows[place], field)
        other = st.integers(-5, 9) if isinstance(value, int) else st.text("ab|:1", max_size=5)
        changed[place] = rows[place]._replace(**{field: draw(other)})
    elif how == "swap":
        to = draw(st.integers(0, len(rows) - 1))
        changed[place], changed[to] = changed[to], changed[place]
    elif how == "remove":
        del changed[place]
    else:
        changed.insert(place, draw(st.sampled_from(rows))._replace(transfer=draw(st.text("ab"))))
    if draw(st.booleans()):
        changed = [row._replace(number=number) for number, row in enumerate(changed, 1)]
    return changed


@given(_histories(), st.data())
def test_no_change_of_any_row_goes_unseen(rows: list[Entry], data: st.DataObject) -> None:
    right = account(rows, limit=None)
    assert list(check_history(right, rows)) == []
    changed = _tamper(data.draw, rows)
    assume(changed != rows)
    assert list(check_history(right, changed))


@given(_histories(), st.data())
def test_a_history_written_anew_no_longer_meets_its_anchor(
    rows: list[Entry], data: st.DataObject
) -> None:
    """All that comes after a change has another chain, so whatever was noted of it tells."""
    place = data.draw(st.integers(0, len(rows) - 1))
    changed = list(rows)
    changed[place] = rows[place]._replace(counterparty=rows[place].counterparty + "a")
    anew = chained(*changed)
    assert list(check_history(account(anew, limit=None), anew)) == []
    for before, after in zip(rows[place:], anew[place:], strict=True):
        assert before.chain != after.chain


@given(_histories())
def test_recomputed_for_people(rows: list[Entry]) -> None:
    found = list(recompute(account(rows, limit=None), rows))
    assert [item.entry for item in found] == rows
    assert [item.total for item in found] == [row.balance for row in rows]
    assert [item.violations for item in found] == [[]] * len(rows)


def test_recomputed_with_what_is_wrong() -> None:
    first, second, third = entries()
    found = list(recompute(account(entries()), [first, second._replace(amount=-60), third]))
    assert [item.total for item in found] == [100, 40, 70]
    assert [rules(item.violations) for item in found] == [
        [],
        ["balance-after-entry", "entry-as-written"],
        [],
    ]


def test_fields_that_run_together_make_another_link() -> None:
    one = next_link("c", "a", 1, "t1", 1, 1, "b", 1)
    assert one != next_link("c", "a", 1, "t", 11, 1, "b", 1)
    assert one != next_link("c", "a1", 1, "t1", 1, 1, "b", 1)
    assert one != next_link("c", "a", 1, "t1|1", 1, 1, "b", 1)
    assert first_link("ab", "c") != first_link("a", "bc")


def test_the_format_is_for_ever() -> None:
    """Chains that were written once must be understood by every later version."""
    first = first_link("alice", "EUR")
    second = next_link(first, "alice", 1, "c47-1", -1250, 8750, "bob", 1_764_000_000_000_000)
    assert first == "72iOoSzL9UQdvzT9Iz9Q3lBofCUziNi/6ZQlD3TxKVM="
    assert second == "/zjvpiBIRKhUk9GcDFuLry7e45SYn/ZCpnpPm4A+Tac="


# --- what is reserved -----------------------------------------------------------------------


def holding(balance: int, held: int, expected: int, limit: int | None = 0) -> Account:
    chain = first_link("a", "EUR")
    return Account("a", "EUR", balance, limit, "open", 0, 0, chain, held, expected)


@pytest.mark.parametrize(
    ("owner", "reserved", "tried", "wrong"),
    [
        (holding(10, 4, 3), 4, 3, []),
        (holding(10, 10, 0), 10, 0, []),
        (holding(10, 5, 3), 4, 3, ["held-as-phases-say"]),
        (holding(10, 4, 3), 4, 2, ["expected-as-steps-say"]),
        (holding(10, 0, 0), 4, 2, ["held-as-phases-say", "expected-as-steps-say"]),
        (holding(10, 11, 0), 11, 0, ["held-within-limit"]),
        (holding(10, 12, 0, limit=1), 12, 0, ["held-within-limit"]),
        (holding(10, 11, 0, limit=1), 11, 0, []),
        (holding(10, 99, 0, limit=None), 99, 0, []),
        (holding(10, -1, 0), -1, 0, ["held-not-negative"]),
        (holding(10, 0, -1), 0, -1, ["held-not-negative"]),
        (holding(10, 0, -1), 0, 0, ["held-not-negative", "expected-as-steps-say"]),
    ],
)
def test_what_is_held_and_expected(
    owner: Account, reserved: int, tried: int, wrong: list[str]
) -> None:
    assert rules(check_holdings(owner, reserved, tried)) == wrong


def test_what_is_held_is_told_with_its_values() -> None:
    ((_, detail),) = check_holdings(holding(10, 5, 0), 4, 0)
    assert detail == "the account holds 5, its transfers that are trying 4"
