"""Processes that are killed, frozen and started again: answers stay true, nothing is left over."""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from shard_client.xid import Gtrid
from tandem.local.cluster import LocalCluster, Options
from tests.bank import Bank, Load, client, post, post_one, together, transfer
from tests.cluster import Cluster, wait_until
from tests.faults.leftovers import (
    LONG_AGO_MS,
    Leftover,
    now_ms,
    prepared,
)


def test_own_leftovers_are_settled_before_ready(any_cluster: Cluster, tmp_path: Path) -> None:
    """What is decided is committed, what is not is rolled back; what others may be at work on is
    left to them for the grace time, and another cluster's for ever.
    """
    bank = [Bank(any_cluster, 2) for _ in range(4)]
    decided, undecided = (Leftover(bank[i], "c9", now_ms()) for i in (0, 1))
    others = Leftover(bank[2], "zz", now_ms())
    foreign = Leftover(bank[3], "c9", LONG_AGO_MS, "another")
    for leftover in (decided, undecided, others, foreign):
        leftover.prepare()
    decided.decide()
    try:
        with any_cluster.coordinator("c9", tmp_path / "c9.log") as coordinator:
            names = prepared(any_cluster)
            assert decided.gtrid not in names
            assert undecided.gtrid not in names
            assert others.gtrid in names
            assert foreign.gtrid in names
            with client(coordinator.url) as http:
                assert http.get(f"/v1/transfers/{others.id}").json()["status"] == "pending"
        decided.check(is_committed=True)
        undecided.check(is_committed=False)
        with client(any_cluster.urls[0]) as http:
            told = http.post(f"/v1/admin/in-doubt/{others.gtrid}/resolve").json()
        assert (told["outcome"], told["finished"]) == ("aborted", [others.remote])
        others.check(is_committed=False)
        assert foreign.is_prepared
    finally:
        foreign.roll_back()


def test_coordinator_killed_under_load(any_cluster: Cluster, tmp_path: Path) -> None:
    """Killed again and again while it works; each time it has settled its own before it is ready,
    and every answer that a client got stays true.
    """
    bank = Bank(any_cluster, 40)
    with any_cluster.coordinator("c9", tmp_path / "c9.log") as coordinator:
        load = Load(bank, [coordinator.url, any_cluster.urls[0]])
        with load.running(16):
            for _ in range(3):
                load.wait_for("201", load.counts["201"] + 200)
                coordinator.kill()
                killed_ms = time.time_ns() // 1_000_000
                coordinator.start()
                left = [Gtrid.parse(name) for name in prepared(any_cluster)]
                old = [g for g in left if g and g.coordinator == "c9" and g.time_ms < killed_ms]
                assert old == []
        load.check_answers()
    bank.check()
    assert load.counts["500"] == 0, load.counts


def test_sigterm_under_load(mysql_cluster: Cluster, tmp_path: Path) -> None:
    """A coordinator that is told to end answers all that it has taken."""
    bank = Bank(mysql_cluster, 40)
    with mysql_cluster.coordinator("c9", tmp_path / "c9.log") as coordinator:
        load = Load(bank, [coordinator.url])
        with load.running(16):
            load.wait_for("201", 200)
            coordinator.stop()
            load.wait_for("refused connection", 16)
        assert load.counts["lost"] == 0, load.counts
    assert [
        g for g in map(Gtrid.parse, prepared(mysql_cluster)) if g and g.coordinator == "c9"
    ] == []
    check = Load(bank, [mysql_cluster.urls[0]])
    check.told = load.told
    check.check_answers()
    bank.check()


