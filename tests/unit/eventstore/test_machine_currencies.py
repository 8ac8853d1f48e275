"""What a currency is, and the list of those that a group's accounts are in."""

import re

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.http.schemas import Currency
from eventstore.commands import Packer
from eventstore.machine.compiled import njit, types
from eventstore.machine.currencies import is_currency
from eventstore.rows import COMMAND, DETAIL, Code, currency_number, currency_text
from ledger.errors import Bug
from tests.unit.eventstore.machine_books import NOW, Node, Opening, Wish, pack

CODES = st.from_regex("[A-Z0-9]{3,8}", fullmatch=True)


@njit(types.boolean[::1](types.int64[::1]))
def are_currencies(numbers):  # type: ignore[no-untyped-def]
    found = np.empty(len(numbers), np.bool_)
    for i in range(len(numbers)):
        found[i] = is_currency(numbers[i])
    return found


def _agree(every: list[bytes]) -> None:
    """Whether the compiled check says of these eight bytes each what the pattern says."""
    numbers = np.array([int.from_bytes(each, "little") for each in every], np.uint64)
    expected = [re.fullmatch(rb"[A-Z0-9]{3,8}\0*", each) is not None for each in every]
    assert are_currencies(numbers.view(np.int64)).tolist() == expected


def test_every_byte_at_every_place() -> None:
    for length in range(9):
        letters = b"A0Z9M5BY"[:length].ljust(8, b"\0")
        _agree(
            [
                letters[:at] + bytes([byte]) + letters[at + 1 :]
                for at in range(8)
                for byte in range(256)
            ]
        )


def test_letters_and_gaps_in_every_pattern() -> None:
    patterns = range(256)
    _agree([bytes(ord("A") * (bits >> at & 1) for at in range(8)) for bits in patterns])


_bytes = st.binary(min_size=8, max_size=8)
_near = st.lists(st.sampled_from(b"\0/09:@AZ[`az\x80\xff"), min_size=8, max_size=8).map(bytes)


@given(st.lists(_bytes | _near | CODES.map(lambda code: code.encode().ljust(8, b"\0"))))
def test_whatever_the_bytes_are(every: list[bytes]) -> None:
    _agree(every)


@given(CODES)
def test_a_currency_is_one_number_and_back(code: str) -> None:
    number = currency_number(code)
    assert 0 < number < 2**63
    assert currency_text(number) == code
    row = Packer().open("a", code).packed.commands[0]
    assert row["currency"].view("<u8") == number
    assert row["currency"].tobytes() == code.encode().ljust(8, b"\0")


@given(CODES | st.text(max_size=9) | st.text("AZ09az \n\0", max_size=9))
def test_the_currencies_of_the_api_are_those_of_the_ledger(text: str) -> None:
    try:
        msgspec.convert(text, Currency)
    except msgspec.ValidationError:
        with pytest.raises(Bug, match="is no currency"):
            currency_number(text)
        with pytest.raises(Bug, match="is no currency"):
            Packer().open("a", text)
    else:
        assert currency_text(currency_number(text)) == text


def test_commands_are_six_words_and_details_five() -> None:
    assert (COMMAND.itemsize, DETAIL.itemsize) == (48, 40)


# --- the list -----------------------------------------------------------------------------------


def _listed(node: Node) -> list[str]:
    stored = np.frombuffer(node.machine._accounts.currencies.bytes_of_all(), np.int64)
    return [currency_text(number) for number in stored.tolist()]


def test_currencies_stand_in_the_order_of_the_first_openings() -> None:
    node = Node()
    node.apply([Opening("a", 0, "USDC2024"), Wish("a", "b", 1, currency="XTS"), Opening("b")])
    # What opens nothing brings nothing.
    (answer,) = node.apply([Opening("a", 0, "JPY")])
    assert answer.code == Code.EXISTS
    node.apply([Opening("c", 0, "EUR0"), Opening("d", 0, "USDC2024"), Opening("e", 0, "EUR")])
    assert _listed(node) == ["USDC2024", "EUR", "EUR0"]
    codes = [node.machine.account(number).account.currency for number in range(5)]
    assert codes == ["USDC2024", "EUR", "EUR0", "USDC2024", "EUR"]
    assert node.machine.terms(3).currency == "USDC2024"


def test_a_group_may_have_thousands() -> None:
    node, codes = Node(), [f"T{number:07}" for number in range(900)]
    openings = [Opening(f"{n}", None, code) for n, code in enumerate(codes)]
    assert {answer.code for answer in node.apply(openings)} == {Code.DONE}
    assert _listed(node) == codes
    assert [node.machine.account(n).account.currency for n in range(900)] == codes
    (answer,) = node.apply([Wish("0", "899", 1, currency=codes[0])])
    assert answer.code == Code.DESTINATION_CURRENCY
    assert answer.refusal is not None
    assert answer.refusal.detail == "the transfer is in T0000000, account 899 in T0000899"


def test_accounts_in_other_currencies_make_another_state() -> None:
    """Their rows are the same: what the index in them means is in the list alone."""
    euro, dollar = Node(), Node()
    euro.apply([Opening("a", 0, "EUR")])
    dollar.apply([Opening("a", 0, "USD")])
    one, other = euro.machine, dollar.machine
    assert one._accounts.bytes_of_rows() == other._accounts.bytes_of_rows()
    assert one.digest() != other.digest()


def test_the_detail_of_a_refusal_is_the_number_of_the_accounts_currency() -> None:
    node = Node()
    node.apply([Opening("a", 0, "EUR00000"), Opening("b", 0, "EUR")])
    wishes = [Wish("a", "b", 1), Wish("b", "a", 1)]
    rows, texts = pack(node.machine, wishes)
    outcomes = node.machine.apply(NOW, 2, rows, texts)
    assert outcomes.codes.tolist() == [Code.SOURCE_CURRENCY, Code.DESTINATION_CURRENCY]
    assert outcomes.details["a"].tolist() == [currency_number("EUR00000")] * 2
    assert not outcomes.details["spare"].any()
