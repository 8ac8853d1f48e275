"""Transfers as columns: a batch of them without an object for each. Pure.

Only who has many transfers to hand on at once needs NumPy for it, so it is no part of what this
module needs.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What `protocol` says by its place here. Two-phase commit goes another way than columns do.
PROTOCOLS = ("", "xa", "tcc", "saga")


class Columns(NamedTuple):
    """Transfers in their order, all of them valid. Texts lie in `data`, ASCII alone: `key`,
    `source` and `destination`, of shape (transfers, 2), have where each begins and ends.

    `currency` has its 3 to 8 letters as bytes with zeros behind them, little-endian; `amount` is in
    minor units; `protocol` is a place in PROTOCOLS.
    """

    data: "NDArray[np.uint8]"
    key: "NDArray[np.int32]"
    source: "NDArray[np.int32]"
    destination: "NDArray[np.int32]"
    currency: "NDArray[np.int64]"
    amount: "NDArray[np.int64]"
    protocol: "NDArray[np.uint8]"

    @property
    def size(self) -> int:
        """How many transfers there are."""
        return len(self.amount)


class NumberedColumns(NamedTuple):
    """Transfers in their order, all of them valid, without keys: each has an id that its client has
    drawn, 16 bytes, in `id` of shape (transfers, 16).

    `source` and `destination` may be numbers that no account has; each then is refused by itself.
    `currency` has its 3 to 8 letters as bytes with zeros behind them, little-endian; `amount` is in
    minor units; `protocol` is 0 where none is named, 2 for tcc, 3 for saga.
    """

    id: "NDArray[np.uint8]"
    source: "NDArray[np.uint32]"
    destination: "NDArray[np.uint32]"
    currency: "NDArray[np.int64]"
    amount: "NDArray[np.int64]"
    protocol: "NDArray[np.uint8]"

    @property
    def size(self) -> int:
        """How many transfers there are."""
        return len(self.amount)
