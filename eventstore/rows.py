"""The shapes that the list, the machine and whoever reads the list share: pure.

A command is a row of fixed size and the texts that belong to it; its outcome is a byte and, where a
refusal's text needs them, a row of numbers. All numbers are little-endian. They stand in files, so
none of this changes without a new version of the frame's format.
"""

import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ledger.errors import Bug

CURRENCY_BYTES = 8

# One command, 48 bytes. `id` is 128 bits: that of the transfer, or of the account that is opened.
# `amount` is in minor units; of an opening it is the overdraft limit, of a status the new one's
# code. `source` and `destination` are account numbers, or NOBODY where the account was not known to
# whoever wrote the command: its id then stands in the texts, and the machine looks it up.
# `currency` is 3 to 8 letters and digits in ASCII, with zero bytes behind them; of a status it is
# zero. `text` is how many bytes of the frame's texts belong to this command. `step` is of a CALL
# the call's code, of an ADVANCE what `step_number` makes; of all others zero.
#
# What TC/C and Saga do in a group are BEGIN, CALL and ADVANCE. The id is the transfer's; which
# attempt at it is meant stands in the texts. The other shard's account is NOBODY, its id in the
# texts. Of an ADVANCE both accounts are, without ids, and amount and currency are zero.
COMMAND = np.dtype(
    [
        ("id", "<u8", (2,)),
        ("amount", "<i8"),
        ("source", "<u4"),
        ("destination", "<u4"),
        ("currency", "u1", (CURRENCY_BYTES,)),
        ("kind", "u1"),
        ("protocol", "u1"),
        ("text", "<u2"),
        ("step", "<u4"),
    ]
)
# What the text of a refusal is made of, or the place of the command that used the id first.
DETAIL = np.dtype(
    [
        ("command", "<u4"),
        ("spare", "<u4"),
        ("a", "<i8"),
        ("b", "<i8"),
        ("c", "<i8"),
        ("d", "<i8"),
    ]
)

NOBODY = 2**32 - 1
# Of an opening: the account may go down without limit.
UNLIMITED = -1
# A frame's commands are counted with 16 bits, so that a place in the list is one number.
COMMANDS_MAX = 2**16 - 1

Commands = NDArray[np.void]
Details = NDArray[np.void]
Codes = NDArray[np.uint8]


class Kind(IntEnum):
    """What is asked."""

    OPEN = 1
    STATUS = 2
    TRANSFER = 3
    # From here on only a machine of version 2 knows them.
    BEGIN = 4
    CALL = 5
    ADVANCE = 6


class StatusCode(IntEnum):
    """An account's status, as `amount` of a STATUS command and in the machine's state."""

    OPEN = 0
    FROZEN = 1
    CLOSED = 2


class ProtocolCode(IntEnum):
    """The protocol that a transfer was asked to run by; in one group it runs as one command."""

    UNNAMED = 0
    XA = 1
    TCC = 2
    SAGA = 3


# What `coordinator/protocols` calls so, of both protocols: see the tables there.


class PhaseCode(IntEnum):
    """Where an attempt is, in the group of its source."""

    NONE = 0  # nobody has asked here to begin it
    TRYING = 1
    CONFIRMING = 2
    CANCELLING = 3
    CONFIRMED = 4
    CANCELLED = 5
    CREDITING = 6
    COMPENSATING = 7
    COMPLETED = 8
    COMPENSATED = 9
    NOT_BEGUN = 10  # its BEGIN was answered with no, and nothing of it is recorded: it never begins


class StateCode(IntEnum):
    """Where an attempt is, in the group of its destination."""

    ABSENT = 0
    TRIED = 1
    REFUSED = 2
    CONFIRMED = 3
    CANCELLED = 4
    CREDITED = 5


class CallCode(IntEnum):
    """What is asked of the destination."""

    TRY = 1
    CONFIRM = 2
    CANCEL = 3
    CREDIT = 4


class EventCode(IntEnum):
    """What was heard from it, or is due."""

    TRIED = 1
    REFUSED = 2
    EXPIRED = 3
    CONFIRMED = 4
    CANCELLED = 5
    CREDITED = 6
    DUE = 7


