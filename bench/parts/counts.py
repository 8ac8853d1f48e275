"""What a transfer costs with 2, 4 and 8 shards, by the servers' own counters.

Every transfer of the load crosses shards, between accounts drawn at random. The load grows with
the shards: for every two of them there are so many clients and accounts, and all of it goes to one
coordinator. Beside it stands what the cluster does each second without a load, which is in the
counts too: sweeps, InnoDB's own flushes, the bench's reading.
"""

import secrets
import time
from collections import Counter
from statistics import median

from bench import counters
from bench.host import hosted
from bench.loads.base import Scale, Tally
from bench.loads.batches import Batches
from bench.parts.base import Curve, Finding, Outcome, Sizes
from bench.place import Place, cluster
from tandem.local.progress import Report

# "Flat or falling"; what is less than a twentieth more cannot be told from flat.
GOAL = 0.95
# Every shard is to have its share of the flushes, whichever ones decide.
_GOAL_EVEN = 0.75
COMPARED = ("statements", "redo flushes", "binlog flushes", "round trips")
_ACCOUNTS = 20_000
# The leader looks at every shard so often: what is counted without a load is some of these long.
_SWEEP_S = 2.0
_TIME = "processor time"

Cost = dict[str, float]


def counts(sizes: Sizes, report: Report) -> Outcome:
    """What each transfer costs; the ratio is that of the cost with few shards to that with more."""
    outcome = Outcome("counts for each transfer", axes=("shards", "cost, with the fewest = 1"))
    costs: dict[int, list[Cost]] = {}
    for number in sizes.shards:
        costs[number], shares = _measured(number, sizes, outcome, report)
        even = [min(share.values()) / max(share.values()) for share in shares]
        title = f"{number} shards, flushes where there are the fewest to where there are the most"
        totals = {shard: float(count) for shard, count in sum(shares, Counter()).items()}
        figures = {name: median(cost[name] for cost in costs[number]) for name in costs[number][0]}
        figures |= {"transfers in a group": 1 / figures.pop("groups")}
        outcome.findings.append(Finding(f"{number} shards, for each transfer", figures))
        outcome.findings.append(Finding(title, totals, even, _GOAL_EVEN))
    least, *more = sorted(sizes.shards)
    for name in COMPARED:
        for number in more:
            ratios = ratios_of(name, costs[least], costs[number])
            title = f"{name} with {least} shards to those with {number}"
            outcome.findings.append(Finding(title, {}, ratios, GOAL))
        growth = [1 / median(ratios_of(name, costs[least], costs[number])) for number in more]
        outcome.curves.append(Curve(name, list(map(float, (least, *more))), [1.0, *growth]))
    return outcome


def ratios_of(name: str, few: list[Cost], many: list[Cost]) -> list[float]:
    """What one costs with few shards to what it costs with many, round by round."""
    return [a[name] / b[name] for a, b in zip(few, many, strict=True)]


def per_transfer(done: Counter[str], committed: float) -> Cost:
    """What was counted, for each of so many; processor time in µs."""
    return {
        (f"µs {name}" if _TIME in name else name): count
        / committed
        / (1000 if _TIME in name else 1)
        for name, count in done.items()
    }


def _measured(
    shards: int, sizes: Sizes, outcome: Outcome, report: Report
) -> tuple[list[Cost], list[Counter[str]]]:
    """The costs in each round, and how often each shard has flushed in it."""
    costs: list[Cost] = []
    shares: list[Counter[str]] = []
    with cluster(None, 1, sizes.workers, report, shards=shards) as place:
        outcome.measured_on(place)
        counters.watch(place)
        idle = _idle(place, sizes, report)
        outcome.findings.append(Finding(f"{shards} shards, without a load, each second", idle))
        pairs = shards // 2
        accounts = min(_ACCOUNTS, sizes.many_accounts) * pairs
        scale = Scale(accounts, 1, sizes.clients * pairs, sizes.batch)
        load = Batches(place, scale, secrets.token_hex(4))
        load.set_up(report)
        total = Tally()
        with hosted(load) as host:
            total.add(host.run(sizes.warm_up_s))
            for number in range(1, sizes.rounds + 1):
                report(f"Counting with {shards} shards: round {number} of {sizes.rounds}")
                before, flushed = counters.counts(place), counters.flushes(place)
                done = host.run(sizes.seconds)
                after, share = counters.counts(place), counters.flushes(place)
                share.subtract(flushed)
                shares.append(share)
                total.add(done)
                if done.other:
                    raise RuntimeError(f"with {shards} shards not all was committed: {done.other}")
                if not done.committed:
                    raise RuntimeError(f"no transfer was committed with {shards} shards")
                after.subtract(before)
                costs.append(per_transfer(after, done.committed))
        outcome.violations += load.violations(total)
    return costs, shares


def _idle(place: Place, sizes: Sizes, report: Report) -> dict[str, float]:
    """What a cluster that has nothing to do does each second."""
    report("Counting what happens without a load")
    before, began = counters.counts(place), time.monotonic()
    time.sleep(max(round(sizes.seconds / _SWEEP_S), 1) * _SWEEP_S)
    after = counters.counts(place)
    after.subtract(before)
    return per_transfer(after, time.monotonic() - began)
