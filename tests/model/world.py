"""What the model of two-phase commit knows of the world: shards, connections, groups, clients.

A state is a nest of tuples and short strings, so that it is small, quick to compare, and never
changes. A Draft is one that is being changed, on the way from a state to the next.

One transfer, with one id, is brought by several clients at once, each through a coordinator of its
own. Every group that tries to carry it out has a slot in the state until no trace of it is left.
"""

from enum import StrEnum
from functools import cache
from operator import le
from typing import Any, NamedTuple

from coordinator.protocols.two_phase_commit import Phase

# --- a group's part on one shard, one letter each -------------------------------------------

# Not begun, or rolled back, or let go by the server.
NOTHING = "-"
# A transaction is open; the account here was locked by somebody else.
SKIPPED = "s"
# A transaction is open and has the account's lock.
LOCKED = "l"
# On home: the decision row is inserted, its COMMIT is yet to come.
DECIDING = "d"
# Committed for all to see, and undone by a restart: the log is not flushed yet (rule R2).
VISIBLE = "v"
# Prepared, and held by its session: to others the server says 1397 (MariaDB).
ATTACHED = "a"
PREPARED = "p"
# Committed for good; on a remote shard its marker is there.
COMMITTED = "c"
# Committed, and its marker was collected.
CLEARED = "e"

OPEN = frozenset({SKIPPED, LOCKED, DECIDING})
LISTED = frozenset({ATTACHED, PREPARED})
HOLDING = frozenset({LOCKED, DECIDING, ATTACHED, PREPARED})
SEEN = frozenset({VISIBLE, COMMITTED, CLEARED})

# --- a coordinator's connection to a shard --------------------------------------------------

# A packet is under way, or its answer is; the coordinator waits.
ASKED = "q"
# Answered yes, as far as the coordinator knows.
GOOD = "y"
# The lock packet has found the transfer's id; or has passed over the account.
FOUND = "k"
PASSED = "o"
# Answered with an error.
REFUSED = "n"
# Lost, and nothing more is to come of it.
LOST = "x"
# Lost to the coordinator, while a packet that changes something is still on its way: the write
# packet on a remote shard, the commit point on home.
ADRIFT = "z"

# --- the decision row on home ---------------------------------------------------------------

NO_ROW = ""
COMMITTED_ROW = "c"
ABORTED_ROW = "a"
# A committed one that is deleted for all to see, and back after a restart.
FADING_ROW = "x"

# --- answers --------------------------------------------------------------------------------

DONE, PENDING, NOT_DONE = "201", "202", "503"
# Not an answer: its coordinator has crashed.
GONE = "gone"


class Rule(StrEnum):
    """The rules that can be taken away from the model, one `if` each."""

    LOST_DECISION = "R1: a lost decision is arbitrated, not just read"
    RECOVERY_ASKS = "R1: recovery asks home before it rolls back"
    DECISION_ROW = "R1: nothing is committed without a decision row"
    SAFE_DECISION = "R2: a decision counts when the reader has written too"
    SAFE_OUTCOME = "R2: a stored outcome counts when the reader has written too"
    SAME_SESSION = "R2: the reader writes in the session in which it has read"
    SAFE_MARKER = "R2: a marker counts when the reader has written too"
    SAFE_ABSENCE = "R2: that a decision is gone counts when the reader has written too"
    ROUND_AGAIN = "R5: who wins an arbitration goes round again"
    REOPENED_BY_WRITER = "R5: the group that has sent a transfer says that it is undone"
    ANSWER_LAST = "R5: nobody is answered before the commit"
    LOOK_AT_MARKER = "R6: 1397 is done only if the marker is there"
    BUSY_IS_LATER = "R6: an undecided marker means to look again"
    COLLECTED_IS_DONE = "R6: without a decision on home it was finished and collected"
    MARKERS_FIRST = "R7: a committed decision goes when all markers are there"
    DECISION_FIRST = "R7: a marker goes after its decision"
    HOME_IS_QUIET = "R7: an aborted decision goes when home's transactions are gone"
    NONE_LISTED = "R7: an aborted decision goes when no shard lists the group"
    IDS_LOOKED_UP = "R8: ids are looked up"
    IDS_UNDER_LOCK = "R8: ids are looked up under the lock"
    UNIQUE_IDS = "R5: two inserts of one id cannot both succeed"


