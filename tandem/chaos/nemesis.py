"""What is done to whom, and for how long: by chance, within what the cluster can bear. Pure."""

import random
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tandem.local.servers import DatabaseEngine
from tandem.local.state import Kind

# What --faults may name, and what it brings by default. `losses` is for itself: see losses.py.
DEFAULT_FAULTS = (
    "coordinators",
    "workers",
    "shards",
    "zookeeper",
    "freezes",
    "points",
    "lines",
    "locks",
    "variables",
    "clocks",
    "requests",
)
LOSSES = "losses"
FAULTS = (*DEFAULT_FAULTS, LOSSES)
# What only a cluster of its own can bear: its coordinators are a test build, or go to their shards
# through lines of ours.
OWN_CLUSTER = frozenset({"points", "clocks", "lines", LOSSES})
REQUESTS = "requests"

# So many parts may be away at once, in all; and so many nuisances may last at once.
AWAY_MAX = 3
NUISANCES_MAX = 2
# Pauses between two deeds.
PAUSE_MIN_S, PAUSE_MAX_S = 0.3, 4.0


class Deed(NamedTuple):
    """A kind of fault. It lasts from `least_s` to `most_s`; then it is undone."""

    name: str
    kind: Kind
    # Which word of --faults brings it.
    fault: str
    least_s: float
    most_s: float
    weight: int


KILL, STOP, FREEZE, KILL_WORKER = "kill -9", "stop", "freeze", "kill -9 a worker of"
EMPTY, TEAR = "kill -9, and remove the files of,", "tear a frame of"
DRIP, LATE, STILL, CUT = "drip from", "delay to", "silence of", "cut to"
LOCK, LOCK_TABLE, VARIABLE = "lock an account of", "lock the accounts of", "set a variable of"
CLOCK = "turn the clock of"

# ZooKeeper takes a coordinator for gone after 6 s by default: freezes are shorter and longer.
DEEDS = (
    Deed(KILL, "coordinator", "coordinators", 0.1, 4.0, 6),
    Deed(STOP, "coordinator", "coordinators", 0.0, 3.0, 2),
    Deed(FREEZE, "coordinator", "freezes", 0.3, 5.0, 3),
    Deed(FREEZE, "coordinator", "freezes", 7.0, 14.0, 2),
    Deed(KILL_WORKER, "coordinator", "workers", 0.0, 0.0, 5),
    Deed(KILL, "mysql", "shards", 0.1, 3.0, 4),
    Deed(STOP, "mysql", "shards", 0.0, 3.0, 1),
    Deed(FREEZE, "mysql", "freezes", 0.3, 7.0, 3),
    # While a group's only node is away no money moves at all.
    Deed(KILL, "node", "shards", 0.1, 2.0, 4),
    Deed(STOP, "node", "shards", 0.0, 1.0, 2),
    Deed(TEAR, "node", "shards", 0.0, 1.0, 2),
    Deed(FREEZE, "node", "freezes", 0.3, 5.0, 3),
    Deed(KILL, "reads", "shards", 0.1, 3.0, 2),
    Deed(STOP, "reads", "shards", 0.0, 2.0, 1),
    # All that it keeps it makes anew from the list.
    Deed(EMPTY, "reads", "shards", 0.0, 1.0, 1),
    Deed(FREEZE, "reads", "freezes", 0.3, 7.0, 1),
    Deed(KILL, "zookeeper", "zookeeper", 0.5, 10.0, 2),
    Deed(STOP, "zookeeper", "zookeeper", 0.5, 5.0, 1),
    Deed(FREEZE, "zookeeper", "freezes", 0.5, 12.0, 2),
)
# What leaves every process as it is: a sick line to a shard, a person's session there that keeps
# accounts locked, a global variable at its worst value, a coordinator's clock that jumps.
NUISANCES = (
    Deed(DRIP, "mysql", "lines", 0.5, 8.0, 3),
    Deed(LATE, "mysql", "lines", 0.5, 8.0, 2),
    Deed(STILL, "mysql", "lines", 0.5, 8.0, 2),
    Deed(CUT, "mysql", "lines", 0.0, 0.0, 2),
    Deed(DRIP, "node", "lines", 0.5, 4.0, 2),
    Deed(LATE, "node", "lines", 0.5, 5.0, 2),
    Deed(STILL, "node", "lines", 0.5, 4.0, 2),
    Deed(CUT, "node", "lines", 0.0, 0.0, 4),
    Deed(LOCK, "mysql", "locks", 0.5, 12.0, 5),
    Deed(LOCK_TABLE, "mysql", "locks", 0.5, 5.0, 1),
    Deed(VARIABLE, "mysql", "variables", 1.0, 12.0, 4),
    Deed(CLOCK, "coordinator", "clocks", 0.1, 8.0, 4),
)
# What a DBA may set globally, each at its worst value.
VARIABLES: Mapping[DatabaseEngine, tuple[tuple[str, str], ...]] = {
    "mysql": (
        ("sql_select_limit", "1"),
        ("max_join_size", "1"),
        ("sql_safe_updates", "ON"),
        ("sql_mode", "'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'"),
        ("group_concat_max_len", "4"),
        ("max_execution_time", "1"),
        ("transaction_isolation", "'SERIALIZABLE'"),
        ("transaction_read_only", "ON"),
        ("autocommit", "OFF"),
        ("completion_type", "'RELEASE'"),
        ("time_zone", "'+13:00'"),
        ("innodb_lock_wait_timeout", "1000000"),
        ("max_allowed_packet", "1048576"),
        ("read_only", "ON"),
    ),
    "mariadb": (
        ("sql_select_limit", "1"),
        ("max_join_size", "1"),
        ("sql_safe_updates", "ON"),
        ("sql_mode", "'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'"),
        ("group_concat_max_len", "4"),
        ("max_statement_time", "0.001"),
        ("tx_isolation", "'SERIALIZABLE'"),
        ("tx_read_only", "ON"),
        ("autocommit", "OFF"),
        ("completion_type", "'RELEASE'"),
        ("time_zone", "'+13:00'"),
        ("idle_transaction_timeout", "1"),
        ("max_allowed_packet", "1048576"),
        ("read_only", "ON"),
    ),
}
# By how much a clock jumps, in s: an hour back, a minute, a day, a year, eighty years ahead.
JUMPS_S = (-3600.0, 60.0, 86_400.0, 3.2e7, 2.5e9)
_FAULT_OF_KIND = {
    "coordinator": "coordinators",
    "mysql": "shards",
    "node": "shards",
    "reads": "shards",
    "zookeeper": "zookeeper",
}


