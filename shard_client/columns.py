"""Transfers that came as columns, on their way to a shard that decides them."""

from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ledger.model import Transfer
from shard_client.errors import ShardError
from shard_client.records import Decided

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Packed(ABC):
    """Transfers in their order, as one kind of shard takes them. Each has an id: `slots` has the
    slots in front of them, `digests`, of shape (transfers, 16), the bytes behind those.
    """

    size: int
    slots: "NDArray[np.uint16]"
    digests: "NDArray[np.uint8]"

    @abstractmethod
    def protocols(self, count: int) -> Counter[str]:
        """How many of the first `count` go by each protocol."""

    @abstractmethod
    def protocol_of(self, index: int) -> str:
        """The protocol that one of them goes by."""

    def id(self, index: int) -> str:
        """The id of one of them."""
        return f"{int(self.slots[index]):03x}-{self.digests[index].tobytes().hex()}"

    @abstractmethod
    def asked(self, index: int) -> Transfer:
        """One of them, as it was asked for."""

    @abstractmethod
    def index_of(self, transfer: str) -> int | None:
        """Which of them has this id, the first if there are several; None: none has."""


class DecidedTogether(NamedTuple):
    """What a shard that decides says of packed transfers, for good. The first `taken` of them were
    decided: those in `others`, by their index, have become what it says there, and all the rest of
    them were committed just now. `frames` has where: an index, and the frame from that one on. What
    comes behind them was not taken, because of `rest`.
    """

    taken: int
    frames: list[tuple[int, int]]
    others: dict[int, Decided]
    rest: ShardError | None
