"""What the bench makes of batches for a ledger group, and works out of what it measures there."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pyarrow import ipc

from bench.group_oracles import miscounted
from bench.loads.base import Tally
from bench.loads.columns import Wishes, digits, lines, numbered_stream, stream, with_numbers
from bench.loads.honest import HonestTally
from bench.loads.ledger_node import BATCH, LedgerNode
from bench.loads.reads import PAGE, History, balance_at, statement
from bench.measure import Figures
from bench.parts.base import Finding, Outcome
from bench.parts.eventstore_findings import (
    alone,
    compared,
    frames,
    kept,
    read,
    started,
    to_rate,
)
from bench.parts.eventstore_goals import GOALS, rows
from bench.parts.eventstore_rates import compared_at
from bench.report import document, show
from coordinator.http.batches import arrow_numbers, arrow_stream
from coordinator.http.json_text import read_lines
from tandem.local.progress import silent


class Fixed:
    """Chance that always gives the highest."""

    def randrange(self, end: int) -> int:
        return end - 1

    def randint(self, first: int, last: int) -> int:
        return last


def _wishes() -> Wishes:
    ids = np.array([list(b"a.1"), list(b"a.2")], np.uint8)
    keys = with_numbers("k-", np.array([8, 9]))
    places = np.array([0, 1])
    return Wishes(keys, places, places[::-1], np.array([100, 999]), ids, np.array([70, 71]))


ITEMS = [
    {
        "idempotency_key": f"k-{number:012}",
        "source": source,
        "destination": to,
        "amount": amount,
        "currency": "EUR",
    }
    for number, source, to, amount in ((8, "a.1", "a.2", 100), (9, "a.2", "a.1", 999))
]


def test_lines_are_what_the_api_reads() -> None:
    assert [value for value, fault in read_lines(lines(_wishes()), lambda: None)] == ITEMS
    assert [msgspec.json.decode(line) for line in lines(_wishes()).splitlines()] == ITEMS


def test_a_stream_is_what_the_api_reads() -> None:
    data = stream(_wishes())
    assert [value for value, fault in arrow_stream.read(data, lambda: None, 10_000)] == ITEMS
    assert ipc.open_stream(data).read_all().num_rows == 2


def test_a_stream_of_numbers_is_what_the_api_reads() -> None:
    found = arrow_numbers.read(numbered_stream(_wishes()), 10, 10_000)
    assert not found.faults
    assert found.columns.source.tolist() == [70, 71]
    assert found.columns.destination.tolist() == [71, 70]
    assert found.columns.amount.tolist() == [100, 999]
    assert len(set(map(bytes, found.columns.id))) == 2


def test_digits_have_zeros_in_front() -> None:
    assert digits(np.array([7, 1234]), 3).tobytes() == b"007234"


def test_a_page_ends_within_the_history_and_a_time_too() -> None:
    history = History("a.1", 1000, 5, 2_000_000)
    assert f"after={1000 - PAGE - 1}&" in statement(history, Fixed())
    assert balance_at(history, Fixed()).endswith("at=1970-01-01T00%3A00%3A02.000000Z")


def _timed(*seconds: float) -> HonestTally:
    tally = HonestTally()
    tally.latencies = list(seconds)
    return tally


def test_one_client_is_compared_by_the_median_of_its_latencies() -> None:
    own = Figures("own", [_timed(0.001, 0.002, 0.009)], [500.0])
    base = Figures("base", [_timed(0.004, 0.004, 0.004)], [250.0])
    found = alone(own, base, 1.0)
    assert found.ratios == pytest.approx([2.0])
    assert found.figures == {"p50 ms": 2.0, "p99 ms": 9.0, "transfers/s": 500.0}
    assert (found.is_met, alone(base, own, 1.0).is_met, alone(base).is_met) == (True, False, None)


def test_reads_are_compared_with_the_goal_by_p99() -> None:
    figures = Figures("reads", [_timed(0.001, 0.040)], [10.0], Tally(other=Counter({"503": 2})))
    found = read(figures)
    assert found.ratios == pytest.approx([0.5])
    assert (found.figures["503"], found.is_met) == (2.0, False)


def test_rates_and_bytes_are_compared_with_goals() -> None:
    assert to_rate(Figures("x", [], [300.0, 500.0]), 400).ratios == [0.75, 1.25]
    assert (kept(128, 1).ratio, kept(128, 4).ratio) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("transfers", "entries", "told"),
    [
        (10, 20, []),
        (12, 24, []),
        (13, 26, ["10 to 12 transfers were acknowledged, 13 are there"]),
        (10, 21, ["10 transfers have 21 entries"]),
    ],
)
def test_the_audit_counts_what_was_acknowledged(
    transfers: int, entries: int, told: list[str]
) -> None:
    summary = {"transfers": transfers, "entries": entries}
    assert miscounted(summary, range(10, 13)) == told


# --- the goals ------------------------------------------------------------------------------------


def _every(**found: Finding) -> dict[str, Finding]:
    """A finding that meets its goal for each that a goal is seen by, with these instead."""
    met = Finding("x", {"transfers/s": 7.0}, [2.0], 1.0)
    return {goal.finding: met for goal in GOALS if goal.finding} | found


def test_a_goal_is_met_missed_or_not_measured_and_then_says_why() -> None:
    told = rows(_every(node=Finding("x", {}, [0.9], 1.0)), is_full=True)
    assert [row.load for row in told] == [goal.load for goal in GOALS]
    assert [row.load for row in told if row.is_met is False] == [
        "batches of 8,192, account numbers, straight to the node"
    ]
    unmeasured = [row for row in told if row.is_met is None]
    assert [row.load for row in unmeasured] == [goal.load for goal in GOALS if not goal.finding]
    assert all(row.not_measured for row in unmeasured)
    assert not any(row.not_measured for row in told if row.is_met is not None)


def test_what_is_smaller_than_a_goal_says_nothing_of_it() -> None:
    found = _every()
    del found["ids"]
    told = {row.load: row for row in rows(found, is_full=False)}
    small = [goal.load for goal in GOALS if goal.needs_full]
    assert len(small) == 5
    assert all(told[load].is_met is None and told[load].not_measured for load in small)
    # What was found is shown nevertheless.
    assert told["10 million accounts, straight to the node"].figures == {"transfers/s": 7.0}


def test_the_goals_are_printed_with_their_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome("the part", goals=rows(_every(), is_full=False))
    show(document({}, {}, [], {"eventstore": outcome}))
    printed = " ".join(capsys.readouterr().out.split())
    assert "it must reach" in printed
    assert "64 bytes 7 transfers/s 2.00 1 met" in printed
    assert "not measured:" in printed


def test_goals_are_seen_by_findings_that_the_part_makes() -> None:
    timed = Figures("x", [_timed(0.001)], [10.0], Tally(committed=1))
    loads = defaultdict(lambda: timed, ids=timed)
    made = set(compared(loads)) | {"bytes", "start"}
    made |= set(compared_at({}, {}))
    made |= {"replay", "replay of texts", "catch-up", "catch-up of texts"}
    assert {goal.finding for goal in GOALS if goal.finding} <= made


def test_a_start_and_a_frame_are_compared_with_the_goal() -> None:
    assert started(100, [5.0, 20.0]).ratios == [2.0, 0.5]
    found = frames(Figures("x", [_timed(0.002, 0.020)], [10.0]))
    assert (found.ratio, found.is_met) == (0.5, False)


def test_a_group_is_quicker_if_it_is_at_every_rate_of_a_round() -> None:
    books = {"25%": _at(10, 20), "75%": _at(12, 40)}
    found = compared_at(books, {"25%": _at(5, 10), "75%": _at(6, 50)})
    assert found["rates p50 ms"].ratios == [2.0]
    assert found["rates p99 ms"].ratios == [0.8]
    assert (found["rates p50 ms"].is_met, found["rates p99 ms"].is_met) == (True, False)
    assert found["textbook 25%"].title == "textbook XA at 25% of its most"


def _at(p50: float, p99: float) -> list[Mapping[str, float]]:
    return [{"p50 ms": p50, "p99 ms": p99}]


# --- a node without a socket ----------------------------------------------------------------------


def test_a_node_has_its_ids_before_the_load_and_every_answer_is_timed(tmp_path: Path) -> None:
    load = LedgerNode(tmp_path / "list", 100, "a node", under_way=1, ids=BATCH + 1)
    load.set_up(silent)
    runner = load.open()
    try:
        done = runner.run(0.05)
    finally:
        runner.close()
    assert done.committed == len(done.latencies) * BATCH > 0
    assert load.violations(done) == []
    assert load.violations(Tally(done.committed - 1))
