"""Two-phase commit of one group, as a table: (phase, event) -> (next phase, effect).

Pure: whoever drives it performs the effect and comes back with the event that it led to. The
coordinator of a group enters at LOCKING; whoever finishes what another began enters at
ARBITRATING. From there on both walk the same lines.

On the way to DECIDING every crash means *aborted*; from COMMITTING on it means *committed*.
Between the two only the decision row on the group's home knows, and ARBITRATING asks it.
"""

from enum import StrEnum
from typing import NamedTuple

from ledger.errors import Bug


class Phase(StrEnum):
    LOCKING = "locking"
    PREPARING = "preparing"
    DECIDING = "deciding"
    WRITING_ALONE = "writing alone"
    COMMITTING_ALONE = "committing alone"
    ARBITRATING = "arbitrating"
    COMMITTING = "committing"
    ABORTING = "aborting"
    # The ends.
    COMMITTED = "committed"
    ABORTED = "aborted"
    UNSETTLED = "unsettled"


class Event(StrEnum):
    NOTHING_TO_WRITE = "nothing to write"
    ONE_SHARD_WRITES = "one shard writes"
    SEVERAL_SHARDS_WRITE = "several shards write"
    LOCKS_LOST = "locks lost"
    ALL_VOTED_YES = "all voted yes"
    VOTE_LOST = "vote lost"
    DECIDED = "decided"
    DECISION_REFUSED = "decision refused"
    DECISION_UNKNOWN = "decision unknown"
    FOUND_COMMITTED = "found committed"
    FOUND_ABORTED = "found aborted"
    FINISHED = "finished"


class Effect(StrEnum):
    WRITE_AND_PREPARE = "write and prepare"
    WRITE_ALONE = "write alone"
    COMMIT_ALONE = "commit alone"
    INSERT_DECISION = "insert the decision"
    ARBITRATE = "arbitrate on home"
    COMMIT_BRANCHES = "commit the branches"
    ROLL_BACK_BRANCHES = "roll back the branches"
    ANSWER = "answer"
    RUN_AGAIN = "run again"


class Step(NamedTuple):
    """Where an event leads: be in `phase`, then perform `effect`."""

    phase: Phase
    effect: Effect


class IllegalStep(Bug):
    """An event that cannot occur in this phase."""


_P, _E, _F = Phase, Event, Effect

TABLE: dict[tuple[Phase, Event], Step] = {
    (_P.LOCKING, _E.NOTHING_TO_WRITE): Step(_P.ABORTING, _F.ROLL_BACK_BRANCHES),
    (_P.LOCKING, _E.LOCKS_LOST): Step(_P.ABORTING, _F.ROLL_BACK_BRANCHES),
    (_P.LOCKING, _E.ONE_SHARD_WRITES): Step(_P.WRITING_ALONE, _F.WRITE_ALONE),
    (_P.LOCKING, _E.SEVERAL_SHARDS_WRITE): Step(_P.PREPARING, _F.WRITE_AND_PREPARE),
    # One shard: its own commit is the commit point. If the answer to it is lost, the ids of the
    # transfers, looked up under the locks of their accounts, tell when they run again.
    (_P.WRITING_ALONE, _E.ALL_VOTED_YES): Step(_P.COMMITTING_ALONE, _F.COMMIT_ALONE),
    (_P.WRITING_ALONE, _E.VOTE_LOST): Step(_P.ABORTING, _F.ROLL_BACK_BRANCHES),
    (_P.COMMITTING_ALONE, _E.DECIDED): Step(_P.COMMITTED, _F.ANSWER),
    (_P.COMMITTING_ALONE, _E.DECISION_UNKNOWN): Step(_P.UNSETTLED, _F.RUN_AGAIN),
    # Several shards.
    (_P.PREPARING, _E.ALL_VOTED_YES): Step(_P.DECIDING, _F.INSERT_DECISION),
    (_P.PREPARING, _E.VOTE_LOST): Step(_P.ABORTING, _F.ROLL_BACK_BRANCHES),
    (_P.DECIDING, _E.DECIDED): Step(_P.COMMITTING, _F.COMMIT_BRANCHES),
    (_P.DECIDING, _E.DECISION_REFUSED): Step(_P.ABORTING, _F.ROLL_BACK_BRANCHES),
    (_P.DECIDING, _E.DECISION_UNKNOWN): Step(_P.ARBITRATING, _F.ARBITRATE),
    (_P.ARBITRATING, _E.FOUND_COMMITTED): Step(_P.COMMITTING, _F.COMMIT_BRANCHES),
    (_P.ARBITRATING, _E.FOUND_ABORTED): Step(_P.ABORTING, _F.ROLL_BACK_BRANCHES),
    (_P.COMMITTING, _E.FINISHED): Step(_P.COMMITTED, _F.ANSWER),
    (_P.ABORTING, _E.FINISHED): Step(_P.ABORTED, _F.RUN_AGAIN),
}

FINAL = frozenset({Phase.COMMITTED, Phase.ABORTED, Phase.UNSETTLED})


def step(phase: Phase, event: Event) -> Step:
    """Where `event` leads from `phase`. Raises IllegalStep if it cannot occur there."""
    try:
        return TABLE[phase, event]
    except KeyError:
        raise IllegalStep(f"{event} cannot occur while {phase}") from None


def diagram() -> str:
    """The table as a Mermaid state diagram, for the documents."""
    names = {phase: phase.name.lower() for phase in Phase}
    lines = ["stateDiagram-v2", f"    [*] --> {names[Phase.LOCKING]}"]
    lines.append(f"    [*] --> {names[Phase.ARBITRATING]}: recovery")
    for (phase, event), (target, effect) in TABLE.items():
        lines.append(f"    {names[phase]} --> {names[target]}: {event} / {effect}")
    lines += [f"    {names[phase]} --> [*]" for phase in Phase if phase in FINAL]
    return "\n".join(lines) + "\n"
