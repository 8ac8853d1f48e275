"""What the part about ledger groups works out of what it measures, with the goals: pure."""

from collections.abc import Mapping, Sequence
from statistics import median

from bench.loads.honest import HonestTally
from bench.measure import Figures
from bench.parts.base import Finding
from bench.parts.skew import finding
from bench.quantiles import medians, percentile

# Transfers/s.
GOAL_SOCKET = 2_000_000
GOAL_COLUMNS = 600_000
GOAL_REPLAY = 3_000_000
GOAL_CATCH_UP = 500_000
# To the MySQL engine in the same run; to accounts drawn uniformly.
GOAL_BATCHES = 10.0
GOAL_SINGLES = 5.0
GOAL_SKEW = 0.8
# Of statements and balances at a time; the 99th percentile.
GOAL_READ_MS = 20.0
# Of the list for each transfer without key and metadata.
GOAL_BYTES = 64


def compared(found: Mapping[str, Figures]) -> list[Finding]:
    """All that move money. The names are those of `ledger_group`."""
    books, ours = found["textbook"], found["mysql"]
    singles, group = found["group singles"], found["group"]
    return [
        finding(books),
        finding(ours, books),
        finding(group, ours, GOAL_BATCHES),
        finding(found["group hot"], group, GOAL_SKEW),
        finding(found["group zipf"], group, GOAL_SKEW),
        to_rate(found["NDJSON"], GOAL_COLUMNS),
        to_rate(found["Arrow"], GOAL_COLUMNS),
        to_rate(found["node"], GOAL_SOCKET),
        finding(found["node hot"], found["node"], GOAL_SKEW),
        finding(found["mysql singles"], books),
        finding(singles, found["mysql singles"], GOAL_SINGLES),
        finding(found["group singles hot"], singles, GOAL_SKEW),
        alone(found["textbook alone"]),
        alone(found["mysql alone"], found["textbook alone"]),
        alone(found["group alone"], found["textbook alone"], 1.0),
    ]


def to_rate(found: Figures, goal: float) -> Finding:
    """The ratio is that to the goal, in transfers/s."""
    figures = finding(found).figures
    rates = [rate / goal for rate in found.rates]
    return Finding(f"{found.title}, to {goal:,}/s", figures, rates, 1.0)


def alone(found: Figures, base: Figures | None = None, goal: float | None = None) -> Finding:
    """One client. The ratio is the median latency of `base` to its own: above 1 it is quicker."""
    rounds = latencies(found)
    ratios = []
    if base:
        pairs = zip(rounds, latencies(base), strict=True)
        ratios = [theirs["p50 ms"] / own["p50 ms"] for own, theirs in pairs]
    figures = medians(rounds) | finding(found).figures
    return Finding(f"{found.title}, p50", figures, ratios, goal)


def read(found: Figures) -> Finding:
    """Reads by one client. The ratio is the goal to the 99th percentile."""
    rounds = latencies(found)
    ratios = [GOAL_READ_MS / each["p99 ms"] for each in rounds]
    other = {name: float(count) for name, count in found.total.other.items()}
    figures = {"reads/s": found.rate} | medians(rounds) | other
    return Finding(f"{found.title}, {GOAL_READ_MS:g} ms to p99", figures, ratios, 1.0)


def latencies(found: Figures) -> list[dict[str, float]]:
    """Percentiles in each round, in ms."""
    rounds = [done.latencies for done in found.rounds if isinstance(done, HonestTally)]
    return [
        {"p50 ms": percentile(some, 0.5) * 1000, "p99 ms": percentile(some, 0.99) * 1000}
        for some in rounds
    ]


def rebuilt(what: str, replays: Sequence[float], catch_ups: Sequence[float]) -> list[Finding]:
    """How fast a list is replayed, and a read side made anew from it, to the goals."""
    rates = {
        f"replay of a list, {what}": (replays, GOAL_REPLAY),
        f"a read side from nothing, {what}": (catch_ups, GOAL_CATCH_UP),
    }
    return [
        Finding(
            f"{title}, to {goal:,}/s",
            {"transfers/s": median(each)},
            [rate / goal for rate in each],
            1.0,
        )
        for title, (each, goal) in rates.items()
    ]


def kept(size_bytes: int, transfers: int) -> Finding:
    """What the list has on disk for each transfer; the ratio is the goal to it."""
    each = size_bytes / max(transfers, 1)
    title = f"the list, {GOAL_BYTES} bytes to those of a transfer"
    return Finding(title, {"bytes": each}, [GOAL_BYTES / each], 1.0)
