"""A snapshot's header as bytes: whatever is changed of it is noticed."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.machine.machine import Sizes
from eventstore.segments.chain import Link
from eventstore.segments.frame import Identity
from eventstore.snapshots.errors import NotOfThisList, SnapshotDamaged, SnapshotError
from eventstore.snapshots.header import HEADER_BYTES, Header, decode, encode
from eventstore.snapshots.names import is_scratch, scratch_name, snapshot_name, snapshot_seqs

HEADER = Header(
    Identity(UUID(int=0xC1), UUID(int=0x6B), 3),
    Link(42, 7, 1_700_000_000_000_000, bytes(range(32))),
    *(1, 2**20, Sizes(42, 10, 55, 2, 1000, 7), bytes(range(32, 64))),
)

_words, _hashes = st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32)
_headers = st.builds(
    lambda identity, link, sizes, **rest: Header(
        identity=identity, link=link, sizes=Sizes(link.seq, *sizes), **rest
    ),
    identity=st.builds(Identity, st.uuids(), st.uuids(), _words),
    link=st.builds(Link, _words, _words, st.integers(0, 2**63 - 1), _hashes),
    sizes=st.tuples(*[_words] * 5),
    machine=st.integers(0, 2**32 - 1),
    block_bytes=st.integers(0, 2**32 - 1),
    digest=_hashes,
)


@given(_headers)
def test_a_header_is_read_as_it_was_written(header: Header) -> None:
    encoded = encode(header)
    assert len(encoded) == HEADER_BYTES == 216
    assert decode(encoded, "file") == header


def test_each_changed_bit_is_noticed() -> None:
    encoded = bytearray(encode(HEADER))
    for bit in range(HEADER_BYTES * 8):
        encoded[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnapshotError, match=r"^42\.snapshot"):
            decode(bytes(encoded), "42.snapshot")
        encoded[bit // 8] ^= 1 << bit % 8


def test_a_part_of_it_is_none() -> None:
    for length in range(HEADER_BYTES):
        with pytest.raises(SnapshotDamaged, match=f"header is {length}, and should be 216"):
            decode(encode(HEADER)[:length], "file")


def test_a_newer_format_is_named() -> None:
    encoded = bytearray(encode(HEADER))
    encoded[6] = 9
    with pytest.raises(NotOfThisList, match="format is 9, and should be 2"):
        decode(bytes(encoded), "file")


def test_names() -> None:
    names = [snapshot_name(10), snapshot_name(9), scratch_name(11), "holder", "9.snapshot"]
    assert snapshot_seqs(names) == [9, 10]
    assert [name for name in names if is_scratch(name)] == [scratch_name(11)]
    assert snapshot_name(42) == "00000000000000000042.snapshot"
