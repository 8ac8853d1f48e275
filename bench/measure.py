"""The loads in turn, over several rounds, so that what drifts on the machine concerns all alike."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

from bench.host import hosted
from bench.loads.base import Load, Tally
from tandem.local.progress import Report


@dataclass
class Figures:
    """What was measured of one load: what it did in each round, its transfers/s there, and all it
    has done.
    """

    title: str
    rounds: list[Tally] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    total: Tally = field(default_factory=Tally)

    @property
    def rate(self) -> float:
        return median(self.rates)


def measure(
    loads: Mapping[str, Load], rounds: int, seconds: float, warm_up_s: float, report: Report
) -> dict[str, Figures]:
    """Warm each load up, then run all of them one after the other in every round.

    The total includes the warm-up. Raises RuntimeError if a load breaks off.
    """
    figures = {name: Figures(load.title) for name, load in loads.items()}
    with ExitStack() as stack:
        hosts = {name: stack.enter_context(hosted(load)) for name, load in loads.items()}
        for name, host in hosts.items():
            report(f"Warming up: {figures[name].title}")
            figures[name].total.add(host.run(warm_up_s))
        for number in range(1, rounds + 1):
            for name, host in hosts.items():
                found = figures[name]
                report(f"Round {number} of {rounds}, {seconds:g} s, {found.title}")
                done = host.run(seconds)
                found.total.add(done)
                found.rounds.append(done)
                found.rates.append(done.committed / done.seconds)
    return figures


def ratios(figures: Figures, baseline: Figures) -> list[float]:
    """How many times as fast as the baseline, in each round; 0 where that has done nothing."""
    pairs = zip(figures.rates, baseline.rates, strict=True)
    return [rate / base if base else 0.0 for rate, base in pairs]
