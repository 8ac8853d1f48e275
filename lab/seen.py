"""Arithmetic on what was seen: sums, rates, spreads. Pure."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from lab.result import Deal, Seen, Spread


class Read(NamedTuple):
    """The sum of all balances as one reader saw it; None: nobody answered."""

    at: float
    sum: int | None


def seen(reads: Sequence[Read], total: int, until: float) -> Seen:
    """What the reads of one reader show, when the sum should always be `total`.

    What a read shows holds until the next one; times without an answer count for neither side.
    """
    wrong_s = right_s = longest_s = 0.0
    wrong_since: float | None = None
    offs: list[int] = []
    ends = [read.at for read in reads[1:]] + [max(until, reads[-1].at)] if reads else []
    for read, end in zip(reads, ends, strict=True):
        if read.sum is None:
            continue
        off = read.sum - total
        offs.append(off)
        if off:
            wrong_s += end - read.at
            wrong_since = read.at if wrong_since is None else wrong_since
            longest_s = max(longest_s, end - wrong_since)
        else:
            if wrong_since is not None:
                longest_s = max(longest_s, read.at - wrong_since)
            right_s += end - read.at
            wrong_since = None
    return Seen(
        reads=len(reads),
        unanswered=len(reads) - len(offs),
        wrong_share=wrong_s / (wrong_s + right_s) if wrong_s else 0.0,
        longest_s=longest_s,
        missing_most=max(0, -min(offs, default=0)),
        extra_most=max(0, *offs, 0),
        wrong_since_s=wrong_since,
    )


def thinned(reads: Sequence[Read], total: int, points: int) -> list[tuple[float, int]]:
    """(when, how far off) for a plot: of each stretch of time the read that is farthest off."""
    answered = [(read.at, read.sum - total) for read in reads if read.sum is not None]
    if not answered:
        return []
    first, last = answered[0][0], answered[-1][0]
    step = max((last - first) / points, 1e-9)
    farthest: dict[int, tuple[float, int]] = {}
    for at, off in answered:
        place = int((at - first) / step)
        if place not in farthest or abs(off) > abs(farthest[place][1]):
            farthest[place] = (at, off)
    return list(farthest.values())


def spread(seconds: Sequence[float]) -> Spread:
    """Quantiles of what was measured one by one."""
    each = sorted(seconds)
    if not each:
        return Spread(0, 0, 0, 0, 0)

    def quantile(share: float) -> float:
        return each[min(len(each) - 1, int(share * len(each)))]

    return Spread(quantile(0.5), quantile(0.95), quantile(0.99), each[-1], len(each))


def committed(deals: Sequence[Deal], seconds: float) -> list[Deal]:
    """Those that were answered as committed while the load was on."""
    return [deal for deal in deals if deal.outcome == "committed" and deal.ended <= seconds]


def rates(deals: Sequence[Deal], seconds: float, step_s: float) -> list[tuple[float, float]]:
    """(middle of a stretch of time, transfers committed in a second)."""
    count = max(1, int(seconds / step_s))
    hits = [0] * count
    for deal in committed(deals, count * step_s):
        hits[min(count - 1, int(deal.ended / step_s))] += 1
    return [((index + 0.5) * step_s, hit / step_s) for index, hit in enumerate(hits)]


def distribution(seconds: Sequence[float], points: int) -> list[tuple[float, float]]:
    """(latency, share of the transfers that took no longer), at so many shares at most."""
    each = sorted(seconds)
    places = (
        sorted({round(i * (len(each) - 1) / points) for i in range(points + 1)}) if each else []
    )
    return [(each[place], (place + 1) / len(each)) for place in places]


def histogram_spread(buckets: Sequence[tuple[float, float]]) -> Spread | None:
    """Quantiles from a histogram's (upper bound, count up to it), the last bound infinite.

    Within a bucket it is taken as even; beyond the last finite bound nothing is known but that
    bound. None if it is empty.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    total = buckets[-1][1]
    finite = [bound for bound, _ in buckets if bound != float("inf")]

    def quantile(share: float) -> float:
        wanted = share * total
        place = bisect_left([count for _, count in buckets], wanted)
        if place >= len(finite):
            return finite[-1]
        below, before = (buckets[place - 1]) if place else (0.0, 0.0)
        bound, count = buckets[place]
        return below + (bound - below) * (wanted - before) / max(count - before, 1e-9)

    return Spread(quantile(0.5), quantile(0.95), quantile(0.99), quantile(1.0), round(total))
