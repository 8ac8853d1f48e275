"""The shard map: every slot has one owner, whatever is published."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.ids import SLOT_COUNT, slot_of
from shard_client.shard_map import (
    BrokenShardMap,
    ShardAddress,
    ShardKind,
    ShardMap,
    SlotRange,
)


def addresses(*names: str) -> dict[str, ShardAddress]:
    return {name: ShardAddress("db", 3306 + n, "tandem") for n, name in enumerate(names)}


@given(st.integers(1, 64), st.integers(0, SLOT_COUNT - 1))
def test_slots_are_dealt_out_evenly(count: int, slot: int) -> None:
    shard_map = ShardMap.evenly(1, addresses(*(f"s{n}" for n in range(1, count + 1))))
    owners = [
        name
        for name in shard_map.shards
        if any(first <= slot <= last for first, last in shard_map.ranges_of(name))
    ]
    assert owners == [shard_map.shard_of_slot(slot)]
    sizes = [last - first + 1 for first, last, _ in shard_map.ranges]
    assert sum(sizes) == SLOT_COUNT
    assert max(sizes) - min(sizes) <= 1


def test_shards_get_their_slots_in_the_order_of_their_numbers() -> None:
    names = [f"s{n}" for n in range(1, 12)]
    shard_map = ShardMap.evenly(1, addresses(*sorted(names)))
    assert [item.shard for item in shard_map.ranges] == names


def test_the_bounds_of_ranges() -> None:
    shard_map = ShardMap.evenly(1, addresses("s1", "s2"))
    found = [shard_map.shard_of_slot(slot) for slot in (0, 2047, 2048, 4095)]
    assert found == ["s1", "s1", "s2", "s2"]


def test_a_ledger_group_has_no_database() -> None:
    group = ShardAddress.parse("ledger://[::1]:7800")
    assert group == ShardAddress("::1", 7800, "", kind=ShardKind.LEDGER)
    assert str(group) == "ledger://[::1]:7800"
    alone = ShardMap.evenly(1, {"s1": group})
    assert alone.has_groups
    assert ShardMap.from_json(alone.to_json()).shards == {"s1": group}


@pytest.mark.parametrize(
    "text", ["ledger://db", "ledger://db:1/x", "mysql://db:1/x", "ledger://:1"]
)
def test_what_is_no_address_of_a_shard(text: str) -> None:
    with pytest.raises(ValueError, match="is like neither"):
        ShardAddress.parse(text)


def test_maps_without_groups_are_as_they_were() -> None:
    """Coordinators of the version before, which know no kinds, read them too."""
    assert b"kind" not in ShardMap.evenly(1, addresses("s1", "s2")).to_json()


def test_a_ledger_group_is_the_only_shard() -> None:
    both = addresses("s1") | {"s2": ShardAddress.parse("ledger://db:7800")}
    with pytest.raises(BrokenShardMap, match="a group has to be the only shard"):
        ShardMap.evenly(1, both)


def test_an_account_is_where_its_slot_is() -> None:
    shard_map = ShardMap.evenly(1, addresses("s1", "s2", "s3"))
    for account in ("alice", "bob", "{user1}.main", "{user1}.savings"):
        assert shard_map.shard_of(account) == shard_map.shard_of_slot(slot_of(account))


def test_ranges_may_come_in_any_order_and_several_to_a_shard() -> None:
    ranges = [SlotRange(3000, 4095, "s1"), SlotRange(0, 99, "s1"), SlotRange(100, 2999, "s2")]
    shard_map = ShardMap(7, addresses("s1", "s2"), ranges)
    assert shard_map.ranges_of("s1") == [(0, 99), (3000, 4095)]
    assert shard_map.ranges_of("s2") == [(100, 2999)]
    assert shard_map.ranges_of("s3") == []


@given(st.integers(1, 9), st.integers(1, 10**9))
def test_json_there_and_back(count: int, version: int) -> None:
    made = ShardMap.evenly(version, addresses(*(f"s{n}" for n in range(count))))
    read = ShardMap.from_json(made.to_json())
    assert (read.version, read.shards, read.ranges) == (made.version, made.shards, made.ranges)


def test_a_document_as_it_is_published() -> None:
    document = (
        b'{"version":3,"shards":{"s1":{"host":"db1","port":3306,"database":"tandem",'
        b'"server_uuid":"u"}},"slots":[[0,4095,"s1"]]}'
    )
    shard_map = ShardMap.from_json(document)
    assert shard_map.version == 3
    assert shard_map.shards["s1"].server_uuid == "u"
    assert shard_map.to_json() == document


@pytest.mark.parametrize(
    ("ranges", "complaint"),
    [
        ([], "end at -1"),
        ([SlotRange(1, 4095, "s1")], "slots 0 and on: the next range is 1-4095"),
        ([SlotRange(0, 4094, "s1")], "end at 4094, not 4095"),
        ([SlotRange(0, 4096, "s1")], "end at 4096, not 4095"),
        ([SlotRange(0, 99, "s1"), SlotRange(101, 4095, "s1")], "slots 100 and on"),
        ([SlotRange(0, 99, "s1"), SlotRange(99, 4095, "s1")], "slots 100 and on"),
        ([SlotRange(0, 4095, "s1"), SlotRange(0, 4095, "s1")], "slots 4096 and on"),
        ([SlotRange(0, 4095, "s9")], "unknown shard s9"),
        ([SlotRange(-1, 4095, "s1")], "slots 0 and on"),
    ],
)
def test_a_table_with_a_hole_or_an_overlap(ranges: list[SlotRange], complaint: str) -> None:
    with pytest.raises(BrokenShardMap, match=complaint):
        ShardMap(1, addresses("s1"), ranges)


@pytest.mark.parametrize("version", [0, -1])
def test_versions_begin_at_one(version: int) -> None:
    with pytest.raises(BrokenShardMap, match=f"version {version}"):
        ShardMap.evenly(version, addresses("s1"))


def _without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.pop(key)


@pytest.mark.parametrize(
    "spoil",
    [
        _without("version"),
        _without("shards"),
        _without("slots"),
        lambda document: document.update(version="1"),
        lambda document: document.update(extra=1),
        lambda document: document["shards"]["s1"].pop("port"),
        lambda document: document["shards"]["s1"].update(password="x"),
        lambda document: document["slots"].append([1]),
    ],
)
def test_a_document_that_is_no_map(spoil: Callable[[dict[str, Any]], None]) -> None:
    document = msgspec.json.decode(ShardMap.evenly(1, addresses("s1")).to_json())
    spoil(document)
    with pytest.raises(BrokenShardMap, match="cannot be read"):
        ShardMap.from_json(msgspec.json.encode(document))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"version":1}'])
def test_bytes_that_are_no_map(data: bytes) -> None:
    with pytest.raises(BrokenShardMap):
        ShardMap.from_json(data)


def test_a_map_does_not_change_with_what_it_was_made_from() -> None:
    given_shards, given_ranges = addresses("s1"), [SlotRange(0, 4095, "s1")]
    shard_map = ShardMap(1, given_shards, given_ranges)
    given_shards.clear()
    given_ranges.clear()
    assert shard_map.shard_of("alice") == "s1"
    assert list(shard_map.shards) == ["s1"]
