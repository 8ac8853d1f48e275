"""A ledger group's books, read page by page from its read side, and what else audits and exports
ask of it.

The read side keeps the books as they are at one frame for as long as the connection lasts. That
frame is answerable, and so are all before it: what is read is there for good.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from re import fullmatch
from typing import Any, TypeVar
from zlib import crc32

from coordinator.settings import Settings
from coordinator.shards.group.link import Link
from coordinator.shards.group.portions import Portion
from eventstore.wire.questions import (
    AccountsPage,
    At,
    Barrier,
    Booked,
    BooksAreOpen,
    BooksQuestion,
    Describe,
    Description,
    EntriesPage,
    Find,
    Finding,
    OpenBooks,
    TransfersPage,
)
from ledger.ids import ACCOUNT_ID_PATTERN, SLOT_COUNT, slot_of_transfer
from ledger.model import Account, Entry
from ledger.transfer_audit import Line, Record, Traces
from shard_client.books import AuditCalls, Books, GroupRow, PhaseOf, StepOf, Terms, TransferRow
from shard_client.errors import ShardError, ShardUnavailable
from shard_client.records import (
    STAMP_AHEAD_MAX_US,
    PreparedBranch,
    StoredTransfer,
    TransferStatus,
    moment,
)
from shard_client.shard_map import ShardAddress

T = TypeVar("T")
_Histories = Iterator[tuple[Account | str, Iterator[Entry]]]

_TIMEOUT_S = 5.0
# The read side may have to pass over all entries to find a page of those of a time range, and to
# see the frames that the node has made meanwhile before it opens books.
_PAGE_TIMEOUT_S = 60.0
# Some 1.5 MB of entries. Transfers may have metadata, of 4 kB each: some 9 MB, and a message may
# have 16 MiB.
_PAGE = 5000
_TRANSFERS_PAGE = 2000
# A group owns all slots, for it is a cluster's only shard.
_ALL_SLOTS = [(0, SLOT_COUNT - 1)]


def open_books(settings: Settings, shard: str, address: ShardAddress) -> "GroupBooks":
    """A group's books, as they are now. Raises ShardError."""
    return GroupBooks(_connected(settings, shard, address))


def open_calls(settings: Settings, shard: str, address: ShardAddress) -> "GroupAuditCalls":
    """What is asked beside the books. Raises ShardError."""
    return GroupAuditCalls(_connected(settings, shard, address))


def _connected(settings: Settings, shard: str, address: ShardAddress) -> Link:
    secret = settings.eventstore.secret
    link = Link(shard, address, settings.cluster.id, secret, connect_timeout_s=_TIMEOUT_S)
    link.connect()
    return link


