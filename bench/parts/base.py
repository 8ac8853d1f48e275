"""What every part of the bench has in common."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.place import Place, durability
from bench.surroundings import versions
from tandem.local.progress import Report


@dataclass(frozen=True)
class Sizes:
    """How large the parts are, and how long they take. Accounts and entries are over all shards."""

    rounds: int
    seconds: float
    warm_up_s: float
    clients: int
    batch: int
    workers: int
    single_workers: int
    latency_workers: int
    few_accounts: int
    many_accounts: int
    few_entries: int
    many_entries: int
    minutes: float
    customers: int
    smallbank_clients: int
    shards: tuple[int, ...] = (2, 4, 8)
    # For the parts that need nothing but two shards; None: a new cluster.
    data_dir: Path | None = None
    # The event store at the size of its goals.
    full: bool = False


@dataclass(frozen=True)
class Finding:
    """One row of the table: figures by their name and unit, and a ratio for each round, if it is
    compared with something. `goal` is the least ratio that is good enough.
    """

    title: str
    figures: dict[str, float]
    ratios: list[float] = field(default_factory=list)
    goal: float | None = None

    @property
    def ratio(self) -> float | None:
        return median(self.ratios) if self.ratios else None

    @property
    def is_met(self) -> bool | None:
        """None: there is no goal."""
        return None if self.goal is None or self.ratio is None else self.ratio >= self.goal


@dataclass(frozen=True)
class GoalRow:
    """A goal that is agreed on, in words, and what was found: figures by their name and unit, the
    ratio, and the least one that is good enough. `not_measured`: why this says nothing of the goal.
    """

    load: str
    goal: str
    figures: dict[str, float]
    ratio: float | None
    least: float | None
    not_measured: str = ""

    @property
    def is_met(self) -> bool | None:
        """None: it was not measured."""
        if self.not_measured or self.ratio is None or self.least is None:
            return None
        return self.ratio >= self.least


@dataclass(frozen=True)
class Curve:
    """A line of the plot; `y` over `x`."""

    title: str
    x: list[float]
    y: list[float]


@dataclass
class Outcome:
    """What a part has found."""

    title: str
    findings: list[Finding] = field(default_factory=list)
    goals: list[GoalRow] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    # The servers it was measured on.
    settings: dict[str, Any] = field(default_factory=dict)
    axes: tuple[str, str] = ("", "")
    curves: list[Curve] = field(default_factory=list)

    def measured_on(self, place: Place) -> None:
        """Keep what the servers are. Raises LocalError if they are less than fully durable."""
        servers = {"servers": versions(place), "durability": durability(place)}
        self.settings[f"{len(place.servers)} shards"] = servers


Part = Callable[[Sizes, Report], Outcome]
