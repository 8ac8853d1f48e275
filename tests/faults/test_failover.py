"""The leader is killed under load: others' transfers go on, and what it left is finished.

It prints what it has measured; `scripts/test tests/faults/test_failover.py -s` shows it.
"""

import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.cluster.client import Paths, zookeeper
from shard_client.branch import Branch
from shard_client.connection import ShardConnection
from shard_client.xid import Gtrid
from tandem.local.cluster import LocalCluster, Options
from tests.bank import Bank, Load, together
from tests.cluster import Cluster, wait_until
from tests.contract.bench import Bench, now, soon
from tests.faults.test_recovery import leader, wait_for_leader

pytestmark = pytest.mark.alone

SESSION_S = 2.0
SETTINGS = {
    "TANDEM_ZOOKEEPER_SESSION_TIMEOUT_S": str(SESSION_S),
    "TANDEM_COORDINATOR_WORKERS": "1",
    # Longer than the preparation of the test: only that its process is gone lets the leader begin.
    "TANDEM_ENGINE_SWEEP_GRACE_MS": "120000",
}
# On MariaDB each branch in doubt keeps a session of its own, and a server takes 151.
GROUPS = {"mysql": 1000, "mariadb": 100}
HANDS = 8


@pytest.fixture(params=["mysql", "mariadb"])
def servers(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """Two shards and c1, which leads."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    local = LocalCluster(tmp_path / "cluster")
    try:
        local.up(Options(shards=2, coordinators=1, engine=request.param))
        wait_for_leader(local.urls()[0])
        yield Cluster(local)
    finally:
        local.down()


def instance_of(cluster: Cluster, coordinator: str) -> int:
    """The instance of a coordinator's only process."""
    with zookeeper(cluster.settings) as keeper:
        names = keeper.get_children(Paths(cluster.settings.cluster.id).members)
    (name,) = [name for name in names if name.startswith(f"{coordinator}-")]
    return int(name.partition("-")[2], 16)


class Doubtful:
    """Groups across both shards that a process of c1 leaves prepared; every other one decided."""

    def __init__(self, bench: Bench, count: int) -> None:
        self._bench = bench
        self._instance = instance_of(bench.cluster, "c1")
        self.sources, self.destinations = bench.accounts(count, "s1"), bench.accounts(count, "s2")
        together(HANDS, self._prepare)

    def _prepare(self, hand: int) -> None:
        home, remote = self._bench.connect("s1"), self._bench.connect("s2")
        for index in range(hand, len(self.sources), HANDS):
            self._prepare_one(index, home, remote)
            if remote.is_mariadb:
                remote = self._bench.connect("s2")

    def _prepare_one(self, index: int, home, remote) -> None:
        random = self._instance << 32 | secrets.randbits(32)
        name = self._bench.cluster.settings.cluster.id
        gtrid = Gtrid(name, "s1", "c1", time.time_ns() // 1_000_000, random)
        source, destination = self.sources[index], self.destinations[index]
        asked = self._bench.transfer(source, destination)
        debit = Branch(home, str(gtrid), is_local=True)
        credit = Branch(remote, str(gtrid), is_local=False)
        locked = debit.lock([source], [asked.id], soon()), credit.lock([destination], [], soon())
        plan = self._bench.plan(gtrid, [asked], *(reply.get() for reply in locked))
        credit.write(plan.writes["s2"], soon()).get()
        if index % 2:
            debit.write(plan.writes["s1"], soon()).get()
            debit.decide(["s2"], now(), soon()).get()
        else:
            debit.roll_back(soon()).get()

    def check(self) -> None:
        """The decided ones have happened on both shards, the others on neither."""
        balances = self._bench.balances([*self.sources, *self.destinations])
        for index, pair in enumerate(zip(self.sources, self.destinations, strict=True)):
            moved = 7 if index % 2 else 0
            assert [balances[name] for name in pair] == [-moved, moved]


class Gaps(Load):
    """A load that knows when its transfers were committed."""

    def __init__(self, bank: Bank, urls: list[str]) -> None:
        super().__init__(bank, urls)
        self.moments: list[float] = []

    def _send(self, http, item: dict) -> None:
        super()._send(http, item)
        self.moments.append(time.monotonic())

    def longest_gap_s(self) -> float:
        moments = sorted(self.moments)
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


def seconds_until(condition: Callable[[], object], complaint: str) -> float:
    begun = time.monotonic()
    wait_until(condition, 60, complaint)
    return time.monotonic() - begun


def test_leader_killed_under_load(
    servers: Cluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = request.node.callspec.params["servers"]
    bench, bank = Bench(servers), Bank(servers, 40)
    with servers.coordinator("c8", tmp_path / "c8.log", SETTINGS) as other:
        assert leader(other.url) == leader(servers.urls[0])
        doubtful = Doubtful(bench, GROUPS[engine])
        watching = bench.connect("s2")
        assert _of_c1(watching) == GROUPS[engine]
        load = Gaps(bank, [other.url])
        with load.running(8):
            load.wait_for("201", 100)
            os.killpg(servers.pid("c1"), 9)
            elected_s = seconds_until(lambda: _leads(other.url), "c8 does not lead")
            finished_s = seconds_until(lambda: _of_c1(watching) == 0, "something stays in doubt")
            load.wait_for("201", load.counts["201"] + 100)
        doubtful.check()
        print(
            f"\n{engine}: killed the leader with {GROUPS[engine]} groups in doubt; session timeout "
            f"{SESSION_S} s: elected after {elected_s:.2f} s, all finished {finished_s:.2f} s "
            f"later; {load.counts['201']} transfers at the other coordinator meanwhile, longest "
            f"gap {load.longest_gap_s() * 1000:.0f} ms"
        )
        # Nobody else noticed: every request was answered, and as it should be.
        assert set(load.counts) <= {"201", "422"}
        check = Load(bank, [other.url])
        check.told = load.told
        check.check_answers()
        servers.local.start("c1")
        bank.check()
    bench.close()


def _of_c1(connection: ShardConnection) -> int:
    """How many branches of c1 are prepared. Cheap to ask: it competes with what it measures."""
    names = [row[3] for row in connection.rows("XA RECOVER", soon())]
    # The servers do not agree on whether it is text.
    return sum(b".c1." in (n if isinstance(n, bytes) else n.encode()) for n in names)


def _leads(url: str) -> bool:
    now = leader(url)
    return now is not None and now[0] == "c8"
