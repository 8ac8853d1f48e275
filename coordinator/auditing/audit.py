"""Checks every invariant across all shards, on a system that is in use.

Each shard is read at one moment of its own, so a group that commits just then may show on one
shard and not yet on another. What looks one-sided is therefore looked at again until it is whole,
or until a row of the phase table says that it is unfinished; the sums of the balances are corrected
by exactly these transfers. What stays one-sided is a violation, unless a prepared branch that waits
for its decision explains it.

Memory stays bounded however much there is to read: each shard is checked as a stream, transfers
are compared by sums (see `sums.py`), and what is wrong is named up to a limit, then counted.
"""

import heapq
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from coordinator.auditing.anchors import Anchor, BrokenAnchors, Footer, check_anchors, write_anchors
from coordinator.auditing.places import places_of
from coordinator.auditing.second_look import SecondLook, merged
from coordinator.auditing.shard_audit import Page, ShardAudit, Violation
from coordinator.auditing.shard_process import Pages, ShardAuditor
from coordinator.auditing.sums import Sums, united
from coordinator.settings import Settings
from coordinator.shards.addresses import service_address
from ledger.transfer_audit import Traces, check_transfer
from shard_client.books import GroupRow
from shard_client.errors import ShardError

T = TypeVar("T")

# How long a transfer may stay one-sided before it is called a violation: longer than a group may
# take by the default time limits.
_SETTLE_S = 15.0
_PAUSE_S = 0.2
_CALL_S = 5.0
_REPORT_EVERY = 20_000
# How many are held at once, to be looked at again.
_SUSPECTS_MAX = 10_000
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
        self._map, places = places_of(settings)
        self._places = list(places.values())
        self._look = SecondLook(self._places)
        self._named: list[Violation] = []
        self._unnamed: Counter[str] = Counter()
        self.summary: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._reported = 0

    @contextmanager
    def checked(
        self, against: Path | None, *, anchoring: bool, apart: bool
    ) -> Iterator[list[ShardAuditor]]:
        """Check everything; for the block, the auditors still have their books open."""
        key = secrets.token_bytes(16)
        with ExitStack() as stack:
            auditors = [
                stack.enter_context(
                    closing(ShardAuditor(place, self._map, key, against, apart=apart))
                )
                for place in self._places
            ]
            # Once all are there, so that their moments are as close as can be.
            for ready in [auditor.call(ShardAudit.is_there) for auditor in auditors]:
                ready.result()
            for begun in [auditor.call(ShardAudit.begin) for auditor in auditors]:
                begun.result()
            if anchoring:
                self._make_durable()
            self._take_all({a.shard: a.pages(ShardAudit.check_steps) for a in auditors})
            fields = [auditor.call(ShardAudit.field) for auditor in auditors]
            field = united(found.result() for found in fields)
            self._take_all({a.shard: a.pages(ShardAudit.check, field) for a in auditors})
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

    def _add(self, violation: Violation) -> None:
        if len(self._named) < _NAMED_MAX:
            self._named.append(violation)
        else:
            self._unnamed[violation.rule] += 1

    # --- each shard by itself ---------------------------------------------------------------

    def _take_all(self, running: dict[str, Pages[Page]]) -> None:
        """Take the pages of each shard as they come."""
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
        sums = Sums.zero()
        for found in [auditor.call(ShardAudit.sums) for auditor in auditors]:
            sums.add(found.result())
        self._totals.update(sums.totals)
        parts = sums.parts
        if not parts:
            return
        self._report("Comparing what does not look whole on all shards")
        streams = [_each(auditor.pages(ShardAudit.lines, parts)) for auditor in auditors]
        suspects = self._suspects(merged(streams))
        # All are of the same moments: what was on its way then has this long, not each portion.
        give_up = time.monotonic() + _SETTLE_S
        while some := list(islice(suspects, _SUSPECTS_MAX)):
            for transfer in self._check_again(some, give_up):
                self._set_apart(transfer)

    def _suspects(self, transfers: Iterable[Traces]) -> Iterator[Traces]:
        """Those that neither are whole nor said to be unfinished."""
        for transfer in transfers:
            if check_transfer(transfer):
                yield transfer
            elif transfer.phases:
                self._count_unfinished(transfer)
                self._set_apart(transfer)

    def _count_unfinished(self, transfer: Traces) -> None:
        if transfer.phases:
            self.summary["unfinished"] += 1

    def _set_apart(self, transfer: Traces) -> None:
        """Correct the sums of the balances: they hold a part of it, perhaps."""
        for line in transfer.lines:
            if line.currency:
                self._totals[line.currency] -= line.amount

    def _check_totals(self) -> None:
        """The balances of a currency add up to zero, apart from what was just on its way."""
        for currency, total in sorted(self._totals.items()):
            self.summary["currencies"] += 1
            if total:
                detail = f"the balances of all accounts add up to {total}, not 0"
                self._add(Violation("money-is-conserved", None, currency, detail))

    def _check_again(self, suspects: list[Traces], give_up: float) -> list[Traces]:
        """Gives those that only had been on their way between two shards."""
        on_their_way = []
        waiting = {suspect.id: suspect for suspect in suspects}
        while waiting:
            for found in self._look.traces(list(waiting.values())):
                if not check_transfer(found):
                    on_their_way.append(waiting.pop(found.id))
                    self._count_unfinished(found)
            if time.monotonic() > give_up:
                break
            if waiting:
                time.sleep(_PAUSE_S)
        doubts = self._look.in_doubt(list(waiting))
        for found in self._look.traces(list(waiting.values())):
            problems = check_transfer(found)
            if problems and found.id not in doubts:
                for rule, detail in problems:
                    self._add(Violation(rule, None, found.id, detail))
                continue
            if problems:
                self.summary["in doubt"] += 1
            else:
                self._count_unfinished(found)
            on_their_way.append(waiting[found.id])
        return on_their_way

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
            all_books = [stack.enter_context(closing(place.books())) for place in self._places]
            merged = heapq.merge(*(b.groups() for b in all_books), key=lambda row: row.gtrid)
            for gtrid, rows in groupby(merged, key=lambda row: row.gtrid):
                yield gtrid, _missing(list(rows))

    def _missing_now(self, suspects: set[str]) -> dict[str, set[str]]:
        """What cannot be found of these groups, and is not explained by a prepared branch."""
        if not suspects:
            return {}
        # In this order: what is finished in between has its marker by the time of the books.
        prepared = self._look.prepared()
        found = {}
        for gtrid, parts in self._groups():
            missing = parts - prepared.get(gtrid, set())
            if gtrid in suspects and missing:
                found[gtrid] = missing
        return found

    # --- anchors ----------------------------------------------------------------------------

    def _make_durable(self) -> None:
        """What the books show is there for good from now on.

        What was only seen could be lost when a shard dies; the anchors would accuse it then.
        """
        user = self._settings.mysql.user
        for place in self._places:
            with closing(place.calls()) as calls:
                if calls.is_durable_before_visible():
                    continue
            # The auditor cannot write what makes it so.
            as_service = place._replace(as_whom=service_address)
            try:
                with closing(as_service.calls()) as calls:
                    calls.make_durable(time.monotonic() + _CALL_S)
            except ShardError as error:
                raise type(error)(
                    place.shard,
                    f"anchors cannot be taken: this server shows what is not on its disk yet, and "
                    f"the user {user!r} (mysql.user), who has to make it write, cannot: "
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