class GroupBooks(Books):
    """See Books. The link is its own, and is closed with it."""

    def __init__(self, link: Link) -> None:
        self.shard = link.shard
        self._link = link
        self._is_closed = False
        try:
            seq = link.answerable(_soon()).seq
            self._books = self._ask(OpenBooks(seq), BooksAreOpen).books
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        # The read side keeps books no longer than the connection.
        self._is_closed = True
        self._link.close()

    # --- pages ----------------------------------------------------------------------------------

    def accounts(self) -> Iterator[Account]:
        return self._accounts_behind("", _PAGE)

    def account(self, id_: str) -> Account | None:
        if not fullmatch(ACCOUNT_ID_PATTERN, id_):
            return None
        found = next(self._accounts_behind(_before(id_), 1), None)
        return found if found and found.id == id_ else None

    def entries(self, account: str | None = None, stamps: range | None = None) -> Iterator[Entry]:
        since, until = (stamps.start, stamps.stop) if stamps is not None else (None, None)
        return self._paged(
            lambda after: EntriesPage(self._books, after, _PAGE, account, since, until),
            list[Entry],
            (account or "", 0),
            lambda entry: (entry.account, entry.number),
        )

    def transfers(self) -> Iterator[TransferRow]:
        return map(_row, self._booked())

    def _booked(self) -> Iterator[Booked]:
        """Every transfer that has an outcome, in the order of the list."""
        return self._paged(
            lambda after: TransfersPage(self._books, after, _TRANSFERS_PAGE),
            list[Booked],
            0,
            lambda booked: booked.place,
        )

    def _accounts_behind(self, after: str, limit: int) -> Iterator[Account]:
        return self._paged(
            lambda after: AccountsPage(self._books, after, limit),
            list[Account],
            after,
            lambda account: account.id,
        )

    def _paged(
        self,
        question: Callable[[Any], BooksQuestion],
        kind: type[list[T]],
        position: Any,
        position_of: Callable[[T], Any],
    ) -> Iterator[T]:
        """What stands on the pages behind a position; an empty one is the end. Whoever compares
        books rests on their order, so it is made sure of.
        """
        while page := self._ask(question(position), kind):
            positions = [position, *map(position_of, page)]
            if any(one >= next_ for one, next_ in pairwise(positions)):
                text = f"it cannot be read as a whole: a page behind {position!r} is not in order"
                raise ShardUnavailable(self.shard, text)
            yield from page
            position = positions[-1]

    def _ask(self, question: BooksQuestion, kind: type[T]) -> T:
        if self._is_closed:
            raise ShardUnavailable(self.shard, "its books were closed when its read side failed")
        try:
            return self._link.ask_reads(question, kind, time.monotonic() + _PAGE_TIMEOUT_S)
        except ShardError:
            # The link would connect anew, and there these books are not open.
            self.close()
            raise

    # --- transfers: none is ever prepared, unfinished or refunded -------------------------------

    def phases(self, source: str | None = None) -> Iterator[PhaseOf]:
        return iter(())

    def steps(self, account: str | None = None, state: str = "") -> Iterator[StepOf]:
        return iter(())

    def refunded(self, transfers: Collection[str]) -> dict[str, Terms]:
        return {}

    def groups(self) -> Iterator[GroupRow]:
        return iter(())

    def by_transfer(self, parts: Iterable[int], of: int) -> Iterator[Traces]:
        wanted = frozenset(parts)
        return self._traces(lambda id_: crc32(id_.encode()) % of in wanted, self.histories)

    def of_transfers(
        self, transfers: Collection[str], accounts: Collection[str]
    ) -> Iterator[Traces]:
        def histories() -> _Histories:
            return ((self.account(id_) or id_, self.entries(id_)) for id_ in sorted(accounts))

        return self._traces(frozenset(transfers).__contains__, histories)

    def _traces(
        self, is_wanted: Callable[[str], bool], histories: Callable[[], _Histories]
    ) -> Iterator[Traces]:
        """What there is of the transfers that are wanted, in the order of their ids. All books are
        read for each portion: there is one, unless very much does not look whole.
        """
        portion = Portion("", is_wanted)
        while True:
            for booked in self._booked():
                if traces := portion.of(booked.transfer.id):
                    traces.records.append(_record(self.shard, booked))
            for owner, entries in histories():
                currency = owner.currency if isinstance(owner, Account) else ""
                for entry in entries:
                    if traces := portion.of(entry.transfer):
                        traces.lines.append(_line(self.shard, entry, currency))
            yield from portion.in_order()
            if portion.last is None:
                return
            portion = Portion(portion.last, is_wanted)

    def ends_of(self, transfers: Collection[str]) -> set[str]:
        # A node is not asked for what can be no id; books that were spoiled may have anything.
        ids = [id_ for id_ in transfers if slot_of_transfer(id_) is not None]
        finding = self._link.ask_node(Find(ids), Finding, _soon())
        found = (first.transfer for first in finding.found.values())
        return {account for each in found for account in (each.source, each.destination)}

    # --- the group itself -----------------------------------------------------------------------

    def clock(self) -> int:
        return _clock(self._link, _soon())

    def ahead(self) -> Iterator[tuple[str, int]]:
        latest = self.clock() + STAMP_AHEAD_MAX_US
        return ((a.id, a.stamp_floor) for a in self.accounts() if a.stamp_floor > latest)

    def slots(self) -> list[tuple[int, int]]:
        return list(_ALL_SLOTS)


class GroupAuditCalls(AuditCalls):
    """See AuditCalls. The link is its own, and is closed with it."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def is_durable_before_visible(self) -> bool:
        return True

    def make_durable(self, deadline: float) -> None:
        """It is: nothing is seen before (rule E3)."""

    def read_clock(self, deadline: float) -> int:
        return _clock(self._link, deadline)

    def raise_floors(
        self, account: str | None, after: str, stamp: int, deadline: float
    ) -> str | None:
        """See AuditCalls. One frame does it for all accounts, as later ones are stamped later (rule
        E10). Raises ShardUnavailable if there is none: the list is not to be closed by waiting.
        """
        shard = self._link.shard
        try:
            at = self._link.ask_node(Barrier(), At, deadline)
        except ShardError as error:
            text = f"the range cannot be closed, as it makes no frame: {error.text}"
            raise ShardUnavailable(shard, text) from error
        if at.time_us < stamp:
            raise ShardUnavailable(
                shard,
                f"the range ends at {moment(stamp)} and cannot be closed: the group's frame "
                f"{at.seq}, made now, is stamped {moment(at.time_us)}. Its clock was set back; set "
                "it right, and export again",
            )
        return None

    def glimpse(self, ids: Sequence[str], deadline: float) -> list[StoredTransfer]:
        return []

    def list_prepared(self, deadline: float) -> list[PreparedBranch]:
        return []

    def close(self) -> None:
        self._link.close()


def _soon() -> float:
    return time.monotonic() + _TIMEOUT_S


def _clock(link: Link, deadline: float) -> int:
    return link.ask_node(Describe(), Description, deadline).time_us


def _before(id_: str) -> str:
    """What stands before an account's id in their order, with no other id in between."""
    return f"{id_[:-1]}{chr(ord(id_[-1]) - 1)}~"


def _status(booked: Booked) -> str:
    return (TransferStatus.REJECTED if booked.reason else TransferStatus.COMMITTED).value


def _row(booked: Booked) -> TransferRow:
    id_, _, source, destination, amount, currency, _, protocol, _ = booked.transfer
    terms = (source, destination, amount, currency)
    return TransferRow(id_, _status(booked), *terms, booked.time_us, protocol, "")


def _record(shard: str, booked: Booked) -> Record:
    row = _row(booked)
    return Record(shard, *row[1:6], row.gtrid, row.protocol)


def _line(shard: str, entry: Entry, currency: str) -> Line:
    return Line(shard, entry.account, entry.amount, entry.counterparty, entry.stamp, currency)
