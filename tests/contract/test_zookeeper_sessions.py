"""However long ZooKeeper lets a session be, two never lead at a time, and what is odd is told."""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from coordinator.cluster import publish_map
from coordinator.cluster.election import Member
from coordinator.cluster.session import ClusterSession
from coordinator.settings import Settings, load
from shard_client.shard_map import ShardAddress, ShardMap
from tests.cluster import wait_until
from tests.keeper import OwnKeeper, ensemble, own_keeper, wire

MAP = ShardMap.evenly(1, {"s1": ShardAddress("127.0.0.1", 1, "tandem", "")})
SHORT = ("tickTime=500", "minSessionTimeout=1000", "maxSessionTimeout=2000")


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnKeeper]:
    with own_keeper(tmp_path_factory.mktemp("keeper"), *SHORT) as made:
        yield made


def settings(hosts: str, cluster: str, timeout_s: float) -> Settings:
    return load(
        environ={
            "TANDEM_CLUSTER_ID": cluster,
            "TANDEM_ZOOKEEPER_HOSTS": hosts,
            "TANDEM_ZOOKEEPER_SESSION_TIMEOUT_S": str(timeout_s),
        }
    )


@contextmanager
def session(name: str, loaded: Settings) -> Iterator[ClusterSession]:
    me = Member(name, secrets.token_hex(4), "127.0.0.1:1", 1, time.time_ns() // 1000)
    running = ClusterSession(loaded, me, lambda new: None, lambda: None, lambda after_s: None)
    running.start()
    try:
        yield running
    finally:
        running.stop()


class Watch:
    """Looks all the time who leads, and remembers when two did at once."""

    def __init__(self, *sessions: ClusterSession) -> None:
        self._sessions = sessions
        self.looks = 0
        self.twice: list[tuple[int, ...]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over.wait(0.002):
            leading = tuple(one.epoch for one in self._sessions if one.leads)
            self.looks += 1
            if len(leading) > 1:
                self.twice.append(leading)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()


def test_a_leader_that_is_cut_off_stops_before_another_begins(keeper: OwnKeeper) -> None:
    """It has asked for a minute and was granted two seconds."""
    cluster = f"cut-{secrets.token_hex(2)}"
    publish_map(settings(keeper.hosts, cluster, 60), MAP)
    with ExitStack() as stack:
        cut_off = stack.enter_context(wire(keeper.port))
        first = stack.enter_context(session("c1", settings(cut_off.hosts, cluster, 60)))
        wait_until(lambda: first.leads, 10, "nobody leads")
        second = stack.enter_context(session("c2", settings(keeper.hosts, cluster, 60)))
        wait_until(lambda: len(second.view.members) == 2, 10, "they do not see each other")
        term = first.epoch
        assert "grants sessions of 2 s" in (first.trouble or "")
        with Watch(first, second) as watch:
            cut_off.cut()
            wait_until(lambda: second.leads, 10, "nobody took over")
            # The first one would go on for 0.7 of a minute.
            looks = watch.looks
            wait_until(lambda: watch.looks > looks + 50, 5, "nobody looks")
            assert not first.leads
            cut_off.mend()
            wait_until(
                lambda: first.is_connected and len(second.view.members) == 2, 20, "it stays away"
            )
            assert (first.leads, second.leads) == (False, True)
        assert watch.twice == []
        assert second.epoch == term + 1


def test_a_server_that_comes_back_grants_less(keeper: OwnKeeper) -> None:
    """A leader of before keeps its session, for less time than it had."""
    cluster = f"less-{secrets.token_hex(2)}"
    loaded = settings(keeper.hosts, cluster, 8)
    keeper.stop()
    keeper.start("tickTime=500", "maxSessionTimeout=20000")
    try:
        publish_map(loaded, MAP)
        with session("c1", loaded) as one:
            wait_until(lambda: one.leads, 10, "nobody leads")
            assert one.trouble is None
            keeper.stop()
            keeper.start(*SHORT)
            wait_until(lambda: one.trouble is not None, 20, "it has not noticed")
            assert "grants sessions of 2 s" in (one.trouble or "")
            wait_until(lambda: one.leads, 10, "it leads no more")
    finally:
        keeper.stop()
        keeper.start(*SHORT)


def test_a_session_that_is_too_short_does_not_lead(keeper: OwnKeeper) -> None:
    cluster = f"short-{secrets.token_hex(2)}"
    loaded = settings(keeper.hosts, cluster, 6)
    keeper.stop()
    keeper.start("tickTime=100", "minSessionTimeout=200", "maxSessionTimeout=600")
    try:
        publish_map(loaded, MAP)
        with session("c1", loaded) as one:
            wait_until(lambda: len(one.view.members) == 1, 10, "it is no member")
            assert "too short for this process to lead" in (one.trouble or "")
            assert one.view.leader is None
            assert not one.leads
            assert one.map.current is not None
    finally:
        keeper.stop()
        keeper.start(*SHORT)


def test_more_is_granted_than_was_asked_for(keeper: OwnKeeper) -> None:
    """The lease is no longer than what was asked for."""
    cluster = f"more-{secrets.token_hex(2)}"
    keeper.stop()
    keeper.start("tickTime=500", "minSessionTimeout=20000", "maxSessionTimeout=60000")
    try:
        publish_map(settings(keeper.hosts, cluster, 2), MAP)
        with (
            wire(keeper.port) as cut_off,
            session("c1", settings(cut_off.hosts, cluster, 2)) as one,
        ):
            wait_until(lambda: one.leads, 10, "nobody leads")
            assert "grants sessions of 20 s" in (one.trouble or "")
            cut_off.cut()
            wait_until(lambda: not one.leads, 3, "it claims to lead for as long as was granted")
    finally:
        keeper.stop()
        keeper.start(*SHORT)


def test_a_server_that_is_cut_off_from_the_others_keeps_nobody_leading(tmp_path: Path) -> None:
    """It answers reads for ten seconds more; the others wait two for the session."""
    cluster = f"part-{secrets.token_hex(2)}"
    with ensemble(tmp_path, "tickTime=500", "maxSessionTimeout=2000") as (lost, other, cut):
        publish_map(settings(other.hosts, cluster, 2), MAP)
        with ExitStack() as stack:
            first = stack.enter_context(session("c1", settings(lost.hosts, cluster, 2)))
            wait_until(lambda: first.leads, 10, "nobody leads")
            second = stack.enter_context(session("c2", settings(other.hosts, cluster, 2)))
            wait_until(lambda: len(second.view.members) == 2, 10, "they do not see each other")
            with Watch(first, second) as watch:
                cut()
                wait_until(lambda: second.leads, 15, "nobody took over")
                looks = watch.looks
                wait_until(lambda: watch.looks > looks + 200, 5, "nobody looks")
            assert watch.twice == []
