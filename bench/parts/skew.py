"""One transfer for each request, and accounts that many want: loads in turn, on one cluster."""

import secrets
from collections.abc import Mapping
from functools import partial

from bench import wrk
from bench.draws import Draw, hot, uniform, zipf
from bench.loads.base import Load, Scale
from bench.loads.batches import Batches
from bench.loads.singles import CONNECTIONS, Singles
from bench.loads.textbook import Textbook
from bench.measure import Figures, measure, ratios
from bench.parts.base import Finding, Outcome, Sizes
from bench.place import cluster
from tandem.local.progress import Report

THREADS = 8
_GOAL_SINGLE = 4.0
_GOAL_SKEW = 0.9


def singles(sizes: Sizes, report: Report) -> Outcome:
    """One transfer for each request: as many as textbook XA's four times; a hot account and Zipf's
    law as many as uniform draws.
    """
    program = wrk.find(report)
    scale = Scale(sizes.few_accounts, THREADS, sizes.clients, sizes.batch)
    draws: dict[str, tuple[Draw, str]] = {
        "uniform": (uniform, "accounts drawn uniformly"),
        "hot": (hot, "into one hot account"),
        "zipf-1": (partial(zipf, s=1.0), "accounts drawn by Zipf's law, s = 1"),
        "zipf-2": (partial(zipf, s=2.0), "accounts drawn by Zipf's law, s = 2"),
    }
    outcome = Outcome(
        f"One transfer for each request: {CONNECTIONS} connections, textbook XA {THREADS} threads"
    )
    with cluster(sizes.data_dir, 1, sizes.single_workers, report) as place:
        outcome.measured_on(place)
        name = secrets.token_hex(4)
        loads: dict[str, Load] = {"textbook": Textbook(place, scale, name)}
        for key, (draw, how) in draws.items():
            run = f"{name}{key}"
            loads[key] = Singles(place, scale, run, wrk=program, draw=draw, how=how)
        found = measure_all(loads, sizes, outcome, report)
        outcome.settings["workers"] = place.workers
        outcome.findings.append(finding(found["textbook"]))
        outcome.findings.append(finding(found["uniform"], found["textbook"], _GOAL_SINGLE))
        for key in list(draws)[1:]:
            outcome.findings.append(finding(found[key], found["uniform"], _GOAL_SKEW))
    return outcome


def hot_batches(sizes: Sizes, report: Report) -> Outcome:
    """Batches that all pay into one account, against batches between accounts drawn uniformly."""
    scale = Scale(sizes.few_accounts, THREADS, sizes.clients, sizes.batch)
    outcome = Outcome("One hot account, batches")
    with cluster(sizes.data_dir, 1, sizes.workers, report) as place:
        outcome.measured_on(place)
        name = secrets.token_hex(4)
        loads: dict[str, Load] = {
            "spread": Batches(place, scale, f"{name}spread"),
            "hot": Batches(place, scale, f"{name}hot", is_hot=True),
        }
        found = measure_all(loads, sizes, outcome, report)
        outcome.findings.append(finding(found["spread"]))
        outcome.findings.append(finding(found["hot"], found["spread"], _GOAL_SKEW))
    return outcome


def measure_all(
    loads: Mapping[str, Load], sizes: Sizes, outcome: Outcome, report: Report
) -> dict[str, Figures]:
    for load in loads.values():
        load.set_up(report)
    found = measure(loads, sizes.rounds, sizes.seconds, sizes.warm_up_s, report)
    for key, load in loads.items():
        report(f"Checking the bank's rules: {load.title}")
        outcome.violations += load.violations(found[key].total)
    return found


def finding(found: Figures, base: Figures | None = None, goal: float | None = None) -> Finding:
    other = {name: float(n) for name, n in found.total.other.items() if name != "pending"}
    figures = {"transfers/s": found.rate} | other
    return Finding(found.title, figures, ratios(found, base) if base else [], goal)
