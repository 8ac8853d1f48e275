"""The laboratory's pure parts: the schedule, what was seen, the verdict."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.__main__ import lab
from lab.locks import LockTimes, buckets_of
from lab.result import (
    Deal,
    Seen,
    Spread,
)
from lab.run import check_known
from lab.schedule import (
    AWAY,
    COORDINATORS,
    KILL,
    KINDS,
    NODE,
    READ_SIDE,
    READS,
    SHARDS,
    SLOW,
    of_group,
    schedule,
)
from lab.seen import Read, distribution, histogram_spread, rates, seen, spread, thinned
from lab.verdict import judge
from lab.ways import WAYS, Way
from tandem.local.errors import LocalError
from tandem.local.redis import parse_version

SEEDS = range(50)


# The schedule


@pytest.mark.parametrize("seconds", [5.0, 12.0, 32.0, 120.0])
def test_a_schedule_fits_into_its_time_and_has_every_kind(seconds: float) -> None:
    for seed in SEEDS:
        faults = schedule(seed, seconds)
        assert {fault.kind for fault in faults} == {KILL, AWAY, SLOW}
        assert faults[0].at_s > 0
        for fault, later in pairwise(faults):
            assert fault.until_s < later.at_s
        assert faults[-1].until_s < seconds
        for fault in faults:
            assert fault.part in (COORDINATORS if fault.kind == KILL else SHARDS)


def test_a_seed_gives_its_schedule_again_and_another_one_another() -> None:
    assert schedule(7, 32) == schedule(7, 32)
    assert len({tuple(schedule(seed, 32)) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("seconds", [5.0, 32.0])
def test_a_group_meets_the_likeness_of_every_fault_and_its_read_side_dies(seconds: float) -> None:
    for seed in SEEDS:
        faults = schedule(seed, seconds)
        alike = of_group(faults)
        assert {fault.kind for fault in alike} == set(KINDS)
        assert {f.part for f in alike} <= {NODE, READ_SIDE, *COORDINATORS}
        # What is done to a coordinator or to any shard comes at the same times, for as long.
        same = [fault for fault in alike if fault.kind != READS]
        assert [f._replace(part="") for f in same] == [f._replace(part="") for f in faults]
        assert {f.part for f in same if f.kind in (AWAY, SLOW)} == {NODE}
        assert sum(f.kind == READS for f in alike) == sum(f.kind == SLOW for f in faults)
        for fault, later in pairwise(alike):
            assert fault.until_s < later.at_s
        assert alike[-1].until_s < seconds


# What was seen


def reads(*sums: int | None) -> list[Read]:
    return [Read(float(at), sum_) for at, sum_ in enumerate(sums)]


def test_a_sum_that_is_wrong_for_a_time() -> None:
    found = seen(reads(100, 90, 95, 100, 103, 100, 100, 100), 100, 8)
    assert found == Seen(8, 0, 3 / 8, 2.0, 10, 3, None)


def test_a_sum_that_is_never_right_again() -> None:
    found = seen(reads(100, 100, 80, 70), 100, 10)
    assert (found.wrong_since_s, found.longest_s, found.wrong_share) == (2.0, 8.0, 0.8)
    assert (found.missing_most, found.extra_most) == (30, 0)


def test_reads_without_an_answer_count_for_neither_side() -> None:
    assert seen(reads(None, 100, None, None), 100, 4) == Seen(4, 3, 0.0, 0.0, 0, 0, None)
    assert seen(reads(90, None, 100, 100), 100, 4) == Seen(4, 1, 1 / 3, 2.0, 10, 0, None)
    assert seen([], 100, 4) == Seen(0, 0, 0.0, 0.0, 0, 0, None)


def test_a_plot_of_sums_keeps_what_is_farthest_off() -> None:
    many = [Read(index / 100, 100) for index in range(1000)]
    many[500] = Read(5.0, 60)
    many[501] = Read(5.01, 95)
    thin = thinned(many, 100, 20)
    assert len(thin) <= 21
    assert [off for _, off in thin if off] == [-40]


def test_rates_and_latencies() -> None:
    deals = [deal(str(n), ended=n / 10) for n in range(1, 40)]
    deals.append(deal("refused", outcome="rejected", ended=1.0))
    found = rates(deals, 3.0, 1.0)
    assert [middle for middle, _ in found] == [0.5, 1.5, 2.5]
    assert sum(hits for _, hits in found) == 30
    waits = [n / 1000 for n in range(1, 1001)]
    assert spread(waits) == Spread(0.501, 0.951, 0.991, 1.0, 1000)
    curve = distribution(waits, 10)
    assert (curve[0], curve[-1]) == ((0.001, 0.001), (1.0, 1.0))
    assert curve == sorted(curve)
    assert (spread([]), distribution([], 10)) == (Spread(0, 0, 0, 0, 0), [])


def test_quantiles_of_a_histogram() -> None:
    inf = float("inf")
    found = histogram_spread([(0.01, 50.0), (0.1, 100.0), (1.0, 100.0), (inf, 100.0)])
    assert found is not None
    assert (found.p50, found.count) == (0.01, 100)
    assert found.longest == pytest.approx(0.1)
    assert 0.09 < found.p95 < found.p99 < 0.1
    beyond = histogram_spread([(0.1, 0.0), (inf, 4.0)])
    assert beyond is not None
    assert beyond.p50 == 0.1
    assert histogram_spread([(0.1, 0.0), (inf, 0.0)]) is None


def metrics(*counts: int) -> str:
    """A coordinator's histogram with bounds of 0.1, 1 and infinity, for one role and shard."""
    lines = [
        f'coordinator_lock_hold_seconds_bucket{{le="{bound}",role="home",shard="s1"}} {count}.0'
        for bound, count in zip(("0.1", "1.0", "+Inf"), counts, strict=True)
    ]
    return "\n".join(['coordinator_group_size_bucket{le="1.0"} 9.0', *lines])


