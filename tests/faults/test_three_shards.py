"""What takes three shards, or servers whose settings and addresses a test may change."""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import httpx
import pytest

from coordinator.cluster import publish_map, read_map
from coordinator.engine.tickets import Answer, Settled
from coordinator.protocols.two_phase_commit import Phase
from coordinator.recovery.branches import Unfinished
from coordinator.services.transfers import Pending
from coordinator.shards.provisioning import provision
from coordinator.wiring import WorkerProcess
from ledger.ids import transfer_id
from ledger.model import Transfer
from shard_client.branch import Branch
from shard_client.errors import ConnectionLost
from shard_client.records import Terms
from shard_client.shard_map import ShardAddress, ShardMap
from shard_client.xid import Gtrid
from tandem.local.cluster import LocalCluster, Options
from tests.bank import client
from tests.bank import transfer as bank_item
from tests.cluster import Cluster, wait_until
from tests.faults.leftovers import prepared
from tests.faults.victims import Victim, new_name, started


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three MySQL shards and ZooKeeper, without coordinators."""
    local = LocalCluster(tmp_path_factory.mktemp("three") / "cluster")
    try:
        local.up_servers(Options(shards=3, coordinators=1, engine="mysql"))
        cluster = Cluster(local)
        provision(cluster.settings, lambda text: None)
        yield cluster
    finally:
        local.down()


@pytest.fixture
def process(servers: Cluster) -> Iterator[WorkerProcess]:
    with servers.process() as running:
        yield running


class Purse:
    """Two accounts without limit on each shard."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._names: dict[str, list[str]] = {"s1": [], "s2": [], "s3": []}
        prefix = uuid.uuid4().hex[:8]
        for index in range(200):
            name = f"{prefix}-{index}-{uuid.uuid4().hex[:4]}"
            likes = self._names[process.shards.shard_of(name)]
            if len(likes) < 2:
                likes.append(name)
        terms = [Terms(name, "EUR", None) for names in self._names.values() for name in names]
        assert len(process.accounts.open_all(terms)) == 6

    def pay(self, source: str, destination: str, metadata: str | None = None) -> Transfer:
        """A transfer of 5 from the first account of a shard to the second of another."""
        key = uuid.uuid4().hex
        debit, credit = self._names[source][0], self._names[destination][1]
        now = time.time_ns() // 1000
        return Transfer(transfer_id(debit, key), key, debit, credit, 5, "EUR", metadata, "xa", now)

    def run(self, *transfers: Transfer) -> list[Answer | Pending]:
        tickets = self._process.transfers.submit(transfers, 20, "test", is_batch=True)
        return self._process.transfers.wait(tickets, 5)

    def total(self) -> int:
        names = [name for names in self._names.values() for name in names]
        return sum(a.balance for a in self._process.snapshot_reads.read(names).values())


def committed(answers: list[Answer | Pending], *, replays: int = 0) -> bool:
    settled = [answer for answer in answers if isinstance(answer, Settled)]
    statuses = {answer.stored.status for answer in settled}
    found = sum(answer.is_replay for answer in settled)
    return len(settled) == len(answers) and statuses == {"committed"} and found == replays


def test_home_without_rows_to_write(process: WorkerProcess) -> None:
    """The busiest shard has replays alone; the others still agree through it."""
    purse = Purse(process)
    old = [purse.pay("s3", "s3") for _ in range(4)] + [purse.pay("s3", "s1")]
    assert committed(purse.run(*old))
    assert committed(purse.run(*old, purse.pay("s1", "s2")), replays=5)
    assert purse.total() == 0


def test_group_beyond_the_largest_packet_is_split(servers: Cluster, process: WorkerProcess) -> None:
    """It costs more groups, not the transfers, and not the shard."""
    purse = Purse(process)
    before = {s: servers.rows(s, "SELECT @@max_allowed_packet")[0][0] for s in ("s1", "s2", "s3")}
    try:
        for shard in before:
            servers.rows(shard, "SET GLOBAL max_allowed_packet = 1048576")
        for shard in process.shards.all():
            shard.close()
        text = json.dumps({"text": '"' * 1900})
        transfers = [purse.pay("s1", "s2", text) for _ in range(600)]
        assert committed(purse.run(*transfers))
        assert process.troubles() == []
    finally:
        for shard, size in before.items():
            servers.rows(shard, f"SET GLOBAL max_allowed_packet = {size}")
        for shard in process.shards.all():
            shard.close()
    assert purse.total() == 0


