"""What the shards hold now, beside the books that an audit has open."""

import heapq
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from itertools import groupby

from coordinator.auditing.places import Place
from ledger.transfer_audit import Traces

_CALL_S = 5.0
# How many are looked up with one statement.
_AT_ONCE = 1000


class SecondLook:
    """Looks at all shards again; each is at a moment of its own. Raises ShardError."""

    def __init__(self, places: Collection[Place]) -> None:
        self._places = places

    def traces(self, suspects: list[Traces]) -> Iterator[Traces]:
        """Transfers as they are now."""
        for start in range(0, len(suspects), _AT_ONCE):
            some = suspects[start : start + _AT_ONCE]
            accounts = {name for suspect in some for name in _accounts(suspect)}
            ids = [suspect.id for suspect in some]
            with ExitStack() as stack:
                all_books = [stack.enter_context(closing(place.books())) for place in self._places]
                # A step alone does not name the source.
                accounts.update(*(books.ends_of(ids) for books in all_books))
                streams = [books.of_transfers(ids, accounts) for books in all_books]
                found = {transfer.id: transfer for transfer in merged(streams)}
            for id_ in ids:
                yield found.get(id_) or Traces(id_, [], [], [], [])

    def in_doubt(self, transfers: list[str]) -> set[str]:
        """Those of these transfers of which a prepared branch holds a part."""
        found: set[str] = set()
        if not transfers:
            return found
        prepared = self.prepared()
        for place in self._places:
            with closing(place.calls()) as calls:
                for start in range(0, len(transfers), _AT_ONCE):
                    some, deadline = transfers[start : start + _AT_ONCE], time.monotonic() + _CALL_S
                    rows = calls.glimpse(some, deadline)
                    found |= {row.transfer.id for row in rows if row.gtrid in prepared}
        return found

    def prepared(self) -> dict[str, set[str]]:
        """The shards on which each group is prepared now."""
        found: dict[str, set[str]] = defaultdict(set)
        for place in self._places:
            with closing(place.calls()) as calls:
                for branch in calls.list_prepared(time.monotonic() + _CALL_S):
                    found[str(branch.gtrid)].add(place.shard)
        return found


def merged(streams: list[Iterator[Traces]]) -> Iterator[Traces]:
    """Each transfer once, with what all shards hold of it."""
    for id_, parts in groupby(heapq.merge(*streams, key=lambda p: p.id), key=lambda p: p.id):
        merged = Traces(id_, [], [], [], [])
        for part in parts:
            merged.records.extend(part.records)
            merged.lines.extend(part.lines)
            merged.phases.extend(part.phases)
            merged.steps.extend(part.steps)
        yield merged


def _accounts(found: Traces) -> Iterator[str]:
    """The accounts that a transfer's entries and steps name."""
    for line in found.lines:
        yield from (line.account, line.counterparty)
    yield from (step.account for step in found.steps)
