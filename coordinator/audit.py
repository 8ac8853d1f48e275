"""Checks every invariant across all shards, on a system that is in use.

Each shard is read at one moment of its own, so a group that commits just then may show on one
shard and not yet on another. What looks one-sided is therefore looked at again until it is whole;
the sums of the balances are corrected by exactly these transfers. What stays one-sided is a
violation, unless a prepared branch that waits for its decision explains it.
"""

import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import groupby
from typing import NamedTuple

from coordinator.cluster import read_map
from coordinator.provision import audit_address
from coordinator.settings import Settings
from ledger.audit import check_history, check_transfer
from ledger.ids import slot_of
from ledger.model import Entry
from shard_client.audit import GroupRow, Snapshot, TransferLines
from shard_client.connection import Address, ShardConnection
from shard_client.prepared import list_prepared
from shard_client.shard_map import ShardMap

# How long a transfer may stay one-sided before it is called a violation: longer than a group may
# take by the default time limits.
_SETTLE_S = 15.0
_REPORT_EVERY = 20_000


class Violation(NamedTuple):
    """Something that must not be: which rule, where, of what, and how."""

    rule: str
    shard: str | None
    subject: str
    detail: str


class AuditResult(NamedTuple):
    """`summary` counts what was checked."""

    violations: list[Violation]
    summary: dict[str, int]


