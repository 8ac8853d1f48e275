"""A shard that is slow, stuck or locked, and what it costs those who do not need it: little.

Each test has a coordinator of its own. How many transfers a second its neighbours lose is measured
by `scripts/bench --part neighbours`; here it is whether they wait for the shard at all.
"""

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.bank import Bank, client, post_one, transfer
from tests.cluster import Cluster, Coordinator, wait_until
from tests.logs import events
from tests.proxy import Mode, proxied

# So many transfers on the other shard, and so many answers about the sick one, show it.
NEIGHBOURS, SUFFERERS = 200, 8
# Who waits for a sick shard waits so long, at least. Who was in a group with it when it fell sick
# does so once, and so may the group behind.
STALL_S = 0.5
STALLS = 2
# After a refusal: sooner than Retry-After asks for.
PAUSE_S = 0.2
# What a request may take: its deadline, a moment to settle, a last look; and a busy machine.
DEADLINE_S = 5.0 + 1.0 + 2.0
SLACK_S = 4.0


class Traffic:
    """Clients that each send one transfer after the other, for as long as the block lasts."""

    def __init__(self, bank: Bank, url: str) -> None:
        self._bank, self._url = bank, url
        self._stop = Event()
        # By the shards of a transfer: what was answered, and how long each took, in s.
        self.answers: dict[str, Counter[str]] = {}
        self.took_s: dict[str, list[float]] = {}

    @contextmanager
    def running(self, *pairs: tuple[str, str]) -> Iterator[None]:
        threads = [Thread(target=self._send, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _send(self, source: str, destination: str) -> None:
        way = f"{self._bank.shard_of(source)}>{self._bank.shard_of(destination)}"
        answers = self.answers.setdefault(way, Counter())
        took_s = self.took_s.setdefault(way, [])
        with client(self._url) as http:
            while not self._stop.is_set():
                begun = time.monotonic()
                answer = post_one(http, transfer(source, destination, 1, uuid.uuid4().hex))
                took_s.append(time.monotonic() - begun)
                kind = "" if answer.status_code < 300 else answer.json()["type"]
                answers[f"{answer.status_code} {kind}".strip()] += 1
                if answer.status_code >= 300:
                    self._stop.wait(PAUSE_S)


def _run(bank: Bank, url: str) -> Traffic:
    """All kinds of transfers between s1 and s2, until there are enough of them."""
    one, two, one_more, two_more, *_ = bank.accounts
    others = bank.accounts[4:]
    traffic = Traffic(bank, url)
    pairs = [(one, one_more), (one_more, one), (two, two_more), (others[0], others[1])]

    def is_enough() -> bool:
        counts = {way: answers.total() for way, answers in traffic.answers.items()}
        well = counts.get("s1>s1", 0)
        return well >= NEIGHBOURS and sum(counts.values()) - well >= SUFFERERS

    with traffic.running(*pairs, (others[1], others[0])):
        wait_until(is_enough, 90, lambda: f"too few answers: {traffic.answers}")
    return traffic


@contextmanager
def _own(cluster: Cluster, log: Path) -> Iterator[Coordinator]:
    overrides = {"TANDEM_COORDINATOR_WORKERS": "1", "TANDEM_LOG_FORMAT": "json"}
    with cluster.coordinator(f"x{uuid.uuid4().hex[:6]}", log, overrides) as running:
        yield running


def _assert_undisturbed(during: Traffic) -> None:
    assert during.answers["s1>s1"].keys() == {"201"}
    slow = [took_s for took_s in during.took_s["s1>s1"] if took_s >= STALL_S]
    # Two clients send them.
    assert len(slow) <= STALLS * 2, (slow, during.answers)
    assert max(max(took_s) for took_s in during.took_s.values()) < DEADLINE_S + SLACK_S


def _blamed(log: Path) -> set[str]:
    return {event["shard"] for event in events(log, "shard.lost")}


def _commits(bank: Bank, url: str) -> bool:
    _, two, _, two_more, *_ = bank.accounts
    with client(url) as http:
        return post_one(http, transfer(two, two_more, 1, uuid.uuid4().hex)).status_code == 201


@pytest.mark.parametrize(
    ("engine", "mode"),
    [("mysql", "drip"), ("mysql", "delay"), ("mariadb", "drip"), ("mariadb", "freeze")],
)
def test_a_slow_shard_does_not_slow_the_others(
    request: pytest.FixtureRequest, tmp_path: Path, engine: str, mode: Mode
) -> None:
    cluster: Cluster = request.getfixturevalue(f"{engine}_cluster")
    log = tmp_path / "coordinator.log"
    bank = Bank(cluster, 8)
    with proxied(cluster, "s2") as proxy, _own(cluster, log) as own:
        assert _commits(bank, own.url)
        proxy.every_s = STALL_S if mode == "drip" else 2 * STALL_S
        proxy.mode = mode
        _assert_undisturbed(_run(bank, own.url))
        assert _blamed(log) == {"s2"}
        proxy.mode = "pass"
        wait_until(lambda: _commits(bank, own.url), 60, "the shard does not come back")
    bank.check()


@pytest.mark.parametrize("lock", ["LOCK TABLES accounts WRITE", "FLUSH TABLES WITH READ LOCK"])
def test_a_lock_on_whole_tables_takes_its_shard_out_and_is_named(
    any_cluster: Cluster, tmp_path: Path, lock: str
) -> None:
    log = tmp_path / "coordinator.log"
    bank = Bank(any_cluster, 8)
    with _own(any_cluster, log) as own:
        assert _commits(bank, own.url)
        with closing(any_cluster.sql("s2")) as session, session.cursor() as cursor:
            cursor.execute(lock)
            during = _run(bank, own.url)
        _assert_undisturbed(during)
        assert during.answers["s2>s2"]["503 /problems/shard-unavailable"] > 0
        (lost,) = events(log, "shard.lost")
        assert lost["shard"] == "s2"
        assert "LOCK TABLES" in lost["message"]
        wait_until(lambda: _commits(bank, own.url), 60, "the shard does not come back")
    wait_until(lambda: all(_commits(bank, url) for url in any_cluster.urls), 60, "not everywhere")
    bank.check()


def test_waiting_for_locks_makes_no_shard_a_lost_one(any_cluster: Cluster, tmp_path: Path) -> None:
    """An account is locked on each of two shards, and those in line wait for both."""
    log = tmp_path / "coordinator.log"
    bank = Bank(any_cluster, 8)
    one, two, one_more, two_more, *_ = bank.accounts
    with _own(any_cluster, log) as own, _locked(any_cluster, bank, one, two):
        traffic = Traffic(bank, own.url)
        with traffic.running((one, two), (two, one), (one, two_more), (one_more, two)):
            wait_until(
                lambda: sum(map(Counter.total, traffic.answers.values())) >= 8,
                60,
                "there are no answers",
            )
        assert {kind for answers in traffic.answers.values() for kind in answers} == {
            "503 /problems/account-busy"
        }
        assert len(events(log, "transfer.kept_waiting")) > 0
        assert _blamed(log) == set()
    bank.check()


@contextmanager
def _locked(cluster: Cluster, bank: Bank, *accounts: str) -> Iterator[None]:
    """Somebody keeps these accounts locked for a block."""
    sessions = [cluster.sql(bank.shard_of(account)) for account in accounts]
    try:
        for session, account in zip(sessions, accounts, strict=True):
            with session.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [account])
        yield
    finally:
        for session in sessions:
            session.rollback()
            session.close()