class Code(IntEnum):
    """What became of a command. Behind each: what `a`, `b`, `c`, `d` of its details are."""

    DONE = 0
    # Of a transfer, in the order in which `ledger.decide` refuses.
    NO_SOURCE = 1  # burns no key
    SAME_ACCOUNT = 2
    NO_DESTINATION = 3
    SOURCE_CLOSED = 4
    DESTINATION_CLOSED = 5
    SOURCE_FROZEN = 6
    SOURCE_CURRENCY = 7  # the account's currency, see `currency_number`
    DESTINATION_CURRENCY = 8  # the same
    FUNDS = 9  # balance, held, overdraft limit
    SOURCE_OVERFLOW = 10  # balance, held
    DESTINATION_OVERFLOW = 11  # balance, expected
    # Its id was used before: by the same transfer, or by another one; the place of that.
    REPLAYED = 12
    REUSED = 13
    # Of an opening: there is such an account; its number.
    EXISTS = 14
    # Of a status.
    NO_ACCOUNT = 15
    NOT_EMPTY = 16  # balance, held, expected, unfinished transfers from it
    # Of a CALL or an ADVANCE: it was done now. The place of the attempt's BEGIN, or of its first
    # CALL; the phase, or the state, that it has come to.
    STEPPED = 17
    # Of a BEGIN, a CALL, an ADVANCE: it fits no more, or not yet, and nothing has changed. The
    # same; the place is 0 where there is none.
    STANDS = 18
    # Another attempt at the transfer is not decided yet; the place of its BEGIN. Burns no key.
    IN_USE = 19
    # The attempt is known with another amount or protocol: a mistake of whoever sends it, and
    # nothing has changed. The places of its BEGIN and of its first CALL, 0 where there is none.
    UNLIKE = 20
    # What is held, expected, or given back would be beyond what can be kept.
    HELD_OVERFLOW = 21  # balance, held
    EXPECTED_OVERFLOW = 22  # balance, expected
    REFUND_OVERFLOW = 23  # balance, expected; nothing has changed, it can be tried again


# The outcomes of transfers that are recorded under their ids.
RECORDED = (Code.DONE, *(code for code in Code if Code.SAME_ACCOUNT <= code < Code.REPLAYED))


class Outcomes(NamedTuple):
    """What became of the commands of a frame: a Code for each, and details in their order, of
    those that have any.
    """

    codes: Codes
    details: Details


def place(seq: int, index: int) -> int:
    """Where a command stands: the number of its frame and its index in it, as one number."""
    return seq << 16 | index


def place_parts(place: int) -> tuple[int, int]:
    """The frame's number and the index that `place` was made of."""
    return place >> 16, place & 0xFFFF


def step_number(phase: PhaseCode, event: EventCode) -> int:
    """`COMMAND.step` of an ADVANCE: from the phase that it expects, by an event."""
    return phase | event << 8


def step_parts(step: int) -> tuple[PhaseCode, EventCode]:
    """The phase and the event that `step_number` was given."""
    return PhaseCode(step & 0xFF), EventCode(step >> 8)


# Those of the HTTP API.
_CURRENCY = re.compile("[A-Z0-9]{3,8}")


def currency_number(currency: str) -> int:
    """The bytes of `COMMAND.currency` as one number; letters are ASCII, so it fits 64 bits with a
    sign. Raises Bug for what is no currency.
    """
    if not _CURRENCY.fullmatch(currency):
        raise Bug(f"{currency!r} is no currency: {_CURRENCY.pattern}")
    return int.from_bytes(currency.encode("ascii"), "little")


def currency_text(number: int) -> str:
    """The letters that `currency_number` was given."""
    return number.to_bytes(CURRENCY_BYTES, "little").rstrip(b"\0").decode("ascii")


# --- texts --------------------------------------------------------------------------------------
#
# Of a transfer: key, metadata (empty: none), and the ids of source and destination where they are
# NOBODY (else empty). Of an opening and of a status: the account's id. Of a BEGIN: those of a
# transfer, and the attempt's name. Of a CALL: the ids of source and destination (empty where it has
# a number), and the name. Of an ADVANCE: the name; and of what was refused the reason and the
# detail, else both empty.


def pack_texts(parts: Sequence[str]) -> bytes:
    """The texts of one command, each with its length in front (two bytes)."""
    encoded = [part.encode() for part in parts]
    packed = b"".join(len(part).to_bytes(2, "little") + part for part in encoded)
    if len(packed) >= 2**16:
        raise Bug(f"the texts of a command have {len(packed)} bytes, more than 65,535")
    return packed


def unpack_texts(packed: bytes) -> list[str]:
    """The texts that were packed. Raises ValueError if they do not fill their bytes."""
    parts, at = [], 0
    while at < len(packed):
        end = at + 2 + int.from_bytes(packed[at : at + 2], "little")
        if at + 2 > len(packed) or end > len(packed):
            raise ValueError(f"a text ends at byte {end}, and there are {len(packed)}")
        parts.append(packed[at + 2 : end].decode())
        at = end
    return parts


def each_text(commands: Commands, texts: bytes) -> Iterator[bytes]:
    """The packed texts of each command of a frame, in their order."""
    end = 0
    for length in commands["text"].tolist():
        start, end = end, end + length
        yield texts[start:end]
