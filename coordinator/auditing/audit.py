"""Checks every invariant across all shards, on a system that is in use.

Each shard is read at one moment of its own, so a group that commits just then may show on one
shard and not yet on another. What looks one-sided is therefore looked at again until it is whole;
the sums of the balances are corrected by exactly these transfers. What stays one-sided is a
violation, unless a prepared branch that waits for its decision explains it.

Memory stays bounded however much there is to read: each shard is checked as a stream, transfers
are compared by sums (see `shard_audit`), and what is wrong is named up to a limit, then counted.
"""

import heapq
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from coordinator.auditing.anchors import Anchor, BrokenAnchors, Footer, check_anchors, write_anchors
from coordinator.auditing.shard_audit import PARTS, Page, ShardAudit, ShardAuditor, Violation
from coordinator.cluster import read_map
from coordinator.provision import audit_address, service_address
from coordinator.settings import Settings
from ledger.audit import check_transfer
from shard_client.audit import GroupRow, Snapshot, TransferLines
from shard_client.connection import Address, ShardConnection
from shard_client.errors import ShardError
from shard_client.prepared import list_prepared
from shard_client.shard_map import ShardMap
from shard_client.transfers import glimpse, make_durable

T = TypeVar("T")

# How long a transfer may stay one-sided before it is called a violation: longer than a group may
# take by the default time limits.
_SETTLE_S = 15.0
_PAUSE_S = 0.2
_CALL_S = 5.0
_REPORT_EVERY = 20_000
# How many are held at once, to be looked at again.
_SUSPECTS_MAX = 10_000
# How many are looked up with one statement.
_AT_ONCE = 1000
# How many violations are named; those beyond are counted for each rule.
_NAMED_MAX = 1000


class AuditResult(NamedTuple):
    """`summary` counts what was checked; `anchors` is of the file that was written, if one was."""

    violations: list[Violation]
    summary: dict[str, int]
    anchors: Footer | None = None


