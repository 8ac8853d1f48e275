"""What the laboratory says of its figures: words, table, page."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from lab import words
from lab.page import page
from lab.plots import embedded
from lab.report import comparison_table, groups, seconds_text, share_text
from lab.result import (
    Comparison,
    Disturbed,
    Machine,
    Outcome,
    Seen,
    Spread,
    Verdict,
)
from lab.schedule import AWAY, KILL, READS, SLOW


def outcome(way: str, title: str, **changes: Any) -> Outcome:
    made = Outcome(
        way=way,
        title=title,
        versions={"s1": "a <server>"},
        asked=100,
        committed=98,
        rejected=2,
        unanswered=0,
        resent=5,
        rate=100.0,
        gap_s=2.0,
        latency=Spread(0.01, 0.05, 0.1, 2.0, 98),
        locks=Spread(0.008, 0.02, 0.03, 0.5, 60),
        plain=Seen(100, 3, 0.15, 0.09, 181, 20, None),
        service=Seen(20, 2, 0.0, 0.0, 0, 0, None),
        faults=[
            Disturbed(KILL, "c1", 1.0, 2.0),
            Disturbed(AWAY, "s1", 4.0, 6.0),
            Disturbed(SLOW, "s2", 7.0, 8.0),
        ],
        verdict=Verdict(200_000, 200_000, 0, 0, 0, 0, 0, 0, 0),
        settled_s=0.2,
        violations=[],
        answers={"201": 98},
        rates=[(0.5, 90.0), (1.5, 110.0)],
        latencies=[(0.001, 0.1), (0.1, 1.0)],
        sums=[(0.0, 0), (1.0, -20), (2.0, 0)],
    )
    return msgspec.structs.replace(made, **changes)


NAIVE = outcome(
    "naive",
    "Naive",
    locks=None,
    service=None,
    violations=None,
    plain=Seen(100, 3, 0.9, 9.0, 7741, 0, 1.5),
    verdict=Verdict(200_000, 192_594, 18, 0, 7_406),
)
XA = outcome("xa", "Two-phase commit")
SAGA = outcome("saga", "Saga", rate=300.0, locks=Spread(0.001, 0.002, 0.003, 0.01, 60), gap_s=2.05)

GROUP = outcome(
    "eventstore",
    "Event sourcing",
    locks=None,
    plain=Seen(100, 3, 0.0, 0.0, 0, 0, None),
    faults=[*XA.faults, Disturbed(READS, "s1-reads", 8.5, 9.0)],
)


def comparison(outcomes: Sequence[Outcome]) -> Comparison:
    machine = Machine(2, 24.0, "a processor", 0.1, "3.11", "0.1.0")
    return Comparison(7, 32.0, 16, 200, 1000, "now", "scripts/lab", machine, list(outcomes))


def test_words_are_made_from_the_figures() -> None:
    told = " ".join(words.when_to_take_which([NAIVE, XA, SAGA]))
    assert "Naive is not to be taken for money: after 3 faults 74.06 EUR are gone" in told
    assert "If throughput counts most: Saga. Transfers in a second: Saga 300, Two-phase" in told
    assert "same accounts: Saga. Locks held, in 99 of 100 cases at most: Saga 3 ms, Two" in told
    assert "soon after a fault: no clear difference in this run." in told
    turned = [msgspec.structs.replace(XA, rate=900.0), SAGA]
    told = " ".join(words.when_to_take_which(turned))
    assert "If throughput counts most: Two-phase commit. " in told
    without_locks = [XA, msgspec.structs.replace(SAGA, locks=None)]
    assert "Locks held" not in " ".join(words.when_to_take_which(without_locks))


def test_words_where_there_is_little_to_choose() -> None:
    assert "compared with none" in words.when_to_take_which([NAIVE, XA])[-1]
    assert "nothing to recommend" in words.when_to_take_which([NAIVE])[-1]
    torn = msgspec.structs.replace(XA, violations=["a rule: a row"])
    assert "its books are not right" in words.when_to_take_which([torn])[0]
    assert words.about_books([torn]) == ["Two-phase commit: violations that the audit names: 1."]


def test_words_about_a_sum() -> None:
    lost, right = words.about_sums([NAIVE, XA])
    assert "From second 1.5 on it was never right again." in lost
    assert lost.endswith("In the end 74.06 EUR of 2,000.00 EUR are gone, for ever.")
    assert right.endswith("was never wrong. In the end the sum is right.")
    assert "who reads each shard by itself saw a wrong sum for 15.0 % of the time" in right
    (group,) = words.about_sums([GROUP])
    assert "who reads its read side by itself never saw a wrong sum. The service's" in group


def test_the_page_stands_alone() -> None:
    told = page(comparison([NAIVE, XA, SAGA]))
    assert told.count("<svg") == told.count("</svg>") == 4
    assert "Three ways of moving money" in told
    assert "Not alike" not in told
    assert "read side" not in told
    assert "74.06 EUR" in told
    assert "a &lt;server&gt;" in told
    assert re.findall(r"https?:|//\w|@import|\bsrc=|<link|<script|url\((?!#)", told) == []
    ids = re.findall(r'\bid="([^"]+)"', told)
    assert len(ids) == len(set(ids))
    named = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', told)
    assert named
    assert {one or other for one, other in named} <= set(ids)


def test_a_ledger_group_is_said_to_be_no_two_shards_and_what_has_no_likeness() -> None:
    told = page(comparison([GROUP, XA]))
    assert "Not alike" in told
    assert "No likeness: one of two shards away while the other goes on" in told
    assert "on two shards (event sourcing: in one group), 2,000.00 EUR in all" in told
    assert "a read side is away" in told
    # Its read side is no part of what the others meet.
    assert "Meanwhile 3 faults struck" in told


def test_a_way_without_locks_is_named_beside_those_that_have_them() -> None:
    told = " ".join(words.when_to_take_which([XA, SAGA, GROUP]))
    assert "the same accounts: Event sourcing takes no locks; of the others Saga. Locks" in told
    assert "Saga 3 ms, Two-phase commit 30 ms." in told
    assert "Locks held" not in " ".join(words.when_to_take_which([XA, GROUP]))


def test_a_sum_that_stays_wrong_or_was_always_right_is_not_looked_at_closer() -> None:
    assert page(comparison([NAIVE, GROUP])).count("<svg") == 3


def test_a_plot_takes_colour_and_font_from_the_page() -> None:
    svg = (
        '<?xml version="1.0"?><svg width="7pt" height="8pt" viewBox="0 0 7 8" '
        'xmlns="http://www.w3.org/2000/svg"><metadata>x</metadata><g id="a" '
        "style=\"fill: #010203; font: 9px 'DejaVu Sans', Arial; x: y\"/></svg>"
    )
    assert embedded(svg, "p") == (
        '<svg viewBox="0 0 7 8"><g id="p-a" '
        'style="fill: currentColor; font: 9px var(--font); x: y"/></svg>'
    )


def test_the_table_marks_what_is_bad() -> None:
    books = groups([NAIVE, XA])["The books in the end"]
    gone = next(row for row in books if row.title == "money gone")
    assert (gone.cells, gone.is_bad) == (["74.06 EUR", "0.00 EUR"], [True, False])
    assert books[-1].cells == ["NO", "yes"]
    others = groups([NAIVE, XA])["What other clients see meanwhile"]
    assert others[0].is_bad == [True, False]
    assert comparison_table(comparison([NAIVE, XA])).row_count > len(books)


def test_figures_as_text() -> None:
    assert [seconds_text(s) for s in (0.00789, 0.26, 2.44)] == ["7.89 ms", "260 ms", "2.4 s"]
    assert [share_text(s) for s in (0, 0.0004, 0.149)] == ["0.0 %", "< 0.1 %", "14.9 %"]
