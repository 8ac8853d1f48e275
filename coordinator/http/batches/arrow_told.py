"""Answers to Arrow batches of which nearly every transfer is committed: see `told`."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from coordinator.http.batches import arrow_stream, told
from coordinator.http.batches.told import ID_BYTES, Digests, Frames, Others, Slots

_STATUSES = ("committed", "rejected", "pending", "failed")


def arrow(slots: Slots, digests: Digests, frames: Frames, others: Others) -> bytes:
    """The bytes of `arrow_stream.write`."""
    count = len(slots)
    told.check(others, count)
    columns = [
        _ids(slots, digests, others),
        _statuses(count, others),
        _texts(count, {index: other.reason for index, other in others.items()}),
        _texts(count, {index: other.detail for index, other in others.items()}),
        _replayed(count, others),
    ]
    seqs = _seqs(count, frames, others)
    return arrow_stream.write_columns(*columns, *([seqs] if seqs.null_count < count else []))


def _ids(slots: Slots, digests: Digests, others: Others) -> pa.Array:
    count = len(slots)
    ends = np.arange(count + 1, dtype=np.int32) * np.int32(ID_BYTES)
    texts = pa.py_buffer(told.ids(slots, digests))
    ids = pa.StringArray.from_buffers(count, pa.py_buffer(ends), texts)
    if all(ids[index].as_py() == other.id for index, other in others.items()):
        return ids
    # So it is where an item was malformed, and has none.
    listed = ids.to_pylist()
    for index, other in others.items():
        listed[index] = other.id
    return pa.array(listed, pa.string())


def _statuses(count: int, others: Others) -> pa.Array:
    codes = np.zeros(count, np.int8)
    for index, other in others.items():
        codes[index] = _STATUSES.index(other.status)
    return pa.DictionaryArray.from_arrays(codes, pa.array(_STATUSES)).cast(pa.string())


def _texts(count: int, some: Mapping[int, str | None]) -> pa.Array:
    """A column of which few have a text, and the others none."""
    lengths, is_there, pieces = np.zeros(count + 1, np.int32), np.zeros(count, np.bool_), []
    for index in sorted(some):
        text = some[index]
        if text is not None:
            is_there[index] = True
            pieces.append(text.encode())
            lengths[index + 1] = len(pieces[-1])
    ends = np.cumsum(lengths, dtype=np.int32)
    data = pa.py_buffer(b"".join(pieces))
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), data, _bits(is_there))


def _replayed(count: int, others: Others) -> pa.Array:
    is_replay = np.zeros(count, np.bool_)
    for index, other in others.items():
        is_replay[index] = other.replayed
    bits = _bits(is_replay)
    # What is there is true.
    return pa.Array.from_buffers(pa.bool_(), count, [bits, bits])


def _seqs(count: int, frames: Frames, others: Others) -> pa.Array:
    seqs = np.zeros(count, np.int64)
    for first, end, seq in told.spans(frames, count):
        seqs[first:end] = seq or 0
    for index, other in others.items():
        seqs[index] = other.seq or 0
    return pa.array(seqs, mask=seqs == 0)


def _bits(truths: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(truths, bitorder="little"))