def test_swept_while_its_decision_is_on_its_way(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finishes a group first, its client is answered."""
    purse = Purse(process)
    real = Branch.decide

    class Late:
        def __init__(self, branch: Branch, reply: object) -> None:
            self.branch, self.reply = branch, reply

        def get(self) -> None:
            self.reply.get()  # type: ignore[attr-defined]
            gtrid = Gtrid.parse(self.branch.gtrid)
            assert gtrid is not None
            remote = {"s1", "s2", "s3"} - {gtrid.home}
            process.branch_resolver.add(Unfinished(gtrid, remote, Phase.ARBITRATING))
            self.branch.connection.close()
            raise ConnectionLost(self.branch.shard, "the answer was lost, on purpose")

    monkeypatch.setattr(Branch, "decide", lambda self, *a: Late(self, real(self, *a)))
    answers = purse.run(purse.pay("s1", "s2"), purse.pay("s2", "s3"))
    assert committed(answers)
    wait_until(
        lambda: process.branch_resolver.pool.unfinished() == [], 20, "something stays unfinished"
    )
    assert process.queue.unsettled == 0


def test_map_changes_while_a_group_runs(
    servers: Cluster, process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection goes back to the shard that it was taken from, and accounts become free."""
    purse = Purse(process)
    old = read_map(servers.settings)
    moved = {
        name: ShardAddress("localhost", a.port, a.database, a.server_uuid)
        for name, a in old.shards.items()
    }
    real = Branch.write
    done = []

    def write(self: Branch, *args: object) -> object:
        if not done:
            done.append(True)
            publish_map(servers.settings, ShardMap(old.version + 1, moved, old.ranges))
            in_force = lambda: process.shards.map.version > old.version  # noqa: E731
            wait_until(in_force, 10, "the new map is not taken up")
            wait_until(lambda: process.troubles() == [], 10, "the shards are not taken up")
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Branch, "write", write)
    first = purse.pay("s1", "s2")
    assert committed(purse.run(first))
    monkeypatch.undo()
    assert committed(purse.run(purse.pay("s1", "s2"), purse.pay("s2", "s3")))
    hosts = {shard._pool._idle[0]._wire.host for shard in process.shards.all()}
    assert hosts == {"localhost"}
    assert purse.total() == 0


def test_a_zombie_prepares_after_recovery_has_aborted(
    servers: Cluster, process: WorkerProcess, tmp_path: Path
) -> None:
    """Frozen between its packets to two shards, woken after the first was rolled back: it prepares
    the second and dies. A later sweep rolls that back too.
    """
    purse = Purse(process)
    items = [_item(purse.pay("s1", shard)) for shard in ("s2", "s3")]
    victim = Victim(
        servers,
        new_name(),
        tmp_path,
        "before-prepare@s3=freeze*1; before-decision=kill*1",
        TANDEM_MYSQL_IDLE_TIMEOUT_S="60",
        TANDEM_ENGINE_WRITE_TIMEOUT_MS="30000",
        TANDEM_ENGINE_SWEEP_GRACE_MS="70000",
    )
    with started([victim]):
        call = Thread(target=_send, args=[victim.url, items])
        call.start()
        victim.wait_frozen()
        gtrid = victim.struck_gtrid("before-prepare@s3")
        aborted = f"SELECT 1 FROM decisions WHERE gtrid = '{gtrid}' AND outcome = 'aborted'"
        wait_until(lambda: servers.rows("s1", aborted) == [(1,)], 30, "nobody aborts it")
        wait_until(lambda: gtrid not in prepared(servers, "s2"), 10, "s2 stays in doubt")
        victim.thaw()
        victim.wait_dead()
        call.join(20)
        assert victim.struck()["before-decision@s1"] == 1
    wait_until(lambda: prepared(servers) == [], 30, lambda: f"in doubt: {prepared(servers)}")
    assert purse.total() == 0
    names = [name for item in items for name in (item["source"], item["destination"])]
    assert {a.balance for a in process.snapshot_reads.read(names).values()} == {0}
    assert committed(purse.run(purse.pay("s1", "s2"), purse.pay("s1", "s3")))


def _item(transfer: Transfer) -> dict:
    return bank_item(transfer.source, transfer.destination, transfer.amount, transfer.key)


def _send(url: str, items: list[dict]) -> None:
    with client(url) as http, suppress(httpx.TransportError):
        http.post("/v1/transfers/batch", json={"transfers": items})
