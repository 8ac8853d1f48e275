"""Which faults are wished for, and when one of them fires. Pure but for a seeded generator.

    TANDEM_FAULTS = [seed=N;] ITEM; ITEM; ...
    ITEM          = POINT[@SHARD]=MODE[:SECONDS][*COUNT][%PROBABILITY]

A fault fires whenever its point is reached, on its shard if it names one; at most COUNT times in
a process, and with PROBABILITY. Of several faults at one point the first that fires is the one:
`before-commit=cut*1; before-commit=freeze*1` cuts the first time and freezes the second time.
"""

import random
import re
import threading
from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class FaultsError(Exception):
    """A test build cannot be started so; the text names what is wrong and what is allowed."""


class Mode(StrEnum):
    KILL = "kill"  # the whole coordinator, master and workers, at once
    KILL_WORKER = "kill-worker"  # this process alone
    FREEZE = "freeze"  # the whole coordinator, until somebody sends it SIGCONT
    DELAY = "delay"  # this thread, for SECONDS
    FAIL = "fail"  # as if the server had answered with an error
    CUT = "cut"  # the connection: before a packet is sent, or after it was carried out


class Traits(NamedTuple):
    """What a point allows: whether it is reached on a shard, and which modes make sense there."""

    has_shard: bool
    modes: Set[Mode]


@dataclass
class Fault:
    """One item of the plan. `left` counts down; None is for ever."""

    point: str
    shard: str | None
    mode: Mode
    seconds: float
    left: int | None
    probability: float

    def __str__(self) -> str:
        where = f"@{self.shard}" if self.shard else ""
        seconds = f":{self.seconds:g}" if self.mode is Mode.DELAY else ""
        count = "" if self.left is None else f"*{self.left}"
        probability = "" if self.probability == 1 else f"%{self.probability:g}"
        return f"{self.point}{where}={self.mode}{seconds}{count}{probability}"


class Plan:
    """The faults of a process. May be asked by several threads at once.

    The same seed gives the same chances in each life: the first worker, the second, and so on,
    also when the second replaces a first that was killed.
    """

    def __init__(self, faults: list[Fault], seed: int) -> None:
        self.faults = faults
        self.seed = seed
        self._life = 0
        self._chance = random.Random(f"{seed}.0")
        self._lock = threading.Lock()

    def begin_life(self) -> None:
        """To be called before each fork, so that the new process has chances of its own."""
        self._life += 1
        self._chance = random.Random(f"{self.seed}.{self._life}")

    @property
    def points(self) -> list[str]:
        """The points that have a fault, each once, in the order of the text."""
        return list(dict.fromkeys(fault.point for fault in self.faults))

    def take(self, point: str, shard: str | None) -> Fault | None:
        """The fault that fires now that this point is reached; None if all goes well."""
        with self._lock:
            for fault in self.faults:
                if fault.point == point and fault.shard in (None, shard) and self._fires(fault):
                    return fault
        return None

    def _fires(self, fault: Fault) -> bool:
        if fault.left == 0:
            return False
        if fault.probability < 1 and self._chance.random() >= fault.probability:
            return False
        if fault.left is not None:
            fault.left -= 1
        return True


_SYNTAX = "POINT[@SHARD]=MODE[:SECONDS][*COUNT][%PROBABILITY]"
_ITEM = re.compile(
    r"(?P<point>[a-z-]+)(@(?P<shard>[a-z0-9_-]{1,10}))?"
    r"=(?P<mode>[a-z-]+)(:(?P<seconds>\d+(\.\d+)?))?"
    r"(\*(?P<count>\d+))?(%(?P<probability>\d*\.?\d+))?"
)
_SEED = re.compile(r"seed=(?P<seed>\d+)")


def parse(text: str, points: Mapping[str, Traits], seed: int = 0) -> Plan:
    """The plan that a text describes; `seed` is for one that does not say its own.

    Raises FaultsError, which names the item and what is allowed.
    """
    items = [item.strip() for item in text.split(";") if item.strip()]
    said = _SEED.fullmatch(items[0]) if items else None
    if said:
        seed = int(said["seed"])
        items = items[1:]
    return Plan([_fault(item, points) for item in items], seed)


def _fault(item: str, points: Mapping[str, Traits]) -> Fault:
    match = _ITEM.fullmatch(item)
    if not match:
        raise FaultsError(f"fault {item!r} is none; allowed: {_SYNTAX}, and seed=N as the first")
    point, shard, count = match["point"], match["shard"], match["count"]
    traits = points.get(point)
    if traits is None:
        raise FaultsError(f"fault {item!r}: there is no point {point!r}; allowed: {_list(points)}")
    if shard and not traits.has_shard:
        raise FaultsError(f"fault {item!r}: {point} is on no shard; allowed: no @SHARD")
    if match["mode"] not in traits.modes:
        raise FaultsError(
            f"fault {item!r}: {match['mode']!r} is no mode of {point}; allowed: "
            f"{_list([mode for mode in Mode if mode in traits.modes])}"
        )
    mode = Mode(match["mode"])
    probability = float(match["probability"] or 1)
    if not 0 < probability <= 1:
        raise FaultsError(f"fault {item!r}: %{match['probability']}; allowed: above 0, at most 1")
    if count == "0":
        raise FaultsError(f"fault {item!r}: *0; allowed: a count of at least 1")
    if (mode is Mode.DELAY) != (match["seconds"] is not None):
        raise FaultsError(f"fault {item!r}: allowed: delay with :SECONDS, other modes without")
    seconds = float(match["seconds"] or 0)
    return Fault(point, shard, mode, seconds, int(count) if count else None, probability)


def _list(names: Mapping[str, Traits] | list[Mode]) -> str:
    return ", ".join(names)
