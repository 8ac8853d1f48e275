"""The attempts at transfers to and from other shards: each a row, kept for ever (rule E12).

An attempt is found by 128 bits, made of the transfer's id and the attempt's name. Its row has what
it is in the group of the source, in that of the destination, or both. `steps.py` changes it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eventstore.machine import entries
from eventstore.machine.compiled import Number, inlined
from eventstore.machine.entries import ENTRY_BYTES
from eventstore.machine.index import Index
from eventstore.machine.memory import Fill, reserve_words
from eventstore.machine.protocols import FINAL
from eventstore.machine.rules import Rows
from eventstore.rows import NOBODY, PhaseCode, ProtocolCode, StateCode

ROW_WORDS = 8
# What stands in a row. BEGUN is the place of its BEGIN, CALLED that of its first CALL, 0 where
# there is none: the list has their texts. SINCE is the time of the first of them.
ID_0, ID_1, BEGUN, CALLED, AMOUNT, ACCOUNTS, SINCE, META = range(ROW_WORDS)
# ACCOUNTS: the numbers of the source and of the destination, NOBODY where that is not of this
# group, or not there.
DESTINATION_AT, ACCOUNT_BITS = 32, NOBODY
# META: the phase, the state of the destination's part, the protocol.
STATE_AT, PROTOCOL_AT, CODE_BITS = 8, 16, 0xFF
# In a dump.
ATTEMPT_BYTES = ROW_WORDS * 8 + ENTRY_BYTES
# In the index of transfers, where no outcome is recorded yet: the number of the last attempt, with
# this. Places are below it.
MARK = 2**62

# So many rows are looked through at once.
_PIECE = 2**16


class Attempt(NamedTuple):
    """An attempt as it is now. `phase` is NONE if it is not known here as a source's, `state` is
    ABSENT if it was not called here; of either part the place, in the list, of the command with its
    texts, and the account's number. `since_us` is when the first of them came.
    """

    transfer: bytes
    protocol: ProtocolCode
    amount: int
    phase: PhaseCode
    begun: int | None
    source: int | None
    state: StateCode
    called: int | None
    destination: int | None
    since_us: int

    @property
    def is_unfinished(self) -> bool:
        """Whether somebody has to take it further: it may bring money back here, or to here."""
        is_begun = self.phase not in (PhaseCode.NONE, PhaseCode.NOT_BEGUN)
        return (is_begun and self.phase not in FINAL) or self.state == StateCode.TRIED


class Attempts:
    """All of them, by numbers in the order in which they came. `rows` is of shape (limit, 8); the
    compiled loop adds to it and to `index`.
    """

    def __init__(self, key: bytes, limit: int) -> None:
        self.rows: Rows = reserve_words(limit * ROW_WORDS).view(np.int64).reshape(limit, ROW_WORDS)
        self.index = Index(key)

    def __len__(self) -> int:
        return len(self.index)

    def find(self, first: int, second: int) -> Attempt | None:
        """The attempt that has these words, if it is known."""
        number = self.index.find(first, second)
        return None if number is None else self[number]

    def __getitem__(self, number: int) -> Attempt:
        return _attempt(self.rows[number].tolist())

    def unfinished(self) -> Iterator[Attempt]:
        """Those that somebody has to take further, in the order in which they came. Looks through
        all that there ever were.
        """
        is_open = np.array([_is_open(phase, state) for state in StateCode for phase in PhaseCode])
        for start in range(0, len(self), _PIECE):
            metas = self.rows[start : min(start + _PIECE, len(self)), META]
            codes = (metas >> STATE_AT & CODE_BITS) * len(PhaseCode) + (metas & CODE_BITS)
            for number in np.flatnonzero(is_open[codes]).tolist():
                yield self[start + number]

    def bytes_of_rows(self) -> memoryview:
        """The rows of all."""
        return self.rows[: len(self)].reshape(-1).view(np.uint8).data

    def dump(self) -> Iterator[memoryview]:
        """All that there is of them, piece by piece; each is to be used before the next."""
        yield self.bytes_of_rows()
        yield from entries.dump(self.index)

    def load(self, count: int, fill: Fill) -> None:
        """Take so many that were dumped, where there is none yet. Raises as `entries.load` does."""
        fill(self.rows[:count].reshape(-1).view(np.uint8).data)
        entries.load(self.index, count, fill)


def _is_open(phase: PhaseCode, state: StateCode) -> bool:
    bare = Attempt(b"", ProtocolCode.UNNAMED, 0, phase, None, None, state, None, None, 0)
    return bare.is_unfinished


def _attempt(row: list[int]) -> Attempt:
    first, second, begun, called, amount, accounts, since_us, meta = row
    source, destination = accounts & ACCOUNT_BITS, accounts >> DESTINATION_AT & ACCOUNT_BITS
    return Attempt(
        transfer=b"".join((word % 2**64).to_bytes(8, "little") for word in (first, second)),
        protocol=ProtocolCode(meta >> PROTOCOL_AT & CODE_BITS),
        amount=amount,
        phase=PhaseCode(meta & CODE_BITS),
        begun=begun or None,
        source=None if source == NOBODY else source,
        state=StateCode(meta >> STATE_AT & CODE_BITS),
        called=called or None,
        destination=None if destination == NOBODY else destination,
        since_us=since_us,
    )


# --- compiled -----------------------------------------------------------------------------------


@inlined
def phase_in(meta: Number) -> Number:
    return meta & CODE_BITS


@inlined
def state_in(meta: Number) -> Number:
    return meta >> STATE_AT & CODE_BITS


@inlined
def protocol_in(meta: Number) -> Number:
    return meta >> PROTOCOL_AT & CODE_BITS


@inlined
def with_phase(meta: Number, phase: Number) -> Number:
    return (meta & ~CODE_BITS) | phase


@inlined
def with_state(meta: Number, state: Number) -> Number:
    return (meta & ~(CODE_BITS << STATE_AT)) | state << STATE_AT


@inlined
def source_in(accounts: Number) -> Number:
    return accounts & ACCOUNT_BITS


@inlined
def destination_in(accounts: Number) -> Number:
    return accounts >> DESTINATION_AT & ACCOUNT_BITS


@inlined
def with_source(accounts: Number, source: Number) -> Number:
    return (accounts & ~ACCOUNT_BITS) | source & ACCOUNT_BITS


@inlined
def with_destination(accounts: Number, destination: Number) -> Number:
    return (accounts & ACCOUNT_BITS) | (destination & ACCOUNT_BITS) << DESTINATION_AT
