"""The largest batches that the API takes beside batches of a thousand, in turn, on one cluster."""

import secrets
from collections import Counter
from contextlib import ExitStack

from bench import counters
from bench.host import hosted
from bench.loads.base import Scale
from bench.loads.batches import Batches
from bench.measure import Figures, ratios
from bench.parts.base import Finding, Outcome, Sizes
from bench.parts.skew import THREADS
from bench.place import Place, cluster
from coordinator.http.schemas import BATCH_MAX
from tandem.local.progress import Report

_USUAL = 1000
_GOAL = 1.0
_TIME = "coordinators' processor time"


def batch_sizes(sizes: Sizes, report: Report) -> Outcome:
    """Batches of a thousand, and of as many as one request may hold."""
    outcome = Outcome(f"Batches of {_USUAL:,} and of {BATCH_MAX:,}, {sizes.clients} clients")
    with cluster(sizes.data_dir, 1, sizes.single_workers, report) as place:
        outcome.measured_on(place)
        outcome.settings["workers"] = place.workers
        name = secrets.token_hex(4)
        loads = {
            size: Batches(
                place, Scale(sizes.few_accounts, THREADS, sizes.clients, size), f"{name}{size}"
            )
            for size in (_USUAL, BATCH_MAX)
        }
        for load in loads.values():
            load.set_up(report)
        found, costs = _in_turn(place, loads, sizes, report)
        for size, load in loads.items():
            report(f"Checking the bank's rules: {load.title}")
            outcome.violations += load.violations(found[size].total)
        for size, figures in found.items():
            base = found[_USUAL] if size != _USUAL else None
            outcome.findings.append(_finding(figures, costs[size], base))
    return outcome


def _in_turn(
    place: Place, loads: dict[int, Batches], sizes: Sizes, report: Report
) -> tuple[dict[int, Figures], dict[int, Counter[str]]]:
    """What each load has done, and what was counted while its turns lasted."""
    found = {size: Figures(load.title) for size, load in loads.items()}
    costs: dict[int, Counter[str]] = {size: Counter() for size in loads}
    with ExitStack() as stack:
        hosts = {size: stack.enter_context(hosted(load)) for size, load in loads.items()}
        for size, host in hosts.items():
            report(f"Warming up: {loads[size].title}")
            found[size].total.add(host.run(sizes.warm_up_s))
        for number in range(1, sizes.rounds + 1):
            for size, host in hosts.items():
                report(f"Round {number} of {sizes.rounds}: {loads[size].title}")
                before = counters.of_coordinators(place)
                done = host.run(sizes.seconds)
                after = counters.of_coordinators(place)
                after.subtract(before)
                found[size].total.add(done)
                found[size].rates.append(done.committed / done.seconds)
                costs[size] += after + Counter(committed=done.committed)
    return found, costs


def _finding(found: Figures, cost: Counter[str], base: Figures | None) -> Finding:
    committed = max(cost["committed"], 1)
    figures = {
        "transfers/s": found.rate,
        "µs of a coordinator for each": cost[_TIME] / committed / 1000,
        "times that each was put off": cost["deferred"] / committed,
        "transfers in a group": committed / max(cost["groups"], 1),
    }
    other = {name: float(n) for name, n in found.total.other.items()}
    goal = _GOAL if base else None
    return Finding(found.title, figures | other, ratios(found, base) if base else [], goal)
