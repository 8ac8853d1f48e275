"""Transfers as columns, as they go between whoever reads many of them and a shard that takes them
so: pure.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Columns(NamedTuple):
    """Transfers as columns, in their order: texts lie in `data`, each by where it begins and ends.

    All of them are as the API takes them: ids of accounts, keys and currencies by their patterns,
    amounts of 1 or more. None has metadata.
    """

    # All texts, and perhaps more: the body itself where they lie in one.
    data: "NDArray[np.uint8]"
    # Of shape (n, 2): begin and end.
    key: "NDArray[np.int32]"
    source: "NDArray[np.int32]"
    destination: "NDArray[np.int32]"
    # The letters as little-endian bytes, zero behind them: `eventstore.rows.currency_number`.
    currency: "NDArray[np.int64]"
    amount: "NDArray[np.int64]"
    # 0: none is named; else the number of `eventstore.rows.ProtocolCode`.
    protocol: "NDArray[np.uint8]"
