"""What is held of transfers while all books are read for them: of so many at a time, that memory
stays bounded however many there are.
"""

from collections.abc import Callable, Iterator

from ledger.transfer_audit import Traces

# Some hundreds of bytes each.
HELD_MAX = 200_000


class Portion:
    """The first transfers behind an id, in the order of their ids, of those that are wanted. Twice
    as many as HELD_MAX are held at most.
    """

    def __init__(self, after: str, is_wanted: Callable[[str], bool]) -> None:
        self._after = after
        self._is_wanted = is_wanted
        self._found: dict[str, Traces] = {}
        # The last transfer of this portion, once there is one behind it; None if this is the end.
        self.last: str | None = None

    def of(self, transfer: str) -> Traces | None:
        """Where to note what there is of a transfer; None if it is not wanted, or not yet."""
        if known := self._found.get(transfer):
            return known
        is_behind = self.last is not None and transfer > self.last
        if transfer <= self._after or is_behind or not self._is_wanted(transfer):
            return None
        self._found[transfer] = Traces(transfer, [], [], [], [])
        if len(self._found) > 2 * HELD_MAX:
            self._keep_first()
        return self._found.get(transfer)

    def in_order(self) -> Iterator[Traces]:
        """What was noted of each."""
        return (self._found[id_] for id_ in sorted(self._found))

    def _keep_first(self) -> None:
        """Those behind them come in a later portion, whole."""
        kept = sorted(self._found)[:HELD_MAX]
        self.last = kept[-1]
        self._found = {id_: self._found[id_] for id_ in kept}