class Setting(NamedTuple):
    """One arrangement of the world.

    `homes` has the home of each coordinator's groups. Every shard has a part in each group; the
    accounts for which the groups contend are on `source` and `destination`. `slots` is how many
    groups can have traces at once. `faults` is how many of these may happen in one run, of any
    kind and in any order: a lost request or reply, a packet delivered after its sender has given
    up, a session ended by its server, a restart, a crash of a coordinator or a recoverer.
    """

    shards: int = 2
    homes: tuple[int, ...] = (0, 0)
    source: int = 0
    destination: int = 1
    slots: int = 2
    faults: int = 1
    recoverers: int = 1
    has_deadlines: bool = False
    # The kinds of server: prepared branches stay with their session; commits are seen too early.
    stays_attached: bool = False
    shows_early: bool = False
    without: frozenset[str] = frozenset()
    # Two coordinators with one home are alike: states that differ in who is who alone are one.
    are_told_apart: bool = False

    @property
    def has_twins(self) -> bool:
        """Whether the two coordinators may change their places."""
        return not self.are_told_apart and len(self.homes) == 2 and self.homes[0] == self.homes[1]

    def remote(self, home: int) -> tuple[int, ...]:
        return _others(self.shards, home)


@cache
def _others(count: int, one: int) -> tuple[int, ...]:
    return tuple(number for number in range(count) if number != one)


class Coordinator(NamedTuple):
    """A coordinator and the ticket of its client. Without a phase it waits for its turn.

    `is_sent`: some group may have written the ticket; `has_written`: this one may. `found`: the
    transfer's id was there already.
    """

    phase: Phase | None = None
    group: int = -1
    is_sent: bool = False
    has_written: bool = False
    is_late: bool = False
    found: bool = False
    answer: str = ""


class Group(NamedTuple):
    """A group that has left traces: a letter per shard for its parts and for its connections."""

    owner: int
    parts: str
    lines: str
    row: str


class Worker(NamedTuple):
    """Somebody who finishes a group: the resolver of coordinator `owner`, or a recoverer (-1).

    `absent` is a branch that was looked for in vain, while home is yet to be asked about it.
    """

    owner: int
    group: int
    phase: Phase
    shards: tuple[int, ...]
    absent: int = -1


class State(NamedTuple):
    """`effects` counts for each coordinator its committed groups that have left no other trace;
    `alarm` is what a person was called for.
    """

    coordinators: tuple[Coordinator, ...]
    groups: tuple[Group | None, ...]
    workers: tuple[Worker, ...]
    effects: tuple[int, ...]
    faults: int
    alarm: str = ""