def test_poisoned_group_is_split(mysql_cluster: Cluster) -> None:
    """An error that one member causes costs that one alone, and says that nothing has happened."""
    bank = Bank(mysql_cluster, 40)
    bad = bank.accounts[7]
    trigger = f"poison_{bank.prefix}"
    for shard in mysql_cluster.settings.shards:
        mysql_cluster.rows(
            shard,
            f"CREATE TRIGGER {trigger} BEFORE INSERT ON entries FOR EACH ROW"
            f" IF NEW.account_id = '{bad}' THEN SIGNAL SQLSTATE '45000'"
            " SET MESSAGE_TEXT = 'poisoned'; END IF",
        )
    try:
        others = [name for name in bank.accounts if name != bad]
        items = [
            transfer(source, destination, 1, uuid.uuid4().hex)
            for source, destination in pairwise(others)
        ]
        items.insert(20, transfer(bad, others[0], 1, uuid.uuid4().hex))
        with client(mysql_cluster.urls[0]) as http:
            results = post(http, "/v1/transfers/batch", {"transfers": items})["results"]
            alone = post_one(http, transfer(bad, others[0], 1, uuid.uuid4().hex))
        poisoned = results.pop(20)
        assert {result["status"] for result in results} == {"committed"}
        assert (poisoned["status"], poisoned["reason"]) == ("failed", "internal-error")
        assert "poisoned" in poisoned["detail"]
        assert alone.status_code == 500
        assert "nothing has happened" in alone.json()["detail"]
    finally:
        for shard in mysql_cluster.settings.shards:
            mysql_cluster.rows(shard, f"DROP TRIGGER {trigger}")
    assert bank.balances()[bad] == 1000
    bank.check()


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def own_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster whose servers a test may kill."""
    local = LocalCluster(tmp_path_factory.mktemp(f"own-{request.param}") / "cluster")
    try:
        local.up(Options(shards=2, coordinators=1, engine=request.param))
        yield Cluster(local)
    finally:
        local.down()


def healthy(url: str) -> bool:
    """Whether a coordinator's workers all find every shard good."""
    answers = [httpx.get(f"{url}/readyz", verify=False) for _ in range(6)]
    return all(answer.json()["troubles"] == [] for answer in answers)


def test_shard_killed_under_load(own_cluster: Cluster) -> None:
    """Killed while groups prepare and commit: absent or finished afterwards, never half."""
    bank = Bank(own_cluster, 40)
    load = Load(bank, own_cluster.urls)
    with load.running(16):
        for name in ("s1", "s2", "s1"):
            load.wait_for("201", load.counts["201"] + 200)
            own_cluster.local.stop(name, kill=True)
            load.wait_for("503", load.counts["503"] + 10)
            own_cluster.local.start(name)
            wait_until(lambda: healthy(own_cluster.urls[0]), 30, "the shard is not taken up again")
    wait_until(
        lambda: prepared(own_cluster) == [], 30, lambda: f"in doubt: {prepared(own_cluster)}"
    )
    load.check_answers()
    bank.check()


def test_frozen_shard_concerns_its_own_accounts(own_cluster: Cluster) -> None:
    """While a shard does not answer, transfers within the other go on and its own get a 503."""
    bank = Bank(own_cluster, 40)
    on_s1 = bank.accounts[0::2]
    on_s2 = bank.accounts[1::2]
    pid = own_cluster.pid("s2")
    url = own_cluster.urls[0]
    before = bank.balances()
    os.kill(pid, signal.SIGSTOP)
    try:
        answers: dict[int, httpx.Response] = {}

        def pay(index: int) -> None:
            destination = on_s1[index + 10] if index % 2 else on_s2[index]
            item = transfer(on_s1[index], destination, 1, f"{bank.prefix}-frozen-{index}")
            with client(url) as http:
                answers[index] = post_one(http, item)

        together(10, pay)
        told = {index: answer.status_code for index, answer in answers.items()}
        assert told == {index: 201 if index % 2 else 503 for index in range(10)}
        for index in range(0, 10, 2):
            assert answers[index].headers["Retry-After"]
            assert answers[index].json()["type"] == "/problems/shard-unavailable"
        with client(url) as http:
            started = time.monotonic()
            item = transfer(on_s1[0], on_s1[1], 1, f"{bank.prefix}-meanwhile")
            assert post_one(http, item).status_code == 201
            # It is known to be away by now, so nobody waits for it any more.
            assert time.monotonic() - started < 2
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: healthy(url), 30, "the shard is not taken up again")
    after = bank.balances()
    assert {name: after[name] - before[name] for name in on_s2} == dict.fromkeys(on_s2, 0)
    bank.check()