def test_lock_times_are_added_up_over_restarts() -> None:
    assert buckets_of(metrics(1, 2, 3)) == {0.1: 1, 1.0: 2, float("inf"): 3}
    times = LockTimes()
    times.begin("c1", metrics(100, 200, 200))
    times.add("c1", metrics(101, 205, 205))
    # Killed and started: what it counts begins at zero.
    times.add("c1", metrics(0, 3, 3))
    times.add("c1", metrics(0, 4, 4))
    found = times.spread()
    assert found is not None
    assert found.count == 9


# The verdict


def deal(id_: str, amount: int = 10, outcome: str = "committed", ended: float = 1.0) -> Deal:
    return Deal(id_, "a", "b", amount, ended - 0.1, ended, outcome, 1, 0)


BEFORE = {"a": 100, "b": 100}


def whole(*ids: str, times: int = 1) -> dict[tuple[str, str], int]:
    """Entries of transfers of 10 from a to b."""
    return {
        key: sign * 10 * times for id_ in ids for key, sign in (((id_, "a"), -1), ((id_, "b"), 1))
    }


def test_right_books() -> None:
    deals = [deal("t1"), deal("t2"), deal("t3", outcome="rejected")]
    found = judge(BEFORE, deals, {"a": 80, "b": 120}, whole("t1", "t2"))
    assert found.is_right
    assert judge(BEFORE, deals, {"a": 80, "b": 120}, None).is_right


@pytest.mark.parametrize("has_happened", [True, False])
def test_without_a_clear_answer_both_are_right(has_happened: bool) -> None:
    after = {"a": 90, "b": 110} if has_happened else BEFORE
    moved = whole("t1") if has_happened else {}
    assert judge(BEFORE, [deal("t1", outcome="unanswered")], after, moved).is_right


@pytest.mark.parametrize(
    ("after", "moved", "what"),
    [
        (BEFORE, {}, "missing"),
        ({"a": 80, "b": 120}, whole("t1", times=2), "doubled"),
        ({"a": 90, "b": 100}, {("t1", "a"): -10}, "torn"),
    ],
)
def test_every_way_to_be_wrong_is_counted(
    after: dict[str, int], moved: dict[tuple[str, str], int], what: str
) -> None:
    found = judge(BEFORE, [deal("t1")], after, moved)
    counts = {name: getattr(found, name) for name in ("missing", "doubled", "torn", "unasked")}
    assert counts == dict.fromkeys(counts, 0) | {what: 1}
    assert not found.is_right
    assert found.accounts_wrong


def test_a_refused_transfer_that_has_happened() -> None:
    found = judge(BEFORE, [deal("t1", outcome="rejected")], {"a": 90, "b": 110}, whole("t1"))
    assert (found.unasked, found.too_much, found.too_little) == (1, 10, 10)


def test_balances_alone_tell_of_a_loss_and_of_a_double() -> None:
    """The first died between its two updates and was sent again; the second was done twice."""
    lost = judge(BEFORE, [deal("t1")], {"a": 80, "b": 110}, None)
    assert (lost.lost, lost.too_little, lost.too_much, lost.missing) == (10, 10, 0, None)
    doubled = judge(BEFORE, [deal("t1")], {"a": 80, "b": 120}, None)
    assert (doubled.lost, doubled.too_little, doubled.too_much) == (0, 10, 10)
    assert (lost.is_right, doubled.is_right) == (False, False)


# Before anything is started


def test_only_protocols_are_named_to_the_service() -> None:
    assert [way.protocol for way in WAYS.values()] == ["", "xa", "tcc", "saga", ""]


def test_a_protocol_that_tandem_does_not_have() -> None:
    check_known(list(WAYS.values()))
    with pytest.raises(LocalError, match='does not know the protocol "barter"'):
        check_known([WAYS["xa"], Way("barter", "Barter", "a goat for two sheep")])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--ways", "naive,barter"), "barter; allowed: naive, xa"),
        (("--ways", ","), "none; allowed: naive, xa"),
        (("--ways", "xa", "--report", "nowhere/page.html"), "there is no folder"),
        (("--ways", "xa", "--data-dir", "."), "is not empty"),
    ],
)
def test_a_wish_that_cannot_be_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "something").touch()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(lab, arguments)
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


@pytest.mark.parametrize(("package", "way"), [("redis", "naive"), ("numba", "eventstore")])
def test_a_missing_package_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, package: str, way: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = CliRunner().invoke(lab, ["--ways", way])
    assert done.exit_code == 1
    assert f"needs {package}, which is not installed: call scripts/lab" in done.stderr


def test_the_version_of_a_redis() -> None:
    told = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=abc"
    assert parse_version(told) == (7, 0, 15)
    assert parse_version("redis") is None
