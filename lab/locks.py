"""How long locks were held: a coordinator's histogram, looked at again and again.

What a coordinator counts is gone when it is killed, so what has come since the last look is added
up here. Pure.
"""

import re
from collections import defaultdict
from collections.abc import Mapping

from lab.result import Spread
from lab.seen import histogram_spread

METRIC = "coordinator_lock_hold_seconds"
_LINE = re.compile(rf'^{METRIC}_bucket\{{.*\ble="([^"]+)".*\}} (\S+)', re.MULTILINE)

Buckets = Mapping[float, float]


def buckets_of(metrics: str) -> Buckets:
    """Upper bound -> how often locks were held no longer, over all roles and shards."""
    found: defaultdict[float, float] = defaultdict(float)
    for bound, count in _LINE.findall(metrics):
        found[float(bound)] += float(count)
    return found


class LockTimes:
    """Adds up what several coordinators count, over their restarts."""

    def __init__(self) -> None:
        self._last: dict[str, Buckets] = {}
        self._sum: defaultdict[float, float] = defaultdict(float)

    def begin(self, coordinator: str, metrics: str) -> None:
        """What it has counted so far is not of this run."""
        self._last[coordinator] = buckets_of(metrics)

    def add(self, coordinator: str, metrics: str) -> None:
        """A further look at it."""
        now = buckets_of(metrics)
        last = self._last.get(coordinator, {})
        if any(now.get(bound, 0) < count for bound, count in last.items()):
            # It was started anew.
            last = {}
        for bound, count in now.items():
            self._sum[bound] += count - last.get(bound, 0)
        self._last[coordinator] = now

    def spread(self) -> Spread | None:
        return histogram_spread(sorted(self._sum.items()))
