"""Whose turn it is, and who may come in: turns and room are shared out by caller. Pure.

A turn is a number; what waits is taken in the order of its numbers. They are given by start-time
fair queueing: a caller's next one follows its last, but is never before the turn that was last
taken. So a caller with much on its hands counts ahead, and one that comes meanwhile goes among its
transfers, one by one. What a caller sends singly does not count with what it sends in batches, so
that it need not wait behind them.
"""

from collections import defaultdict


class Callers:
    """Those that have transfers here without an answer. `room` is for how many of all callers that
    wait.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._taken = 0
        self._next: dict[tuple[str, bool], int] = {}
        self._at_hand: defaultdict[str, int] = defaultdict(int)

    @property
    def count(self) -> int:
        """How many callers there are."""
        return len(self._at_hand)

    def no_room(self, caller: str, count: int, waiting: int, kept: int) -> str | None:
        """Why so many more of a caller may not come in, beside those that are `waiting`, and those
        that are `kept` by accounts that others keep locked; None if they may.

        When the room is full a caller that has less than its equal share still gets in, with one
        request of any size: nobody has to wait until somebody else's are done. For these there is
        the same room again, and for those that are kept, too: in all three times as much.
        """
        total = waiting + kept + count
        if waiting + count <= self._room and total <= 2 * self._room:
            return None
        has = self._at_hand.get(caller, 0)
        others = len(self._at_hand.keys() - {caller})
        share = max(self._room // (others + 1), 1)
        if others and has < share and total <= 3 * self._room:
            return None
        yours = f"{has} of them are of this caller"
        if others:
            yours += f", whose share is {share} beside {others} other callers"
        return (
            f"{waiting + kept} transfers wait, {count} more do not fit in: there is room for "
            f"{self._room}; {yours}"
        )

    def turns(self, caller: str, count: int, *, is_batch: bool) -> range:
        """The turns of so many transfers that come in now."""
        flow = caller, is_batch
        first = max(self._taken, self._next.get(flow, 0))
        self._next[flow] = first + count
        self._at_hand[caller] += count
        return range(first, first + count)

    def took(self, turn: int) -> None:
        """The transfers up to this turn are under way, as far as they can be."""
        self._taken = max(self._taken, turn)

    def answered(self, caller: str, count: int = 1) -> None:
        """So many transfers of a caller have their answers."""
        left = self._at_hand[caller] - count
        self._at_hand[caller] = left
        if not left:
            del self._at_hand[caller]
            # It has no claim, and no debt, by what it has sent before.
            self._next.pop((caller, True), None)
            self._next.pop((caller, False), None)
