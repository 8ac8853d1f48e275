"""The audit of one shard by itself, and the process or thread in which it runs.

Python checks entries on one core; so each shard has a process of its own, if there is much to read.
The parent pulls pages: of what is wrong, and of what must be compared across shards.
"""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from hashlib import blake2b
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar
from zlib import crc32

from coordinator.auditing.anchors import Anchor, read_anchors
from ledger.audit import check_history
from ledger.chain import first_link
from ledger.ids import slot_of, slot_of_transfer
from ledger.model import Account, Entry
from shard_client.audit import Snapshot, TransferLines, TransferRow
from shard_client.connection import Address
from shard_client.shard_map import ShardMap
from shard_client.transfers import TransferStatus

P = ParamSpec("P")
T = TypeVar("T")

# Transfers are compared across shards as so many sums; where two differ, the transfers behind them
# are looked at. So what is on its way makes it look at a small part of them again.
PARTS = 2**16
# How much is checked, and how many violations are named, before the parent is told.
_PAGE = 5000
_VIOLATIONS_PAGE = 1000


# Rule, subject, detail.
_Wrong = tuple[str, str, str]


class Violation(NamedTuple):
    """Something that must not be: which rule, where, of what, and how."""

    rule: str
    shard: str | None
    subject: str
    detail: str


class Page(NamedTuple):
    """A stretch of a shard's books: what is wrong in it, and how much was looked at."""

    violations: list[Violation]
    counts: Counter[str]


class Sums(NamedTuple):
    """What a shard adds to the comparison across all: the balances of each currency; and for each
    part of the transfers' ids, what its debits and its credits exceed its transfers by, as sums of
    digests.
    """

    totals: Counter[str]
    debits: list[int]
    credits: list[int]


class ShardAudit:
    """One shard's part in an audit, on one snapshot of it.

    `key` is drawn for each audit: nobody can prepare rows whose sums are those of others.
    """

    def __init__(
        self, address: Address, shard_map: ShardMap, key: bytes, anchors: Path | None
    ) -> None:
        self._address = address
        self._shard = address.shard
        self._map = shard_map
        self._key = key
        self._anchors = anchors
        self._sums = Sums(Counter(), [0] * PARTS, [0] * PARTS)

    def is_there(self) -> bool:
        """Answers once its process has started."""
        return True

    def begin(self) -> None:
        """Take the snapshot."""
        self._snapshot = Snapshot(self._address)

    def close(self) -> None:
        self._snapshot.close()

    def sums(self) -> Sums:
        return self._sums

    def anchors(self) -> Iterator[list[Anchor]]:
        """Where the chain of each account ends, in the order of their ids."""
        found = (Anchor(a.id, a.entry_count, a.chain) for a in self._snapshot.accounts())
        while page := list(islice(found, _PAGE)):
            yield page

    def lines(self, parts: list[int]) -> Iterator[list[TransferLines]]:
        """What this shard holds of the transfers in these parts, in the order of their ids."""
        found = self._snapshot.by_transfer(parts, PARTS)
        while page := list(islice(found, _PAGE)):
            yield page

    def check(self) -> Iterator[Page]:
        """Check everything that one shard alone can tell, and add up what all must tell."""
        self._counts: Counter[str] = Counter()
        violations: list[Violation] = []
        for found in self._stretches():
            for rule, subject, detail in found:
                violations.append(Violation(rule, self._shard, subject, detail))
                if len(violations) == _VIOLATIONS_PAGE:
                    yield Page(violations, Counter())
                    violations = []
            if self._counts.total() >= _PAGE:
                yield Page(violations, self._counts)
                violations, self._counts = [], Counter()
        yield Page(violations, self._counts)

    def _stretches(self) -> Iterator[Iterable[_Wrong]]:
        """What is wrong, stretch by stretch: each is read before the next one is."""
        owned, mapped = self._snapshot.slots(), self._map.ranges_of(self._shard)
        if owned != mapped:
            detail = f"it owns the slots {owned}, the shard map gives it {mapped}"
            yield [("slots-as-mapped", self._shard, detail)]
        anchors = _Anchors(self._anchors, self._map, self._shard)
        for account, entries in self._snapshot.histories():
            if isinstance(account, str):
                yield [("entry-has-account", account, "it has entries, but does not exist")]
            else:
                yield self._gone(anchors.before(account.id))
                yield self._check_account(account, entries, anchors.at(account.id))
        yield self._gone(anchors.before(None))
        transfers = self._snapshot.transfers()
        while some := list(islice(transfers, _PAGE)):
            yield self._check_transfers(some)

    # --- accounts and their entries ---------------------------------------------------------

    def _check_account(
        self, account: Account, entries: Iterator[Entry], anchor: Anchor | None
    ) -> Iterator[_Wrong]:
        reading = _Reading(anchor)
        for rule, detail in check_history(account, self._noted(account, entries, reading)):
            yield rule, account.id, detail
        unlike = reading.unlike_anchor(account)
        if unlike:
            yield "chain-as-anchored", account.id, unlike
        owner = self._map.shard_of(account.id)
        if owner != self._shard:
            detail = f"slot {slot_of(account.id)} is on shard {owner}"
            yield "account-on-its-shard", account.id, detail
        self._sums.totals[account.currency] += account.balance
        self._counts["accounts"] += 1
        self._counts["entries"] += reading.count

    def _noted(
        self, owner: Account, entries: Iterator[Entry], reading: "_Reading"
    ) -> Iterator[Entry]:
        """The entries, each added to the sums on its way."""
        _, debits, credits = self._sums
        for entry in entries:
            account, number, transfer, amount, _, counterparty, stamp, chain = entry
            part = crc32(transfer.encode()) % PARTS
            if amount < 0:
                what = (transfer, account, counterparty, -amount, owner.currency, stamp)
                debits[part] += self._digest(*what)
            else:
                what = (transfer, counterparty, account, amount, owner.currency, stamp)
                credits[part] += self._digest(*what)
            reading.count += 1
            if number == reading.anchored:
                reading.chain = chain
            yield entry

    def _gone(self, anchors: Iterable[Anchor]) -> Iterator[_Wrong]:
        for anchor in anchors:
            detail = f"it is not there; when the anchors were taken it had {anchor.number} entries"
            yield "anchored-account-is-there", anchor.account, detail

    # --- transfers --------------------------------------------------------------------------

    def _check_transfers(self, some: list[TransferRow]) -> Iterator[_Wrong]:
        _, debits, credits = self._sums
        for id_, status, source, destination, amount, currency, stamp in some:
            slot = slot_of_transfer(id_)
            if slot is None or self._map.shard_of_slot(slot) != self._shard:
                detail = "it is not on the shard that the slot in its id belongs to"
                yield "transfer-on-its-shard", id_, detail
            if status == TransferStatus.COMMITTED:
                part = crc32(id_.encode()) % PARTS
                digest = self._digest(id_, source, destination, amount, currency, stamp)
                debits[part] -= digest
                credits[part] -= digest
        self._counts["transfers"] += len(some)

    def _digest(
        self,
        transfer: str,
        source: str,
        destination: str,
        amount: int,
        currency: str,
        stamp: int,
    ) -> int:
        text = f"{transfer}|{source}|{destination}|{amount}|{currency}|{stamp}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8, key=self._key).digest())


