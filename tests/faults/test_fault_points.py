"""Every row of the point-of-failure table, on real servers: coordinators die and freeze at every
point, others finish what they have left, and what comes out is what the table says.

The victims of a kind are started together, each with a fault of its own, and hit at once; the
tests then look at one after the other. They are never started again: the leader among the two
coordinators of the product finishes what they leave.
"""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from faults.points import GROUP_POINTS, POINTS
from tests.bank import Bank, client, post_one, together, transfer
from tests.cluster import Cluster, wait_until
from tests.faults.leftovers import prepared
from tests.faults.victims import (
    AMOUNT,
    DRAINED_WITHIN_S,
    Call,
    Case,
    Trial,
    Victim,
    coordinator_of,
    insist,
    new_name,
    started,
)

LOST_AFTER, LOST_BEFORE = "after-decision=cut*1", "between-decision-and-commit=cut*1"
CASES = {
    "before lock": Case("before-lock@s1", False),
    "after lock": Case("after-lock@s2", False),
    "before prepare": Case("before-prepare@s2", False),
    "after prepare": Case("after-prepare@s2", False),
    "all prepared": Case("before-decision@s1", False),
    "decided, not committed": Case("between-decision-and-commit@s1", False),
    "decided": Case("after-decision@s1", True),
    "before commit": Case("before-commit@s2", True),
    "after commit": Case("after-commit@s2", True),
    "before answer": Case("before-answer", True),
    "about to arbitrate, decided": Case("before-arbitration@s1", True, LOST_AFTER),
    "about to arbitrate, undecided": Case("before-arbitration@s1", False, LOST_BEFORE),
    "about to finish, committed": Case("before-finish@s2", True, "before-commit@s2=cut*1"),
    "about to finish, aborted": Case("before-finish@s2", False, "after-prepare@s2=cut*1"),
}
# The purge runs in a leader: it has a test of its own.
# Those of TC/C and Saga are in test_phased_fault_points.py, of groups in test_ledger_group.py.
LONE = {name for name, point in POINTS.items() if not point.deed}
REACHED = LONE - {"before-cleaning-up"} - GROUP_POINTS.keys()
assert {case.point.partition("@")[0] for case in CASES.values()} == REACHED


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return request.getfixturevalue(f"{request.param}_cluster")


@pytest.fixture(scope="module")
def killed(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Trial]]:
    """A coordinator has died at each point, all at about the same time."""
    folder = tmp_path_factory.mktemp("killed")
    trials = {name: Trial(case, "kill", cluster, folder) for name, case in CASES.items()}
    with started([trial.victim for trial in trials.values()]):
        for trial in trials.values():
            trial.send()
        yield trials


@pytest.mark.parametrize("name", CASES)
def test_killed(killed: dict[str, Trial], name: str) -> None:
    """Whoever dies where: one outcome, that of the table, and nothing stays behind."""
    trial = killed[name]
    victim = trial.victim
    victim.wait_dead()
    assert victim.process is not None
    assert victim.process.poll() == -signal.SIGKILL
    assert trial.call is not None
    answer = trial.call.wait()
    if answer is not None:
        # The resolver has died of it, when the client may have been told already.
        assert trial.case.point == "before-finish@s2"
        assert answer.status_code == (201 if trial.case.is_committed else 503), answer.text
    trial.check_struck()
    trial.check_recovered()


@pytest.fixture(scope="module")
def frozen(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Trial]]:
    """A coordinator was frozen at each point, all at about the same time."""
    folder = tmp_path_factory.mktemp("frozen")
    trials = {name: Trial(case, "freeze", cluster, folder) for name, case in CASES.items()}
    with started([trial.victim for trial in trials.values()]):
        for trial in trials.values():
            trial.send()
        yield trials


@pytest.mark.parametrize("name", CASES)
def test_frozen(frozen: dict[str, Trial], name: str) -> None:
    """While it is frozen others finish its transfer, or do it again, and nothing stays locked."""
    trial = frozen[name]
    victim = trial.victim
    victim.wait_frozen()
    trial.check_struck()
    trial.check_recovered()
    assert victim.is_frozen()


