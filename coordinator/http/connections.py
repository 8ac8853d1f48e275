"""Which connections a worker has, and which of them gives way when there are too many.

A connection belongs to a stranger until one of its requests was let in (with a token; without
tokens, from this machine). A stranger can be cut off at any moment: nothing has been done for him.
Of the others those that wait for their next request can be. Who has waited longest goes first.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

# For clients that are told that there is no room, and for probes, when all others are at work.
SPARE = 32
# Strangers have so much of the room, and give way to each other there: those who have shown a token
# keep the rest, and a client that comes to show one has a moment to do so.
_STRANGERS_SHARE = 1 / 4
# From here on answers end their connections: fewer clients then meet one that has been closed.
_CROWDED_SHARE = 3 / 4


@dataclass(eq=False, slots=True)
class Connection:
    """One connection. `deadline` is when what is awaited must be there: the next request, the rest
    of its head, its body.
    """

    client: Any
    address: Any
    deadline: float
    greenlet: Any = None
    request: Any = None
    is_known: bool = False
    # Whether it has brought no request yet.
    is_new: bool = True
    # Whether the first byte of a request is awaited.
    is_idle: bool = True


class Connections:
    """Those of one worker, which serves at most `most` that are known at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        # What there is room for, now and at best.
        self._room = self._rooms = most + SPARE
        self._strangers_most = max(SPARE, int(most * _STRANGERS_SHARE))
        # Who has waited longest stands first.
        self._strangers: OrderedDict[Connection, None] = OrderedDict()
        self._waiting: OrderedDict[Connection, None] = OrderedDict()
        self._serving: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._strangers) + len(self._waiting) + len(self._serving)

    def __iter__(self) -> Iterator[Connection]:
        yield from [*self._strangers, *self._waiting, *self._serving]

    def opened(self, connection: Connection) -> None:
        self._strangers[connection] = None

    def waits(self, connection: Connection) -> None:
        """It has been answered, and may bring another request."""
        if connection.is_known:
            self._serving.discard(connection)
            self._waiting[connection] = None
        else:
            self._strangers.move_to_end(connection)

    def serves(self, connection: Connection) -> None:
        """It has brought the head of a request."""
        if connection.is_known:
            self._waiting.pop(connection, None)
            self._serving.add(connection)

    def admit(self, connection: Connection) -> bool:
        """Its request is let in, and it gives way to nobody until that is answered. False if so
        many are at work already that the request has to be refused.
        """
        connection.is_known = True
        self._strangers.pop(connection, None)
        self._serving.add(connection)
        return len(self._serving) <= self._most

    def closed(self, connection: Connection) -> None:
        self._strangers.pop(connection, None)
        self._waiting.pop(connection, None)
        self._serving.discard(connection)

    @property
    def is_crowded(self) -> bool:
        """Whether those who are known should not be kept for a further request."""
        return len(self._waiting) + len(self._serving) > self._most * _CROWDED_SHARE

    def too_many(self) -> list[Connection]:
        """Who gives way, so that there are no more than there is room for. Those whose requests
        are at work do not.
        """
        order = [self._waiting, self._strangers]
        if len(self._strangers) > self._strangers_most:
            order.reverse()
        return list(islice(chain(*order), max(0, len(self) - self._room)))

    def lower(self) -> None:
        """The system has no files for more: leave some for other uses."""
        self._room = min(self._room, max(SPARE, len(self) - SPARE))

    def recover(self) -> None:
        """Try with one more. Called once a second."""
        self._room = min(self._room + 1, self._rooms)

    def may_go(self, connection: Connection) -> bool:
        """Whether it can be cut off, and nothing is lost by it."""
        return connection in self._strangers or connection in self._waiting
