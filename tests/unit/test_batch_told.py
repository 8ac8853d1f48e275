"""Answers made at one go are those that are written one by one."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coordinator.http.batches import arrow_stream, arrow_told, told
from coordinator.http.schemas import TransferResult, TransferResults
from ledger.errors import Bug

IDS = st.tuples(st.integers(0, 4095), st.binary(min_size=16, max_size=16))
OTHERS = st.builds(
    TransferResult,
    st.none() | st.just("it"),
    st.sampled_from(["committed", "rejected", "pending", "failed"]),
    st.none() | st.sampled_from(["malformed", "account-busy"]),
    st.none() | st.text(max_size=5),
    st.booleans(),
)
ANSWERS = st.lists(st.tuples(IDS, st.none() | OTHERS), max_size=12)
ALL_DIGITS = (0xABC, bytes.fromhex("00112233445566778899aabbccddeeff"))


@given(ANSWERS)
@example([])
@example([(ALL_DIGITS, None)] * 3)
@example([(ALL_DIGITS, TransferResult("it", "pending"))])
def test_they_are_the_same_bytes(answers: list[tuple[tuple[int, bytes], Any]]) -> None:
    slots = np.array([slot for (slot, _), _ in answers], np.uint16)
    digests = np.frombuffer(b"".join(d for (_, d), _ in answers), np.uint8).reshape(-1, 16)
    ids = [f"{slot:03x}-{digest.hex()}" for (slot, digest), _ in answers]
    others = {}
    for index, (_, other) in enumerate(answers):
        if other is not None:
            own = other.id and ids[index]
            others[index] = msgspec.structs.replace(other, id=own)
    results = [others.get(i, TransferResult(id_, "committed")) for i, id_ in enumerate(ids)]
    given = slots, digests, others
    assert told.json(*given) == msgspec.json.encode(TransferResults(results))
    assert told.lines(*given) == msgspec.json.Encoder().encode_lines(results)
    assert arrow_told.arrow(*given) == arrow_stream.write(results)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_result_of_none_of_them(index: int) -> None:
    slots, digests = np.zeros(2, np.uint16), np.zeros((2, 16), np.uint8)
    for write in (told.json, told.lines, arrow_told.arrow):
        with pytest.raises(Bug, match="among 2 transfers"):
            write(slots, digests, {index: TransferResult(None, "pending")})
