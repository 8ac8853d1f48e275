"""Entries of a time range, for good: what `tandem export` writes.

No later entry may be stamped within the range, or the same export would differ tomorrow. So, as
for the balance at a time, each account's `stamp_floor` is raised to the end of the range first,
which waits for groups that are at work on the account. (A ledger group makes one frame that is
stamped later, rule E10.) Then each shard is read at one moment.
"""

import heapq
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

from coordinator.auditing.places import Place, places_of
from coordinator.settings import Settings
from coordinator.shards.addresses import service_address
from ledger.model import Account, Entry
from shard_client.books import AuditCalls
from shard_client.errors import ShardError, ShardUnavailable, TryAgain

# An account that is opened at this moment begins with the time of its coordinator's clock, and
# clocks may be 5 s from that of a shard. A range that ended later could still get entries from it.
SETTLED_S = 15
_CALL_S = 5.0
_TRIES = 10
_PAUSE_S = 0.5


class NoSuchAccount(Exception):
    """The account whose entries are wanted does not exist."""


class NotSettled(Exception):
    """By a shard's clock the range has not ended long enough ago."""


class ExportedEntry(NamedTuple):
    """An entry with its account's currency."""

    account: str
    number: int
    stamp: int
    transfer: str
    amount: int
    balance: int
    currency: str
    counterparty: str
    chain: str


@contextmanager
def exported(
    settings: Settings, stamps: range, account: str | None, report: Callable[[str], None]
) -> Iterator[Iterator[ExportedEntry]]:
    """For a block, all entries stamped within a range that ended at least SETTLED_S ago, or those
    of one account, in the order of accounts and numbers. Read as a stream.

    Raises NotSettled, NoSuchAccount, ClusterError, ShardError.
    """
    shard_map, every = places_of(settings)
    shards = list(every) if account is None else [shard_map.shard_of(account)]
    # To raise floors takes the coordinators' account.
    places = [every[shard]._replace(as_whom=service_address) for shard in shards]
    for place in places:
        _check_settled(place, stamps.stop)
    for place in places:
        with closing(place.calls()) as calls:
            _finish_range(calls, place.shard, account, stamps.stop, report)
    with ExitStack() as stack:
        all_books = [stack.enter_context(closing(place.books())) for place in places]
        for place in places:
            with closing(place.calls()) as calls:
                calls.make_durable(time.monotonic() + _CALL_S)
        if account is None:
            yield heapq.merge(*(_entries(each.histories(stamps)) for each in all_books))
            return
        (books,) = all_books
        owner = books.account(account)
        if owner is None:
            raise NoSuchAccount(account)
        yield _entries(iter([(owner, books.entries(account, stamps))]))


def _check_settled(place: Place, end: int) -> None:
    """A range has ended long enough ago by the shard's clock too: the entries' times are its."""
    with closing(place.calls()) as calls:
        now = calls.read_clock(time.monotonic() + _CALL_S)
    ago_s = (now - end) / 1_000_000
    if ago_s < SETTLED_S:
        when = f"ended {ago_s:.1f} s ago" if ago_s >= 0 else f"ends in {-ago_s:.1f} s"
        raise NotSettled(
            f"by the clock of shard {place.shard} the range {when}; before {SETTLED_S} s have "
            "passed entries can still come. Nothing was written. Wait, or set the clocks right, "
            "and export again"
        )


def _finish_range(
    calls: AuditCalls, shard: str, account: str | None, end: int, report: Callable[[str], None]
) -> None:
    """Let no account of a shard get another entry from before `end`."""
    after, tries = "", 0
    while True:
        try:
            last = calls.raise_floors(account, after, end, time.monotonic() + _CALL_S)
            if last is None:
                return
            after, tries = last, 0
            report(f"Closing the range on shard {shard}: up to account {last}")
        except ShardUnavailable:
            raise
        except ShardError as error:
            tries += 1
            if tries == _TRIES:
                raise TryAgain(
                    shard,
                    f"the range cannot be closed: a group holds an account behind {after!r} "
                    f"({error.text}); look at `tandem in-doubt list`, and export again",
                ) from error
            time.sleep(_PAUSE_S)


def _entries(
    histories: Iterator[tuple[Account | str, Iterator[Entry]]],
) -> Iterator[ExportedEntry]:
    for owner, entries in histories:
        # Entries of an account that is not there are for the audit to find; they are not hidden.
        currency = owner.currency if isinstance(owner, Account) else ""
        for entry in entries:
            yield _exported(entry, currency)


def _exported(entry: Entry, currency: str) -> ExportedEntry:
    account, number, transfer, amount, balance, counterparty, stamp, chain = entry
    return ExportedEntry(
        account, number, stamp, transfer, amount, balance, currency, counterparty, chain
    )
