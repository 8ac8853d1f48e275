"""The pure rules of recovery: whose turn, what an unknown branch means, what may be collected."""

import itertools
import re

import pytest

from coordinator.cluster.client import Grant
from coordinator.cluster.election import LEASE_SHARE, Lease, trouble_with
from coordinator.protocols.recovery import (
    RecoveryView,
    Verdict,
    judge_unknown,
    may_collect_aborted,
    may_collect_committed,
    may_collect_marker,
    recovery_duty,
)
from shard_client.records import DecisionOutcome, Look
from shard_client.xid import Gtrid

STARTED_MS = 1_000_000
GRACE_S = 15.0
LIVING, DEAD, UNKNOWN = 7, 8, 9


def gtrid(coordinator: str, instance: int, time_ms: int = STARTED_MS + 1) -> Gtrid:
    return Gtrid("tandem", "s1", coordinator, time_ms, instance << 32 | 5)


def around(*, leads: bool, coordinator: str = "c1") -> RecoveryView:
    present, gone = frozenset({LIVING}), frozenset({DEAD})
    return RecoveryView(coordinator, STARTED_MS, GRACE_S, leads, present, gone)


def test_the_instance_is_in_the_name() -> None:
    name = gtrid("c1", 0xDEADBEEF)
    assert name.instance == 0xDEADBEEF
    assert Gtrid.parse(str(name)) == name


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("instance", [LIVING, DEAD, UNKNOWN])
def test_an_earlier_life_of_one_s_own_is_one_s_own_at_once(instance: int, leads: bool) -> None:
    duty = recovery_duty(gtrid("c1", instance, STARTED_MS - 1), 0.0, around(leads=leads))
    assert (duty.is_mine, duty.in_s) == (True, 0.0)


@pytest.mark.parametrize("age_s", [0.0, GRACE_S - 1, GRACE_S + 1])
def test_what_a_dead_process_left_is_the_leader_s_at_once(age_s: float) -> None:
    assert recovery_duty(gtrid("c2", DEAD), age_s, around(leads=True))[:2] == (True, 0.0)
    assert recovery_duty(gtrid("c2", DEAD), age_s, around(leads=False))[:2] == (False, 0.0)


@pytest.mark.parametrize("instance", [LIVING, UNKNOWN])
@pytest.mark.parametrize(("coordinator", "leads"), [("c2", True), ("c1", True), ("c1", False)])
def test_anything_else_has_its_grace(coordinator: str, leads: bool, instance: int) -> None:
    name = gtrid(coordinator, instance)
    duty = recovery_duty(name, 4.0, around(leads=leads))
    assert (duty.is_mine, duty.in_s) == (False, GRACE_S - 4.0)
    assert recovery_duty(name, GRACE_S, around(leads=leads))[:2] == (True, 0.0)


def test_others_branches_are_nobody_s_but_the_leader_s() -> None:
    for instance in (LIVING, DEAD, UNKNOWN):
        assert not recovery_duty(gtrid("c2", instance), 1e9, around(leads=False)).is_mine


def test_every_branch_is_somebody_s_in_the_end() -> None:
    for coordinator, instance in itertools.product(("c1", "c2"), (LIVING, DEAD, UNKNOWN)):
        assert recovery_duty(gtrid(coordinator, instance), GRACE_S, around(leads=True)).is_mine


COMMITTED, ABORTED = DecisionOutcome.COMMITTED, DecisionOutcome.ABORTED


@pytest.mark.parametrize("decision", [None, COMMITTED, ABORTED])
@pytest.mark.parametrize("look", list(Look))
@pytest.mark.parametrize("outcome", list(DecisionOutcome))
def test_an_unknown_branch(
    outcome: DecisionOutcome, look: Look, decision: DecisionOutcome | None
) -> None:
    """Missing is only what home says is committed, and what is nowhere."""
    verdict = judge_unknown(outcome, look, decision)
    if look is Look.BUSY:
        assert verdict is Verdict.LATER
    elif (outcome, look, decision) == (COMMITTED, Look.ABSENT, COMMITTED):
        assert verdict is Verdict.MISSING
    else:
        assert verdict is Verdict.DONE


def test_committed_decisions_go_when_every_branch_has_its_marker() -> None:
    assert may_collect_committed(["s2", "s3"], {"s2", "s3"})
    assert not may_collect_committed(["s2", "s3"], {"s2"})
    assert not may_collect_committed(["s2"], set())
    assert may_collect_committed([], set())


def test_markers_go_after_their_decision() -> None:
    assert may_collect_marker(None)
    assert not may_collect_marker(COMMITTED)
    assert not may_collect_marker(ABORTED)


def test_aborted_decisions_go_when_nobody_can_decide_any_more() -> None:
    noted = {(1, "a"), (2, "b")}
    assert not may_collect_aborted(noted, {(2, "b"), (3, "c")}, is_prepared=False)
    assert may_collect_aborted(noted, {(2, "later"), (3, "c")}, is_prepared=False)
    assert not may_collect_aborted(noted, set(), is_prepared=True)
    assert may_collect_aborted(set(), {(1, "a")}, is_prepared=False)


def test_a_lease_ends_before_the_session_does() -> None:
    lease, grant = Lease(), Grant(6.0)
    assert not lease.holds(0.0, grant)
    lease.renew(100.0, grant, 6.0)
    assert lease.holds(100.0 + 6.0 * LEASE_SHARE - 0.01, grant)
    assert not lease.holds(100.0 + 6.0 * LEASE_SHARE, grant)
    assert LEASE_SHARE < 1
    lease.renew(101.0, grant, 6.0)
    assert lease.holds(105.0, grant)
    lease.drop()
    assert not lease.holds(101.0, grant)


@pytest.mark.parametrize(("granted_s", "asked_s"), [(2.0, 60.0), (60.0, 2.0)])
def test_a_lease_counts_what_was_granted(granted_s: float, asked_s: float) -> None:
    """And no more than was asked for: a leader that is cut off need not claim it for longer."""
    lease, grant = Lease(), Grant(granted_s)
    lease.renew(100.0, grant, asked_s)
    assert lease.holds(100.0 + 2.0 * LEASE_SHARE - 0.01, grant)
    assert not lease.holds(100.0 + 2.0 * LEASE_SHARE, grant)


def test_a_lease_ends_with_its_connection() -> None:
    """The next one may be granted less, or belong to another session."""
    lease, grant = Lease(), Grant(6.0)
    lease.renew(100.0, grant, 6.0)
    assert not lease.holds(100.1, None)
    assert not lease.holds(100.1, Grant(6.0))
    lease.renew(100.0, None, 6.0)
    assert not lease.holds(100.0, None)


@pytest.mark.parametrize(
    ("granted_s", "named"),
    [
        (6.0, None),
        (4.0, "grants sessions of 4 s where zookeeper.session_timeout_s asks for 6 s.*raise"),
        (0.4, "grants sessions of 0.4 s.*too short for this process to lead.*maxSessionTimeout"),
        (40.0, "grants sessions of 40 s.*later; lower its minSessionTimeout"),
    ],
)
def test_what_zookeeper_grants_is_told(granted_s: float, named: str | None) -> None:
    told = trouble_with(granted_s, 6.0)
    assert bool(told) == bool(named)
    assert re.search(named or "", told or "")
