"""One account's history, recomputed entry by entry, and the accounts that are stamped ahead: what
`tandem audit --account` and `--ahead` show.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from coordinator.auditing.places import places_of
from coordinator.settings import Settings
from ledger.audit import Checked, Violation, check_end, check_holdings, opening, recompute
from ledger.model import Account, Entry
from ledger.transfer_audit import TRIED
from shard_client.books import PhaseOf, StepOf


class History(NamedTuple):
    """An account as it is at one moment, and its entries. `end` is what is wrong with the account
    itself, and counts once the entries have been read. `unfinished` are the transfers from it that
    are not finished, some of which hold their amounts; `tried` is what it expects.
    """

    account: Account
    shard: str
    unfinished: list[PhaseOf]
    tried: list[StepOf]
    entries: Iterator[Checked]
    end: list[Violation]


@contextmanager
def account_history(settings: Settings, id_: str) -> Iterator[History | None]:
    """An account's history for a block, read as a stream; None if there is no such account.

    Raises ClusterError, ShardError.
    """
    shard_map, places = places_of(settings)
    shard = shard_map.shard_of(id_)
    with closing(places[shard].books()) as books:
        account = books.account(id_)
        if account is None:
            yield None
            return
        unfinished = list(books.phases(id_))
        tried = list(books.steps(id_, TRIED))
        reserved = sum(phase.amount for phase in unfinished if phase.is_reserving)
        end = check_holdings(account, reserved, sum(step.amount for step in tried))
        entries = _checked(account, books.entries(id_), end)
        yield History(account, shard, unfinished, tried, entries, end)


def accounts_ahead(settings: Settings) -> list[tuple[str, str, int]]:
    """The accounts that are stamped ahead of their shard's clock: id, shard, and up to which stamp.

    Raises ClusterError, ShardError.
    """
    found = []
    _, places = places_of(settings)
    for shard, place in places.items():
        with closing(place.books()) as books:
            found += [(id_, shard, floor) for id_, floor in books.ahead()]
    return found


def _checked(account: Account, entries: Iterator[Entry], end: list[Violation]) -> Iterator[Checked]:
    last = opening(account)
    for checked in recompute(account, entries):
        last = checked.entry
        yield checked
    end += check_end(account, last)