class _Anchors:
    """The anchors of a shard's accounts, in step with the accounts: both are ordered by id."""

    def __init__(self, path: Path | None, shard_map: ShardMap, shard: str) -> None:
        every = read_anchors(path) if path else iter(())
        self._rest = (a for a in every if shard_map.shard_of(a.account) == shard)
        self._next = next(self._rest, None)

    def before(self, account: str | None) -> Iterator[Anchor]:
        """Those of accounts that are not there: the next account is this one, or none."""
        while self._next and (account is None or self._next.account < account):
            yield self._next
            self._next = next(self._rest, None)

    def at(self, account: str) -> Anchor | None:
        if self._next is None or self._next.account != account:
            return None
        found, self._next = self._next, next(self._rest, None)
        return found


class _Reading:
    """What was seen of an account's entries on their way."""

    def __init__(self, anchor: Anchor | None) -> None:
        self.count = 0
        self._anchor = anchor
        # The number of the entry that is anchored, and its chain, once it was seen.
        self.anchored = anchor.number if anchor else 0
        self.chain: str | None = None

    def unlike_anchor(self, account: Account) -> str | None:
        """Why the account cannot have come from what its anchor says."""
        if self._anchor is None:
            return None
        number, chain = self._anchor.number, self._anchor.chain
        if number == 0:
            same = first_link(account.id, account.currency) == chain
            return None if same else "it is not the account that it was when it had no entries"
        if self.chain is None:
            return f"entry {number} was its last one when the anchors were taken, and is not there"
        if self.chain != chain:
            return f"entry {number} or one before it was another when the anchors were taken"
        return None


# --- the process ----------------------------------------------------------------------------

# Of the process or thread that does the work of one shard.
_mine = threading.local()


def _make(*arguments: Any) -> None:
    _mine.audit = ShardAudit(*arguments)
    parent = parent_process()
    if parent is None or threading.current_thread() is not threading.main_thread():
        return
    # Ctrl-C is the parent's, and without a parent there is nothing to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _call(method: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    return method(_mine.audit, *arguments)


def _stream(method: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    _mine.stream = method(_mine.audit, *arguments)


def _next() -> Any:
    return next(_mine.stream, None)


class ShardAuditor:
    """A ShardAudit in a process of its own, or in a thread, where there is little to read."""

    def __init__(
        self,
        address: Address,
        shard_map: ShardMap,
        key: bytes,
        anchors: Path | None,
        *,
        apart: bool,
    ) -> None:
        self.shard = address.shard
        arguments = (address, shard_map, key, anchors)
        self._executor: Executor = (
            ProcessPoolExecutor(1, get_context("spawn"), _make, arguments)
            if apart
            else ThreadPoolExecutor(1, "audit", _make, arguments)
        )

    def call(
        self, method: Callable[Concatenate[ShardAudit, P], T], *arguments: P.args, **_: P.kwargs
    ) -> "Future[T]":
        """Begin one call."""
        return self._executor.submit(_call, method, arguments)

    def pages(
        self,
        method: Callable[Concatenate[ShardAudit, P], Iterator[T]],
        *arguments: P.args,
        **_: P.kwargs,
    ) -> "Pages[T]":
        """Begin a stream; one at a time."""
        self._executor.submit(_stream, method, arguments)
        return Pages(self._executor)

    def close(self) -> None:
        self._executor.submit(_call, ShardAudit.close, ())
        self._executor.shutdown()


class Pages(Iterator[T]):
    """The pages of a stream. The next one is made while this one is looked at."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.ahead: Future[T | None] = executor.submit(_next)

    def __next__(self) -> T:
        page = self.ahead.result()
        if page is None:
            raise StopIteration
        self.ahead = self._executor.submit(_next)
        return page
