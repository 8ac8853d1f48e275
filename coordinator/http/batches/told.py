"""Answers to batches of which nearly every transfer is committed: the bytes that are written of
`TransferResult`s one by one, made at one go.

The transfers are given by their ids: `slots` of shape (n,), and `digests` of shape (n, 16).
`frames` has the frames that they are in: the index of the first one in each, and its number, None
where there is none. `others` has the results of those that are not simply committed, by index.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from coordinator.http.batches.compiled import BYTES, Number, compiled, inlined, types
from coordinator.http.schemas import TransferResult, TransferResults
from ledger.errors import Bug

Slots = NDArray[np.uint16]
Digests = NDArray[np.uint8]
Frames = Sequence[tuple[int, int | None]]
Others = Mapping[int, TransferResult]

# Of an id: three digits of the slot, a hyphen, and the digest.
_SLOT_DIGITS, _DIGEST_BYTES = 3, 16
ID_BYTES = _SLOT_DIGITS + 1 + 2 * _DIGEST_BYTES
_encode = msgspec.json.Encoder().encode


# And around all results.
_HEAD, _TAIL = _encode(TransferResults([]))[:-2], b"]}"


@lru_cache(16)
def _around_id(seq: int | None) -> tuple[bytes, bytes]:
    """What stands before and behind the id in what is committed in a frame."""
    before, _, behind = _encode(TransferResult("#", "committed", seq=seq)).partition(b"#")
    return before, behind


def json(slots: Slots, digests: Digests, frames: Frames, others: Others) -> bytes:
    """As `TransferResults` in JSON."""
    pieces = _pieces(slots, digests, frames, others, b",")
    if pieces:
        pieces[-1] = pieces[-1][:-1]
    return b"".join((_HEAD, *pieces, _TAIL))


def lines(slots: Slots, digests: Digests, frames: Frames, others: Others) -> bytes:
    """As a line of JSON for each."""
    return b"".join(_pieces(slots, digests, frames, others, b"\n"))


def ids(slots: Slots, digests: Digests) -> NDArray[np.uint8]:
    """The ids as texts, one after the other."""
    return _written(slots, digests, b"", b"")


def spans(frames: Frames, count: int) -> Iterator[tuple[int, int, int | None]]:
    """Of each frame where its transfers begin and end, and its number."""
    ends = [first for first, _ in frames[1:]] + [count]
    # Without transfers there are no frames.
    for (first, seq), end in zip(frames, ends, strict=False):
        yield first, end, seq


def _pieces(
    slots: Slots, digests: Digests, frames: Frames, others: Others, mark: bytes
) -> list[memoryview | bytes]:
    """The results in JSON, each with a mark behind it, in pieces that follow each other."""
    check(others, len(slots))
    odd = sorted(others)
    pieces: list[memoryview | bytes] = []
    for first, end, seq in spans(frames, len(slots)):
        before, behind = _around_id(seq)
        written = _written(slots[first:end], digests[first:end], before, behind + mark)
        plain = memoryview(written)  # type: ignore[arg-type]
        size, at = len(before) + ID_BYTES + len(behind) + len(mark), first
        for index in odd[bisect_left(odd, first) : bisect_left(odd, end)]:
            pieces += (
                plain[(at - first) * size : (index - first) * size],
                _encode(others[index]) + mark,
            )
            at = index + 1
        pieces.append(plain[(at - first) * size :])
    return [piece for piece in pieces if piece]


def check(others: Others, count: int) -> None:
    """Raises Bug if there are results of others than so many transfers."""
    odd = [index for index in others if not 0 <= index < count]
    if odd:
        raise Bug(f"results are given of {odd} among {count} transfers")


def _written(slots: Slots, digests: Digests, before: bytes, behind: bytes) -> NDArray[np.uint8]:
    """All ids, each in between two texts."""
    form = np.frombuffer(before + bytes(ID_BYTES) + behind, np.uint8)
    texts = np.empty(len(slots) * len(form), np.uint8)
    _write(slots, digests, form, len(before), texts)
    return texts


# --- compiled -----------------------------------------------------------------------------------

_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_HYPHEN = ord("-")


@inlined
def _digit(number: Number) -> Number:
    return _DIGITS[number & 0xF]


@compiled(
    types.void(
        types.Array(types.uint16, 1, "C", readonly=True),
        types.Array(types.uint8, 2, "C", readonly=True),
        BYTES,
        types.int64,
        types.uint8[::1],
    )
)
def _write(
    slots: Slots, digests: Digests, form: NDArray[np.uint8], before: int, texts: NDArray[np.uint8]
) -> None:
    for i in range(len(slots)):
        begin = i * len(form)
        for k in range(len(form)):
            texts[begin + k] = form[k]
        at = begin + before
        slot = np.int64(slots[i])
        texts[at], texts[at + 1] = _digit(slot >> 8), _digit(slot >> 4)
        texts[at + 2], texts[at + 3] = _digit(slot), _HYPHEN
        for k in range(_DIGEST_BYTES):
            byte = np.int64(digests[i, k])
            place = at + _SLOT_DIGITS + 1 + 2 * k
            texts[place], texts[place + 1] = _digit(byte >> 4), _digit(byte)