@pytest.fixture(scope="module")
def thawed(frozen: dict[str, Trial]) -> dict[str, Trial]:
    """All of them run again, when others have finished their transfers."""
    for trial in frozen.values():
        # Its own test has told, or will, if that went wrong.
        with suppress(AssertionError):
            trial.check_recovered()
        trial.victim.thaw()
    return frozen


@pytest.mark.parametrize("name", CASES)
def test_thawed(thawed: dict[str, Trial], name: str) -> None:
    """Thawed when others have finished its transfer, it obeys, and tells its client the truth."""
    trial = thawed[name]
    trial.check_thawed()
    trial.victim.kill()


def test_books(killed: dict[str, Trial], thawed: dict[str, Trial]) -> None:
    """After all of it every oracle holds."""
    trials = [*killed.values(), *thawed.values()]
    names = {trial.victim.name for trial in trials}
    cluster = trials[0].cluster

    def in_doubt() -> list[str]:
        return [name for name in prepared(cluster) if coordinator_of(name) in names]

    wait_until(lambda: in_doubt() == [], DRAINED_WITHIN_S, lambda: f"in doubt: {in_doubt()}")
    trials[0].bank.check()


# --- one by one -----------------------------------------------------------------------------


def test_no_outcome_changes(cluster: Cluster, tmp_path: Path) -> None:
    """At every point an error, then a lost connection, then a delay: every transfer is made, once.

    What is lost at one point leads to the visit of another, so it takes some transfers.
    """
    reached = [name for name in POINTS if name in REACHED and name != "before-answer"]
    bank = Bank(cluster, 2)
    faults = [f"{name}={mode}*1" for name in reached for mode in ("fail", "cut", "delay:0.3")]
    victim = Victim(cluster, new_name(), tmp_path, "; ".join(faults))
    source, destination = bank.two_across()
    with started([victim]), client(victim.url) as http:
        for index in range(8):
            item = transfer(source, destination, AMOUNT, f"{bank.prefix}-{index}")
            insist(lambda item=item: post_one(http, item))
        wait_until(lambda: victim.in_doubt() == [], DRAINED_WITHIN_S, "something stays in doubt")
        struck = Counter(where.partition("@")[0] for where in victim.struck().elements())
    assert struck == dict.fromkeys(reached, 3)
    assert bank.balances()[destination] == 1000 + 8 * AMOUNT
    bank.check()


def test_worker_killed(cluster: Cluster, tmp_path: Path) -> None:
    """One process of a coordinator dies: others finish what it has decided, another replaces it."""
    trial = Trial(Case("after-decision@s1", True), "kill-worker", cluster, tmp_path)
    with started([trial.victim]):
        trial.send()
        assert trial.call is not None
        assert trial.call.wait() is None
        trial.check_struck()
        trial.check_recovered()
        trial.victim.wait_ready()
        again = trial.pay(trial.victim.url, trial.key)
        assert again.status_code == 201, again.text
        assert "Idempotent-Replayed" in again.headers
        assert not trial.victim.is_dead()
    trial.check_balances(2)


def test_twenty_groups_in_doubt(cluster: Cluster, tmp_path: Path) -> None:
    """A coordinator dies with ten groups decided and ten not: each comes out as its home says."""
    bank = Bank(cluster, 40)
    items = [
        transfer(bank.accounts[i], bank.accounts[i + 1], AMOUNT, f"{bank.prefix}-{i}")
        for i in range(0, 40, 2)
    ]
    victim = Victim(
        cluster,
        new_name(),
        tmp_path,
        "before-decision=delay:60*10; before-commit=delay:60",
        TANDEM_ENGINE_GROUP_MAX="1",
        TANDEM_ENGINE_EXECUTORS="20",
        TANDEM_ENGINE_REQUEST_DEADLINE_MS="50000",
        TANDEM_MYSQL_IDLE_TIMEOUT_S="20",
    )
    with started([victim]):
        calls = [Call(victim.url, item) for item in items]
        expected = {"before-decision@s1": 10, "before-commit@s2": 10}
        wait_until(lambda: victim.struck() == expected, 30, victim.what_it_did)
        assert len(victim.in_doubt()) == 20
        shown = in_doubt_view(cluster, victim)
        assert Counter(branch["decision"] for branch in shown) == {"committed": 10, None: 10}
        victim.kill()
    assert [call.wait() for call in calls] == [None] * 20
    in_doubt = victim.in_doubt
    wait_until(lambda: in_doubt() == [], DRAINED_WITHIN_S, lambda: f"in doubt: {in_doubt()}")
    assert in_doubt_view(cluster, victim) == []
    with client(cluster.urls[0]) as http:
        again = [post_one(http, item) for item in items]
    assert {answer.status_code for answer in again} == {201}
    assert sum("Idempotent-Replayed" in answer.headers for answer in again) == 10
    balances = bank.balances()
    assert [balances[name] for name in bank.accounts] == [1000 - AMOUNT, 1000 + AMOUNT] * 20
    bank.check()


