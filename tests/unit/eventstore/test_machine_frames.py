"""What is a frame and what is not, limits, and ids that come again."""

from typing import Any

import numpy as np
import pytest

from eventstore.machine.errors import LimitReached
from eventstore.machine.machine import Limits, Machine
from eventstore.rows import COMMAND, COMMANDS_MAX, NOBODY, Code, Kind, Outcomes, pack_texts, place
from ledger.errors import Bug
from ledger.model import Status
from tests.unit.eventstore.machine_books import (
    KEY,
    NOW,
    Change,
    Command,
    Node,
    Opening,
    Wish,
    pack,
)

_TWO: list[Command] = [Opening("a", None), Opening("b", None)]


def codes(node: Node, *commands: Command) -> list[Code]:
    return [answer.code for answer in node.apply(commands)]


# --- ids that come again ------------------------------------------------------------------------


def test_the_same_transfer_may_name_accounts_by_number_or_by_name() -> None:
    node = Node()
    wish = Wish("a", "b", 1)
    by_name = wish._replace(by_name=True)
    assert codes(node, *_TWO, wish, by_name)[2:] == [Code.DONE, Code.REPLAYED]
    assert codes(node, wish, by_name) == [Code.REPLAYED] * 2
    other = Wish("b", "a", 1, key="other", by_name=True)
    assert codes(node, other, other._replace(by_name=False)) == [Code.DONE, Code.REPLAYED]
    assert node.machine.account(0).account.balance == 0


