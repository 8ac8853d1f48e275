"""A batch that goes to its shard as columns, in one message, without a ticket for each transfer.

That is how nearly all of them go. What the message cannot bring about at once, for the shard is
away, or breaks off, or takes a part alone, goes on as tickets: there is one way alone by which
transfers wait, are sent again, and are given up.
"""

import time

from coordinator.engine.tickets import Latch, State, Ticket
from shard_client.columns import DecidedTogether, Packed

# So many tickets are made in some ms, in which nothing else runs in this process.
_AT_ONCE = 1000


class ColumnBatch:
    """See the module. `decided` is what the shard has said, and `tickets` has what goes on, by its
    index; both hold when `ended` is open.
    """

    def __init__(
        self, shard: str, packed: Packed, deadline: float, caller: str, request_id: str | None
    ) -> None:
        self.shard = shard
        self.packed = packed
        self.deadline = deadline
        self.caller = caller
        self._request_id = request_id
        self.decided: DecidedTogether | None = None
        self.tickets: dict[int, Ticket] = {}
        self.ended = Latch(1)
        # Its client was told "pending" and may ask or send again.
        self.is_pending_told = False

    def go_on(self, first: int, state: State, default: str) -> list[Ticket]:
        """Make tickets of the transfers from `first` on; of them this is known."""
        count = self.packed.size - first
        latch = Latch(count)
        made: list[Ticket] = []
        for start in range(first, first + count, _AT_ONCE):
            if start > first:
                time.sleep(0)
            for index in range(start, min(start + _AT_ONCE, first + count)):
                self.tickets[index] = self._ticket(index, latch, state, default)
                made.append(self.tickets[index])
        return made

    def find(self, transfer: str) -> Ticket | None:
        """A ticket that says how it is with one of these transfers: it may have happened. None: it
        is none of them.
        """
        index = self.packed.index_of(transfer)
        if index is None:
            return None
        return self._ticket(index, self.ended, State.SENT, self.packed.protocol_of(index))

    def _ticket(self, index: int, latch: Latch, state: State, default: str) -> Ticket:
        ticket = Ticket(
            self.packed.asked(index),
            self.deadline,
            latch,
            # Those of a batch share whatever it is.
            latch,
            self._request_id,
            default=default,
            caller=self.caller,
        )
        ticket.state, ticket.shards = state, (self.shard, self.shard)
        ticket.is_pending_told = self.is_pending_told
        return ticket
