"""The compiled names of accounts: equal to what Python makes of the same texts."""

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.commands import Packed, Packer
from eventstore.machine.check import contents
from eventstore.machine.naming import names
from eventstore.machine.parts import check_texts
from eventstore.machine.texts import names_of
from eventstore.machine.words import as_words
from eventstore.rows import COMMAND, NOBODY, pack_texts
from ledger.errors import Bug
from ledger.model import Status, Transfer

ACCOUNT = st.text("abcxyz0189-:.{}", min_size=1, max_size=64)
KEY = st.text(min_size=1, max_size=40)


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
    found, opened = names(commands, words, named, texts)
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
    found, _ = names(commands, words, contents(commands, words, texts, 0).named, texts)
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
        names(commands, words, named, texts)
    with pytest.raises(Bug, match="texts"):
        check_texts(commands, words, texts)
