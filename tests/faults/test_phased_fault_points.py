"""TC/C and Saga on real servers: a coordinator dies or freezes at every transition of their tables,
before it and after it; others go on from the phase table, and what comes out is what it says.
"""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from coordinator.protocols.saga import SAGA
from coordinator.protocols.try_confirm_cancel import TCC
from faults.points import DEEDS
from shard_client.xid import Gtrid
from tests.bank import client, post_one, transfer
from tests.cluster import Cluster, wait_until
from tests.faults.victims import AMOUNT, DRAINED_WITHIN_S, Case, Trial, insist, new_name, started
from tests.faults.victims import Victim as Victim_


class Course(NamedTuple):
    """A fault's point, and what the others make of the transfer then: its outcome, "none" if it may
    be sent again. `before` are faults that lead to the point.
    """

    protocol: str
    point: str
    outcome: str
    before: str = ""
    has_destination: bool = True


def _both(deed: str) -> tuple[str, str]:
    shard = "s2" if deed.startswith("step") else "s1"
    return f"before-{deed}@{shard}", f"after-{deed}@{shard}"


# What the destination's shard cannot be asked for is given up: the way to CANCELLING.
_GIVE_UP = "before-step-tried@s2=cut*1"
COURSES = {
    f"{protocol} {point.partition('@')[0]}{', ' + why if why else ''}": Course(
        protocol, point, outcome, before, why != "refused"
    )
    for protocol, deed, outcomes, why, before in (
        ("tcc", "phase-trying", ("none", "none"), "", ""),
        ("tcc", "step-tried", ("none", "none"), "", ""),
        ("tcc", "phase-confirming", ("none", "committed"), "", ""),
        ("tcc", "step-confirmed", ("committed", "committed"), "", ""),
        ("tcc", "phase-over", ("committed", "committed"), "", ""),
        ("tcc", "phase-cancelling", ("none", "none"), "given up", _GIVE_UP),
        ("tcc", "step-cancelled", ("none", "none"), "given up", _GIVE_UP),
        ("saga", "phase-crediting", ("none", "committed"), "", ""),
        ("saga", "step-credited", ("committed", "committed"), "", ""),
        ("saga", "phase-over", ("committed", "committed"), "", ""),
        ("saga", "step-refused", ("rejected", "rejected"), "refused", ""),
        ("saga", "phase-compensating", ("rejected", "rejected"), "refused", ""),
        ("saga", "phase-over", ("rejected", "rejected"), "refused", ""),
    )
    for point, outcome in zip(_both(deed), outcomes, strict=True)
}
assert {course.point.partition("@")[0].partition("-")[2] for course in COURSES.values()} == {*DEEDS}
# To be frozen before a visit is to come too late for it, which is the same at each of them.
FROZEN = {n for n, c in COURSES.items() if c.point.startswith("after") or "phase-over" in c.point}
# Each state of a participant and each phase is one of them.
assert {f"step-{state}" for p in (TCC, SAGA) for state, *_ in p.calls.values()} <= {*DEEDS}
assert {f"phase-{phase}" for p in (TCC, SAGA) for phase in p.source_states} <= {*DEEDS}


class PhasedTrial(Trial):
    """One transfer by TC/C or Saga, sent to one victim."""

    def __init__(self, course: Course, mode: str, cluster: Cluster, folder: Path) -> None:
        case = Case(course.point, course.outcome == "committed", course.before)
        super().__init__(case, mode, cluster, folder)
        self.course = course

    def send(self) -> None:
        if not self.course.has_destination:
            self.destination = next(
                name
                for name in (f"{self.bank.prefix}-nobody-{n}" for n in range(1000))
                if self.bank.shard_of(name) == "s2"
            )
        super().send()

    def _item(self, key: str) -> dict:
        item = transfer(self.source, self.destination, AMOUNT, key)
        return item | {"protocol": self.course.protocol}

    def check_recovered(self) -> None:
        if self.is_checked:
            return
        self.wait_drained()
        assert self.status() == self.course.outcome
        again = self.pay(self.cluster.urls[0], self.key)
        if self.course.outcome == "rejected":
            assert again.status_code == 422, again.text
            assert "Idempotent-Replayed" in again.headers
            assert self.bank.balances()[self.source] == 1000
        else:
            assert again.status_code == 201, again.text
            assert ("Idempotent-Replayed" in again.headers) is self.case.is_committed
            self.check_balances(1)
        self.is_checked = True

    def check_thawed(self) -> None:
        """It obeys what others have made of its transfer, and serves again."""
        assert self.is_checked, "it was thawed too early"
        assert self.call is not None
        answer = self.call.wait()
        if answer is not None and self.course.outcome == "rejected":
            assert answer.status_code in (202, 422), answer.text
        elif answer is not None:
            allowed = (201, 202) if self.case.is_committed else (201, 202, 503)
            assert answer.status_code in allowed, answer.text
        if self.course.outcome == "rejected":

            def is_refused() -> bool:
                # Its own request may be pending still, until the phase table has told it.
                answer = self.pay(self.victim.url, self.key)
                assert answer.status_code in (202, 409, 422), answer.text
                return answer.status_code == 422

            wait_until(is_refused, 30, "the victim does not learn that it was refused")
            assert self.bank.balances()[self.source] == 1000
        else:
            insist(lambda: self.pay(self.victim.url, f"{self.key}-thawed"))
            self.check_balances(2)
        self.wait_drained()

    def wait_drained(self) -> None:
        victim, cluster = self.victim, self.cluster
        wait_until(lambda: left(victim, cluster) == [], DRAINED_WITHIN_S, "it stays unfinished")
        self.check_nothing_held()

    def check_nothing_held(self) -> None:
        for shard in ("s1", "s2"):
            query = (
                "SELECT id, held, expected FROM accounts WHERE held + expected > 0"
                f" AND id LIKE '{self.bank.prefix}%'"
            )
            assert self.cluster.rows(shard, query) == []