class _Audit:
    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        self._settings = settings
        self._report = report
        self._map: ShardMap = read_map(settings)
        self._named: list[Violation] = []
        self._unnamed: Counter[str] = Counter()
        self.summary: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._reported = 0

    @contextmanager
    def checked(
        self, against: Path | None, *, anchoring: bool, apart: bool
    ) -> Iterator[list[ShardAuditor]]:
        """Check everything; for the block, the auditors still have their snapshots."""
        key = secrets.token_bytes(16)
        with ExitStack() as stack:
            auditors = [
                stack.enter_context(
                    closing(ShardAuditor(self._address(s), self._map, key, against, apart=apart))
                )
                for s in self._map.shards
            ]
            # Once all are there, so that their moments are as close as can be.
            for ready in [auditor.call(ShardAudit.is_there) for auditor in auditors]:
                ready.result()
            for begun in [auditor.call(ShardAudit.begin) for auditor in auditors]:
                begun.result()
            if anchoring:
                self._make_durable()
            self._check_shards(auditors)
            self._compare(auditors)
            self._check_totals()
            self._check_groups()
            yield auditors

    @property
    def violations(self) -> list[Violation]:
        more = [
            Violation(rule, None, "more", f"{count:,} more of this rule were found, not named here")
            for rule, count in self._unnamed.items()
        ]
        return self._named + more

    def _address(self, shard: str) -> Address:
        return audit_address(self._settings, shard, self._map.shards[shard])

    def _add(self, violation: Violation) -> None:
        if len(self._named) < _NAMED_MAX:
            self._named.append(violation)
        else:
            self._unnamed[violation.rule] += 1

    # --- each shard by itself ---------------------------------------------------------------

    def _check_shards(self, auditors: list[ShardAuditor]) -> None:
        running = {auditor.shard: auditor.pages(ShardAudit.check) for auditor in auditors}
        while running:
            wait([pages.ahead for pages in running.values()], return_when=FIRST_COMPLETED)
            for shard, pages in list(running.items()):
                if not pages.ahead.done():
                    continue
                page = next(pages, None)
                if page is None:
                    del running[shard]
                else:
                    self._take(page)

    def _take(self, page: Page) -> None:
        for violation in page.violations:
            self._add(violation)
        self.summary.update(page.counts)
        if self.summary.total() - self._reported >= _REPORT_EVERY:
            self._reported = self.summary.total()
            entries, transfers = self.summary["entries"], self.summary["transfers"]
            self._report(f"Reading: {entries:,} entries, {transfers:,} transfers")

    # --- across shards ----------------------------------------------------------------------

    def _compare(self, auditors: list[ShardAuditor]) -> None:
        """Compare all transfers. Those that do not look whole at these moments are looked at again,
        in portions: there may be many when the moments are far apart.
        """
        debits, credits = [0] * PARTS, [0] * PARTS
        for found in [auditor.call(ShardAudit.sums) for auditor in auditors]:
            sums = found.result()
            self._totals.update(sums.totals)
            for mine, theirs in ((debits, sums.debits), (credits, sums.credits)):
                mine[:] = map(int.__add__, mine, theirs)
        parts = [part for part in range(PARTS) if debits[part] or credits[part]]
        if not parts:
            return
        self._report("Comparing what does not look whole on all shards")
        streams = [_each(auditor.pages(ShardAudit.lines, parts)) for auditor in auditors]
        suspects = (t for t in _merged(streams) if check_transfer(t.records, t.lines))
        # All are of the same moments: what was on its way then has this long, not each portion.
        give_up = time.monotonic() + _SETTLE_S
        while some := list(islice(suspects, _SUSPECTS_MAX)):
            for currency, transfer in self._check_again(some, give_up):
                for line in transfer.lines:
                    self._totals[currency] -= line.amount

    def _check_totals(self) -> None:
        """The balances of a currency add up to zero, apart from what was just on its way."""
        for currency, total in sorted(self._totals.items()):
            self.summary["currencies"] += 1
            if total:
                detail = f"the balances of all accounts add up to {total}, not 0"
                self._add(Violation("money-is-conserved", None, currency, detail))

    def _check_again(
        self, suspects: list[TransferLines], give_up: float
    ) -> list[tuple[str, TransferLines]]:
        """Gives those that only had been on their way between two shards, with their currency."""
        on_their_way = []
        waiting = {suspect.id: suspect for suspect in suspects}
        while waiting:
            for found in self._now(list(waiting.values())):
                if not check_transfer(found.records, found.lines):
                    on_their_way.append((found.records[0].currency, waiting.pop(found.id)))
            if time.monotonic() > give_up:
                break
            if waiting:
                time.sleep(_PAUSE_S)
        doubts = self._in_doubt(list(waiting))
        for found in self._now(list(waiting.values())):
            problems = check_transfer(found.records, found.lines)
            if problems and found.id in doubts:
                self.summary["in doubt"] += 1
                on_their_way.append((doubts[found.id], waiting[found.id]))
            elif not problems:
                on_their_way.append((found.records[0].currency, waiting[found.id]))
            else:
                for rule, detail in problems:
                    self._add(Violation(rule, None, found.id, detail))
        return on_their_way

    def _now(self, suspects: list[TransferLines]) -> Iterator[TransferLines]:
        """Transfers as they are now."""
        for start in range(0, len(suspects), _AT_ONCE):
            some = suspects[start : start + _AT_ONCE]
            accounts = {name for suspect in some for name in _accounts(suspect)}
            ids = [suspect.id for suspect in some]
            with ExitStack() as stack:
                streams = [
                    stack.enter_context(closing(Snapshot(self._address(shard)))).of_transfers(
                        ids, accounts
                    )
                    for shard in self._map.shards
                ]
                found = {transfer.id: transfer for transfer in _merged(streams)}
            for id_ in ids:
                yield found.get(id_) or TransferLines(id_, [], [])

    def _in_doubt(self, transfers: list[str]) -> dict[str, str]:
        """Those of these transfers of which a prepared branch holds a part, with their currency."""
        found: dict[str, str] = {}
        if not transfers:
            return found
        prepared = self._prepared()
        for shard in self._map.shards:
            with closing(ShardConnection(self._address(shard), _CALL_S, 60)) as connection:
                for start in range(0, len(transfers), _AT_ONCE):
                    some, deadline = transfers[start : start + _AT_ONCE], time.monotonic() + _CALL_S
                    for row in glimpse(connection, some, deadline):
                        if row.gtrid in prepared:
                            found[row.transfer.id] = row.transfer.currency
        return found

    def _prepared(self) -> dict[str, set[str]]:
        """The shards on which each group is prepared now."""
        found: dict[str, set[str]] = defaultdict(set)
        for shard in self._map.shards:
            with closing(ShardConnection(self._address(shard), _CALL_S, 60)) as connection:
                deadline = time.monotonic() + _CALL_S
                for branch in list_prepared(connection, self._settings.cluster.id, deadline):
                    found[str(branch.gtrid)].add(shard)
        return found

    # --- decisions and markers --------------------------------------------------------------

    def _check_groups(self) -> None:
        """Every committed decision has a marker on each of its shards. A marker without a decision
        is one whose group was finished and collected.
        """
        suspects: set[str] = set()
        for gtrid, parts in self._groups():
            self.summary["groups"] += 1
            if parts and len(suspects) < _SUSPECTS_MAX:
                suspects.add(gtrid)
        missing = self._missing_now(suspects)
        give_up = time.monotonic() + _SETTLE_S
        while missing and time.monotonic() < give_up:
            time.sleep(1.0)
            missing = self._missing_now(suspects)
        for gtrid, parts in missing.items():
            detail = f"{', '.join(sorted(parts))} of the group cannot be found"
            self._add(Violation("decision-and-markers", None, gtrid, detail))

    def _groups(self) -> Iterator[tuple[str, set[str]]]:
        """Every group that has left something, and the shards whose marker is missing."""
        with ExitStack() as stack:
            snapshots = [
                stack.enter_context(closing(Snapshot(self._address(shard))))
                for shard in self._map.shards
            ]
            merged = heapq.merge(*(s.groups() for s in snapshots), key=lambda row: row.gtrid)
            for gtrid, rows in groupby(merged, key=lambda row: row.gtrid):
                yield gtrid, _missing(list(rows))

    def _missing_now(self, suspects: set[str]) -> dict[str, set[str]]:
        """What cannot be found of these groups, and is not explained by a prepared branch."""
        if not suspects:
            return {}
        # In this order: what is finished in between has its marker by the time of the snapshot.
        prepared = self._prepared()
        found = {}
        for gtrid, parts in self._groups():
            missing = parts - prepared.get(gtrid, set())
            if gtrid in suspects and missing:
                found[gtrid] = missing
        return found

    # --- anchors ----------------------------------------------------------------------------

    def _make_durable(self) -> None:
        """What the snapshots show is there for good from now on.

        What was only seen could be lost when a shard dies; the anchors would accuse it then.
        """
        for shard in self._map.shards:
            with closing(ShardConnection(self._address(shard), _CALL_S, 60)) as connection:
                if connection.is_durable_before_visible:
                    continue
            # The auditor cannot write what makes it so.
            address = service_address(self._settings, shard, self._map.shards[shard])
            try:
                with closing(ShardConnection(address, _CALL_S, 60)) as connection:
                    make_durable(connection, time.monotonic() + _CALL_S)
            except ShardError as error:
                raise type(error)(
                    shard,
                    f"anchors cannot be taken: this server shows what is not on its disk yet, and "
                    f"the user {address.user!r} (mysql.user), who has to make it write, cannot: "
                    f"{error.text}. Nothing was checked. Give mysql.user and mysql.password to the "
                    "audit too, or audit without --anchor",
                    code=error.code,
                ) from error

    def write_anchors(self, path: Path, auditors: list[ShardAuditor]) -> Footer:
        """Note where every chain ends."""
        streams = [_each(auditor.pages(ShardAudit.anchors)) for auditor in auditors]
        anchors: Iterator[Anchor] = heapq.merge(*streams)
        return write_anchors(path, self._settings.cluster.id, datetime.now(UTC), anchors)


