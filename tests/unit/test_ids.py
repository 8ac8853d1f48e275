"""Slots and transfer ids. Both are kept in databases for ever: what they give may never change."""

import re
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.ids import (
    ACCOUNT_ID_PATTERN,
    SLOT_COUNT,
    TRANSFER_ID_PATTERN,
    slot_of,
    slot_of_transfer,
    transfer_id,
)

_account_ids = st.from_regex(ACCOUNT_ID_PATTERN, fullmatch=True).map(lambda text: text.rstrip("\n"))
_keys = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=128)


@pytest.mark.parametrize(
    ("account", "slot"),
    # crc32 of "123456789" is the checksum's published check value, 0xCBF43926.
    [("123456789", 0xCBF43926 % 4096), ("alice", 3143), ("bob", 320), ("a", 3651), ("A" * 64, 572)],
)
def test_golden_slots(account: str, slot: int) -> None:
    assert slot_of(account) == slot


@pytest.mark.parametrize(
    ("account", "hashed"),
    [
        ("{user1}.main", "user1"),
        ("savings.{user1}", "user1"),
        ("a{user1}b", "user1"),
        # As in Redis: the first opening brace, and the first closing one after it.
        ("{user1}{user2}", "user1"),
        ("{{user1}}", "{user1"),
        ("}a{user1}", "user1"),
        # Nothing in the braces, or no closing one: the whole id.
        ("{}user1", "{}user1"),
        ("{}{user1}", "{}{user1}"),
        ("{user1", "{user1"),
        ("user1}", "user1}"),
        ("}{", "}{"),
    ],
)
def test_braces_as_in_redis(account: str, hashed: str) -> None:
    assert slot_of(account) == crc32(hashed.encode()) % SLOT_COUNT


@given(_account_ids)
def test_a_slot_is_within_bounds(account: str) -> None:
    assert 0 <= slot_of(account) < SLOT_COUNT


def test_accounts_spread_over_all_slots() -> None:
    assert len({slot_of(f"account-{n}") for n in range(60_000)}) == SLOT_COUNT


@pytest.mark.parametrize(
    ("source", "key", "expected"),
    [
        ("alice", "k1", "c47-3cd64ccf30b8acf54359babb0a61da7c"),
        ("alice", "k2", "c47-b129987056609dd0a2402ed5bf31d2e0"),
        ("{user1}.main", "pay/1", "555-c0384371768d81db2531a3ee062d0a30"),
        ("{user1}.main", " ~", "555-9c6c884521480621b9acb13ef2d9d1f5"),
    ],
)
def test_golden_transfer_ids(source: str, key: str, expected: str) -> None:
    assert transfer_id(source, key) == expected


@given(_account_ids, _keys)
def test_a_transfer_id_carries_the_slot_of_its_source(source: str, key: str) -> None:
    id_ = transfer_id(source, key)
    assert re.fullmatch(TRANSFER_ID_PATTERN, id_)
    assert len(id_) == 36
    assert slot_of_transfer(id_) == slot_of(source)
    assert transfer_id(source, key) == id_


@given(_account_ids, _account_ids, _keys, _keys)
def test_keys_belong_to_their_source(first: str, second: str, key: str, other: str) -> None:
    is_same = (first, key) == (second, other)
    assert (transfer_id(first, key) == transfer_id(second, other)) == is_same


def test_source_and_key_are_kept_apart() -> None:
    assert transfer_id("{t}a", "bc") != transfer_id("{t}ab", "c")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "2c9",
        "2c9-",
        "2c9-" + "0" * 31,
        "2c9-" + "0" * 33,
        "2C9-" + "0" * 32,
        "xyz-" + "0" * 32,
        "2c9_" + "0" * 32,
        " 2c9-" + "0" * 32,
        "2c9-" + "0" * 32 + "\n",
        "-2c-" + "0" * 32,
    ],
)
def test_what_is_no_transfer_id_has_no_slot(text: str) -> None:
    assert slot_of_transfer(text) is None
