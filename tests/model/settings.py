"""The arrangements of the world that are explored: small ones in the tests, large ones by hand."""

from tests.model.world import Rule, Setting

# Shard 0 is home unless `homes` says otherwise; of 0 and 1 the source is 0.
_TWO = Setting(homes=(0, 0))
_ALONE = Setting(homes=(0,), faults=2)
_ONE_SHARD = Setting(shards=1, destination=0, slots=3, faults=3, has_deadlines=True)
# The source and the destination on the remote shards; home has nothing but the decision.
_THREE = Setting(shards=3, homes=(0,), source=1, destination=2)
# A group has left no trace when the next of the three-shard ones begins.
_THREE_IN_TURN = _THREE._replace(slots=1)

SMALL = {
    "one shard, two coordinators": _ONE_SHARD,
    "two coordinators, the source on home": _TWO,
    "two coordinators, the source on the remote shard": _TWO._replace(homes=(1, 1)),
    "two coordinators with a home each": _TWO._replace(homes=(0, 1)),
    "two coordinators, impatient clients": _TWO._replace(faults=0, has_deadlines=True),
    "two coordinators, commits are seen before they are safe": _TWO._replace(shows_early=True),
    "one coordinator, an impatient client": _ALONE._replace(has_deadlines=True),
    "one coordinator, prepared branches stay with their session": _ALONE._replace(
        stays_attached=True
    ),
    "one coordinator, two recoverers": _ALONE._replace(faults=1, recoverers=2),
    "three shards, two coordinators": _THREE._replace(homes=(0, 0), faults=0),
    "three shards, two recoverers": _THREE_IN_TURN._replace(recoverers=2),
    "three shards, the source on home": _THREE_IN_TURN._replace(source=0, destination=1, faults=2),
}

LARGE = {
    "one coordinator, two recoverers, two faults": _ALONE._replace(recoverers=2),
    "one coordinator, two recoverers, sessions": _ALONE._replace(recoverers=2, stays_attached=True),
    "one coordinator, three faults": _ALONE._replace(slots=3, faults=3),
    "two coordinators, impatient clients, a fault": _TWO._replace(has_deadlines=True),
    "two coordinators, impatient clients, commits are seen early": _TWO._replace(
        has_deadlines=True, shows_early=True
    ),
    "two coordinators, two recoverers": _TWO._replace(recoverers=2),
    "two coordinators, three groups": _TWO._replace(slots=3),
    "two coordinators, two faults": _TWO._replace(faults=2),
    "two coordinators with a home each, two faults": _TWO._replace(homes=(0, 1), faults=2),
    "two coordinators with a home each, two faults, as on MariaDB": _TWO._replace(
        homes=(0, 1), faults=2, stays_attached=True, shows_early=True
    ),
    "one coordinator, three faults, commits are seen early": _ALONE._replace(
        homes=(1,), faults=3, shows_early=True, has_deadlines=True
    ),
    "three shards, one coordinator, a fault": _THREE,
    "three shards, the source on home, a fault": _THREE._replace(source=0, destination=1),
    "three shards, two coordinators, a fault": _THREE._replace(homes=(0, 0)),
}

_EARLY = Setting(homes=(0,), faults=2, shows_early=True)
_CALM = Setting(homes=(0,), faults=0)
_FAULT = Setting(homes=(0,))

TORN = "is committed on its home and gone on shard 1"
TWICE = "the transfer has taken effect twice"
FALSE_ALARM = "a committed branch is missing on shard 1"
NOT_SAFE = "client was told that it is done, and it is not for good"
UNTRUE = "client was told that nothing has happened, and it has"
STUCK = "from here nothing can end any more"

# What goes wrong without a rule, and where.
NEEDED = [
    ({Rule.LOST_DECISION}, _FAULT, TORN),
    ({Rule.RECOVERY_ASKS}, _CALM, TORN),
    ({Rule.DECISION_ROW}, _CALM, TORN),
    ({Rule.SAFE_DECISION}, _EARLY, NOT_SAFE),
    ({Rule.SAFE_OUTCOME}, _TWO._replace(shows_early=True), NOT_SAFE),
    ({Rule.SAME_SESSION}, _TWO._replace(shows_early=True), NOT_SAFE),
    ({Rule.SAFE_MARKER}, _EARLY, TORN),
    ({Rule.SAFE_ABSENCE}, _EARLY, FALSE_ALARM),
    ({Rule.ROUND_AGAIN}, _FAULT, UNTRUE),
    ({Rule.REOPENED_BY_WRITER}, _ONE_SHARD, UNTRUE),
    ({Rule.ANSWER_LAST}, _CALM, NOT_SAFE),
    ({Rule.LOOK_AT_MARKER}, _FAULT._replace(stays_attached=True), TORN),
    ({Rule.BUSY_IS_LATER}, _FAULT._replace(stays_attached=True), FALSE_ALARM),
    ({Rule.COLLECTED_IS_DONE}, _FAULT, FALSE_ALARM),
    ({Rule.MARKERS_FIRST}, _CALM, TORN),
    ({Rule.DECISION_FIRST}, _FAULT, FALSE_ALARM),
    ({Rule.HOME_IS_QUIET}, _CALM, TORN),
    ({Rule.IDS_LOOKED_UP}, _TWO._replace(faults=0), STUCK),
    ({Rule.IDS_UNDER_LOCK, Rule.UNIQUE_IDS}, _TWO._replace(faults=0), TWICE),
]

# What is safe without a rule: each of these has another behind it. An id that is looked up without
# the lock is caught by its uniqueness, and the other way round; an aborted decision that goes too
# early is made once more by whoever finishes the branch.
COVERED = [
    ({Rule.IDS_UNDER_LOCK}, _TWO),
    ({Rule.UNIQUE_IDS}, _TWO),
    ({Rule.NONE_LISTED}, _ALONE),
]