class Draft:
    """A state on its way to the next."""

    def __init__(self, setting: Setting, state: State) -> None:
        self.setting = setting
        self.coordinators = list(state.coordinators)
        self.groups = list(state.groups)
        self.workers = list(state.workers)
        self.effects = list(state.effects)
        self.faults = state.faults
        self.alarm = state.alarm

    # --- groups -------------------------------------------------------------------------------

    def group(self, number: int) -> Group:
        group = self.groups[number]
        if group is None:
            raise IndexError(f"there is no group in slot {number}")
        return group

    def home(self, number: int) -> int:
        return self.setting.homes[self.group(number).owner]

    def remote(self, number: int) -> tuple[int, ...]:
        return self.setting.remote(self.home(number))

    def part(self, number: int, shard: int) -> str:
        return self.group(number).parts[shard]

    def set_part(self, number: int, shard: int, letter: str) -> None:
        owner, parts, lines, row = self.group(number)
        parts = parts[:shard] + letter + parts[shard + 1 :]
        self.groups[number] = Group(owner, parts, lines, row)

    def line(self, number: int, shard: int) -> str:
        return self.group(number).lines[shard]

    def set_line(self, number: int, shard: int, letter: str) -> None:
        owner, parts, lines, row = self.group(number)
        lines = lines[:shard] + letter + lines[shard + 1 :]
        self.groups[number] = Group(owner, parts, lines, row)

    def set_row(self, number: int, row: str) -> None:
        self.groups[number] = self.group(number)._replace(row=row)

    def begin(self, owner: int) -> int | None:
        """A slot for a new group whose lock packets are under way; None if all are taken."""
        if None not in self.groups:
            return None
        number = self.groups.index(None)
        shards = self.setting.shards
        self.groups[number] = Group(owner, NOTHING * shards, ASKED * shards, NO_ROW)
        return number

    # --- shards -------------------------------------------------------------------------------

    def is_id_there(self) -> bool:
        """Whether a reader on the source's shard sees the transfer."""
        source = self.setting.source
        return any(self.effects) or any(g and g.parts[source] in SEEN for g in self.groups)

    def is_locked(self, shard: int) -> bool:
        """Whether somebody holds the account on this shard."""
        if shard not in (self.setting.source, self.setting.destination):
            return False
        return any(group and group.parts[shard] in HOLDING for group in self.groups)

    def end_session(self, number: int, shard: int) -> None:
        """The server ends a group's session: what was not prepared is rolled back."""
        part = self.part(number, shard)
        if part in OPEN:
            self.set_part(number, shard, NOTHING)
        elif part == ATTACHED:
            self.set_part(number, shard, PREPARED)

    # --- coordinators -------------------------------------------------------------------------

    def change(self, coordinator: int, **changes: Any) -> None:
        self.coordinators[coordinator] = self.coordinators[coordinator]._replace(**changes)

    def answer(self, coordinator: int, answer: str) -> None:
        """Answer a client, once; nothing else is remembered of its ticket."""
        known = self.coordinators[coordinator]
        if not known.answer:
            self.change(coordinator, answer=answer, is_sent=False, is_late=False)

    # --- the next state -----------------------------------------------------------------------

    def freeze(self) -> State:
        """The state that this has become; groups without a trace are forgotten, and what has no
        order is put in one.
        """
        for number, group in enumerate(self.groups):
            if group is not None and not self._has_trace(number, group):
                if group.parts[self.setting.homes[group.owner]] == COMMITTED:
                    self.effects[group.owner] += 1
                self.groups[number] = None
        if self.setting.has_twins and self._twin(1) < self._twin(0):
            self.exchange()
        if len(self.groups) > 1:
            self._sort_groups()
        if len(self.workers) > 1:
            self.workers.sort()
        return State(
            tuple(self.coordinators),
            tuple(self.groups),
            tuple(self.workers),
            tuple(self.effects),
            self.faults,
            self.alarm,
        )

    def _has_trace(self, number: int, group: Group) -> bool:
        if group.row or ADRIFT in group.lines:
            return True
        home = self.setting.homes[group.owner]
        for shard, part in enumerate(group.parts):
            if part != NOTHING and part != (COMMITTED if shard == home else CLEARED):
                return True
        at_work = [*(c.group for c in self.coordinators), *(w.group for w in self.workers)]
        return number in at_work

    def _twin(self, owner: int) -> tuple[object, ...]:
        """What a coordinator is, apart from its number; to be compared with its twin."""
        phase, _, *rest = self.coordinators[owner]
        groups = sorted(group[1:] for group in self.groups if group and group.owner == owner)
        return (phase or "", *rest, self.effects[owner], groups)

    def exchange(self) -> None:
        """Each of two coordinators takes the other's place, with all that is its own."""
        self.coordinators.reverse()
        self.effects.reverse()
        self.groups = [group and group._replace(owner=1 - group.owner) for group in self.groups]
        # A recoverer is nobody's.
        self.workers = [
            worker._replace(owner=1 - worker.owner) if worker.owner >= 0 else worker
            for worker in self.workers
        ]

    def _sort_groups(self) -> None:
        """Slots have no meaning: states that differ in their order alone are one."""
        ranks = [group or _LAST for group in self.groups]
        if all(map(le, ranks, ranks[1:])):
            return
        order = sorted(range(len(ranks)), key=ranks.__getitem__)
        place = {old: new for new, old in enumerate(order)}
        place[-1] = -1
        self.groups = [self.groups[number] for number in order]
        self.coordinators = [c._replace(group=place[c.group]) for c in self.coordinators]
        self.workers = [w._replace(group=place[w.group]) for w in self.workers]


_LAST = Group(99, "", "", "")


LETTERS = "ABC"


def name_of(state: State, number: int) -> str:
    """What a trace calls a group."""
    group = state.groups[number]
    if group is None:
        return "nobody"
    is_at_work = state.coordinators[group.owner].group == number
    return f"{LETTERS[group.owner]}'s {'group' if is_at_work else 'old group'}"
