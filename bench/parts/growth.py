"""Transfers/s in batches, with few and with many accounts, with few and with many entries.

Each comparison has two clusters of two shards side by side, a small one and a large one, which
take turns. Their buffer pools hold all pages that are written to: what a disk that has to be read
adds is not measured.
"""

import secrets
from contextlib import ExitStack

from bench.loads.base import Scale
from bench.loads.batches import Batches
from bench.measure import Figures, measure, ratios
from bench.parts.base import Finding, Outcome, Sizes
from bench.parts.filling import fill
from bench.place import Place, cluster
from tandem.local.progress import Report

GOAL = 0.8
_BUFFER_POOL_MIB = 5120
# For the comparison of entries: each has at least so many.
_ENTRIES_LEAST = 10
_ACCOUNTS_MAX = 100_000


class Filled(Batches):
    """Batches between accounts that are filled in by SQL, with so many entries."""

    def __init__(self, place: Place, scale: Scale, run: str, entries: int, title: str) -> None:
        super().__init__(place, scale, run)
        self.title = title
        self._entries = entries

    def set_up(self, report: Report) -> None:
        self._funded = fill(self._place, self.ids(), self._entries, report)


def growth(sizes: Sizes, report: Report) -> Outcome:
    """The ratio is that of the large cluster's transfers/s to the small one's, in each round."""
    outcome = Outcome("growth")
    few, many = sizes.few_accounts, sizes.many_accounts
    _compare(outcome, "accounts", [(few, 0), (many, 0)], sizes, report)
    accounts = min(_ACCOUNTS_MAX, max(sizes.few_entries // _ENTRIES_LEAST, 2))
    small, large = (accounts, sizes.few_entries), (accounts, sizes.many_entries)
    _compare(outcome, "entries", [small, large], sizes, report)
    return outcome


def _compare(
    outcome: Outcome,
    what: str,
    ends: list[tuple[int, int]],
    sizes: Sizes,
    report: Report,
) -> None:
    """Measure two clusters with so many accounts and entries, and add what is found."""
    with ExitStack() as stack:
        loads: dict[str, Filled] = {}
        for accounts, entries in ends:
            place = stack.enter_context(
                cluster(None, 1, sizes.workers, report, buffer_pool_mib=_BUFFER_POOL_MIB)
            )
            scale = Scale(accounts, 1, sizes.clients, sizes.batch)
            title = f"{entries if what == 'entries' else accounts:,} {what}"
            load = Filled(place, scale, secrets.token_hex(4), entries, title)
            load.set_up(report)
            outcome.measured_on(place)
            loads[title] = load
        figures = measure(loads, sizes.rounds, sizes.seconds, sizes.warm_up_s, report)
        for name, load in loads.items():
            report(f"Checking the bank's rules: {load.title}")
            outcome.violations += load.violations(figures[name].total)
    small, large = figures.values()
    outcome.findings += [_rate(small), _rate(large)]
    title = f"{large.title} to {small.title}"
    outcome.findings.append(Finding(title, {}, ratios(large, small), GOAL))


def _rate(found: Figures) -> Finding:
    return Finding(found.title, {"transfers/s": found.rate})
