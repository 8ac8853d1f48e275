"""Each refusal of the money rules with an example, at its place in the ladder."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ledger.decide import change_status, decide, refuse_reuse
from ledger.model import (
    AMOUNT_MAX,
    BALANCE_MAX,
    BALANCE_MIN,
    Posting,
    Reason,
    Refusal,
    Status,
)
from tests.unit.books import NOW, Books, account, books, one, reason, transfer

# --- limits and 64 bits ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("balance", "limit", "amount", "is_granted"),
    [
        (100, 0, 100, True),
        (100, 0, 101, False),
        (0, 0, 1, False),
        (0, 50, 50, True),
        (0, 50, 51, False),
        (-50, 50, 1, False),
        (-49, 50, 1, True),
        (100, 50, 150, True),
        (0, None, AMOUNT_MAX, True),
        (0, AMOUNT_MAX, AMOUNT_MAX, True),
        (BALANCE_MAX, 0, AMOUNT_MAX, True),
    ],
)
def test_an_account_goes_down_to_its_limit_exactly(
    balance: int, limit: int | None, amount: int, is_granted: bool
) -> None:
    before = books(account("a", balance, limit), account("b", limit=None))
    outcome = one(before, transfer("a", "b", amount))
    assert reason(outcome) == (None if is_granted else Reason.INSUFFICIENT_FUNDS)
    if isinstance(outcome, Posting):
        assert outcome.debit.balance == balance - amount


@pytest.mark.parametrize(
    ("source", "destination", "amount", "is_granted"),
    [
        (0, BALANCE_MAX - 5, 5, True),
        (0, BALANCE_MAX - 5, 6, False),
        (0, BALANCE_MAX, 1, False),
        (BALANCE_MIN + 5, 0, 5, True),
        (BALANCE_MIN + 5, 0, 6, False),
        (BALANCE_MIN, 0, 1, False),
        (-1, 0, AMOUNT_MAX, False),
    ],
)
def test_balances_stay_within_64_bits(
    source: int, destination: int, amount: int, is_granted: bool
) -> None:
    before = books(account("a", source, limit=None), account("b", destination))
    outcome = one(before, transfer("a", "b", amount))
    assert reason(outcome) == (None if is_granted else Reason.BALANCE_OVERFLOW)


def test_a_refusal_for_overflow_names_the_account_that_overflows() -> None:
    full = books(account("a", 9), account("b", BALANCE_MAX))
    outcome = one(full, transfer("a", "b", 1))
    assert isinstance(outcome, Refusal)
    assert "account b" in outcome.detail
    assert str(BALANCE_MAX + 1) in outcome.detail


# --- the ladder of refusals -----------------------------------------------------------------

# Each rung with the least books that stop there. What stops at one rung has every fault of the
# rungs below it as well, so the order is tested along with the reasons.
_POOR = account("a", 0, status=Status.FROZEN, currency="USD")
_FULL = account("b", BALANCE_MAX, currency="USD")
LADDER = [
    ("no source", books(_FULL), ("a", "a"), Reason.ACCOUNT_NOT_FOUND, "source account a", False),
    ("same account", books(_POOR), ("a", "a"), Reason.SAME_ACCOUNT, "both a", True),
    ("no destination", books(_POOR), ("a", "b"), Reason.ACCOUNT_NOT_FOUND, "account b", True),
    (
        "closed source",
        books(_POOR._replace(status="closed"), _FULL),
        ("a", "b"),
        Reason.ACCOUNT_CLOSED,
        "account a is closed",
        True,
    ),
    (
        "closed destination",
        books(_POOR, _FULL._replace(status="closed", balance=0)),
        ("a", "b"),
        Reason.ACCOUNT_CLOSED,
        "account b is closed",
        True,
    ),
    (
        "frozen source",
        books(_POOR, _FULL),
        ("a", "b"),
        Reason.ACCOUNT_FROZEN,
        "account a is frozen",
        True,
    ),
    (
        "other currency",
        books(_POOR._replace(status="open"), _FULL),
        ("a", "b"),
        Reason.CURRENCY_MISMATCH,
        "account a in USD",
        True,
    ),
    (
        "destination's currency",
        books(_POOR._replace(status="open", currency="EUR"), _FULL),
        ("a", "b"),
        Reason.CURRENCY_MISMATCH,
        "account b in USD",
        True,
    ),
    (
        "no funds",
        books(
            _POOR._replace(status="open", currency="EUR"),
            _FULL._replace(currency="EUR"),
        ),
        ("a", "b"),
        Reason.INSUFFICIENT_FUNDS,
        "has 0 EUR",
        True,
    ),
    (
        "overflow",
        books(
            _POOR._replace(status="open", currency="EUR", balance=7),
            _FULL._replace(currency="EUR"),
        ),
        ("a", "b"),
        Reason.BALANCE_OVERFLOW,
        "account b",
        True,
    ),
]


@pytest.mark.parametrize(
    ("before", "accounts", "expected", "detail", "is_recorded"),
    [rung[1:] for rung in LADDER],
    ids=[rung[0] for rung in LADDER],
)
def test_the_ladder_of_refusals_in_its_order(
    before: Books, accounts: tuple[str, str], expected: Reason, detail: str, is_recorded: bool
) -> None:
    outcomes, changed = decide(before, [transfer(*accounts, 7)], NOW)
    (outcome,) = outcomes
    assert isinstance(outcome, Refusal)
    assert outcome.reason is expected
    assert detail in outcome.detail
    assert outcome.is_recorded is is_recorded
    assert changed == {}


def test_a_frozen_account_still_takes_money() -> None:
    before = books(account("a", 5), account("b", status=Status.FROZEN))
    assert isinstance(one(before, transfer("a", "b", 5)), Posting)


# --- statuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", [-1, 1, BALANCE_MAX])
def test_only_an_empty_account_can_be_closed(balance: int) -> None:
    refusal = change_status(account("a", balance, limit=None), Status.CLOSED)
    assert refusal is not None
    assert refusal.reason is Reason.ACCOUNT_NOT_EMPTY
    assert str(balance) in refusal.detail
    assert change_status(account("a", 0), Status.CLOSED) is None


@pytest.mark.parametrize("status", [Status.OPEN, Status.FROZEN])
@pytest.mark.parametrize("was", list(Status))
def test_an_account_can_be_frozen_and_opened_at_any_time(was: Status, status: Status) -> None:
    assert change_status(account("a", status=was), status) is None


# --- keys -----------------------------------------------------------------------------------

_OTHER: dict[str, Any] = {
    "destination": "z",
    "amount": 999,
    "currency": "USD",
    "metadata": '{"n":1}',
    "protocol": "saga",
}


def test_the_same_body_under_the_same_key_is_no_reuse() -> None:
    stored = transfer("a", "b", 1)
    # When it was first taken is no part of the body.
    assert refuse_reuse(stored, stored._replace(created_at=NOW + 9)) is None


@given(st.sets(st.sampled_from(sorted(_OTHER)), min_size=1))
def test_every_field_that_differs_is_named_with_both_values(fields: set[str]) -> None:
    stored = transfer("a", "b", 1)
    asked = stored._replace(**{field: _OTHER[field] for field in fields})
    assume(asked != stored)
    refusal = refuse_reuse(stored, asked)
    assert refusal is not None
    assert refusal.reason is Reason.IDEMPOTENCY_KEY_REUSED
    assert not refusal.is_recorded
    for field in _OTHER:
        text = f"{field} was {getattr(stored, field)}, now {_OTHER[field]}"
        assert (text in refusal.detail) == (field in fields)


def test_an_id_that_others_have_taken() -> None:
    stored = transfer("a", "b", 1)
    asked = stored._replace(source="c", key="", id="fff-" + "0" * 32)
    refusal = refuse_reuse(stored, asked)
    assert refusal is not None
    assert refusal.detail == (
        f"the id {asked.id} is used: source was a, now c; key was {stored.key}, now "
    )
