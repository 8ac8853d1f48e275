"""Which faults, protocols and planted bugs fit which kind of shard. Pure.

What a word of --faults brings is in nemesis.DEEDS and NUISANCES, for each kind of part: of a ledger
group those are its node and its read side.
"""

from collections.abc import Collection, Mapping

from coordinator.telemetry.metrics import PROTOCOLS
from tandem.chaos.nemesis import LOSSES
from tandem.local.servers import Engine

# The words of --faults that do not fit a kind of shard, and why; all others fit.
UNFIT: Mapping[Engine, Mapping[str, str]] = {
    "mysql": {},
    "mariadb": {},
    "eventstore": {
        "locks": "no account of a ledger group is ever locked",
        "variables": "a ledger group has no variables that somebody could set while it runs",
        LOSSES: "a ledger group prepares nothing that could be taken away",
    },
}
PROTOCOLS_OF: Mapping[Engine, frozenset[str]] = {
    "mysql": frozenset(PROTOCOLS),
    "mariadb": frozenset(PROTOCOLS),
    # It takes part in no two-phase commit.
    "eventstore": frozenset({"tcc", "saga"}),
}
# By which faults a planted bug shows, besides the points that nemesis.PLANTS names.
PLANT_FAULTS: Mapping[str, frozenset[str]] = {
    "unknown-is-done": frozenset({LOSSES}),
    "lost-is-refused": frozenset({"lines"}),
}
# The bugs that are in the way of a group's commands; all others are in that of XA and of phases.
_GROUP_PLANTS = frozenset({"lost-is-refused"})


def fitting(words: Collection[str], engine: Engine) -> frozenset[str]:
    """Those of these words of --faults that fit a kind of shard."""
    return frozenset(words) - UNFIT[engine].keys()


def misfit(words: Collection[str], engine: Engine) -> str:
    """Why some of these words do not fit a kind of shard; "" if all do."""
    unfit = UNFIT[engine]
    return "; ".join(f"{word}: {unfit[word]}" for word in sorted(unfit.keys() & set(words)))


def plant_fits(plant: str, engine: Engine) -> bool:
    """Whether a planted bug could ever show on a kind of shard."""
    return (plant in _GROUP_PLANTS) == (engine == "eventstore")
