"""What the part about the event store works out of what it measures, with the goals: pure."""

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
GOAL_NUMBERS = 1_500_000
GOAL_REPLAY = 3_000_000
GOAL_CATCH_UP = 500_000
# To the MySQL engine in the same run; to accounts drawn uniformly.
GOAL_BATCHES = 10.0
GOAL_SINGLES = 5.0
GOAL_SKEW = 0.8
# Of statements and balances at a time; the 99th percentile.
GOAL_READ_MS = 20.0
# Of a batch that is a frame of its own; the 99th percentile.
GOAL_FRAME_MS = 10.0
# From a snapshot.
GOAL_START_S = 10.0
# Of the list for each transfer without key and metadata.
GOAL_BYTES = 64


def compared(found: Mapping[str, Figures]) -> dict[str, Finding]:
    """All that move money, by the names of the loads, as `eventstore` has them."""
    books, ours, inside = found["textbook"], found["mysql"], found["inside"]
    singles, group, node = found["singles"], found["group"], found["node"]
    made = {
        "textbook": finding(books),
        "mysql": finding(ours, books),
        "group": finding(group, ours, GOAL_BATCHES),
        "hot": finding(found["hot"], group, GOAL_SKEW),
        "zipf 1": finding(found["zipf 1"], group, GOAL_SKEW),
        "zipf 2": finding(found["zipf 2"], group, GOAL_SKEW),
        "NDJSON": to_rate(found["NDJSON"], GOAL_COLUMNS),
        "Arrow": to_rate(found["Arrow"], GOAL_COLUMNS),
        "numbers": to_rate(found["numbers"], GOAL_NUMBERS),
        "node": to_rate(node, GOAL_SOCKET),
        "node hot": finding(found["node hot"], node, GOAL_SKEW),
        "many": finding(found["many"], node, GOAL_SKEW),
        "inside": finding(inside),
        "frames": frames(found["frames"]),
        "mysql singles": finding(found["mysql singles"], books),
        "singles": finding(singles, found["mysql singles"], GOAL_SINGLES),
        "singles hot": finding(found["singles hot"], singles, GOAL_SKEW),
        "textbook alone": alone(found["textbook alone"]),
        "mysql alone": alone(found["mysql alone"], found["textbook alone"]),
        "alone": alone(found["alone"], found["textbook alone"], 1.0),
        "statement": read(found["statement"]),
        "balance at": read(found["balance at"]),
    }
    if "ids" in found:
        made["ids"] = finding(found["ids"], inside, GOAL_SKEW)
    return made


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
    return _timed(found, "reads/s", GOAL_READ_MS)


def frames(found: Figures) -> Finding:
    """Batches one after the other, each a frame. The ratio is the goal to the 99th percentile."""
    return _timed(found, "transfers/s", GOAL_FRAME_MS)


def _timed(found: Figures, rate: str, goal_ms: float) -> Finding:
    rounds = latencies(found)
    ratios = [goal_ms / each["p99 ms"] for each in rounds]
    other = {name: float(count) for name, count in found.total.other.items()}
    figures = {rate: found.rate} | medians(rounds) | other
    return Finding(f"{found.title}, {goal_ms:g} ms to p99", figures, ratios, 1.0)


def latencies(found: Figures) -> list[dict[str, float]]:
    """Percentiles in each round, in ms."""
    rounds = [done.latencies for done in found.rounds if isinstance(done, HonestTally)]
    return [
        {"p50 ms": percentile(some, 0.5) * 1000, "p99 ms": percentile(some, 0.99) * 1000}
        for some in rounds
    ]


def replayed(what: str, rates: Sequence[float]) -> Finding:
    """How fast a list is replayed, to the goal."""
    return _rebuilt(f"replay of a list, {what}", rates, GOAL_REPLAY)


def caught_up(what: str, rates: Sequence[float]) -> Finding:
    """How fast a read side is made anew from a list, to the goal."""
    return _rebuilt(f"a read side from nothing, {what}", rates, GOAL_CATCH_UP)


def _rebuilt(title: str, rates: Sequence[float], goal: int) -> Finding:
    figures = {"transfers/s": median(rates)}
    return Finding(f"{title}, to {goal:,}/s", figures, [rate / goal for rate in rates], 1.0)


def started(accounts: int, seconds: Sequence[float]) -> Finding:
    """How long a node takes from a snapshot until it answers; the ratio is the goal to it."""
    title = f"a node's start from a snapshot of {accounts:,} accounts, {GOAL_START_S:g} s to it"
    ratios = [GOAL_START_S / each for each in seconds]
    return Finding(title, {"s": median(seconds)}, ratios, 1.0)


def kept(size_bytes: int, transfers: int) -> Finding:
    """What the list has on disk for each transfer; the ratio is the goal to it."""
    each = size_bytes / max(transfers, 1)
    title = f"the list, {GOAL_BYTES} bytes to those of a transfer"
    return Finding(title, {"bytes": each}, [GOAL_BYTES / each], 1.0)
