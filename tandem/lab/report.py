"""The comparison as rows of text, for the terminal and for the page alike."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.table import Table

from tandem.cli.terminal import readable, table
from tandem.lab.result import Comparison, Outcome, Seen

NONE = "-"


class Row(NamedTuple):
    """One measure: what it is, and for each way its figure and whether that is bad."""

    title: str
    cells: list[str]
    is_bad: list[bool]


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Every measure, one below the other."""

    def row(
        title: str,
        figure: Callable[[Outcome], str],
        is_bad: Callable[[Outcome], bool] = lambda outcome: False,
    ) -> Row:
        return Row(title, [figure(o) for o in outcomes], [is_bad(o) for o in outcomes])

    return [
        row("transfers committed in a second", lambda o: f"{o.rate:,.0f}"),
        row("transfers asked for", lambda o: f"{o.asked:,}"),
        row("sent more than once", lambda o: f"{o.resent:,}"),
        row("longest time without a committed one", lambda o: seconds_text(o.gap_s)),
        row("latency: half take at most", lambda o: seconds_text(o.latency.p50)),
        row("latency: 99 of 100 take at most", lambda o: seconds_text(o.latency.p99)),
        row("latency: the longest", lambda o: seconds_text(o.latency.longest)),
        row("locks held: half at most", lambda o: _lock(o, "p50")),
        row("locks held: 99 of 100 at most", lambda o: _lock(o, "p99")),
        row("others saw a wrong sum: of the time", lambda o: _share(o.plain), _is_off),
        row("... at the longest for", lambda o: seconds_text(o.plain.longest_s), _is_off),
        row("... most that was missing", lambda o: money(o.plain.missing_most), _is_off),
        row("the service's own read saw a wrong sum: of the time", lambda o: _share(o.service)),
        row("until nothing was unfinished", lambda o: seconds_text(o.settled_s)),
        row(
            "money gone in the end", lambda o: money(o.verdict.lost), lambda o: o.verdict.lost != 0
        ),
        row(
            "accounts that are not what the answers say",
            lambda o: f"{o.verdict.accounts_wrong:,}",
            lambda o: o.verdict.accounts_wrong > 0,
        ),
        row(
            "... too little",
            lambda o: money(o.verdict.too_little),
            lambda o: o.verdict.too_little > 0,
        ),
        row("... too much", lambda o: money(o.verdict.too_much), lambda o: o.verdict.too_much > 0),
        row(
            "transfers lost / doubled / by half",
            _counted,
            lambda o: any(
                (o.verdict.missing, o.verdict.doubled, o.verdict.torn, o.verdict.unasked)
            ),
        ),
        row(
            "the audit of every row",
            lambda o: NONE if o.violations is None else f"{len(o.violations)} violations",
            lambda o: bool(o.violations),
        ),
        row(
            "every cent is where the answers say",
            lambda o: _yes(o.is_right),
            lambda o: not o.is_right,
        ),
    ]


def _is_off(outcome: Outcome) -> bool:
    return outcome.plain.is_wrong_at_end


def _lock(outcome: Outcome, which: str) -> str:
    return seconds_text(getattr(outcome.locks, which)) if outcome.locks else NONE


def _share(seen: Seen | None) -> str:
    return share_text(seen.wrong_share) if seen and seen.reads > seen.unanswered else NONE


def _counted(outcome: Outcome) -> str:
    """Who keeps no record of transfers cannot count them."""
    v = outcome.verdict
    return (
        NONE
        if v.missing is None
        else f"{v.missing} / {(v.doubled or 0) + (v.unasked or 0)} / {v.torn}"
    )


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "NO"


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
    for row in rows(comparison.outcomes):
        made.add_row(row.title, *row.cells)
    return made
