"""The loop that makes entries of a frame's committed transfers, with their chains: compiled."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import WORDS, prefetch
from eventstore.machine.words import Words as Commands
from eventstore.machine.words import amount_of, destination_of, id_of, kind_of, source_of
from eventstore.reading.compiled import Number, Truth, compiled, inlined, types
from eventstore.reading.heads import (
    BALANCE,
    CHAIN,
    COUNT,
    HEAD_WORDS,
    META,
    NAME_AT,
    NAME_BITS,
    SLOT_AT,
    SLOT_BITS,
    STAMP,
    Names,
    Rows,
)
from eventstore.reading.sha256 import ROOM, VARIANT, Room, digest
from eventstore.reading.shapes import Words
from eventstore.reading.texts import (
    TEXT_BYTES_MAX,
    begin,
    put_amount,
    put_chain,
    put_copy,
    put_digits,
    put_name,
    put_number,
    put_transfer,
)
from eventstore.rows import Code, Kind

# For so many commands at a time memory is fetched in advance.
_AHEAD = 16
_HEAD_WORDS = np.uint64(HEAD_WORDS)
_LINE = np.uint64(8)
_UPPER = np.uint64(32)


class Decided(NamedTuple):
    """A frame as it is entered. `named` has the numbers of source and destination where these are
    given by name: of shape (commands, 2), or (0, 2) if none are.
    """

    commands: Commands
    codes: NDArray[np.uint8]
    named: NDArray[np.int64]
    seq: int
    time_us: int


class Place(NamedTuple):
    """Where entries go: their words, from `filled` on, and the number of each one's account. If
    `is_kept` is 0 they go nowhere: the accounts alone are changed.
    """

    words: Words
    accounts: NDArray[np.uint32]
    filled: int
    is_kept: int


DECIDED = types.NamedTuple(
    (
        WORDS,
        types.Array(types.uint8, 1, "C", readonly=True),
        types.int64[:, ::1],
        types.int64,
        types.int64,
    ),
    Decided,
)
PLACE = types.NamedTuple((types.uint64[:, ::1], types.uint32[::1], types.int64, types.int64), Place)


@inlined
def _side(frame: Decided, i: Number, side: Number, number: Number) -> Number:
    return frame.named[i, side] if len(frame.named) and frame.named[i, side] >= 0 else number


@inlined
def _swapped(word: Number) -> Number:
    """A word of the digest, its bytes in the order of the digest's."""
    word = np.uint64(word)
    low = (word & np.uint64(0xFF)) << np.uint64(24) | (word & np.uint64(0xFF00)) << np.uint64(8)
    return low | word >> np.uint64(8) & np.uint64(0xFF00) | word >> np.uint64(24)


@inlined
def _chain(
    rows: Rows,
    names: Names,
    account: Number,
    other: Number,
    is_taken: Number,
    amount_end: Number,
    stamp_end: Number,
    room: Room,
) -> None:
    """The chain of an account after the entry that its row already counts. The text has what is
    the same for both entries behind its end, see `_prepare`.
    """
    text = room.text
    row = rows[account]
    at = put_chain(text, row[CHAIN : CHAIN + 4])
    at = put_name(text, at, names, row[NAME_AT], row[META] & NAME_BITS)
    at = put_number(text, at, row[COUNT])
    at = put_copy(text, at, text, _TRANSFER_AT, _TRANSFER_BYTES)
    at = put_amount(text, at, is_taken, _AMOUNT_AT, amount_end)
    at = put_number(text, at, row[BALANCE])
    at = put_name(text, at, names, rows[other, NAME_AT], rows[other, META] & NAME_BITS)
    at = put_copy(text, at, text, _STAMP_AT, stamp_end - _STAMP_AT)
    digest(room, at)
    for i in range(4):
        first, second = _swapped(room.state[2 * i]), _swapped(room.state[2 * i + 1])
        row[CHAIN + i] = np.int64(first | second << _UPPER)


# Where in the room's text a transfer's id, its amount's digits, and its stamp are kept while its
# two entries are made.
_TRANSFER_AT, _TRANSFER_BYTES = TEXT_BYTES_MAX, 40
_AMOUNT_AT = _TRANSFER_AT + _TRANSFER_BYTES
_STAMP_AT = _AMOUNT_AT + 32
ROOM_BYTES = _STAMP_AT + 32


