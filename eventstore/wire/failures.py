"""Why there is no answer, as it goes over the wire, and as each side raises it."""

from enum import IntEnum

import msgspec

from eventstore.wire.errors import (
    Busy,
    CannotAnswer,
    ClientError,
    Lost,
    NotTaken,
    NotYet,
    Rejected,
    Unknown,
)
from ledger.errors import Bug


class FailureKind(IntEnum):
    """What may have come of it: see errors.py."""

    REJECTED = 1
    NOT_TAKEN = 2
    BUSY = 3
    UNKNOWN = 4
    CANNOT_ANSWER = 5
    NOT_YET = 6
    # What was sent is no request: the sender's mistake. Nothing was taken.
    NO_REQUEST = 7
    # The same, and the connection ends, with all that waits on it.
    MALFORMED = 8


class Failed(msgspec.Struct, frozen=True):
    """The body of FAILED."""

    kind: FailureKind
    text: str


_ERRORS: dict[FailureKind, type[ClientError | Bug]] = {
    FailureKind.REJECTED: Rejected,
    FailureKind.NOT_TAKEN: NotTaken,
    FailureKind.BUSY: Busy,
    FailureKind.UNKNOWN: Unknown,
    FailureKind.CANNOT_ANSWER: CannotAnswer,
    FailureKind.NOT_YET: NotYet,
    FailureKind.NO_REQUEST: Bug,
    FailureKind.MALFORMED: Lost,
}


def error_of(failed: Failed) -> ClientError | Bug:
    """What the client raises."""
    return _ERRORS[failed.kind](failed.text)