def left(victim: Victim_, cluster: Cluster) -> list[str]:
    """The attempts of a coordinator that are in a phase table."""
    rows = [
        row[0]
        for shard in cluster.settings.shards
        for row in cluster.rows(shard, "SELECT DISTINCT gtrid FROM phases")
    ]
    return [name for name in rows if (g := Gtrid.parse(name)) and g.coordinator == victim.name]


@pytest.fixture(scope="module")
def cluster(any_cluster_for_module: Cluster) -> Cluster:
    return any_cluster_for_module


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def any_cluster_for_module(request: pytest.FixtureRequest) -> Cluster:
    return request.getfixturevalue(f"{request.param}_cluster")


def _trials(
    protocol: str, mode: str, cluster: Cluster, folder: Path
) -> Iterator[dict[str, PhasedTrial]]:
    trials = {
        name: PhasedTrial(course, mode, cluster, folder)
        for name, course in COURSES.items()
        if course.protocol == protocol and (mode == "kill" or name in FROZEN)
    }
    with started([trial.victim for trial in trials.values()]):
        for trial in trials.values():
            trial.send()
        yield trials
    # The audit of everything, once for all of them.
    next(iter(trials.values())).bank.check()


@pytest.fixture(scope="module")
def killed_tcc(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    yield from _trials("tcc", "kill", cluster, tmp_path_factory.mktemp("killed-tcc"))


@pytest.fixture(scope="module")
def killed_saga(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    yield from _trials("saga", "kill", cluster, tmp_path_factory.mktemp("killed-saga"))


@pytest.fixture(scope="module")
def frozen_tcc(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    yield from _trials("tcc", "freeze", cluster, tmp_path_factory.mktemp("frozen-tcc"))


@pytest.fixture(scope="module")
def frozen_saga(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    yield from _trials("saga", "freeze", cluster, tmp_path_factory.mktemp("frozen-saga"))


def _check_killed(trial: PhasedTrial) -> None:
    """Whoever dies where: one outcome, that of the table, and nothing stays behind."""
    victim = trial.victim
    victim.wait_dead()
    assert victim.process is not None
    assert victim.process.poll() == -signal.SIGKILL
    assert trial.call is not None
    answer = trial.call.wait()
    if answer is not None:
        # It has died of what comes after the answer.
        assert "phase-over" in trial.case.point or trial.course.before, answer.text
        told = {"committed": (201,), "rejected": (422,), "none": (503,)}[trial.course.outcome]
        assert answer.status_code in told, answer.text
    trial.check_struck()
    trial.check_recovered()


@pytest.mark.parametrize("name", [n for n, c in COURSES.items() if c.protocol == "tcc"])
def test_killed_in_tcc(killed_tcc: dict[str, PhasedTrial], name: str) -> None:
    _check_killed(killed_tcc[name])


@pytest.mark.parametrize("name", [n for n, c in COURSES.items() if c.protocol == "saga"])
def test_killed_in_a_saga(killed_saga: dict[str, PhasedTrial], name: str) -> None:
    _check_killed(killed_saga[name])


def _check_frozen(trial: PhasedTrial) -> None:
    """While it is frozen others finish its transfer, or do it again; thawed, it obeys."""
    victim = trial.victim
    victim.wait_frozen()
    trial.check_struck()
    trial.check_recovered()
    assert victim.is_frozen()
    victim.thaw()
    trial.check_thawed()
    victim.kill()


@pytest.mark.parametrize("name", [n for n in COURSES if n in FROZEN and n.startswith("tcc")])
def test_frozen_in_tcc(frozen_tcc: dict[str, PhasedTrial], name: str) -> None:
    _check_frozen(frozen_tcc[name])


@pytest.mark.parametrize("name", [n for n in COURSES if n in FROZEN and n.startswith("saga")])
def test_frozen_in_a_saga(frozen_saga: dict[str, PhasedTrial], name: str) -> None:
    _check_frozen(frozen_saga[name])


@pytest.mark.parametrize("protocol", ["tcc", "saga"])
def test_no_outcome_changes(cluster: Cluster, tmp_path: Path, protocol: str) -> None:
    """At every point an error, a lost connection, then a delay: every transfer is made, once."""
    ordinary = [c for c in COURSES.values() if c.protocol == protocol and c.outcome != "rejected"]
    ordinary = [c for c in ordinary if not c.before]
    points = sorted({c.point.partition("@")[0] for c in COURSES.values() if c.protocol == protocol})
    trial = PhasedTrial(Course(protocol, points[0], "none"), "fail", cluster, tmp_path)
    faults = [f"{name}={mode}*1" for name in points for mode in ("fail", "cut", "delay:0.3")]
    victim = Victim_(cluster, new_name(), tmp_path, "; ".join(faults))
    with started([victim]), client(victim.url) as http:
        for index in range(8):
            item = trial._item(f"{trial.bank.prefix}-{index}")

            def send(item: dict = item) -> httpx.Response:
                return post_one(http, item)

            insist(send)
        wait_until(lambda: left(victim, cluster) == [], DRAINED_WITHIN_S, "something is left")
        struck = {where.partition("@")[0] for where in victim.struck()}
    assert struck >= {c.point.partition("@")[0] for c in ordinary}, struck
    assert trial.bank.balances()[trial.destination] == 1000 + 8 * AMOUNT
    trial.check_nothing_held()
    trial.bank.check()
