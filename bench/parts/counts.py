"""What a transfer costs with 2, 4 and 8 shards, by the servers' own counters.

Every transfer of the load crosses shards, between accounts drawn at random. The load grows with
the shards, as it does where shards are added for more of it: each has the same number of accounts,
and for every two of them there are as many clients. What the cluster does without a load is taken
off: sweeps, flushes once a second, the bench's own reading.
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
COMPARED = ("statements", "redo flushes", "binlog flushes", "round trips")
_ACCOUNTS_OF_EACH = 10_000
_TIME = "processor time"
# After a load, until what it has left to do in the background is done, or most of it.
_SETTLE_S = 2.0

Cost = dict[str, float]


def counts(sizes: Sizes, report: Report) -> Outcome:
    """What each transfer costs; the ratio is that of the cost with few shards to that with more."""
    outcome = Outcome("counts for each transfer", axes=("shards", "cost, with the fewest = 1"))
    costs: dict[int, list[Cost]] = {}
    for number in sizes.shards:
        costs[number] = _measured(number, sizes, outcome, report)
        figures = {name: median(cost[name] for cost in costs[number]) for name in costs[number][0]}
        outcome.findings.append(Finding(f"{number} shards, for each transfer", figures))
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


def per_transfer(done: Counter[str], committed: int) -> Cost:
    """What was counted, for each transfer; processor time in µs."""
    return {
        (f"µs {name}" if _TIME in name else name): count
        / committed
        / (1000 if _TIME in name else 1)
        for name, count in done.items()
    }


def _measured(shards: int, sizes: Sizes, outcome: Outcome, report: Report) -> list[Cost]:
    """The costs in each round."""
    costs: list[Cost] = []
    with cluster(None, 1, sizes.workers, report, shards=shards) as place:
        outcome.measured_on(place)
        counters.watch(place)
        accounts = min(_ACCOUNTS_OF_EACH * shards, sizes.many_accounts)
        scale = Scale(accounts, 1, sizes.clients * shards // 2, sizes.batch)
        load = Batches(place, scale, secrets.token_hex(4))
        load.set_up(report)
        total = Tally()
        with hosted(load) as host:
            total.add(host.run(sizes.warm_up_s))
            idle = _idle(place, sizes.seconds, report)
            for number in range(1, sizes.rounds + 1):
                report(f"Counting with {shards} shards: round {number} of {sizes.rounds}")
                before, began = counters.counts(place), time.monotonic()
                done = host.run(sizes.seconds)
                seconds, after = time.monotonic() - began, counters.counts(place)
                total.add(done)
                if not done.committed:
                    raise RuntimeError(f"no transfer was committed with {shards} shards")
                after.subtract(before)
                after.subtract({name: round(rate * seconds) for name, rate in idle.items()})
                costs.append(per_transfer(after, done.committed))
        outcome.violations += load.violations(total)
    return costs


def _idle(place: Place, seconds: float, report: Report) -> dict[str, float]:
    """What the cluster does each second without a load."""
    report("Counting what happens without a load")
    time.sleep(_SETTLE_S)
    before, began = counters.counts(place), time.monotonic()
    time.sleep(seconds)
    after = counters.counts(place)
    after.subtract(before)
    return {name: count / (time.monotonic() - began) for name, count in after.items()}
