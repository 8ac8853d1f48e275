"""What every load has in common."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from tandem.local.progress import Report

# What every account begins with: transfers of 1 to AMOUNT_MAX do not use it up within a run.
FUNDS = 1_000_000
AMOUNT_MAX = 100


@dataclass(frozen=True)
class Scale:
    """How large the loads are: accounts over all shards together; the textbook's threads; the
    engine's clients, and transfers in each of their batches.
    """

    accounts: int
    threads: int
    clients: int
    batch: int


@dataclass
class Tally:
    """What a load has done: transfers that were acknowledged as committed, in how many seconds,
    and how often something else has happened, by its name.
    """

    committed: int = 0
    seconds: float = 0.0
    other: Counter[str] = field(default_factory=Counter)

    def add(self, done: "Tally") -> None:
        """Take in what another has done, at the same time or later; the seconds stay."""
        self.committed += done.committed
        self.other += done.other


T = TypeVar("T", bound=Tally)


def run_together(runs: Sequence[Callable[[float], Tally]], seconds: float, tally: T) -> T:
    """Call each of these in a thread of its own, with the moment (monotonic) until which to run,
    and take what they give into `tally`, with the time until the last of them has ended.
    """
    began = time.monotonic()
    with ThreadPoolExecutor(len(runs)) as pool:
        for done in pool.map(lambda run: run(began + seconds), runs):
            tally.add(done)
    tally.seconds = time.monotonic() - began
    return tally


class Runner(Protocol):
    """A load that is ready to run, in the process that runs it."""

    def run(self, seconds: float) -> Tally:
        """Run for so long and then finish what is under way: the time that takes counts too."""

    def close(self) -> None: ...


class Load(Protocol):
    """A load. It is handed to another process, so it holds plain values only."""

    title: str

    def set_up(self, report: Report) -> None:
        """Make its accounts and give them money."""

    def open(self) -> Runner:
        """Connect; called in the process that runs it."""

    def violations(self, total: Tally) -> list[str]:
        """How the bank's rules are broken after all runs, which together did `total`."""
