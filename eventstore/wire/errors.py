"""What can go wrong between two processes.

WireError
├─ Malformed        what came is not what the format says: the connection ends
└─ TooLarge         a message has more bytes than a message may have

ClientError
├─ Unreachable      there is no connection
├─ Rejected         one of both does not believe the other: the secret or the cluster is another one
├─ NotSent          no byte of it was sent
├─ Lost             it was sent, and nobody knows what became of it: the connection broke
│  └─ Unknown       the node says so itself
└─ CannotAnswer     the other side says that it has done nothing
   ├─ NotTaken      nothing has happened of the commands, and nothing will
   │  └─ Busy       it has too much to do: again, a moment later
   └─ NotYet        what is asked for is later than what it has seen
"""


class WireError(Exception):
    """Bytes, or a message, that do not fit."""


class Malformed(WireError):
    """`what` is not as it should be, by `found` and `expected`."""

    def __init__(self, what: str, found: object, expected: object) -> None:
        super().__init__(f"{what} is {found}, and should be {expected}")


class TooLarge(WireError):
    """A message, its size included, has more than a message may have."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message has {size:,} bytes, and may have {limit:,}: send less at once")


class ClientError(Exception):
    """A request has no answer; the subclass says what may have come of it."""


class Unreachable(ClientError):
    """There is no connection."""


class Rejected(ClientError):
    """One of both does not believe the other."""


class NotSent(ClientError):
    """No byte of it was sent."""


class Lost(ClientError):
    """It was sent, and nobody knows what became of it."""


class Unknown(Lost):
    """The node has died with it in its hands."""


class CannotAnswer(ClientError):
    """The other side has done nothing, and says why."""


class NotTaken(CannotAnswer):
    """Nothing has happened of the commands, and nothing will."""


class Busy(NotTaken):
    """One of the limits of what may wait."""


class NotYet(CannotAnswer):
    """What is asked for is later than what the other side has seen."""