@inlined
def _prepare(
    frame: Decided, i: Number, slot: Number, stamp: Number, room: Room
) -> tuple[Number, Number]:
    """Keep what is the same for both entries of a transfer; where amount and stamp end."""
    first, second = id_of(frame.commands, i)
    put_transfer(room.text, _TRANSFER_AT, slot, first, second)
    amount_end = put_digits(room.text, _AMOUNT_AT, np.uint64(amount_of(frame.commands, i)))
    return amount_end, put_number(room.text, _STAMP_AT, stamp)


@inlined
def _write(
    place: Place, at: Number, frame: Decided, i: Number, rows: Rows, account: Number, other: Number
) -> None:
    row, entry = rows[account], place.words[at]
    entry[0] = np.uint64(account) | np.uint64(other) << _UPPER
    entry[1] = np.uint64(row[COUNT])
    entry[2] = np.uint64(frame.seq)
    entry[4] = np.uint64(row[BALANCE])
    entry[5] = np.uint64(row[STAMP])
    entry[6], entry[7] = id_of(frame.commands, i)
    for k in range(4):
        entry[8 + k] = np.uint64(row[CHAIN + k])
    place.accounts[at] = account


@inlined
def _enter(
    frame: Decided,
    i: Number,
    account: Number,
    other: Number,
    amount: Number,
    stamp: Number,
    rows: Rows,
    names: Names,
    place: Place,
    filled: Number,
    amount_end: Number,
    stamp_end: Number,
    room: Room,
) -> None:
    rows[account, BALANCE] += amount
    rows[account, COUNT] += 1
    rows[account, STAMP] = stamp
    _chain(rows, names, account, other, amount < 0, amount_end, stamp_end, room)
    if place.is_kept:
        _write(place, filled, frame, i, rows, account, other)
        place.words[filled, 3] = np.uint64(amount)


@inlined
def _is_committed(frame: Decided, i: Number) -> Truth:
    return kind_of(frame.commands, i) == Kind.TRANSFER and frame.codes[i] == Code.DONE


@inlined
def _fetch_rows(frame: Decided, start: Number, rows: Rows) -> None:
    """Begin to fetch the accounts' rows that the commands from `start` on will need."""
    for i in range(start, min(start + _AHEAD, len(frame.commands))):
        if _is_committed(frame, i):
            for account in (
                _side(frame, i, 0, source_of(frame.commands, i)),
                _side(frame, i, 1, destination_of(frame.commands, i)),
            ):
                prefetch(rows, np.uint64(account) * _HEAD_WORDS)
                prefetch(rows, np.uint64(account) * _HEAD_WORDS + _LINE)


@inlined
def _fetch_names(frame: Decided, start: Number, rows: Rows, names: Names) -> None:
    """Begin to fetch their names; their rows are there by now."""
    for i in range(start, min(start + _AHEAD, len(frame.commands))):
        if _is_committed(frame, i):
            for account in (
                _side(frame, i, 0, source_of(frame.commands, i)),
                _side(frame, i, 1, destination_of(frame.commands, i)),
            ):
                prefetch(names, np.uint64(rows[account, NAME_AT]))


@compiled(types.int64(DECIDED, types.int64[:, ::1], types.uint8[::1], PLACE, ROOM), f".{VARIANT}")
def enter(frame: Decided, rows: Rows, names: Names, place: Place, room: Room) -> int:
    """Change the accounts of `rows` as the frame's committed transfers say, in their order, and
    write their entries; gives how many are there then. There must be room for two a command.
    """
    filled = place.filled
    begin(room.text)
    _fetch_rows(frame, 0, rows)
    for start in range(0, len(frame.commands), _AHEAD):
        _fetch_rows(frame, start + _AHEAD, rows)
        _fetch_names(frame, start, rows, names)
        for i in range(start, min(start + _AHEAD, len(frame.commands))):
            if not _is_committed(frame, i):
                continue
            source = _side(frame, i, 0, source_of(frame.commands, i))
            destination = _side(frame, i, 1, destination_of(frame.commands, i))
            amount = amount_of(frame.commands, i)
            stamp = max(frame.time_us, rows[source, STAMP], rows[destination, STAMP])
            slot = rows[source, META] >> SLOT_AT & SLOT_BITS
            ends = _prepare(frame, i, slot, stamp, room)
            ways = ((source, destination, -amount), (destination, source, amount))
            for account, other, change in ways:
                _enter(
                    *(frame, i, account, other, change, stamp, rows, names, place, filled),
                    *(ends[0], ends[1], room),
                )
                filled += place.is_kept
    return filled