def in_doubt_view(cluster: Cluster, victim: Victim) -> list[dict]:
    """What the API lists of a coordinator's branches."""
    with client(cluster.urls[0]) as http:
        branches = http.get("/v1/admin/in-doubt").json()["branches"]
    return [branch for branch in branches if branch["coordinator"] == victim.name]


def test_home_is_down(cluster: Cluster, tmp_path: Path) -> None:
    """Nobody but home knows the outcome: branches wait for it, whoever asks; then all obey it."""
    slow = {"TANDEM_ZOOKEEPER_SESSION_TIMEOUT_S": "8"}
    decided = Trial(Case("before-commit@s2", True), "freeze", cluster, tmp_path, slow)
    undecided = Trial(Case("before-decision@s1", False), "freeze", cluster, tmp_path, slow)
    trials = [decided, undecided]
    with started([trial.victim for trial in trials]):
        for trial in trials:
            trial.send()
        for trial in trials:
            trial.victim.wait_frozen()
        cluster.local.stop("s1", kill=True)
        try:
            for trial in trials:
                trial.victim.kill()
            together(2, lambda index: check_waits_for_home(trials[index]))
        finally:
            cluster.local.start("s1")
    for url in cluster.urls:
        wait_until(lambda url=url: is_whole(url), 30, f"{url} does not take s1 up again")
    for trial in trials:
        trial.check_recovered()
    decided.bank.check()


def check_waits_for_home(trial: Trial) -> None:
    """It is shown, and stays, also when somebody says that it is to be finished now."""
    gtrid = trial.victim.struck_gtrid(trial.case.point)
    (branch,) = in_doubt_view(trial.cluster, trial.victim)
    assert (branch["gtrid"], branch["home"], branch["decision"]) == (gtrid, "s1", None)
    assert "waits for its home s1" in branch["next"]
    with client(trial.cluster.urls[0]) as http:
        resolved = http.post(f"/v1/admin/in-doubt/{gtrid}/resolve").json()
    assert (resolved["outcome"], resolved["finished"]) == (None, [])
    assert [branch["shard"] for branch in in_doubt_view(trial.cluster, trial.victim)] == ["s2"]


def is_whole(url: str) -> bool:
    """Whether every worker of a coordinator finds all shards good, as far as some asking tells."""
    return all(httpx.get(f"{url}/readyz", verify=False).json()["troubles"] == [] for _ in range(6))


def test_thawed_with_its_sessions(cluster: Cluster, tmp_path: Path) -> None:
    """Servers have not let go of a frozen coordinator. One that has not inserted its decision finds
    *aborted* in its place; one that has is waited for, since its COMMIT may come.
    """
    kept = {"TANDEM_MYSQL_IDLE_TIMEOUT_S": "60", "TANDEM_ENGINE_REQUEST_DEADLINE_MS": "50000"}
    early = Trial(Case("before-decision@s1", False), "freeze", cluster, tmp_path, kept)
    late = Trial(Case("between-decision-and-commit@s1", True), "freeze", cluster, tmp_path, kept)
    with started([early.victim, late.victim]):
        for trial in (early, late):
            trial.send()
            trial.victim.wait_frozen()
        early.wait_drained()
        gtrid = early.victim.struck_gtrid("before-decision@s1")
        assert decision(cluster, gtrid) == ["aborted"]
        wait_until(lambda: somebody_waits(cluster), 30, "nobody asks home", every_s=TRX_LIST_S)
        assert late.victim.in_doubt() == [late.victim.struck_gtrid(late.case.point)]
        for trial in (early, late):
            trial.victim.thaw()
            check_made_once(trial)
        assert decision(cluster, gtrid) == ["aborted"]
    early.bank.check()


