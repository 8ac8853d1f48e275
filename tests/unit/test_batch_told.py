"""Answers made at one go are those that are written one by one."""

from itertools import accumulate
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
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
    st.none() | st.integers(1, 2**47),
)
# How many transfers are in a frame, and its number.
FRAMES = st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(1, 2**47)), max_size=4)
ANSWERS = st.lists(st.tuples(IDS, st.none() | OTHERS), max_size=12)
ALL_DIGITS = (0xABC, bytes.fromhex("00112233445566778899aabbccddeeff"))


@settings(deadline=None)
@given(ANSWERS, FRAMES)
@example([], [])
@example([(ALL_DIGITS, None)] * 3, [(2, 7)])
@example([(ALL_DIGITS, TransferResult("it", "pending"))], [])
def test_they_are_the_same_bytes(
    answers: list[tuple[tuple[int, bytes], Any]], lengths: list[tuple[int, int | None]]
) -> None:
    slots = np.array([slot for (slot, _), _ in answers], np.uint16)
    digests = np.frombuffer(b"".join(d for (_, d), _ in answers), np.uint8).reshape(-1, 16)
    ids = [f"{slot:03x}-{digest.hex()}" for (slot, digest), _ in answers]
    others = {}
    for index, (_, other) in enumerate(answers):
        if other is not None:
            own = other.id and ids[index]
            others[index] = msgspec.structs.replace(other, id=own)
    ends = list(accumulate(length for length, _ in lengths))
    # Behind them there is one more, so that each is in one.
    frames = list(zip([0, *ends], [*(seq for _, seq in lengths), 5], strict=True))
    frames = [(first, seq) for first, seq in frames if first < len(ids)]
    seqs = [next(seq for first, seq in reversed(frames) if first <= i) for i in range(len(ids))]
    results = [
        others.get(i, TransferResult(id_, "committed", seq=seq))
        for i, (id_, seq) in enumerate(zip(ids, seqs, strict=True))
    ]
    given = slots, digests, frames, others
    assert told.json(*given) == msgspec.json.encode(TransferResults(results))
    assert told.lines(*given) == msgspec.json.Encoder().encode_lines(results)
    assert arrow_told.arrow(*given) == arrow_stream.write(results)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_result_of_none_of_them(index: int) -> None:
    slots, digests = np.zeros(2, np.uint16), np.zeros((2, 16), np.uint8)
    for write in (told.json, told.lines, arrow_told.arrow):
        with pytest.raises(Bug, match="among 2 transfers"):
            write(slots, digests, [(0, None)], {index: TransferResult(None, "pending")})
