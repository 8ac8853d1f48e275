"""The compiled names of accounts: equal to what Python makes of the same texts."""

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.commands import Packed, Packer
from eventstore.machine import name_cache
from eventstore.machine.check import contents
from eventstore.machine.machine import Machine
from eventstore.machine.naming import look_up
from eventstore.machine.parts import check_texts
from eventstore.machine.state import Accounts
from eventstore.machine.texts import names_of
from eventstore.machine.words import as_words
from eventstore.rows import COMMAND, NOBODY, Code, pack_texts
from ledger.errors import Bug
from ledger.model import Status, Transfer

ACCOUNT = st.text("abcxyz0189-:.{}", min_size=1, max_size=64)
KEY = st.text(min_size=1, max_size=40)


def nobody() -> Accounts:
    """No accounts."""
    return Accounts(bytes(16), 64, 8)


@st.composite
def frames(draw: st.DrawFn) -> Packed:
    """Transfers by names and by numbers, openings and statuses, in any order."""
    rows, texts = [], []
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["transfer", "open", "status"]))
        account = draw(ACCOUNT)
        if kind == "open":
            row, text = Packer().open(account, "EUR").packed
        elif kind == "status":
            row, text = Packer().status(account, Status.FROZEN).packed
        else:
            wish = Transfer("", draw(KEY), account, draw(ACCOUNT), 1, "EUR", None, "tcc", 0)
            row, text = Packer().transfer(wish).packed
            row, by_name = row.copy(), draw(st.sampled_from([(1, 1), (0, 1), (1, 0), (0, 0)]))
            parts = [wish.key, "", *(name * n for name, n in zip(wish[2:4], by_name, strict=True))]
            text = pack_texts(parts)
            for side, named in zip(("source", "destination"), by_name, strict=True):
                row[side] = NOBODY if named else 7
            row["text"] = len(text)
        rows.append(row)
        texts.append(text)
    return Packed(np.concatenate(rows), b"".join(texts))


@given(frames())
def test_names_are_those_that_python_finds(frame: Packed) -> None:
    commands, texts = frame
    words = as_words(commands)
    named = contents(commands, words, texts, 8).named
    check_texts(commands, words, texts)
    looked, found, opened = look_up(commands, words, named, texts, nobody())
    assert looked.tolist() == words.tolist()
    expected = np.zeros(found.shape, np.uint64)
    assert opened == names_of(commands, named, texts, expected)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("length", [1, 7, 8, 9, 63, 64, 127, 128, 129, 136, 255, 256])
def test_the_digest_is_blake2b(length: int) -> None:
    account = "a" * length
    commands, texts = (
        Packer().transfer(Transfer("", "k", account, "b", 1, "EUR", None, "", 0)).packed
    )
    words = as_words(commands)
    named = contents(commands, words, texts, 0).named
    _, found, _ = look_up(commands, words, named, texts, nobody())
    assert found[0, :2].tobytes() == blake2b(account.encode(), digest_size=16).digest()


@pytest.mark.parametrize(
    "parts",
    [
        ["k", "", "", "b"],
        ["k", "", "a"],
        ["k", "", "a", "b", "c"],
        ["k", "", "a", ""],
    ],
)
def test_texts_that_do_not_fit_are_told(parts: list[str]) -> None:
    wish = Transfer("", "k", "a", "b", 1, "EUR", None, "", 0)
    row, _ = Packer().transfer(wish).packed
    texts = pack_texts(parts)
    commands = np.array(row, COMMAND)
    commands["text"] = len(texts)
    words = as_words(commands)
    named = contents(commands, words, texts, 0).named
    with pytest.raises(Bug, match="texts"):
        look_up(commands, words, named, texts, nobody())
    with pytest.raises(Bug, match="texts"):
        check_texts(commands, words, texts)


# Of all lengths; and of some nothing but the first byte, or the last, is different.
IDS = [
    *("x" * n for n in range(1, 65)),
    *(f"{c}{'y' * n}" for c in "ab" for n in (6, 7, 8, 15, 40, 63)),
    *(f"{'z' * n}{c}" for c in "ab" for n in (6, 7, 8, 15, 40, 63)),
    *(f"account.{n}" for n in range(3000)),
]


def transfers_between(ids: list[str], accounts: int) -> tuple[Packed, list[tuple[int, int]]]:
    """A transfer from each to the one behind it; and the numbers of both, if each id stands at its
    number, and there are so many accounts.
    """
    packer = Packer()
    for i, account in enumerate(ids):
        other = ids[(i + 1) % len(ids)]
        packer.transfer(Transfer("", f"{i}", account, other, 1, "EUR", None, "", 0))
    known = [i if i < accounts else NOBODY for i in range(len(ids))]
    return packer.packed, list(zip(known, [*known[1:], known[0]], strict=True))


@pytest.mark.parametrize("bits_max", [7, name_cache._BITS_MAX])
def test_whoever_is_named_is_found_however_often(
    bits_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the smaller cache every line is overfull.
    monkeypatch.setattr(name_cache, "_BITS_MAX", bits_max)
    accounts = len(IDS) - 100
    machine = Machine(bytes(range(16)), lambda place: pytest.fail(f"{place} is asked for"))
    opening = Packer()
    for account in IDS[:accounts]:
        opening.open(account, "EUR", 1000)
    assert not machine.apply(1, 1, *opening.packed).codes.any()
    expected = [machine.number_of(account) for account in IDS]
    assert expected == [*range(accounts), *[None] * 100]
    (commands, texts), numbers = transfers_between(IDS, accounts)
    for seq in range(2, 5):
        commands["id"][:, 0] += np.uint64(seq)
        machine.apply(seq, seq, commands, texts)
        found = machine.words_of(seq, commands)[:, 3].copy().view("<u4").reshape(-1, 2)
        assert list(map(tuple, found.tolist())) == numbers


def test_an_account_that_a_frame_opens_is_found_in_it_and_behind_it() -> None:
    machine = Machine(bytes(range(16)), lambda place: pytest.fail(f"{place} is asked for"))
    machine.apply(1, 1, *Packer().open("a", "EUR", None).packed)

    def wish(key: str) -> Transfer:
        return Transfer("", key, "a", "b", 1, "EUR", None, "", 0)

    packed = Packer().transfer(wish("1")).open("b", "EUR").transfer(wish("2")).packed
    assert machine.apply(2, 2, *packed).codes.tolist() == [Code.NO_DESTINATION, 0, 0]
    assert machine.apply(3, 3, *Packer().transfer(wish("3")).packed).codes.tolist() == [0]
    assert machine.account(1).account.balance == 2
