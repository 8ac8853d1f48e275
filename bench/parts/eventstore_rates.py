"""Textbook XA and a ledger group at the same rates, in turns: an open loop."""

from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from bench.loads.base import Scale, Tally
from bench.loads.batches import Batches
from bench.loads.textbook import Textbook, TextbookRunner
from bench.open_loop import Work, latencies
from bench.parts.base import Finding, Sizes
from bench.parts.latency import CONNECTIONS, STEPS, Client, figures
from bench.parts.skew import THREADS
from bench.place import Place
from bench.quantiles import medians, percentile
from tandem.local.progress import Report

_WHAT = ("p50 ms", "p99 ms")
Figures = Mapping[str, float]


class AtRates(NamedTuple):
    """The findings by their names; what is wrong in the books of textbook XA and of the group's
    accounts; how many transfers the group has at least and at most.
    """

    findings: dict[str, Finding]
    violations: list[str]
    acknowledged: range


def at_rates(
    mysql: Place, group: Place, most: float, run: str, sizes: Sizes, report: Report
) -> AtRates:
    """At shares of `most`, the highest rate of textbook XA, in transfers/s."""
    scale = Scale(sizes.few_accounts, THREADS, sizes.clients, sizes.batch)
    textbook, accounts = Textbook(mysql, scale, f"{run}r"), Batches(group, scale, f"{run}r")
    for load in (textbook, accounts):
        load.set_up(report)
    tally = Tally()
    clients = [Client(group, accounts, f"{run}r-{number}") for number in range(CONNECTIONS)]
    with closing(textbook.open()) as runner:
        works: list[Work] = [lambda d=driver: d.once(tally) for driver in runner.drivers]  # type: ignore[misc]
        # With connections that are open, and what the first requests make.
        for workers in (works, [client.once for client in clients]):
            latencies(workers, most / 2, sizes.warm_up_s)
        books: dict[str, list[Figures]] = {}
        ours: dict[str, list[Figures]] = {}
        for share in STEPS:
            rate, name = share * most, f"{share:.0%}"
            report(f"Open loop, {rate:,.1f}/s, {name} of textbook XA's most")
            for _ in range(sizes.rounds):
                book = _textbook(runner, works, rate, sizes.seconds)
                books.setdefault(name, []).append(book)
                times = latencies([client.once for client in clients], rate, sizes.seconds)
                ours.setdefault(name, []).append({"rate/s": rate} | _times(times))
    done = Tally(sum(client.committed for client in clients))
    violations = textbook.violations(tally) + accounts.violations(done)
    return AtRates(compared_at(books, ours), violations, accounts.acknowledged(done))


def compared_at(
    books: Mapping[str, list[Figures]], ours: Mapping[str, list[Figures]]
) -> dict[str, Finding]:
    """Of each rate what both took; and of each round the least ratio, over all rates, of textbook
    XA's time to the group's: above 1 the group is quicker at every rate. Both have the figures of
    each round by the name of the rate.
    """
    found = {}
    for name in books:
        title = f"textbook XA at {name} of its most"
        found[f"textbook {name}"] = Finding(title, medians(books[name]))
        found[f"group {name}"] = Finding("a group at the same rate", medians(ours[name]))
    for what in _WHAT:
        by_rate = [
            [b[what] / u[what] for b, u in zip(books[name], ours[name], strict=True)]
            for name in books
        ]
        least = [min(ratios) for ratios in zip(*by_rate, strict=True)]
        title = f"{what.removesuffix(' ms')} at every rate: theirs to a group's"
        found[f"rates {what}"] = Finding(title, {}, least, 1.0)
    return found


def _textbook(
    runner: TextbookRunner, works: list[Work], rate: float, seconds: float
) -> dict[str, float]:
    for driver in runner.drivers:
        driver.holds.clear()
    times = latencies(works, rate, seconds)
    holds = [hold for driver in runner.drivers for hold in driver.holds]
    return figures(rate, times, percentile(holds, 0.99))


def _times(times: list[float]) -> dict[str, float]:
    """A group takes no locks, so there is no time under them."""
    return {"p50 ms": percentile(times, 0.5) * 1000, "p99 ms": percentile(times, 0.99) * 1000}
