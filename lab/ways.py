"""The ways of moving money that are compared."""

from typing import NamedTuple


class Way(NamedTuple):
    """A way of moving money: the naive one, event sourcing, or a protocol of the same service."""

    name: str
    title: str
    # In a few words, as the page explains it.
    how: str

    @property
    def is_naive(self) -> bool:
        return self.name == NAIVE

    @property
    def is_group(self) -> bool:
        """Whether it runs on a ledger group."""
        return self.name == EVENT_SOURCING

    @property
    def protocol(self) -> str:
        """Of the request's body; "" for one that has none."""
        return "" if self.is_naive or self.is_group else self.name


NAIVE, EVENT_SOURCING = "naive", "eventstore"
WAYS = {
    way.name: way
    for way in (
        Way(
            NAIVE,
            "Naive",
            "Balances live in Redis nodes, one for each shard. A coordinator reads in ZooKeeper "
            "which node has which account, looks at the payer's balance, takes the amount from one "
            "node and gives it to the other: two plain updates, and nothing that ties them.",
        ),
        Way(
            "xa",
            "Two-phase commit",
            "Each shard writes and promises (XA PREPARE); one decision, durable on one shard, says "
            "whether all of them commit. Whoever dies in between, the decision is found and "
            "carried out. Accounts stay locked from the first phase to the last.",
        ),
        Way(
            "tcc",
            "TC/C",
            "Try, confirm or cancel: a first local transaction on each shard sets the money aside, "
            "a second one books it or gives it back. Locks are held within a local transaction "
            "only; between the two the money is reserved.",
        ),
        Way(
            "saga",
            "Saga",
            "One local transaction after the other; when a later one is refused, those before are "
            "compensated by booking back. Locks are short, and others see the steps in between.",
        ),
        Way(
            EVENT_SOURCING,
            "Event sourcing",
            "All accounts are in one ledger group. One process, its node, decides one command "
            "after the other in memory, writes command and outcome to a list that only grows, and "
            "answers after the flush. Nothing is locked. A second process, the read side, follows "
            "the list; balances and statements are read there.",
        ),
    )
}
