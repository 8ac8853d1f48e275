"""Tickets that wait for a group, and those that wait for an account to be free. Pure."""

import heapq
import itertools
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import attrgetter

from coordinator.engine.tickets import State, Ticket, accounts_in_batch

# So many at most come to their places one by one; of more, all that waits is sorted.
_FEW = 16

NUMBER = attrgetter("number")


class Waiting:
    """Those that any group may take, in the order of their turns. Single ones are apart from those
    of batches: while a batch of thousands waits, a single one is found without going through it.
    """

    def __init__(self) -> None:
        self.singles: list[Ticket] = []
        self.of_batches: list[Ticket] = []

    def __len__(self) -> int:
        return len(self.singles) + len(self.of_batches)

    def __iter__(self) -> Iterator[Ticket]:
        if self.singles and self.of_batches:
            return heapq.merge(self.singles, self.of_batches, key=NUMBER)
        return iter(self.singles or self.of_batches)

    def enter(self, tickets: Sequence[Ticket]) -> None:
        """Put the tickets of one request, which are in order, to their places."""
        if not tickets:
            return
        lane = self.singles if tickets[0].batch is None else self.of_batches
        if not lane or lane[-1].number <= tickets[0].number:
            lane.extend(tickets)
        elif len(tickets) < _FEW:
            for ticket in tickets:
                insort(lane, ticket, key=NUMBER)
        else:
            lane.extend(tickets)
            lane.sort(key=NUMBER)

    def put_back(self, again: Iterable[Ticket]) -> None:
        """Put tickets to their places, but those that have their answers."""
        singles: list[Ticket] = []
        of_batches: list[Ticket] = []
        for ticket in again:
            if ticket.state is not State.DONE:
                (singles if ticket.batch is None else of_batches).append(ticket)
        for lane, some in ((self.singles, singles), (self.of_batches, of_batches)):
            if some:
                # Thousands that come later are left where they are.
                end = _end(lane, some)
                lane[:end] = sorted([*lane[:end], *some], key=NUMBER)

    def remove(self, tickets: Collection[Ticket]) -> None:
        """Take some away that are here."""
        gone = set(map(id, tickets))
        count = sum(ticket.batch is None for ticket in tickets)
        if count:
            self.singles = [ticket for ticket in self.singles if id(ticket) not in gone]
        if count < len(tickets):
            # Most are taken from the front of thousands.
            lane = self.of_batches
            end = _end(lane, tickets)
            lane[:end] = [ticket for ticket in lane[:end] if id(ticket) not in gone]


def _end(lane: Sequence[Ticket], some: Iterable[Ticket]) -> int:
    """Where in a lane all are past whose turns are not after those of some."""
    return bisect_right(lane, max(map(NUMBER, some)), key=NUMBER)


class Blocked:
    """Tickets that want an account of a group that runs, by that account: nobody need look at them
    before it is free.
    """

    def __init__(self) -> None:
        self._by_account: defaultdict[str, list[Ticket]] = defaultdict(list)
        # The accounts of those without an answer, by identity, and how many want each: what has
        # its answer stays till its account is free, and takes no room.
        self._open: dict[int, str] = {}
        self.counts: Counter[str] = Counter()
        # The numbers of those of a batch that want one account, in order.
        self._numbers: dict[tuple[int, str], list[int]] = {}

    @property
    def count(self) -> int:
        """How many are here that have no answer."""
        return len(self._open)

    def answered(self, ticket: Ticket) -> None:
        """A ticket, whether it is here or not, has its answer."""
        account = self._open.pop(id(ticket), None)
        if account is not None:
            self._uncount(account)

    def _uncount(self, account: str) -> None:
        self.counts[account] -= 1
        if not self.counts[account]:
            del self.counts[account]

    def all(self) -> Iterator[Ticket]:
        """Those that have no answer."""
        every = itertools.chain.from_iterable(self._by_account.values())
        return (ticket for ticket in every if ticket.state is not State.DONE)

    def lock_timed_out(self, account: str) -> None:
        """Count it for those that this account keeps, and forget those that have their answers."""
        kept = self._by_account.get(account, [])
        left = [ticket for ticket in kept if ticket.state is not State.DONE]
        for ticket in left:
            ticket.waits += 1
        # These stay where they are: they may be thousands, and this comes again and again.
        self._forget(ticket for ticket in kept if ticket.state is State.DONE)
        if left:
            self._by_account[account] = left
        else:
            self._by_account.pop(account, None)

    def add(self, ticket: Ticket, account: str) -> None:
        self._by_account[account].append(ticket)
        self._open[id(ticket)] = account
        self.counts[account] += 1
        for end in accounts_in_batch(ticket) if ticket.batch is not None else ():
            insort(self._numbers.setdefault(end, []), ticket.number)

    def are_before(self, ticket: Ticket) -> bool:
        """Whether one is here that is before it in its batch and wants one of its accounts."""
        if not self._numbers:
            return False
        found = map(self._numbers.get, accounts_in_batch(ticket))
        return any(numbers is not None and numbers[0] < ticket.number for numbers in found)

    def release(self, accounts: set[str]) -> list[Ticket]:
        """Give back those that these accounts have kept."""
        free = [
            ticket
            for account in accounts & self._by_account.keys()
            for ticket in self._by_account.pop(account)
        ]
        for ticket in free:
            self.answered(ticket)
        self._forget(free)
        return free

    def _forget(self, tickets: Iterable[Ticket]) -> None:
        """Those of batches hold back nobody any more."""
        for ticket in tickets:
            for end in accounts_in_batch(ticket) if ticket.batch is not None else ():
                numbers = self._numbers[end]
                del numbers[bisect_left(numbers, ticket.number)]
                if not numbers:
                    del self._numbers[end]
