"""What the world can do to a machine. Mistakes of our own are `ledger.errors.Bug`."""


class LimitReached(Exception):
    """A frame does not fit under one of the machine's limits; nothing of it was applied."""

    def __init__(self, limit: str, value: int, there: int, more: int) -> None:
        self.limit = limit
        super().__init__(
            f"the machine's limit of {value} {limit} would be passed: it has {there}, and the "
            f"frame may bring {more} more; nothing of the frame was applied. Start the node with a "
            f"higher limit of {limit}, if its memory allows, or move slots to another group"
        )