class Disturbance(NamedTuple):
    """A deed that is done to a part."""

    deed: Deed
    target: str
    for_s: float

    def __str__(self) -> str:
        lasting = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.deed.name} {self.target}{lasting}"


def deeds_of(faults: Collection[str]) -> list[Deed]:
    """The deeds that these words bring. `freezes` is for the kinds of part that are named beside
    it, and for all of them if none is.
    """
    kinds = {kind for kind, fault in _FAULT_OF_KIND.items() if fault in faults}
    return [
        deed
        for deed in DEEDS
        if deed.fault in faults and (deed.fault != "freezes" or not kinds or deed.kind in kinds)
    ]


def nuisances_of(faults: Collection[str]) -> list[Deed]:
    """The nuisances that these words bring."""
    return [deed for deed in NUISANCES if deed.fault in faults]


def may_be_away(kind: Kind, count: int) -> int:
    """How many of so many parts of a kind may be away, so that somebody can go on: one coordinator
    is enough for that, but most transfers need two shards.
    """
    return max(1, (count - 1) // 2 if kind == "mysql" else count - 1)


def choose(
    chance: random.Random,
    deeds: Sequence[Deed],
    parts: Mapping[Kind, Sequence[str]],
    away: Collection[str],
) -> Disturbance | None:
    """What to do next; None if too much is away for anything more."""
    if len(away) >= AWAY_MAX:
        return None
    free = {
        kind: [name for name in names if name not in away]
        for kind, names in parts.items()
        if sum(name in away for name in names) < may_be_away(kind, len(names))
    }
    possible = [deed for deed in deeds if free.get(deed.kind)]
    if not possible:
        return None
    deed = chance.choices(possible, weights=[deed.weight for deed in possible])[0]
    return _lasting(chance, deed, free[deed.kind])


def choose_nuisance(
    chance: random.Random,
    deeds: Sequence[Deed],
    parts: Mapping[Kind, Sequence[str]],
    lasting: Collection[Disturbance],
) -> Disturbance | None:
    """What to do next; None if enough lasts already. Two of one fault are not for one part."""
    if len(lasting) >= NUISANCES_MAX:
        return None
    taken = {(disturbance.deed.fault, disturbance.target) for disturbance in lasting}
    free = {
        deed: [name for name in parts.get(deed.kind, ()) if (deed.fault, name) not in taken]
        for deed in deeds
    }
    possible = [deed for deed in deeds if free[deed]]
    if not possible:
        return None
    deed = chance.choices(possible, weights=[deed.weight for deed in possible])[0]
    return _lasting(chance, deed, free[deed])


def _lasting(chance: random.Random, deed: Deed, names: Sequence[str]) -> Disturbance:
    return Disturbance(deed, chance.choice(names), chance.uniform(deed.least_s, deed.most_s))


# --- points in the coordinators' own code -----------------------------------------------------

_POINTS = (
    "before-lock",
    "after-lock",
    "before-prepare",
    "after-prepare",
    "before-decision",
    "between-decision-and-commit",
    "after-decision",
    "before-commit",
    "after-commit",
    "before-answer",
    "before-arbitration",
    "before-finish",
    "before-cleaning-up",
    "before-phase-trying",
    "after-phase-trying",
    "before-phase-crediting",
    "after-phase-crediting",
    "before-phase-confirming",
    "after-phase-confirming",
    "after-phase-cancelling",
    "before-phase-compensating",
    "after-phase-compensating",
    "before-phase-over",
    "after-phase-over",
    "before-step-tried",
    "after-step-tried",
    "before-step-confirmed",
    "after-step-confirmed",
    "before-step-cancelled",
    "after-step-cancelled",
    "before-step-credited",
    "after-step-credited",
    "after-step-refused",
    "before-sending",
    "before-telling",
)
# How a point strikes, and how often. Under all these faults some ten groups a second pass each of
# them, those about locks much oftener.
_MODES = {
    "kill": 0.001,
    "kill-worker": 0.003,
    "freeze": 0.001,
    "delay:0.4": 0.01,
    "fail": 0.008,
    "cut": 0.008,
}
# Where there is no shard's connection that could fail or be cut.
_WITHOUT_SHARD = ("before-answer", "before-sending", "before-telling")
# What each lone transfer to a ledger group passes strikes so much more seldom.
_SELDOM = {"before-sending": 0.2, "before-telling": 0.2}

# For each planted bug: faults that bring a cluster to where it shows, again and again.
PLANTS = {
    # What dies between the branches' commit and the decision leaves half a group.
    "commit-without-decision": "before-decision=kill-worker%0.05;before-commit=kill-worker%0.05",
    # It is harmless as long as nobody takes branches away: what is not finished is listed, and
    # found again. So a hand takes some.
    "unknown-is-done": "",
    # What dies behind the credit leaves a Saga that looks as if it had not arrived.
    "refund-unasked": "after-step-credited=kill-worker%0.05;before-phase-over=kill-worker%0.05",
    # The decision is gone while a branch still waits for it.
    "collect-early": "before-commit=kill-worker%0.05;after-decision=cut%0.1",
    # What a node takes from its socket when it goes on has happened behind its answer.
    "lost-is-refused": "",
}


# Decided, and left prepared long enough for a hand to take it away.
_FOR_LOSSES = "before-commit=delay:0.5%0.3"


def points(
    chance: random.Random, plant: str | None = None, faults: Collection[str] = DEFAULT_FAULTS
) -> str:
    """A TANDEM_FAULTS for one start of a coordinator: a mode for each point, by chance."""
    seed = f"seed={chance.getrandbits(31)}"
    if LOSSES in faults:
        return f"{seed};{_FOR_LOSSES}"
    if plant:
        return f"{seed};{PLANTS[plant]}"
    if "points" not in faults:
        return seed
    return ";".join([seed, *(_spec(point, chance) for point in _POINTS)])


def _spec(point: str, chance: random.Random) -> str:
    barred = ("fail", "cut") if point in _WITHOUT_SHARD else ()
    mode = chance.choice([mode for mode in _MODES if mode not in barred])
    return f"{point}={mode}%{_MODES[mode] * _SELDOM.get(point, 1):g}"
