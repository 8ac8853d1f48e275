"""The chain of an entry, made by compiled code, is byte by byte that of `ledger.chain`."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventstore.machine.words import as_words
from eventstore.reading import compiled, entering, sha256
from eventstore.reading.compiled import types
from eventstore.reading.entering import ROOM_BYTES, Decided, Place, enter
from eventstore.reading.heads import BALANCE, COUNT, STAMP, Heads
from eventstore.reading.ledger_texts import Texts
from eventstore.reading.shapes import ENTRY_WORDS, as_entries
from eventstore.rows import COMMAND, Kind, StatusCode
from ledger.chain import first_link, next_link
from ledger.errors import Bug
from ledger.model import BALANCE_MAX, BALANCE_MIN

ROOM = sha256.new_room(ROOM_BYTES)
DIGESTS = {"the one that is used": sha256.digest, "the one of its own": sha256.own_digest}
IDS = st.from_regex(r"[A-Za-z0-9_.:{}-]{1,64}", fullmatch=True)
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.sampled_from(
    [sign * 10**n - less for n in range(19) for sign in (1, -1) for less in (0, 1)]
)


def digest_of(digest: Any) -> Any:
    """As Python can call it."""

    @compiled.compiled(types.void(sha256.ROOM, types.int64))
    def digested(room: sha256.Room, length: int) -> None:
        digest(room, length)

    return digested


@pytest.mark.parametrize("name", DIGESTS)
def test_a_digest_is_that_of_the_standard_library(name: str) -> None:
    digested = digest_of(DIGESTS[name])
    for length in range(ROOM_BYTES - 72):
        text = np.random.default_rng(length).integers(0, 256, length, np.uint8)
        ROOM.text[:length] = text
        digested(ROOM, length)
        found = ROOM.state[:8].byteswap().tobytes()
        assert found == hashlib.sha256(text.tobytes()).digest()


def test_openssl_is_found_where_python_is_linked_to_it() -> None:
    assert sha256.IS_OPENSSL


class Books:
    """Two accounts, and what a transfer between them makes."""

    def __init__(self, source: str, destination: str) -> None:
        self.heads = Heads(2)
        self.ids = (source, destination)
        for id_ in self.ids:
            self.heads.open(id_, "EUR", 5)
        self.words = np.zeros((2, ENTRY_WORDS), np.uint64)

    def set(self, number: int, balance: int, count: int) -> None:
        self.heads.rows[number, [BALANCE, COUNT]] = balance, count

    def transfer(self, id_: bytes, amount: int, time_us: int, *, by_name: bool = False) -> Any:
        commands = np.zeros(1, COMMAND)
        commands["kind"], commands["amount"] = Kind.TRANSFER, amount
        commands["id"] = np.frombuffer(id_, "<u8")
        commands["source"], commands["destination"] = (2**32 - 1,) * 2 if by_name else (0, 1)
        codes = np.zeros(1, np.uint8)
        codes.flags.writeable = False
        named = np.array([[0, 1]] if by_name else [], np.int64).reshape(-1, 2)
        place = Place(self.words, np.zeros(2, np.uint32), 0, 1)
        decided = Decided(as_words(commands), codes, named, 9, time_us)
        assert enter(decided, self.heads.rows, self.heads.names, place, ROOM) == 2
        return Texts(self.heads).entries(as_entries(self.words))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(IDS, min_size=2, max_size=2, unique=True),
    st.binary(min_size=16, max_size=16),
    st.integers(1, 2**63 - 1),
    NUMBERS,
    st.integers(0, 2**62),
    st.integers(5, 2**63 - 1),
    st.booleans(),
)
@example(["a" * 64, "b" * 64], bytes(16), BALANCE_MAX, BALANCE_MAX, 2**62, 2**63 - 1, False)
@example(["a", "b"], bytes(16), 1, 1 - BALANCE_MAX, 0, 5, False)
def test_entries_have_the_chain_of_the_ledger(
    ids: list[str],
    id_: bytes,
    amount: int,
    balance: int,
    count: int,
    time_us: int,
    by_name: bool,
) -> None:
    """Twice, so that a chain follows on one that was made here."""
    books, chains = Books(*ids), [first_link(each, "EUR") for each in ids]
    for step in range(2):
        before = min(max(balance, BALANCE_MIN + amount), BALANCE_MAX)
        books.set(0, before, count + step)
        books.set(1, 0, count + step)
        entries = books.transfer(id_, amount, time_us, by_name=by_name)
        for entry, account, other, change, after in zip(
            entries, ids, ids[::-1], (-amount, amount), (before - amount, amount), strict=True
        ):
            fields = (account, count + step + 1, entry.transfer, change, after, other, time_us)
            assert entry[:-1] == fields
            assert entry.transfer[4:] == id_.hex()
            chains[ids.index(account)] = next_link(chains[ids.index(account)], *fields)
        assert [entry.chain for entry in entries] == chains


def test_a_stamp_is_not_before_those_of_both_accounts() -> None:
    books = Books("a", "b")
    books.heads.rows[1, STAMP] = 70
    assert [entry.stamp for entry in books.transfer(bytes(16), 1, 50)] == [70, 70]


# --- heads --------------------------------------------------------------------------------------


def test_a_head_says_what_was_opened_and_changed() -> None:
    heads = Heads(3)
    for n, account in enumerate(("a", "a-name-of-64-bytes".ljust(64, "x"), "123456789")):
        assert heads.open(account, "EUR", 7) == n
        assert heads.id_of(n) == account
        found = heads.head(n)
        assert found[:6] == (0, 7, 0, 7, 7, StatusCode.OPEN)
    assert heads.set_status(1, StatusCode.FROZEN, 8) == StatusCode.OPEN
    assert heads.set_status(1, StatusCode.FROZEN, 9) is None
    assert heads.head(1)[3:6] == (7, 8, StatusCode.FROZEN)
    assert heads.head(0)[3:6] == heads.head(2)[3:6] == (7, 7, StatusCode.OPEN)
    with pytest.raises(Bug, match="account number 3 was not given: there are 3 accounts"):
        heads.id_of(3)
    with pytest.raises(Bug, match="there is room for 3 accounts"):
        heads.open("d", "EUR", 7)


def test_compiled_code_is_kept_under_a_name_of_all_its_sources() -> None:
    hashed = compiled.hash_of_sources()
    name = entering.enter.py_func.__qualname__  # type: ignore[attr-defined]
    assert name == f"enter.{hashed}.{sha256.VARIANT}"
