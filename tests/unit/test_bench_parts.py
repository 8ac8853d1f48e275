"""What the parts of the bench work out of what they measure."""

import random
import time
from collections import Counter
from functools import partial
from itertools import islice

import pytest

from bench.counters import total_of
from bench.draws import Draw, hot, uniform, zipf
from bench.open_loop import latencies
from bench.parts.base import Finding
from bench.parts.counts import per_transfer, ratios_of
from bench.parts.filling import history
from bench.parts.memory import ends, slope
from bench.parts.smallbank import MIX, SmallBankTally, choose, findings
from bench.quantiles import histogram_quantile, medians, percentile
from ledger.chain import first_link, next_link


def test_the_slope_is_that_of_the_line_through_the_rest() -> None:
    seconds = [float(second) for second in range(10)]
    values = [100.0, 3.0, *(5.0 + 2 * second for second in seconds[2:])]
    assert slope(seconds, values, 0.2) == pytest.approx(2.0)


def test_one_sample_has_no_slope() -> None:
    assert slope([0.0], [80.0], 0.2) == 0.0


def test_the_ends_are_medians_without_the_first_share() -> None:
    values = [1.0, 1.0, 10.0, 20.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 30.0, 40.0]
    assert ends(values, 0.2) == (15.0, 35.0)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0


def test_the_mix_adds_up_and_is_kept() -> None:
    assert sum(MIX.values()) == 100
    chance = random.Random(1)
    drawn = Counter(choose(chance) for _ in range(20_000))
    for name, share in MIX.items():
        assert drawn[name] / 200 == pytest.approx(share, abs=1)


def test_smallbank_rates_are_of_the_seconds_measured() -> None:
    total = SmallBankTally()
    total.latencies["Balance"] = [0.001, 0.002, 0.003]
    total.seconds = 1.5
    shown = findings("SmallBank", total, [1.0, 2.0, 9.0])
    assert [finding.title for finding in shown] == ["SmallBank", "SmallBank: Balance"]
    assert shown[0].figures == {"transactions/s": 2.0}
    assert shown[1].figures == {"transactions/s": 2.0, "ms p50": 2.0, "ms p99": 3.0}


def test_latencies_of_several_clients_are_kept() -> None:
    first, second = SmallBankTally(), SmallBankTally()
    first.latencies["Balance"] = [1.0]
    second.latencies["Balance"] = [2.0]
    first.add(second)
    assert first.latencies == {"Balance": [1.0, 2.0]}


def test_costs_are_for_each_transfer_and_times_in_microseconds() -> None:
    done = Counter({"statements": 30, "shards' processor time": 5_000_000})
    assert per_transfer(done, 100) == {"statements": 0.3, "µs shards' processor time": 50.0}


def test_a_cost_that_grows_is_a_ratio_below_one() -> None:
    assert ratios_of("flushes", [{"flushes": 1.0}], [{"flushes": 2.0}]) == [0.5]


def test_all_series_of_a_metric_are_added_and_no_other() -> None:
    text = (
        '# HELP calls x\ncalls_count{shard="s1"} 2.0\ncalls_count{shard="s2"} 3.0\ncalls_counted 9'
    )
    assert total_of(text, "calls_count") == 5


@pytest.mark.parametrize(
    ("ratios", "goal", "is_met"),
    [
        ([0.7, 0.8, 0.9], 0.8, True),
        ([0.7, 0.79, 0.9], 0.8, False),
        ([], 0.8, None),
        ([2.0], None, None),
    ],
)
def test_a_goal_is_met_by_the_median(
    ratios: list[float], goal: float | None, is_met: bool | None
) -> None:
    assert Finding("", {}, ratios, goal).is_met is is_met


def test_a_history_keeps_chain_balance_and_count() -> None:
    accounts, entries, transfers = history(["a", "b"], 3, 17).values()
    assert [(row[0], row[2], row[5]) for row in accounts] == [("a", -7, 3), ("b", 7, 3)]
    for name, _, balance, _, _, count, _, chain, *_ in accounts:
        link = first_link(name, "EUR")
        own = [entry for entry in entries if entry[0] == name]
        for account, number, transfer, amount, after, other, stamp, found in own:
            link = next_link(link, account, number, transfer, amount, after, other, stamp)
            assert found == link
        assert (own[-1][4], own[-1][7], len(own)) == (balance, chain, count)
    assert len(transfers) == 3


def test_an_account_alone_has_no_history() -> None:
    accounts, entries, transfers = history(["a"], 3, 17).values()
    assert ([row[2] for row in accounts], entries, transfers) == ([0], [], [])


# --- draws, an open loop --------------------------------------------------------------------

PLACES = [[f"a{n}" for n in range(40)], [f"b{n}" for n in range(30)]]


@pytest.mark.parametrize("draw", [uniform, partial(zipf, s=1.0), partial(zipf, s=2.0), hot])
def test_a_transfer_crosses_shards_however_it_is_drawn(draw: Draw) -> None:
    for source, destination in islice(draw(PLACES, random.Random(1)), 1000):
        assert source[0] != destination[0]


def test_uniform_draws_name_every_account() -> None:
    pairs = islice(uniform(PLACES, random.Random(1)), 3000)
    assert {account for pair in pairs for account in pair} == {id_ for ids in PLACES for id_ in ids}


def test_one_account_is_hot() -> None:
    assert {to for _, to in islice(hot(PLACES, random.Random(1)), 100)} == {"a0"}


def test_zipf_ranks_go_round_the_shards() -> None:
    sources = Counter(source for source, _ in islice(zipf(PLACES, random.Random(1), 2.0), 20_000))
    # 1, 1/4, 1/9 of 1.6 or so.
    assert [account for account, _ in sources.most_common(3)] == ["a0", "b0", "a1"]
    assert sources["a0"] / sources["b0"] == pytest.approx(4, rel=0.15)


def test_an_open_loop_counts_from_when_work_was_to_begin() -> None:
    """One worker that takes twice as long as there is between two pieces falls ever more behind."""
    times = latencies([lambda: time.sleep(0.02)], 100.0, 0.2)
    assert len(times) == 20
    assert times == sorted(times)
    assert times[-1] >= 0.2


def test_an_open_loop_raises_what_its_work_raises() -> None:
    def broken() -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        latencies([broken, broken], 100.0, 0.1)


def test_a_quantile_lies_evenly_within_its_bucket() -> None:
    buckets = [(0.1, 50.0), (0.2, 100.0), (float("inf"), 100.0)]
    assert histogram_quantile(buckets, 0.25) == pytest.approx(0.05)
    assert histogram_quantile(buckets, 0.75) == pytest.approx(0.15)
    assert histogram_quantile([(0.1, 1.0), (float("inf"), 2.0)], 0.99) == 0.1
    assert histogram_quantile([(0.1, 0.0), (float("inf"), 0.0)], 0.99) == 0.0
    assert histogram_quantile([], 0.99) == 0.0


def test_each_figure_has_a_median_of_its_own() -> None:
    rounds = [{"p50": 1.0, "p99": 9.0}, {"p50": 3.0, "p99": 7.0}, {"p50": 2.0, "p99": 8.0}]
    assert medians(rounds) == {"p50": 2.0, "p99": 8.0}
