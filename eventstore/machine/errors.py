"""What the world can do to a machine. Mistakes of our own are `ledger.errors.Bug`."""

# Those limits that an option of the node sets.
OPTIONS = ("accounts", "transfers")


class LimitReached(Exception):
    """A frame does not fit under one of the machine's limits; nothing of it was applied."""

    def __init__(self, limit: str, value: int, there: int, more: int) -> None:
        self.limit = limit
        has_option = limit in OPTIONS
        what = f"start the node with a higher --{limit}-max, if its memory allows"
        super().__init__(
            f"the machine's limit of {value} {limit} would be passed: it has {there}, and {more} "
            "more may come; nothing of these was applied"
            + (f". To take more, {what}" if has_option else "; it cannot be set")
        )
