"""The comparison as rows of text, for the terminal and for the page alike."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.table import Table

from lab.result import Comparison, Outcome, Seen
from tandem.cli.terminal import readable, table

NONE = "-"


class Row(NamedTuple):
    """One measure: what it is, and for each way its figure and whether that is bad."""

    title: str
    cells: list[str]
    is_bad: list[bool]


class Measure(NamedTuple):
    """How the row of a measure is made."""

    title: str
    figure: Callable[[Outcome], str]
    is_bad: Callable[[Outcome], bool] = lambda outcome: False


SPEED = (
    Measure("transfers committed in a second", lambda o: f"{o.rate:,.0f}"),
    Measure("transfers asked for", lambda o: f"{o.asked:,}"),
    Measure("of these sent more than once", lambda o: f"{o.resent:,}"),
    Measure("longest time without a committed one", lambda o: seconds_text(o.gap_s)),
    Measure("latency: half take at most", lambda o: seconds_text(o.latency.p50)),
    Measure("latency: 99 of 100 take at most", lambda o: seconds_text(o.latency.p99)),
    Measure("latency: the longest", lambda o: seconds_text(o.latency.longest)),
    Measure("until nothing was unfinished", lambda o: seconds_text(o.settled_s)),
)
LOCKS = (
    Measure("held by a group, half at most", lambda o: _lock(o, "p50")),
    Measure("99 of 100 at most", lambda o: _lock(o, "p99")),
)
OTHERS = (
    Measure("read by shard, the sum was wrong", lambda o: _share(o.plain), lambda o: _is_off(o)),
    Measure("longest", lambda o: seconds_text(o.plain.longest_s), lambda o: _is_off(o)),
    Measure("most missing", lambda o: money(o.plain.missing_most), lambda o: _is_off(o)),
    Measure("by the service's own read it was wrong", lambda o: _share(o.service)),
)
BOOKS = (
    Measure("money gone", lambda o: money(o.verdict.lost), lambda o: o.verdict.lost != 0),
    Measure(
        "accounts that are not as answered",
        lambda o: f"{o.verdict.accounts_wrong:,}",
        lambda o: o.verdict.accounts_wrong > 0,
    ),
    Measure(
        "too little on them",
        lambda o: money(o.verdict.too_little),
        lambda o: o.verdict.too_little > 0,
    ),
    Measure(
        "too much on them",
        lambda o: money(o.verdict.too_much),
        lambda o: o.verdict.too_much > 0,
    ),
    Measure("transfers lost, doubled, by half", lambda o: _counted(o), lambda o: _is_miscounted(o)),
    Measure(
        "violations that the audit names",
        lambda o: NONE if o.violations is None else f"{len(o.violations):,}",
        lambda o: bool(o.violations),
    ),
    Measure(
        "every cent is where the answers say",
        lambda o: "yes" if o.is_right else "NO",
        lambda o: not o.is_right,
    ),
)
GROUPS = {
    "Speed": SPEED,
    "Locks": LOCKS,
    "What other clients see meanwhile": OTHERS,
    "The books in the end": BOOKS,
}


def groups(outcomes: Sequence[Outcome]) -> dict[str, list[Row]]:
    """Every measure, in groups."""
    return {
        title: [
            Row(m.title, [m.figure(o) for o in outcomes], [m.is_bad(o) for o in outcomes])
            for m in measures
        ]
        for title, measures in GROUPS.items()
    }


def _is_off(outcome: Outcome) -> bool:
    return outcome.plain.wrong_since_s is not None


def _lock(outcome: Outcome, which: str) -> str:
    return seconds_text(getattr(outcome.locks, which)) if outcome.locks else NONE


def _share(seen: Seen | None) -> str:
    return share_text(seen.wrong_share) if seen and seen.reads > seen.unanswered else NONE


def _counted(outcome: Outcome) -> str:
    """Who keeps no record of transfers cannot count them."""
    verdict = outcome.verdict
    if verdict.missing is None:
        return NONE
    doubled = (verdict.doubled or 0) + (verdict.unasked or 0)
    return f"{verdict.missing:,}, {doubled:,}, {verdict.torn:,}"


def _is_miscounted(outcome: Outcome) -> bool:
    verdict = outcome.verdict
    return any((verdict.missing, verdict.doubled, verdict.torn, verdict.unasked))


def seconds_text(seconds: float) -> str:
    """With about three digits, and the unit that fits."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.1f} s"


def share_text(share: float) -> str:
    """Per cent; what is not nothing is never shown as nothing."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{share * 100:.1f} %"


def money(amount: int) -> str:
    return readable(amount, "EUR")


def comparison_table(comparison: Comparison) -> Table:
    """For the terminal."""
    titles = [outcome.title for outcome in comparison.outcomes]
    made = table("", *titles, right=tuple(titles))
    made.title = f"seed {comparison.seed}, {comparison.seconds:g} s for each way"
    for title, rows in groups(comparison.outcomes).items():
        made.add_section()
        made.add_row(title)
        for row in rows:
            made.add_row(f"  {row.title}", *row.cells)
    return made
