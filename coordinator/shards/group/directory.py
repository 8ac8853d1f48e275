"""The ids of a ledger group's accounts by their numbers, as far as this process has asked for them.

They never change, so what is known is kept: some 30 bytes for each account, for those up to the
highest number that was asked for.
"""

import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator.shards.group.link import Link
from eventstore.machine.refusals import UNKNOWN_MARK
from eventstore.packing import slots_of
from eventstore.wire.questions import NAMES_MAX, Names, NamesAre
from ledger.ids import slot_of


class _Block(NamedTuple):
    """The ids of NAMES_MAX consecutive accounts, or of fewer at the end: see `NamesAre`."""

    ids: bytes
    ends: NDArray[np.uint32]
    slots: NDArray[np.uint16]


class Directory:
    """Threads may share it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._blocks: list[_Block] = []
        self._count = 0

    def learn(self, numbers: NDArray[np.uint32], deadline: float) -> None:
        """Ask the node for the ids of these, as far as they are not known and there are such
        accounts. Raises ShardError.
        """
        highest = int(numbers.max(initial=0))
        with self._lock:
            is_end = False
            while highest >= self._count and not is_end:
                # The last block may have been short of some.
                full = self._count // NAMES_MAX
                question = Names(full * NAMES_MAX)
                found = self._link.ask_node(question, NamesAre, deadline)
                ends = np.frombuffer(found.ends, "<u4").astype(np.uint32)
                block = _Block(found.ids, ends, slots_of(found.ids, ends))
                self._blocks[full:] = [block]
                self._count = full * NAMES_MAX + len(ends)
                is_end = len(ends) < NAMES_MAX

    def slots(self, numbers: NDArray[np.uint32]) -> NDArray[np.uint16]:
        """The slots of accounts by their numbers."""
        found = np.zeros(len(numbers), np.uint16)
        for place in np.unique(numbers // NAMES_MAX).tolist():
            chosen = np.flatnonzero(numbers // NAMES_MAX == place)
            within = numbers[chosen] % NAMES_MAX
            is_known = within < self._length(place)
            if is_known.any():
                found[chosen[is_known]] = self._blocks[place].slots[within[is_known]]
            for index in chosen[~is_known].tolist():
                found[index] = slot_of(self.id_of(int(numbers[index])))
        return found

    def id_of(self, number: int) -> str:
        """The id of an account; of one that is not known a text that is no id, as the node gives
        it too.
        """
        place, within = divmod(number, NAMES_MAX)
        if within >= self._length(place):
            return f"{UNKNOWN_MARK}{number}"
        block = self._blocks[place]
        begin = int(block.ends[within - 1]) if within else 0
        return block.ids[begin : int(block.ends[within])].decode("ascii")

    def _length(self, place: int) -> int:
        return len(self._blocks[place].ends) if place < len(self._blocks) else 0
