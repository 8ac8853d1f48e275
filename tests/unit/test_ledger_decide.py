"""What the money rules may never do, whatever the books and the transfers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from ledger.chain import next_link
from ledger.decide import Outcome, decide
from ledger.model import (
    AMOUNT_MAX,
    BALANCE_MAX,
    BALANCE_MIN,
    Account,
    Entry,
    Posting,
    Reason,
    Refusal,
    Status,
    Transfer,
)
from tests.unit.books import NOW, Books, account, books, one, reason, transfer

IDS = ["a", "b", "c", "d", "e", "f"]

# --- what any books and any transfers keep --------------------------------------------------

# Near zero, where limits bite, and near the ends of 64 bits, where numbers do.
_near_the_ends = st.sampled_from([BALANCE_MIN, BALANCE_MIN + 1, BALANCE_MAX - 1, BALANCE_MAX])
_balances = st.integers(-50, 200) | _near_the_ends
_limits = st.none() | st.integers(0, 100) | st.just(AMOUNT_MAX)
_amounts = st.integers(1, 120) | st.sampled_from([AMOUNT_MAX - 1, AMOUNT_MAX])
_currencies = st.sampled_from(["EUR", "EUR", "EUR", "USD"])


@st.composite
def _accounts(draw: st.DrawFn, id_: str) -> Account:
    limit = draw(_limits)
    lowest = BALANCE_MIN if limit is None else -limit
    status = draw(st.sampled_from([*[Status.OPEN] * 6, Status.FROZEN, Status.CLOSED]))
    balance = 0 if status is Status.CLOSED else max(draw(_balances), lowest)
    return account(
        id_,
        balance,
        limit,
        currency=draw(_currencies),
        status=status,
        count=draw(st.integers(0, 3)),
        floor=draw(st.integers(NOW - 3, NOW + 3)),
    )


@st.composite
def _books(draw: st.DrawFn) -> Books:
    present = draw(st.lists(st.sampled_from(IDS), min_size=2, unique=True))
    return books(*(draw(_accounts(id_)) for id_ in present))


@st.composite
def _lists(draw: st.DrawFn, ids: Sequence[str] = IDS) -> list[Transfer]:
    wishes = draw(
        st.lists(
            st.tuples(st.sampled_from(ids), st.sampled_from(ids), _amounts, _currencies),
            max_size=25,
        )
    )
    return [Transfer(f"t{n}", f"k{n}", *wish, None, "xa", NOW) for n, wish in enumerate(wishes)]


def entries_of(outcomes: Sequence[Outcome]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = defaultdict(list)
    for outcome in outcomes:
        if isinstance(outcome, Posting):
            for entry in outcome:
                found[entry.account].append(entry)
    return found


def totals(accounts: Mapping[str, Account]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for item in accounts.values():
        found[item.currency] += item.balance
    return found


@given(_books(), _lists())
def test_money_is_conserved_in_each_currency(before: Books, wishes: list[Transfer]) -> None:
    _, changed = decide(before, wishes, NOW)
    assert totals(before | changed) == totals(before)


@given(_books(), _lists())
def test_no_debit_passes_a_limit_and_no_balance_leaves_64_bits(
    before: Books, wishes: list[Transfer]
) -> None:
    outcomes, changed = decide(before, wishes, NOW)
    for entries in entries_of(outcomes).values():
        for entry in entries:
            assert BALANCE_MIN <= entry.balance <= BALANCE_MAX
            if entry.amount < 0:
                assert entry.balance >= before[entry.account].lowest_balance
    for item in changed.values():
        assert item.balance >= item.lowest_balance


@given(_books(), _lists())
def test_a_posting_is_its_transfer_and_nothing_else(before: Books, wishes: list[Transfer]) -> None:
    outcomes, _ = decide(before, wishes, NOW)
    assert len(outcomes) == len(wishes)
    for wish, outcome in zip(wishes, outcomes, strict=True):
        if isinstance(outcome, Refusal):
            continue
        debit, credit = outcome
        assert (debit.account, debit.counterparty) == (wish.source, wish.destination)
        assert (credit.account, credit.counterparty) == (wish.destination, wish.source)
        assert (debit.amount, credit.amount) == (-wish.amount, wish.amount)
        assert debit.transfer == credit.transfer == wish.id
        assert debit.stamp == credit.stamp
        assert before[wish.source].status == Status.OPEN
        assert before[wish.destination].status != Status.CLOSED
        currencies = {before[wish.source].currency, before[wish.destination].currency}
        assert currencies == {wish.currency}


@given(_books(), _lists())
def test_histories_go_on_without_gaps_and_never_back_in_time(
    before: Books, wishes: list[Transfer]
) -> None:
    outcomes, changed = decide(before, wishes, NOW)
    histories = entries_of(outcomes)
    assert histories.keys() == changed.keys()
    for id_, entries in histories.items():
        was, now = before[id_], changed[id_]
        numbers = [entry.number for entry in entries]
        assert numbers == list(range(was.entry_count + 1, was.entry_count + 1 + len(entries)))
        stamps = [was.stamp_floor, *(entry.stamp for entry in entries)]
        assert stamps == sorted(stamps)
        assert all(entry.stamp >= NOW for entry in entries)
        running, chain = was.balance, was.chain
        for entry in entries:
            running += entry.amount
            assert entry.balance == running
            chain = next_link(chain, *entry[:-1])
            assert entry.chain == chain
        assert now == was._replace(
            balance=running,
            entry_count=numbers[-1],
            stamp_floor=stamps[-1],
            chain=entries[-1].chain,
        )


@given(_books(), _lists())
def test_a_refused_transfer_could_as_well_never_have_come(
    before: Books, wishes: list[Transfer]
) -> None:
    outcomes, changed = decide(before, wishes, NOW)
    granted = [
        (wish, outcome)
        for wish, outcome in zip(wishes, outcomes, strict=True)
        if isinstance(outcome, Posting)
    ]
    again, changed_again = decide(before, [wish for wish, _ in granted], NOW)
    assert again == [outcome for _, outcome in granted]
    assert changed_again == changed


@given(_books(), _lists())
def test_equal_input_gives_equal_output_and_is_left_alone(
    before: Books, wishes: list[Transfer]
) -> None:
    kept, kept_wishes = dict(before), list(wishes)
    first = decide(before, wishes, NOW)
    assert (before, wishes) == (kept, kept_wishes)
    # Neither the order of a mapping nor accounts that nobody names count.
    stranger = account("stranger", 5, limit=None)
    assert decide(dict(reversed(before.items())) | {"stranger": stranger}, wishes, NOW) == first


@given(_books(), _lists(), st.integers(0, 25))
def test_two_calls_give_the_same_as_one(before: Books, wishes: list[Transfer], cut: int) -> None:
    outcomes, changed = decide(before, wishes, NOW)
    first, between = decide(before, wishes[:cut], NOW)
    second, after = decide(before | between, wishes[cut:], NOW)
    assert first + second == outcomes
    assert between | after == changed


@given(_books(), _lists(IDS[:3]), _lists(IDS[3:]), st.randoms(use_true_random=False))
def test_transfers_that_share_no_account_commute(
    before: Books, left: list[Transfer], right: list[Transfer], random: object
) -> None:
    right = [wish._replace(id=f"r{wish.id}") for wish in right]
    outcomes, changed = decide(before, left + right, NOW)
    expected = dict(zip(left + right, outcomes, strict=True))
    # Any interleaving that keeps the order within each side.
    sides = [False] * len(left) + [True] * len(right)
    random.shuffle(sides)  # type: ignore[attr-defined]
    lefts, rights = iter(left), iter(right)
    mixed = [next(rights) if is_right else next(lefts) for is_right in sides]
    mixed_outcomes, mixed_changed = decide(before, mixed, NOW)
    assert dict(zip(mixed, mixed_outcomes, strict=True)) == expected
    assert mixed_changed == changed


def test_order_matters_where_an_account_is_shared() -> None:
    before = books(account("a", 10), account("b"), account("c"))
    pay_in, pay_out = transfer("a", "b", 10), transfer("b", "c", 10)
    in_order, _ = decide(before, [pay_in, pay_out], NOW)
    backwards, _ = decide(before, [pay_out, pay_in], NOW)
    assert [reason(outcome) for outcome in in_order] == [None, None]
    assert [reason(outcome) for outcome in backwards] == [Reason.INSUFFICIENT_FUNDS, None]


# --- stamps ---------------------------------------------------------------------------------


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_both_entries_carry_the_latest_of_now_and_both_floors(now: int, a: int, b: int) -> None:
    before = books(account("a", 9, floor=a), account("b", floor=b))
    outcome = one(before, transfer("a", "b", 1), now)
    assert isinstance(outcome, Posting)
    assert outcome.debit.stamp == outcome.credit.stamp == max(now, a, b)


def test_a_floor_in_the_future_spreads_along_a_chain() -> None:
    before = books(account("a", 9, floor=NOW + 500), account("b"), account("c"))
    outcomes, changed = decide(before, [transfer("a", "b", 2), transfer("b", "c", 1)], NOW)
    stamps = {
        entry.stamp for outcome in outcomes if isinstance(outcome, Posting) for entry in outcome
    }
    assert stamps == {NOW + 500}
    assert {item.stamp_floor for item in changed.values()} == {NOW + 500}


# --- refusals ----


@given(_books(), _lists())
def test_only_a_refusal_without_a_source_is_not_recorded(
    before: Books, wishes: list[Transfer]
) -> None:
    outcomes, _ = decide(before, wishes, NOW)
    for wish, outcome in zip(wishes, outcomes, strict=True):
        if isinstance(outcome, Refusal):
            assert outcome.is_recorded == (wish.source in before)


@given(_books(), _lists())
def test_a_refusal_fits_into_its_row(before: Books, wishes: list[Transfer]) -> None:
    """The column of reasons has 32 characters, that of details 512; ids have up to 64."""
    long = {id_: id_ * 64 for id_ in IDS}
    before = books(*(item._replace(id=long[item.id]) for item in before.values()))
    wishes = [
        wish._replace(source=long[wish.source], destination=long[wish.destination])
        for wish in wishes
    ]
    for outcome in decide(before, wishes, NOW)[0]:
        if isinstance(outcome, Refusal):
            assert len(outcome.reason) <= 32
            assert len(outcome.detail) <= 512
