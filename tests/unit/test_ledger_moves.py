"""Moves on one account, in any order: whatever is refused or not, its sums fit into 64 bits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.decide import Move, Moved, move
from ledger.model import AMOUNT_MAX, BALANCE_MAX, BALANCE_MIN, Account, Reason, Refusal, Transfer
from tests.unit.books import NOW, account

_amounts = st.integers(1, 5) | st.sampled_from([2**62, AMOUNT_MAX - 1, AMOUNT_MAX])
_near_the_ends = st.sampled_from([BALANCE_MIN, BALANCE_MIN + 1, BALANCE_MAX - 1, BALANCE_MAX])
_balances = st.integers(-9, 9) | _near_the_ends
# What begins something, and what ends it.
_ENDS = {
    Move.RESERVE: (Move.PAY, Move.RELEASE),
    Move.EXPECT: (Move.RECEIVE, Move.EXPECT_NO_MORE),
    Move.DEBIT: (Move.REFUND,),
    Move.CREDIT: (),
}
# These are kept out by no money rule, once what they end has begun.
_CERTAIN = {Move.PAY, Move.RELEASE, Move.RECEIVE, Move.EXPECT_NO_MORE}


def transfer(amount: int, source: str = "a", destination: str = "b") -> Transfer:
    return Transfer("t", "k", source, destination, amount, "EUR", None, "tcc", NOW)


def fits(found: Account) -> bool:
    sums = (found.held, found.expected)
    return BALANCE_MIN <= found.balance <= BALANCE_MAX and all(0 <= s <= BALANCE_MAX for s in sums)


@given(balance=_balances, data=st.data())
def test_no_order_of_moves_leaves_what_a_shard_can_keep(balance: int, data: st.DataObject) -> None:
    standing = account("a", balance, None)
    begun: list[tuple[Move, int]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        if begun and data.draw(st.booleans()):
            first, amount = begun.pop(data.draw(st.integers(0, len(begun) - 1)))
            what = data.draw(st.sampled_from(_ENDS[first]))
        else:
            what, amount = data.draw(st.sampled_from(list(_ENDS))), data.draw(_amounts)
        found = move(what, transfer(amount), standing, NOW)
        if isinstance(found, Refusal):
            assert what not in _CERTAIN
            assert found.reason is Reason.BALANCE_OVERFLOW
            continue
        standing = found.account
        assert fits(standing), what
        if _ENDS.get(what):
            begun.append((what, amount))


@pytest.mark.parametrize(
    ("what", "field", "balance"),
    [(Move.RESERVE, "held", BALANCE_MAX), (Move.EXPECT, "expected", BALANCE_MIN)],
)
def test_what_is_held_or_expected_has_an_end(what: Move, field: str, balance: int) -> None:
    full = account("a", balance, None)._replace(**{field: BALANCE_MAX - 1})
    last = move(what, transfer(1), full, NOW)
    assert isinstance(last, Moved)
    assert getattr(last.account, field) == BALANCE_MAX
    refusal = move(what, transfer(2), full, NOW)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.is_recorded) == (Reason.BALANCE_OVERFLOW, True)
    assert f"would have {BALANCE_MAX + 1} EUR {field}" in refusal.detail
