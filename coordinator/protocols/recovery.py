"""The rules of recovery, pure: whose turn it is to finish a branch in doubt, what it means that a
server does not know a branch, and when the traces of a group may be collected.

They speed things up and keep tables small; that a group has one outcome rests on its decision row
alone, whoever walks the table of two_phase_commit.py and however many do at once.
"""

from collections.abc import Collection, Set
from enum import Enum
from typing import NamedTuple

from shard_client.records import DecisionOutcome, Look
from shard_client.xid import Gtrid

# So often must a branch that home says is committed be nowhere before it is called missing.
MISSING_MAX = 3


class RecoveryView(NamedTuple):
    """What one process knows of itself and of the others when it looks at what is in doubt.

    `started_ms` is when its coordinator was started. `leads` also while nobody can be known to
    lead, because ZooKeeper is away. `gone` are the processes that were there and are not any more,
    by their instance; of others nobody here knows.
    """

    coordinator: str
    started_ms: int
    grace_s: float
    leads: bool
    present: Set[int]
    gone: Set[int]


class Duty(NamedTuple):
    """Whether it is this process's turn to finish a branch, and if not: when it is somebody's, in
    seconds, and why.
    """

    is_mine: bool
    in_s: float
    why: str


def recovery_duty(gtrid: Gtrid, age_s: float, around: RecoveryView) -> Duty:
    """Who finishes a prepared branch of this group, and when.

    To take a turn too early costs a live group another round, never its atomicity.
    """
    is_own = gtrid.coordinator == around.coordinator
    if is_own and gtrid.time_ms < around.started_ms:
        return Duty(True, 0.0, f"an earlier life of coordinator {gtrid.coordinator} left it behind")
    if gtrid.instance in around.gone:
        return Duty(around.leads, 0.0, f"its process of coordinator {gtrid.coordinator} is gone")
    left_s = max(around.grace_s - age_s, 0.0)
    is_mine = left_s == 0 and (around.leads or is_own)
    if gtrid.instance in around.present:
        return Duty(is_mine, left_s, f"coordinator {gtrid.coordinator} is at work on it")
    return Duty(is_mine, left_s, f"it is not known whether coordinator {gtrid.coordinator} lives")


class Verdict(Enum):
    """What is to be done about a branch that its server does not know."""

    DONE = "it is finished"
    LATER = "somebody is about to finish it: look again"
    MISSING = "it should be there and is not"


def judge_unknown(
    outcome: DecisionOutcome, look: Look, decision: DecisionOutcome | None
) -> Verdict:
    """What it means that a branch which was to be finished is unknown (error 1397, rule R6).

    `look` is what its shard shows of it, `decision` what home has, read after that.
    """
    if look is Look.BUSY:
        return Verdict.LATER
    if (look, outcome, decision) == (
        Look.ABSENT,
        DecisionOutcome.COMMITTED,
        DecisionOutcome.COMMITTED,
    ):
        return Verdict.MISSING
    # It was finished by somebody else; perhaps its traces were collected too, and whoever asks has
    # since arbitrated *aborted* over a group that has long been committed everywhere.
    return Verdict.DONE


def may_collect_committed(branches: Collection[str], marked: Collection[str]) -> bool:
    """Whether a *committed* decision may go: each of its branches has left its marker (rule R7).

    The markers go after it, never before.
    """
    return set(branches) <= set(marked)


def may_collect_marker(decision: DecisionOutcome | None) -> bool:
    """Whether the marker of a committed branch may go; `decision` was read after the marker."""
    return decision is None


def may_collect_aborted(noted: Set[object], running: Set[object], is_prepared: bool) -> bool:
    """Whether an *aborted* decision may go (rule R7).

    `noted` are the transactions that ran on home at some time after the row was in, `running`
    those that run now: while one of them is left, it may be the coordinator's, which the row keeps
    from deciding. `is_prepared`: some shard still lists a branch of the group.
    """
    return not is_prepared and noted.isdisjoint(running)
