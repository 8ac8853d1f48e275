"""What has become durable in a ledger group, page by page from its read side."""

import time

from coordinator.shards.group.link import Link
from eventstore.wire.questions import EventsAre, EventsPage, Position
from shard_client.errors import TryAgain

# Some 150 kB. Of those with much metadata the read side gives fewer.
PAGE_EVENTS = 500
# For an answer, besides what is waited for the first event.
_PATIENCE_S = 5.0


class GroupEvents:
    """Threads may share it."""

    def __init__(self, link: Link) -> None:
        self.shard = link.shard
        self._link = link

    def page(self, after: Position, wait_s: float) -> EventsAre:
        """The first events behind a position, as soon as there is one, or none after `wait_s`; that
        `events` is None means for good that the position is not in the group's list.

        Raises ShardError: TryAgain if the read side has not seen that position yet.
        """
        deadline = time.monotonic() + wait_s + _PATIENCE_S
        question = EventsPage(after, PAGE_EVENTS, wait_s)
        found = self._link.ask_reads(question, EventsAre, deadline)
        seen = found.as_of.seq
        if found.events is None and seen < after.seq <= self._link.answerable(deadline).seq:
            text = f"its read side has seen frame {seen}, and {after.seq} comes later"
            raise TryAgain(self.shard, text)
        return found