def _each(pages: Iterable[list[T]]) -> Iterator[T]:
    return (item for page in pages for item in page)


def _merged(streams: list[Iterator[TransferLines]]) -> Iterator[TransferLines]:
    """Each transfer once, with what all shards hold of it."""
    for id_, parts in groupby(heapq.merge(*streams, key=lambda p: p.id), key=lambda p: p.id):
        merged = TransferLines(id_, [], [])
        for part in parts:
            merged.records.extend(part.records)
            merged.lines.extend(part.lines)
        yield merged


def _accounts(found: TransferLines) -> Iterator[str]:
    """The accounts that a transfer's rows name."""
    for line in found.lines:
        yield from (line.account, line.counterparty)
    for record in found.records:
        yield from (record.source, record.destination)


def _missing(rows: list[GroupRow]) -> set[str]:
    """The shards whose marker is missing."""
    marked = {row.found_on for row in rows if not row.is_decision}
    return {shard for row in rows for shard in row.shards if shard not in marked}


def audit(
    settings: Settings,
    report: Callable[[str], None],
    *,
    anchor: Path | None = None,
    against: Path | None = None,
    apart: bool = False,
) -> AuditResult:
    """Check every invariant. `report` is told about progress.

    `anchor` is where to note the end of every chain, if nothing is wrong; `against` is such a file,
    through which every chain has to pass. `apart` gives each shard a process of its own; where
    there is little to read, starting them takes longer than they save.

    Raises ClusterError, ShardError, BrokenAnchors, OSError (of the files).
    """
    checking = _Audit(settings, report)
    if against:
        header, _ = check_anchors(against)
        if header.cluster != settings.cluster.id:
            raise BrokenAnchors(
                f"{against} is of the cluster {header.cluster!r}, this is {settings.cluster.id!r}"
            )
    with checking.checked(against, anchoring=anchor is not None, apart=apart) as auditors:
        is_right = not checking.violations
        written = checking.write_anchors(anchor, auditors) if anchor and is_right else None
    return AuditResult(checking.violations, dict(checking.summary), written)
