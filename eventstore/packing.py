"""Transfers in columns, made into rows and texts at one go: pure. What `commands.Packer` makes of
them one by one, byte for byte.
"""

from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.blake2 import ROOM_WORDS, TEXT_BYTES_MAX, Room, blake2b
from eventstore.machine.compiled import BYTES, Number, Word, compiled, inlined, types
from eventstore.machine.words import Words
from eventstore.rows import COMMAND, NOBODY, Commands, Kind, ProtocolCode
from ledger.columns import Columns
from ledger.errors import Bug
from ledger.ids import SLOT_COUNT

Data = NDArray[np.uint8]
Spans = NDArray[np.int32]
Numbers = NDArray[np.int64]
Codes = NDArray[np.uint8]
Slots = NDArray[np.uint16]

# A text has its length in front: key, metadata, source and destination have.
_LENGTH = 2
_LENGTHS = 4 * _LENGTH
_OPEN, _CLOSE = ord("{"), ord("}")
# CRC-32 byte by byte: its table is the checksums of single bytes, without what all of them share.
_OF_BYTES = np.array([crc32(bytes([byte])) for byte in range(256)], np.uint32)
_CRC_TABLE = _OF_BYTES ^ _OF_BYTES[0]
_CRC_ALL = np.uint32(2**32 - 1)


class Packing(NamedTuple):
    """Transfers as a node takes them, and their ids: the slot of each source, and a digest, of
    shape (n, 16).
    """

    commands: Commands
    texts: bytes
    slots: Slots
    digests: NDArray[np.uint8]


def pack(columns: Columns, default: ProtocolCode) -> Packing:
    """Rows, texts and ids. Where no protocol is named it is `default`."""
    count = len(columns.amount)
    spans = (columns.key, columns.source, columns.destination)
    size = sum(int(np.subtract(side[:, 1], side[:, 0], dtype=np.int64).sum()) for side in spans)
    words = np.empty((count, COMMAND.itemsize // 8), np.uint64)
    slots = np.empty(count, np.uint16)
    texts = np.empty(size + _LENGTHS * count, np.uint8)
    named = np.empty(TEXT_BYTES_MAX, np.uint8)
    room = np.empty(ROOM_WORDS, np.uint64)
    made = _pack(
        columns.data,
        *spans,
        columns.currency,
        columns.amount,
        columns.protocol,
        int(default),
        words,
        slots,
        texts,
        named,
        room,
    )
    if made != len(texts):
        raise Bug(f"the texts of {count} transfers have {len(texts)} bytes, and {made} were made")
    digests = np.ascontiguousarray(words[:, :2]).view(np.uint8)
    return Packing(words.view(COMMAND).reshape(count), texts.tobytes(), slots, digests)


def slots_of(ids: bytes, ends: NDArray[np.uint32]) -> Slots:
    """The slots of accounts, whose ids lie one after the other; `ends` says where each one ends."""
    slots = np.empty(len(ends), np.uint16)
    _slots(np.frombuffer(ids, np.uint8), ends, slots)
    return slots


# --- compiled -----------------------------------------------------------------------------------

_SPANS = types.Array(types.int32, 2, "C", readonly=True)
_NUMBERS = types.Array(types.int64, 1, "C", readonly=True)
_NOBODIES = np.uint64(NOBODY << 32 | NOBODY)
_KIND = np.uint64(Kind.TRANSFER)
_PROTOCOL_AT, _TEXT_AT = np.uint64(8), np.uint64(16)


@inlined
def _slot_at(data: Data, begin: Number, end: Number) -> Number:
    """The slot of the account whose id lies there: see `ledger.ids.slot_of`."""
    start = begin
    while start < end and data[start] != _OPEN:
        start += 1
    stop = start + 1
    while stop < end and data[stop] != _CLOSE:
        stop += 1
    if stop < end and stop > start + 1:
        begin, end = start + 1, stop
    rest = _CRC_ALL
    for at in range(begin, end):
        rest = _CRC_TABLE[(rest ^ data[at]) & 0xFF] ^ (rest >> np.uint32(8))
    return np.int64(rest ^ _CRC_ALL) % SLOT_COUNT


@inlined
def _id(
    data: Data,
    source: Spans,
    key: Spans,
    i: Number,
    named: Data,
    room: Room,
) -> tuple[Word, Word]:
    """What `ledger.ids.transfer_id` gives behind the slot, as two words."""
    length = 0
    for at in range(source[i, 0], source[i, 1]):
        named[length] = data[at]
        length += 1
    named[length] = 0
    length += 1
    for at in range(key[i, 0], key[i, 1]):
        named[length] = data[at]
        length += 1
    return blake2b(named, 0, length, room)


@inlined
def _put(texts: Data, at: Number, data: Data, begin: Number, end: Number) -> Number:
    """Put a text with its length in front; gives where the next one goes."""
    length = end - begin
    texts[at], texts[at + 1] = length & 0xFF, length >> 8
    for k in range(length):
        texts[at + _LENGTH + k] = data[begin + k]
    return at + _LENGTH + length


@compiled(
    types.int64(
        BYTES,
        _SPANS,
        _SPANS,
        _SPANS,
        _NUMBERS,
        _NUMBERS,
        BYTES,
        types.int64,
        types.uint64[:, ::1],
        types.uint16[::1],
        types.uint8[::1],
        types.uint8[::1],
        types.uint64[::1],
    )
)
def _pack(
    data: Data,
    key: Spans,
    source: Spans,
    destination: Spans,
    currency: Numbers,
    amount: Numbers,
    protocol: Codes,
    default: int,
    words: Words,
    slots: Slots,
    texts: Data,
    named: Data,
    room: Room,
) -> int:
    """Fill words, slots and texts; gives how many bytes of texts there are."""
    at = 0
    for i in range(len(amount)):
        start = at
        at = _put(texts, at, data, key[i, 0], key[i, 1])
        at = _put(texts, at, data, 0, 0)
        at = _put(texts, at, data, source[i, 0], source[i, 1])
        at = _put(texts, at, data, destination[i, 0], destination[i, 1])
        slots[i] = _slot_at(data, source[i, 0], source[i, 1])
        words[i, 0], words[i, 1] = _id(data, source, key, i, named, room)
        words[i, 2] = np.uint64(amount[i])
        words[i, 3] = _NOBODIES
        words[i, 4] = np.uint64(currency[i])
        code = np.uint64(default if protocol[i] == 0 else protocol[i])
        words[i, 5] = _KIND | code << _PROTOCOL_AT | np.uint64(at - start) << _TEXT_AT
    return at


@compiled(types.void(BYTES, types.Array(types.uint32, 1, "C", readonly=True), types.uint16[::1]))
def _slots(ids: Data, ends: NDArray[np.uint32], slots: Slots) -> None:
    begin: Number = 0
    for i in range(len(ends)):
        end = np.int64(ends[i])
        slots[i] = _slot_at(ids, begin, end)
        begin = end