def test_a_refusal_for_want_of_a_destination_is_repeated_when_there_is_one() -> None:
    node = Node()
    wish = Wish("a", "new", 1)
    assert codes(node, *_TWO, wish)[2:] == [Code.NO_DESTINATION]
    assert codes(node, Opening("new"), wish) == [Code.DONE, Code.REPLAYED]
    assert codes(node, wish, wish._replace(destination="b")) == [Code.REPLAYED, Code.REUSED]


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("destination", "c", "destination was b, now c"),
        ("amount", 2, "amount was 1, now 2"),
        ("currency", "USD", "currency was EUR, now USD"),
        ("metadata", "{}", "metadata was None, now {}"),
        ("protocol", "saga", "protocol was xa, now saga"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_another_body_is_a_reuse(field: str, value: Any, told: str, at_once: bool) -> None:
    node = Node()
    wish = Wish("a", "b", 1)
    changed = wish._replace(**{field: value})
    # In the middle of a frame: what comes after it is decided by what came before it.
    commands = [wish, changed, Wish("a", "b", 5, key="after"), wish]
    if at_once:
        answers = node.apply([*_TWO, *commands])[2:]
    else:
        node.apply(_TWO)
        answers = [answer for command in commands for answer in node.apply([command])]
    assert [answer.code for answer in answers] == [
        *(Code.DONE, Code.REUSED, Code.DONE, Code.REPLAYED),
    ]
    assert answers[1].first == answers[3].first == (place(1, 2) if at_once else place(2, 0))
    assert answers[1].refusal is not None
    assert told in answers[1].refusal.detail
    assert node.machine.account(0).account.balance == -6


@pytest.mark.parametrize(
    ("stored", "asked", "code"),
    [
        ("xa", "", Code.REPLAYED),
        ("", "", Code.REPLAYED),
        ("", "xa", Code.REUSED),
        ("tcc", "tcc", Code.REPLAYED),
        ("tcc", "saga", Code.REUSED),
    ],
)
def test_who_names_no_protocol_takes_any(stored: str, asked: str, code: Code) -> None:
    wish = Wish("a", "b", 1, protocol=stored)
    assert codes(Node(), *_TWO, wish, wish._replace(protocol=asked))[-1] == code


def test_a_list_that_gives_another_transfer_than_the_index_has_is_noticed() -> None:
    node = Node()
    wish = Wish("a", "b", 1)
    node.apply([*_TWO, wish, wish._replace(key="other")])
    node.frames[0] = node.frames[0][0][[0, 1, 3, 2]], node.frames[0][1]
    rows, texts = pack(node.machine, [wish])
    with pytest.raises(Bug, match="it was built from another list"):
        node.machine.apply(NOW, 2, rows, texts)


def test_after_an_error_in_the_middle_of_a_frame_nothing_is_decided_any_more() -> None:
    def no_list(_place: int) -> object:
        raise OSError("the list is gone")

    machine = Machine(KEY, no_list, Limits(10, 10))  # type: ignore[arg-type]
    wish = Wish("a", "b", 1)
    rows, texts = pack(machine, [*_TWO, wish])
    machine.apply(NOW, 1, rows, texts)
    rows, texts = pack(machine, [wish])
    with pytest.raises(OSError, match="the list is gone"):
        machine.apply(NOW, 2, rows, texts)
    for seq in (2, 3):
        with pytest.raises(Bug, match="frame 2 was applied in part"):
            machine.apply(NOW, seq, *pack(machine, []))


# --- openings -----------------------------------------------------------------------------------


def test_an_account_is_there_for_what_comes_behind_its_opening() -> None:
    node = Node()
    wish = Wish("a", "b", 1)
    assert codes(node, wish, Opening("b"), wish, Opening("a", 1), wish, wish) == [
        *(Code.NO_SOURCE, Code.DONE, Code.NO_SOURCE, Code.DONE, Code.DONE, Code.REPLAYED),
    ]
    assert (node.machine.number_of("b"), node.machine.number_of("a")) == (0, 1)
    assert node.machine.number_of("c") is None
    with pytest.raises(Bug, match="account number 2 was not given"):
        node.machine.account(2)


def test_an_account_that_exists_keeps_its_terms() -> None:
    node = Node()
    answers = node.apply([Opening("a", 5), Opening("a", None, "USD"), Opening("b"), Opening("b")])
    assert [(a.code, a.first) for a in answers] == [
        *((Code.DONE, None), (Code.EXISTS, 0), (Code.DONE, None), (Code.EXISTS, 1)),
    ]
    account = node.machine.account(0).account
    assert (account.overdraft_limit, account.currency) == (5, "EUR")
    assert account.stamp_floor == NOW


# --- frames -------------------------------------------------------------------------------------


def test_a_frame_may_be_empty_or_as_long_as_can_be() -> None:
    node = Node(limits=Limits(10, 200_000))
    assert node.apply([]) == []
    node.apply(_TWO)
    rows, texts = pack(node.machine, [Wish("a", "b", 1)])
    many = np.repeat(rows, COMMANDS_MAX)
    many["id"][:, 0] = np.arange(COMMANDS_MAX)
    outcomes = node.machine.apply(NOW, 3, many, texts * COMMANDS_MAX)
    assert not outcomes.codes.any()
    assert node.machine.account(0).account.balance == -COMMANDS_MAX
    assert node.machine.place_of(many["id"][-1].tobytes()) == place(3, COMMANDS_MAX - 1)
    with pytest.raises(Bug, match="65536 commands, more than 65535"):
        node.machine.apply(NOW, 4, np.zeros(2**16, COMMAND), b"")


def test_commands_may_lie_anywhere_in_memory() -> None:
    node = Node()
    node.apply(_TWO)
    commands = [Wish("a", "b", n, key=str(n)) for n in range(1, 9)]
    rows, texts = pack(node.machine, commands)
    shifted = np.frombuffer(b"\0" + rows.tobytes(), COMMAND, offset=1)
    strided = np.repeat(rows, 2)[::2]
    assert not node.machine.apply(NOW, 2, shifted, texts).codes.any()
    node.frames.append((rows, texts))
    again = node.machine.apply(NOW, 3, strided, texts)
    assert set(again.codes.tolist()) == {Code.REPLAYED}
    assert again.details["a"].tolist() == [place(2, n) for n in range(8)]


def _apply(node: Node, rows: np.ndarray, texts: bytes, **header: int) -> Outcomes:
    where = {"time_us": NOW, "seq": node.machine.seq + 1} | header
    return node.machine.apply(where["time_us"], where["seq"], rows, texts)


@pytest.mark.parametrize(
    ("kind", "field", "value", "told"),
    [
        (Kind.TRANSFER, "kind", 0, "its kind is none of"),
        (Kind.TRANSFER, "kind", 7, "its kind is none of"),
        (Kind.TRANSFER, "amount", 0, "a transfer moves 1 or more"),
        (Kind.TRANSFER, "amount", -(2**63), "a transfer moves 1 or more"),
        (Kind.TRANSFER, "protocol", 4, "a protocol is one of"),
        (Kind.TRANSFER, "source", 2, "there are only 2 accounts"),
        (Kind.TRANSFER, "destination", NOBODY - 1, "there are only 2 accounts"),
        (Kind.TRANSFER, "source", NOBODY, "there must be an id"),
        (Kind.TRANSFER, "destination", NOBODY, "there must be an id"),
        (Kind.OPEN, "amount", -2, "an overdraft limit is not negative"),
        (Kind.OPEN, "id", 7, "its row .* has the id of another one"),
        (Kind.STATUS, "amount", 3, "a status is one of"),
        (Kind.STATUS, "amount", -1, "a status is one of"),
        (Kind.STATUS, "source", 2, "there are only 2 accounts"),
        *[
            (kind, "currency", letters, "command 1 of .* a currency is 3 to 8 of A-Z and 0-9")
            for kind in (Kind.TRANSFER, Kind.OPEN)
            for letters in (b"", b"EU", b"eur", b"EUR\0\0\0\0R", b"\0EUR", b"EURO-2", b"EUR\xff")
        ],
        (Kind.STATUS, "currency", b"EUR", "command 1 of .* a status has no currency"),
        (Kind.OPEN, "protocol", 1, "command 1 of .* does not use"),
        (Kind.OPEN, "source", 0, "command 1 of .* does not use"),
        (Kind.OPEN, "destination", 0, "command 1 of .* does not use"),
        (Kind.STATUS, "protocol", 1, "command 1 of .* does not use"),
        (Kind.STATUS, "destination", 0, "command 1 of .* does not use"),
        (Kind.STATUS, "id", 1, "command 1 of .* does not use"),
        (Kind.STATUS, "currency", b"\0" * 7 + b"\1", "command 1 of .* a status has no currency"),
        *[
            (kind, "step", step, "command 1 of .* what is spare is zero")
            for kind in (Kind.TRANSFER, Kind.OPEN, Kind.STATUS)
            for step in (1, 2**31)
        ],
    ],
)
def test_what_no_command_may_say(kind: Kind, field: str, value: int | bytes, told: str) -> None:
    node = Node()
    node.apply(_TWO)
    # Before the faulty command stands one that would change something.
    commands: dict[Kind, Command] = {
        Kind.TRANSFER: Wish("a", "b", 1, key="bad"),
        Kind.OPEN: Opening("c"),
        Kind.STATUS: Change("a", Status.FROZEN),
    }
    rows, texts = pack(node.machine, [Wish("a", "b", 1), commands[kind]])
    rows[field][1] = value if isinstance(value, int) else list(value.ljust(8, b"\0"))
    before = node.machine.digest()
    with pytest.raises(Bug, match=told):
        _apply(node, rows, texts)
    assert node.machine.digest() == before
    assert codes(node, Wish("a", "b", 1)) == [Code.DONE]


def test_texts_must_be_those_of_their_commands() -> None:
    node = Node()
    rows, texts = pack(node.machine, [Opening("a")])
    with pytest.raises(Bug, match="3 bytes of texts, and there are 4"):
        _apply(node, rows, texts + b"x")
    for packed, told in [
        (pack_texts(["a", "b"]), "has 2 texts, not 1"),
        (pack_texts(["no id!"]), "which is no account id"),
        (b"\xff\xffa", "cannot be read"),
        (b"\x01\x00\xff", "cannot be read"),
    ]:
        rows["text"] = len(packed)
        with pytest.raises(Bug, match=told):
            _apply(node, rows, packed)
    assert len(node.machine) == 0


@pytest.mark.parametrize("seq", [0, 2, 2**47])
def test_frames_come_one_after_the_other(seq: int) -> None:
    with pytest.raises(Bug, match=f"frame {seq} cannot follow frame 0"):
        _apply(Node(), np.zeros(0, COMMAND), b"", seq=seq)


@pytest.mark.parametrize("time_us", [-1, 2**63])
def test_times_fit(time_us: int) -> None:
    with pytest.raises(Bug, match="has the time"):
        _apply(Node(), np.zeros(0, COMMAND), b"", time_us=time_us)


def test_rows_of_another_shape_and_keys_of_another_length_are_refused() -> None:
    with pytest.raises(Bug, match="commands are rows of"):
        _apply(Node(), np.zeros(1, np.int64), b"")
    with pytest.raises(Bug, match="key has 16 bytes, not 17"):
        Node(key=bytes(17))


# --- limits -------------------------------------------------------------------------------------


def test_a_limit_is_told_before_anything_is_applied() -> None:
    node = Node(limits=Limits(accounts=3, transfers=2))
    node.apply(_TWO)
    before = node.machine.digest()
    with pytest.raises(LimitReached, match="limit of 3 accounts would be passed: it has 2") as told:
        node.apply([Opening("c"), Opening("d")])
    assert told.value.limit == "accounts"
    wishes = [Wish("a", "b", 1, key=str(n)) for n in range(3)]
    with pytest.raises(LimitReached, match="2 transfers would be passed: it has 0") as told:
        node.apply([Opening("c"), *wishes])
    assert told.value.limit == "transfers"
    assert node.machine.digest() == before
    assert codes(node, Opening("c"), *wishes[:2]) == [Code.DONE] * 3
    assert len(node.machine) == 3
    with pytest.raises(LimitReached, match="start the node with a higher --transfers-max"):
        node.apply(wishes[2:])


def test_so_is_that_of_currencies_which_counts_each_new_one_once() -> None:
    node = Node(limits=Limits(accounts=20, transfers=2, currencies=3))
    node.apply([Opening("a", 0, "EUR"), Opening("b", 0, "EURO")])
    before = node.machine.digest()
    two_more = [Opening("c", 0, "USDC2024"), Opening("d", 0, "EUR"), Opening("e", 0, "007")]
    with pytest.raises(LimitReached, match=r"of 3 currencies .* it has 2, .* 2 more") as told:
        node.apply([*two_more, Opening("f", 0, "007")])
    assert told.value.limit == "currencies"
    assert node.machine.digest() == before
    # Transfers bring none, whatever they are in.
    wishes = [Wish("a", "b", 1, key=code, currency=code) for code in ("XTS", "XXX")]
    assert codes(node, *wishes) == [Code.SOURCE_CURRENCY] * 2
    one_more = [Opening("c", 0, "EURO"), *[Opening(id_, 0, "USDC2024") for id_ in "def"]]
    assert codes(node, *one_more) == [Code.DONE] * 4
    assert codes(node, Opening("g", 0, "USDC2024"), Opening("h")) == [Code.DONE] * 2
    with pytest.raises(LimitReached, match="3 currencies would be passed: it has 3"):
        node.apply([Opening("i", 0, "007")])


def test_there_may_be_as_many_currencies_as_rows_can_name() -> None:
    Node(limits=Limits(1, 1, 2**24))
    with pytest.raises(Bug, match="room for 16777216 currencies, not 16777217"):
        Node(limits=Limits(1, 1, 2**24 + 1))