class _Audit:
    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        self._settings = settings
        self._report = report
        self._map: ShardMap = read_map(settings)
        self.violations: list[Violation] = []
        self.summary: Counter[str] = Counter()
        self._snapshots: dict[str, Snapshot] = {}
        self._currency: dict[str, str] = {}
        self._totals: Counter[str] = Counter()

    def run(self) -> None:
        with ExitStack() as stack:
            for shard in self._map.shards:
                snapshot = Snapshot(self._address(shard))
                self._snapshots[shard] = stack.enter_context(closing(snapshot))
            for shard, snapshot in self._snapshots.items():
                self._check_slots(shard, snapshot)
                self._check_accounts(shard, snapshot)
            one_sided = self._check_transfers()
            open_groups = self._check_groups()
        self._check_totals(self._check_again(one_sided))
        self._check_groups_again(open_groups)

    def _address(self, shard: str) -> Address:
        return audit_address(self._settings, shard, self._map.shards[shard])

    def _add(self, rule: str, shard: str | None, subject: str, detail: str) -> None:
        self.violations.append(Violation(rule, shard, subject, detail))

    # --- each shard by itself ---------------------------------------------------------------

    def _check_slots(self, shard: str, snapshot: Snapshot) -> None:
        owned, mapped = snapshot.slots(), self._map.ranges_of(shard)
        if owned != mapped:
            detail = f"it owns the slots {owned}, the shard map gives it {mapped}"
            self._add("slots-as-mapped", shard, shard, detail)

    def _check_accounts(self, shard: str, snapshot: Snapshot) -> None:
        for account, entries in snapshot.histories():
            for rule, detail in check_history(account, self._counted(shard, entries)):
                self._add(rule, shard, account.id, detail)
            owner = self._map.shard_of(account.id)
            if owner != shard:
                detail = f"slot {slot_of(account.id)} is on shard {owner}"
                self._add("account-on-its-shard", shard, account.id, detail)
            self._totals[account.currency] += account.balance
            self._currency[account.id] = account.currency
            self.summary["accounts"] += 1
        for orphan in snapshot.orphans():
            self._add("entry-has-account", shard, orphan, "it has entries, but does not exist")

    def _counted(self, shard: str, items: Iterator[Entry]) -> Iterator[Entry]:
        for item in items:
            self.summary["entries"] += 1
            if self.summary["entries"] % _REPORT_EVERY == 0:
                self._report(f"{self.summary['entries']:,} entries read, now on {shard}")
            yield item

    # --- across shards ----------------------------------------------------------------------

    def _check_transfers(self) -> list[TransferLines]:
        """Check every transfer; gives those that do not look whole at these moments."""
        suspects = []
        streams = [snapshot.by_transfer() for snapshot in self._snapshots.values()]
        for found in _merged(streams):
            self.summary["transfers"] += 1
            if self.summary["transfers"] % _REPORT_EVERY == 0:
                self._report(f"{self.summary['transfers']:,} transfers compared")
            if check_transfer(found.records, found.lines):
                suspects.append(found)
        return suspects

    def _check_totals(self, on_their_way: list[TransferLines]) -> None:
        """The balances of a currency add up to zero, apart from what was just on its way."""
        for found in on_their_way:
            for line in found.lines:
                self._totals[self._currency.get(line.account, "?")] -= line.amount
        for currency, total in sorted(self._totals.items()):
            self.summary["currencies"] += 1
            if total:
                detail = f"the balances of all accounts add up to {total}, not 0"
                self._add("money-is-conserved", None, currency, detail)

    def _check_again(self, suspects: list[TransferLines]) -> list[TransferLines]:
        """Gives those that only had been on their way between two shards."""
        on_their_way = []
        give_up = time.monotonic() + _SETTLE_S
        for suspect in suspects:
            while True:
                found = self._now(suspect.id)
                problems = check_transfer(found.records, found.lines)
                if not problems or time.monotonic() > give_up:
                    break
                time.sleep(0.1)
            gtrids = {record.gtrid for record in found.records}
            if problems and gtrids & self._prepared().keys():
                self.summary["in doubt"] += 1
                problems = []
            if not problems:
                on_their_way.append(suspect)
            for rule, detail in problems:
                self._add(rule, None, suspect.id, detail)
        return on_their_way

    def _now(self, transfer: str) -> TransferLines:
        """A transfer as it is now; read until no group has come between the shards."""
        merged = TransferLines(transfer, [], [])
        for shard in self._map.shards:
            with closing(Snapshot(self._address(shard))) as snapshot:
                for part in snapshot.of_transfer(transfer):
                    merged.records.extend(part.records)
                    merged.lines.extend(part.lines)
        return merged

    def _prepared(self) -> dict[str, set[str]]:
        """The shards on which each group is prepared now."""
        found: dict[str, set[str]] = defaultdict(set)
        for shard in self._map.shards:
            connection = ShardConnection(self._address(shard), 5.0, 60)
            try:
                deadline = time.monotonic() + 5.0
                for branch in list_prepared(connection, self._settings.cluster.id, deadline):
                    found[str(branch.gtrid)].add(shard)
            finally:
                connection.close()
        return found

    # --- decisions and markers --------------------------------------------------------------

    def _check_groups(self) -> set[str]:
        """Every committed decision has a marker on each of its shards; gives the groups for which
        that does not hold at these moments. A marker without a decision is one whose group was
        finished and collected.
        """
        streams = [snapshot.groups() for snapshot in self._snapshots.values()]
        merged = heapq.merge(*streams, key=lambda row: row.gtrid)
        suspects = set()
        for gtrid, rows in groupby(merged, key=lambda row: row.gtrid):
            self.summary["groups"] += 1
            if _missing(list(rows)):
                suspects.add(gtrid)
        return suspects

    def _check_groups_again(self, suspects: set[str]) -> None:
        missing = self._missing_now(suspects)
        give_up = time.monotonic() + _SETTLE_S
        while missing and time.monotonic() < give_up:
            time.sleep(1.0)
            missing = self._missing_now(suspects)
        for gtrid, parts in missing.items():
            detail = f"{', '.join(sorted(parts))} of the group cannot be found"
            self._add("decision-and-markers", None, gtrid, detail)

    def _missing_now(self, suspects: set[str]) -> dict[str, set[str]]:
        """What cannot be found of these groups, and is not explained by a prepared branch."""
        if not suspects:
            return {}
        # In this order: what is finished in between has its marker by the time of the snapshot.
        prepared = self._prepared()
        found: dict[str, set[str]] = {}
        with ExitStack() as stack:
            snapshots = [
                stack.enter_context(closing(Snapshot(self._address(shard))))
                for shard in self._map.shards
            ]
            merged = heapq.merge(*(s.groups() for s in snapshots), key=lambda row: row.gtrid)
            for gtrid, rows in groupby(merged, key=lambda row: row.gtrid):
                missing = _missing(list(rows)) - prepared.get(gtrid, set())
                if gtrid in suspects and missing:
                    found[gtrid] = missing
        return found


def _merged(streams: list[Iterator[TransferLines]]) -> Iterator[TransferLines]:
    """Each transfer once, with what all shards hold of it."""
    for id_, parts in groupby(heapq.merge(*streams, key=lambda p: p.id), key=lambda p: p.id):
        merged = TransferLines(id_, [], [])
        for part in parts:
            merged.records.extend(part.records)
            merged.lines.extend(part.lines)
        yield merged


def _missing(rows: list[GroupRow]) -> set[str]:
    """The shards whose marker is missing."""
    marked = {row.found_on for row in rows if not row.is_decision}
    return {shard for row in rows for shard in row.shards if shard not in marked}


def audit(settings: Settings, report: Callable[[str], None]) -> AuditResult:
    """Check every invariant. `report` is told about progress.

    Raises ClusterError, ShardError.
    """
    checking = _Audit(settings, report)
    checking.run()
    return AuditResult(checking.violations, dict(checking.summary))
