"""The audit of one shard by itself; `shard_process.py` gives it a process of its own."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from coordinator.auditing.anchors import Anchor, read_anchors
from coordinator.auditing.places import Place
from coordinator.auditing.sums import PARTS, Adding, Sums
from ledger.audit import check_history, check_holdings
from ledger.chain import first_link
from ledger.ids import slot_of, slot_of_transfer
from ledger.model import Account, Entry
from ledger.transfer_audit import TRIED, Traces
from shard_client.books import Terms, TransferRow
from shard_client.records import STAMP_AHEAD_MAX_US, TransferStatus
from shard_client.shard_map import ShardMap

# How much is checked, and how many violations are named, before the parent is told.
_PAGE = 5000
_VIOLATIONS_PAGE = 1000
# How many transfers that have a refund are looked up with one statement.
_REFUNDS_AT_ONCE = 1000

# What is counted so is no violation, but of interest.
STAMPED_AHEAD = "stamped_ahead"

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


class ShardAudit:
    """One shard's part in an audit, on its books; `key` is the sums' (see `sums.py`)."""

    def __init__(self, place: Place, shard_map: ShardMap, key: bytes, anchors: Path | None) -> None:
        self._place = place
        self._shard = place.shard
        self._map = shard_map
        self._anchors = anchors
        self._adding = Adding(key)
        # What unfinished transfers have reserved on each account, and what was tried on it.
        self._reserved: Counter[str] = Counter()
        self._tried: Counter[str] = Counter()
        self._refunds: list[tuple[str, Terms]] = []

    def is_there(self) -> bool:
        """Answers once its process has started."""
        return True

    def begin(self) -> None:
        """Open the books."""
        self._books = self._place.books()
        self._latest = self._books.clock() + STAMP_AHEAD_MAX_US

    def close(self) -> None:
        self._books.close()

    def field(self) -> bytearray | None:
        """The transfers of which this shard has a step; once steps were checked."""
        return self._adding.field

    def sums(self) -> Sums:
        return self._adding.sums

    def anchors(self) -> Iterator[list[Anchor]]:
        """Where the chain of each account ends, in the order of their ids."""
        found = (Anchor(a.id, a.entry_count, a.chain) for a in self._books.accounts())
        while page := list(islice(found, _PAGE)):
            yield page

    def lines(self, parts: list[int]) -> Iterator[list[Traces]]:
        """What this shard holds of the transfers in these parts, in the order of their ids."""
        found = self._books.by_transfer(parts, PARTS)
        while page := list(islice(found, _PAGE)):
            yield page

    def check_steps(self) -> Iterator[Page]:
        """Check where phase rows and steps are, and note what they mean for all else."""
        return self._paged(self._phases_and_steps())

    def check(self, field: bytearray | None) -> Iterator[Page]:
        """Check everything else that one shard alone can tell, and add up what all must tell.
        `field` is of all shards.
        """
        self._adding.field = field
        return self._paged(self._stretches())

    def _paged(self, stretches: Iterable[Iterable[_Wrong]]) -> Iterator[Page]:
        self._counts: Counter[str] = Counter()
        violations: list[Violation] = []
        for found in stretches:
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
        owned, mapped = self._books.slots(), self._map.ranges_of(self._shard)
        if owned != mapped:
            detail = f"it owns the slots {owned}, the shard map gives it {mapped}"
            yield [("slots-as-mapped", self._shard, detail)]
        anchors = _Anchors(self._anchors, self._map, self._shard)
        for account, entries in self._books.histories():
            if isinstance(account, str):
                yield [("entry-has-account", account, "it has entries, but does not exist")]
            else:
                yield self._gone(anchors.before(account.id))
                yield self._check_account(account, entries, anchors.at(account.id))
        yield self._gone(anchors.before(None))
        yield self._without_account()
        self._look_up_refunds()
        transfers = self._books.transfers()
        while some := list(islice(transfers, _PAGE)):
            yield self._check_transfers(some)

    # --- phases and steps -------------------------------------------------------------------

    def _phases_and_steps(self) -> Iterator[Iterable[_Wrong]]:
        for phase in self._books.phases():
            self._adding.phase(phase)
            if phase.is_reserving:
                self._reserved[phase.source] += phase.amount
            yield self._misplaced("phase-on-its-shard", phase.transfer, phase.source)
        steps = self._books.steps()
        while some := list(islice(steps, _PAGE)):
            for step in some:
                self._adding.step(step)
                if step.state == TRIED:
                    self._tried[step.account] += step.amount
                yield self._misplaced("step-on-its-shard", step.transfer, step.account)
            self._counts["steps"] += len(some)

    def _misplaced(self, rule: str, subject: str, account: str) -> Iterable[_Wrong]:
        owner = self._map.shard_of(account)
        if owner == self._shard:
            return ()
        return [(rule, subject, f"slot {slot_of(account)} of {account} is on shard {owner}")]

    def _without_account(self) -> Iterator[_Wrong]:
        """What is reserved or tried on accounts that are not there."""
        for account, amount in sorted(self._reserved.items()):
            yield "held-as-phases-say", account, f"{amount} is reserved, and it does not exist"
        for account, amount in sorted(self._tried.items()):
            yield "expected-as-steps-say", account, f"{amount} is tried, and it does not exist"

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
        yield from self._misplaced("account-on-its-shard", account.id, account.id)
        reserved, tried = self._reserved.pop(account.id, 0), self._tried.pop(account.id, 0)
        for rule, detail in check_holdings(account, reserved, tried):
            yield rule, account.id, detail
        self._adding.sums.totals[account.currency] += account.balance
        self._counts["accounts"] += 1
        if account.stamp_floor > self._latest:
            self._counts[STAMPED_AHEAD] += 1
        self._counts["entries"] += reading.count

    def _noted(
        self, owner: Account, entries: Iterator[Entry], reading: "_Reading"
    ) -> Iterator[Entry]:
        """The entries, each added to the sums on its way."""
        _, debits, credits, *_ = self._adding.sums
        id_, currency, digest = owner.id, owner.currency, self._adding.digest
        own = f"{slot_of(id_):03x}"
        for entry in entries:
            _, number, transfer, amount, _, counterparty, stamp, chain = entry
            crc = crc32(transfer.encode())
            part = crc % PARTS
            if amount < 0:
                debits[part] += digest(crc, transfer, id_, counterparty, -amount, currency, stamp)
            elif transfer[:3] != own or self._map.shard_of(counterparty) == self._shard:
                credits[part] += digest(crc, transfer, counterparty, id_, amount, currency, stamp)
            else:
                # The source of a transfer to another shard: it has its money back.
                debits[part] -= digest(crc, transfer, id_, counterparty, amount, currency, stamp)
                self._refunds.append((transfer, Terms(id_, counterparty, amount, currency)))
                if len(self._refunds) == _REFUNDS_AT_ONCE:
                    self._look_up_refunds()
            reading.count += 1
            if number == reading.anchored:
                reading.chain = chain
            yield entry

    def _look_up_refunds(self) -> None:
        """Debit and refund cancel each other in the sums; so the transfer's row is looked up."""
        allowed = self._books.refunded([transfer for transfer, _ in self._refunds])
        self._adding.refunds(self._refunds, allowed)
        self._refunds.clear()

    def _gone(self, anchors: Iterable[Anchor]) -> Iterator[_Wrong]:
        for anchor in anchors:
            detail = f"it is not there; when the anchors were taken it had {anchor.number} entries"
            yield "anchored-account-is-there", anchor.account, detail

    # --- transfers --------------------------------------------------------------------------

    def _check_transfers(self, some: list[TransferRow]) -> Iterator[_Wrong]:
        for row in some:
            slot = slot_of_transfer(row.id)
            if slot is None or self._map.shard_of_slot(slot) != self._shard:
                detail = "it is not on the shard that the slot in its id belongs to"
                yield "transfer-on-its-shard", row.id, detail
            if row.status == TransferStatus.COMMITTED:
                has_step = row.gtrid != "" and self._map.shard_of(row.destination) != self._shard
                self._adding.committed(row, has_step=has_step)
        self._counts["transfers"] += len(some)


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