# InnoDB shows the same list again to whoever has looked less than 0.1 s before.
TRX_LIST_S = 0.15


def check_made_once(trial: Trial) -> None:
    """Thawed in time, it makes the transfer after all, and says so."""
    assert trial.call is not None
    answer = trial.call.wait()
    assert answer is not None
    assert answer.status_code == 201, answer.text
    trial.wait_drained()
    trial.check_balances(1)


def decision(cluster: Cluster, gtrid: str) -> list[str]:
    found = cluster.rows("s1", f"SELECT outcome FROM decisions WHERE gtrid = '{gtrid}'")
    return [row[0] for row in found]


def somebody_waits(cluster: Cluster) -> bool:
    """Whether a statement waits for a row on home."""
    waiting = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    return bool(cluster.rows("s1", waiting)[0][0])


# --- collection -----------------------------------------------------------------------------

HASTY = {"TANDEM_ENGINE_COLLECT_AFTER_MS": "1000", "TANDEM_ENGINE_SWEEP_INTERVAL_MS": "200"}


def make_leader(cluster: Cluster, name: str) -> None:
    """Ask whoever leads to step down, until the one that is wanted does."""
    with client(cluster.urls[0]) as http:

        def leads() -> bool:
            coordinators = http.get("/v1/admin/cluster").json()["coordinators"]
            if any(c["leader"] for c in coordinators if c["id"] == name):
                return True
            http.post("/v1/admin/leader/step-down")
            return False

        wait_until(leads, 60, f"{name} does not become the leader")


def traces(cluster: Cluster, gtrid: str) -> list[str]:
    """What is left of a group on s1, its home, and on s2."""
    marker = cluster.rows("s2", f"SELECT shard FROM markers WHERE gtrid = '{gtrid}'")
    return decision(cluster, gtrid) + [row[0] for row in marker]


def test_thawed_after_collection(cluster: Cluster, tmp_path: Path) -> None:
    """The answer to its COMMIT was lost, it froze, others finished and collected: when it asks home
    it "wins" with *aborted*, and its transfer, run again, is found.
    """
    case = Case("before-arbitration@s1", True, LOST_AFTER)
    trial = Trial(case, "freeze", cluster, tmp_path)
    with started([trial.victim]):
        trial.send()
        trial.victim.wait_frozen()
        gtrid = trial.victim.struck_gtrid("after-decision@s1")
        hasty = Victim(cluster, new_name(), tmp_path, "", **HASTY)
        with started([hasty]):
            trial.check_recovered()
            make_leader(cluster, hasty.name)
            wait_until(lambda: traces(cluster, gtrid) == [], 30, "it is not collected")
        trial.victim.thaw()
        trial.check_thawed()
        assert decision(cluster, gtrid) == ["aborted"]
    trial.bank.check()


def test_purge_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Dead before it has removed anything, or with decisions removed and their markers not yet: the
    next one goes on, and no transfer is made again.
    """
    trial = Trial(CASES["before answer"], "kill", cluster, tmp_path)
    item = trial.pay(cluster.urls[0], trial.key)
    assert item.status_code == 201
    gtrid = newest_decision(cluster)
    first = Victim(cluster, new_name(), tmp_path, "before-cleaning-up@s1=kill", **HASTY)
    second = Victim(cluster, new_name(), tmp_path, "before-cleaning-up@s2=kill", **HASTY)
    last = Victim(cluster, new_name(), tmp_path, "", **HASTY)
    for victim, left in ((first, ["committed", "s2"]), (second, ["s2"])):
        with started([victim]):
            make_leader(cluster, victim.name)
            victim.wait_dead()
        assert sorted(traces(cluster, gtrid)) == left
    with started([last]):
        make_leader(cluster, last.name)
        wait_until(lambda: traces(cluster, gtrid) == [], 30, "its marker is not collected")
    again = trial.pay(cluster.urls[1], trial.key)
    assert again.status_code == 201
    assert "Idempotent-Replayed" in again.headers
    trial.check_balances(1)
    trial.bank.check()


def newest_decision(cluster: Cluster) -> str:
    statement = "SELECT gtrid FROM decisions ORDER BY decided_at DESC LIMIT 1"
    return str(cluster.rows("s1", statement)[0][0])
