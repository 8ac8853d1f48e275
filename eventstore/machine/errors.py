"""What the world can do to a machine. Mistakes of our own are `ledger.errors.Bug`."""


class LimitReached(Exception):
    """A frame does not fit under one of the machine's limits; nothing of it was applied."""

    def __init__(self, limit: str, value: int, there: int, more: int) -> None:
        self.limit = limit
        super().__init__(
            f"the machine's limit of {value} {limit} would be passed: it has {there}, and {more} "
            "more may come; nothing of these was applied. Start the node with a higher limit of "
            f"{limit}, if its memory allows, or move slots to another group"
        )
