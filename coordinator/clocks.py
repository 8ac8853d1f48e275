"""Whose clock is wrong: this machine's or a shard's. Pure: most of the clocks are right."""

from collections.abc import Mapping
from typing import NamedTuple

# Clocks that differ by more are not looked after.
SKEW_MAX_S = 5.0


class Verdict(NamedTuple):
    """What is wrong with this machine's clock, and with those of shards; None and {} is nothing."""

    ours: str | None
    theirs: dict[str, str]


RIGHT = Verdict(None, {})


def judge(skews: Mapping[str, float]) -> Verdict:
    """Compare this machine's clock with those of the shards, each so many seconds ahead of it.

    Where no side has most clocks behind it, this machine's is said to be in doubt, and none of the
    shards is taken away for it.
    """
    if all(abs(skew) <= SKEW_MAX_S for skew in skews.values()):
        return RIGHT
    clocks = [0.0, *skews.values()]
    sides = [[other for other in clocks if abs(other - one) <= SKEW_MAX_S] for one in clocks]
    most = max(sides, key=len)
    rivals = [side for side in sides if len(side) == len(most) and set(side).isdisjoint(most)]
    if rivals:
        told = ", ".join(
            f"that of shard {s} is {_by(skew)} this machine's" for s, skew in skews.items()
        )
        return Verdict(
            f"clocks differ, and which is right is not known: {told}; set all by NTP", {}
        )
    right = most[len(most) // 2]
    theirs = {
        shard: f"its clock is {_by(skew - right)} most others; set it by NTP"
        for shard, skew in skews.items()
        if skew not in most
    }
    if 0.0 in most:
        return Verdict(None, theirs)
    agreeing = ", ".join(shard for shard, skew in skews.items() if skew in most)
    ours = f"this machine's clock is {_by(-right)} those of shards {agreeing}, which agree"
    return Verdict(f"{ours}; set it by NTP", theirs)


def _by(skew: float) -> str:
    where = "ahead of" if skew > 0 else "behind"
    return f"{abs(skew):.1f} s {where}"
