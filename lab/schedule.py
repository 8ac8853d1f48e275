"""Which fault comes when, by chance from a seed alone, so that every way meets the same. Pure."""

import random
from collections.abc import Sequence
from typing import NamedTuple

KILL, AWAY, SLOW, READS = "kill", "away", "slow", "reads"
KINDS = {
    KILL: "a coordinator is killed",
    AWAY: "a shard is away",
    SLOW: "a shard is slow",
    READS: "a read side is away",
}
# Every way meets these; the last one only a way that has a read side.
_EVERYWHERE = (KILL, AWAY, SLOW)
SHARDS = ("s1", "s2")
COORDINATORS = ("c1", "c2")
# The parts of a ledger group, which is its cluster's only shard.
NODE, READ_SIDE = "s1", "s1-reads"

# Nothing is done in the first and in the last part of a run.
QUIET_BEFORE, QUIET_AFTER = 0.08, 0.08
# About so long is there for a fault and for what comes after it, until the next one.
TURN_S = 5.0
# A fault begins within the first part of its turn, and lasts for such a part of it, so that there
# is time to come back from it.
BEGINS_MAX, LASTS_MIN, LASTS_MAX = 0.2, 0.2, 0.45
LASTS_MAX_S = 4.0
# A slow shard stands still and goes on in turns: too short for a time limit to strike.
STANDS_S, GOES_S = 0.25, 0.1
# A read side is killed so soon after a slow shard goes on, and is away for so long: both as parts
# of how long the shard was slow, so that all of it fits into the same turn.
_READS_AFTER, _READS_LAST = 0.25, 0.5


class Fault(NamedTuple):
    """What is done to a part, and when. Times are seconds since the load began."""

    kind: str
    part: str
    at_s: float
    for_s: float

    @property
    def until_s(self) -> float:
        return self.at_s + self.for_s

    def __str__(self) -> str:
        return f"{self.part}: {KINDS[self.kind]}, for {self.for_s:.1f} s"


def schedule(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run that takes so long, in order: never two at a time, and every kind.

    The part and the times of a fault depend on the seed and on its place in the row alone.
    """
    chance = random.Random(f"schedule {seed}")
    first, last = seconds * QUIET_BEFORE, seconds * (1 - QUIET_AFTER)
    count = max(len(_EVERYWHERE), round((last - first) / TURN_S))
    turn_s = (last - first) / count
    return [
        _fault(kind, first + turn_s * index, turn_s, chance)
        for index, kind in enumerate(_kinds(count, chance))
    ]


def of_group(faults: Sequence[Fault]) -> list[Fault]:
    """The likeness of a schedule for a ledger group. What strikes either shard strikes its node,
    at the same time and for as long; after a slow shard, in the same turn, its read side is killed.
    """
    found: list[Fault] = []
    for fault in faults:
        found.append(fault._replace(part=NODE) if fault.part in SHARDS else fault)
        if fault.kind == SLOW:
            at_s = fault.until_s + _READS_AFTER * fault.for_s
            for_s = _READS_LAST * fault.for_s
            found.append(Fault(READS, READ_SIDE, round(at_s, 3), round(for_s, 3)))
    return found


def _kinds(count: int, chance: random.Random) -> list[str]:
    """So many kinds: all of them in a random order, again and again."""
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += chance.sample(_EVERYWHERE, len(_EVERYWHERE))
    return kinds[:count]


def _fault(kind: str, turn_at_s: float, turn_s: float, chance: random.Random) -> Fault:
    parts: Sequence[str] = COORDINATORS if kind == KILL else SHARDS
    at_s = turn_at_s + turn_s * chance.uniform(0, BEGINS_MAX)
    for_s = min(turn_s * chance.uniform(LASTS_MIN, LASTS_MAX), LASTS_MAX_S)
    return Fault(kind, chance.choice(parts), round(at_s, 3), round(for_s, 3))
