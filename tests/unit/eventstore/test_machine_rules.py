"""The compiled machine and the ledger's own rules say the same to any sequence of commands."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.rows import place
from ledger.decide import Move, Moved
from ledger.errors import Bug
from ledger.model import AMOUNT_MAX, Refusal, Status
from tests.unit.eventstore.machine_books import (
    NOW,
    Answer,
    Change,
    Command,
    Ledger,
    Node,
    Opening,
    Wish,
    same_accounts,
)

IDS = ["a", "b", "c", "{d}"]

_ends = [1, 2**31, 2**62, AMOUNT_MAX]
_near = [end + step for end in _ends for step in (-1, 0, 1) if 1 <= end + step <= AMOUNT_MAX]
_amounts = st.integers(1, 30) | st.sampled_from(_near)
# Mostly one, so that money moves; beside it what looks like it, and whatever there can be.
_codes = st.from_regex("[A-Z0-9]{3,8}", fullmatch=True)
_currencies = st.one_of(
    *[st.just("EUR")] * 6, st.sampled_from(["USD", "EUR0", "UR0", "EUR00000"]), _codes
)
_ids = st.sampled_from(IDS)
_limits = st.none() | st.sampled_from([0, 20, 2**62, AMOUNT_MAX])
_wishes = st.builds(
    Wish,
    source=_ids,
    destination=_ids,
    amount=_amounts,
    # So many that most are new, so few that some come again.
    key=st.integers(0, 40).map(str),
    currency=_currencies,
    metadata=st.sampled_from([None, None, '{"a":1}', '{"a":"é"}']),
    protocol=st.sampled_from(["", "xa", "xa", "tcc"]),
    by_name=st.booleans(),
)
_openings = st.builds(Opening, _ids, _limits, _currencies)
_status = st.sampled_from([Status.OPEN, Status.OPEN, Status.FROZEN, Status.CLOSED])
_changes = st.builds(Change, _ids, _status, st.booleans())
_commands = st.one_of(*[_wishes] * 6, _openings, _changes)
_moves = st.tuples(st.sampled_from(list(Move)), _wishes, _ids)
_times = st.integers(NOW - 3, NOW + 3)
# Most accounts are there from the beginning, without a limit: that is where money can go far.
_beginnings = st.lists(
    st.builds(Opening, _ids, st.none() | _limits, _currencies), min_size=2, max_size=5
)


def decided(
    ledger: Ledger, seq: int, commands: Sequence[Command], now: int, index: int = 0
) -> list[Answer]:
    return [ledger.apply(item, place(seq, i), now) for i, item in enumerate(commands, index)]


@settings(max_examples=300)
@given(_beginnings, st.lists(st.tuples(st.lists(_commands, max_size=25), _times), max_size=6))
def test_outcomes_texts_and_accounts_are_those_of_the_ledger(
    beginning: list[Command], frames: list[tuple[list[Command], int]]
) -> None:
    node, ledger = Node(), Ledger()
    for seq, (commands, now) in enumerate([(beginning, NOW), *frames], 1):
        assert node.apply(commands, now) == decided(ledger, seq, commands, now)
        same_accounts(node, ledger)


@given(_beginnings, st.lists(_moves, max_size=20), st.lists(_commands, max_size=30), _times)
def test_so_they_are_where_something_is_held_or_expected(
    beginning: list[Command],
    moves: list[tuple[Move, Wish, str]],
    commands: list[Command],
    now: int,
) -> None:
    node, ledger = Node(), Ledger()
    assert node.apply(beginning) == decided(ledger, 1, beginning, NOW)
    for what, wish, account in moves:
        try:
            found: Moved | Refusal | None = ledger.move(what, wish, account, now)
        except Bug:
            found = None
        is_done = isinstance(found, Moved)
        assert (node.move(what, wish, account, now) == 0) == is_done, (what, wish, found)
    for account in list(ledger.accounts)[:1]:
        node.set_unfinished(account, 2**32 - 1)
        ledger.unfinished[account] = 2**32 - 1
    assert node.apply(commands, now) == decided(ledger, 2, commands, now)
    same_accounts(node, ledger)


_cuts = st.lists(st.integers(0, 40), max_size=5).map(sorted)


def cut_up(commands: list[Command], cuts: list[int]) -> list[list[Command]]:
    bounds = [0, *[min(cut, len(commands)) for cut in cuts], len(commands)]
    return [commands[low:high] for low, high in pairwise(bounds)]


@given(_beginnings, st.lists(_commands, max_size=40), _cuts)
def test_where_frames_begin_and_end_does_not_matter(
    beginning: list[Command], commands: list[Command], cuts: list[int]
) -> None:
    whole, parts = Node(), Node(key=b"another key, 16B")
    whole.apply(beginning)
    parts.apply(beginning)
    expected = whole.apply(commands)
    found = [answer for frame in cut_up(commands, cuts) for answer in parts.apply(frame)]
    assert [(a.code, a.refusal) for a in found] == [(a.code, a.refusal) for a in expected]
    one, other = whole.machine._accounts, parts.machine._accounts
    assert other.bytes_of_rows() == one.bytes_of_rows()
    assert other.currencies.bytes_of_all() == one.currencies.bytes_of_all()


@given(st.lists(_openings | _changes, max_size=40), _cuts)
def test_nor_does_the_digest_but_for_where_transfers_stand(
    commands: list[Command], cuts: list[int]
) -> None:
    whole, parts = Node(), Node(key=b"another key, 16B")
    frames = cut_up(commands, cuts)
    for frame in frames:
        parts.apply(frame)
    # As many frames, because their count is in the digest.
    for frame in [commands, *[[]] * (len(frames) - 1)]:
        whole.apply(frame)
    assert parts.machine.digest() == whole.machine.digest()


@given(_beginnings, st.lists(_commands, min_size=1, max_size=30))
def test_the_digest_is_that_of_the_frames_whatever_the_key(
    beginning: list[Command], commands: list[Command]
) -> None:
    one, other = Node(), Node(key=b"another key, 16B")
    digests = []
    for node in (one, other):
        node.apply(beginning)
        before = node.machine.digest()
        node.apply(commands)
        digests.append(node.machine.digest())
        assert before != digests[-1]
    assert digests[0] == digests[1]
