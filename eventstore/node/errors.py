"""What a node says to those who ask it; each says what has happened.

NodeError
├─ NotTaken          nothing has happened, and nothing will
│  ├─ Busy           it has too much to do: again, a moment later
│  ├─ NoRoom         its disk, or its machine, is almost full
│  └─ NotServing     it is ending, or dead
└─ OutcomeUnknown    it is in a frame, and nobody knows yet whether that frame is durable
"""


class NodeError(Exception):
    """The commands have no outcome; the subclass says whether they may have one later."""


class NotTaken(NodeError):
    """Nothing has happened, and nothing will."""


class Busy(NotTaken):
    """One of the limits of what may wait."""

    def __init__(self, limit: str, value: int, there: int, more: int) -> None:
        self.limit = limit
        super().__init__(
            f"{there} {limit} wait to be decided, and {more} more are beyond {value}: nothing of "
            "it was taken; try again in a moment"
        )


class NoRoom(NotTaken):
    """`why` has the values, and what to do."""

    def __init__(self, why: str) -> None:
        super().__init__(f"nothing of it was taken: {why}")


class NotServing(NotTaken):
    """It takes no more commands."""

    def __init__(self, why: str) -> None:
        super().__init__(f"nothing of it was taken: {why}; ask again when the node serves again")


class OutcomeUnknown(NodeError):
    """The node has died with it in its hands."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"it may have happened, or may not: {why}. Send the same commands again when the node "
            "serves again: what has an outcome is answered with that"
        )
