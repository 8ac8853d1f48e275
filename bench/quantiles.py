"""Percentiles of values, and of a histogram."""

import math
from collections.abc import Mapping, Sequence
from statistics import median


def percentile(values: Sequence[float], share: float) -> float:
    """The least of these values that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * share), 1) - 1]


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each figure's median over the rounds, all of which have the same figures."""
    return {name: median(figures[name] for figures in rounds) for name in rounds[0]}


def histogram_quantile(buckets: list[tuple[float, float]], share: float) -> float:
    """As Prometheus does it: evenly within the bucket. 0 if there is nothing."""
    wanted = share * (buckets[-1][1] if buckets else 0.0)
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted and count > below:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return 0.0
