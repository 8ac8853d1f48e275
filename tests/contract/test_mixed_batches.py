"""Batches whose transfers run in different ways, on both kinds of server."""

import random
import time
import uuid
from collections.abc import Iterator
from itertools import cycle

import pytest

from coordinator.engine.tickets import Settled
from coordinator.wiring import WorkerProcess
from ledger.decide import decide
from ledger.ids import transfer_id
from ledger.model import Account, Posting, Transfer
from shard_client.connection import Reply
from shard_client.errors import ConnectionLost
from shard_client.phases import MySqlLocalTransaction
from shard_client.records import LocalWrites
from tests.bank import Bank, client
from tests.cluster import Cluster

Wish = tuple[str, str, int, str]


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return request.getfixturevalue(f"{request.param}_cluster")


@pytest.fixture(scope="module")
def process(cluster: Cluster) -> Iterator[WorkerProcess]:
    with cluster.process() as running:
        yield running


def run(process: WorkerProcess, wishes: list[Wish]) -> tuple[list[str], int]:
    """Send a batch of source, destination, amount and protocol: its statuses, and its groups."""
    now = time.time_ns() // 1000
    transfers = []
    for source, destination, amount, protocol in wishes:
        key = uuid.uuid4().hex
        id_ = transfer_id(source, key)
        transfers.append(
            Transfer(id_, key, source, destination, amount, "EUR", None, protocol, now)
        )
    tickets = process.transfers.submit(transfers, 30, "test", is_batch=True)
    answers = process.transfers.wait(tickets, 10)
    assert all(isinstance(answer, Settled) for answer in answers), answers
    groups = {answer.stored.gtrid for answer in answers}
    return [answer.stored.status for answer in answers], len(groups)


@pytest.mark.parametrize("protocols", [["tcc"], ["saga"], ["tcc", "saga"]], ids="/".join)
def test_same_shard_and_other_shard_in_turn_share_groups(
    cluster: Cluster, process: WorkerProcess, protocols: list[str]
) -> None:
    bank = Bank(cluster, 20)
    hot, *others = bank.accounts
    on_s1 = bank.accounts[0::2]
    shapes = [
        [(hot, other) for other in others],
        [(other, hot) for other in others],
        [(payer, other) for payer in on_s1 for other in others if payer != other],
    ]
    for ends in shapes:
        # Two of each protocol: one within the shard, one across.
        pairs, ways = cycle(ends), cycle([way for way in protocols for _ in range(2)])
        statuses, groups = run(process, [(*next(pairs), 1, next(ways)) for _ in range(300)])
        assert set(statuses) == {"committed"}
        # A few; one that finds an account locked by a reader has to let it go.
        assert groups < 30
    bank.check()


def test_a_batch_comes_out_as_if_each_were_done_after_the_other(
    cluster: Cluster, process: WorkerProcess
) -> None:
    """Few accounts with little money, some closed: most of what is refused depends on the order."""
    chance = random.Random(7)
    bank = Bank(cluster, 8, funds=6)
    for number in (2, 3):
        run(process, [(bank.accounts[number], bank.accounts[0], 6, "xa")])
        with client(cluster.urls[0]) as http:
            path = f"/v1/accounts/{bank.accounts[number]}"
            assert http.patch(path, json={"status": "closed"}).status_code == 200
    states = {name: process.accounts.get(name) for name in bank.accounts}
    before = {name: state[0].account for name, state in states.items() if state}
    wishes = [
        (
            *chance.sample(bank.accounts, 2),
            chance.randint(1, 6),
            chance.choice(["xa", "tcc", "saga"]),
        )
        for _ in range(300)
    ]
    statuses, _ = run(process, wishes)
    assert statuses == one_after_the_other(before, wishes)
    bank.check()


def one_after_the_other(accounts: dict[str, Account], wishes: list[Wish]) -> list[str]:
    transfers = [Transfer("t", "k", *wish[:3], "EUR", None, wish[3], 0) for wish in wishes]
    outcomes, _ = decide(accounts, transfers, 0)
    return ["committed" if isinstance(one, Posting) else "rejected" for one in outcomes]


class LateLoss:
    """The packet has been carried out; its answer never comes."""

    def __init__(self, visit: MySqlLocalTransaction, reply: Reply[None]) -> None:
        self._visit = visit
        self._reply = reply

    def get(self) -> None:
        self._reply.get()
        self._visit.connection.close()
        raise ConnectionLost(self._visit.shard, "the answer was lost, on purpose", statement=0)


@pytest.mark.parametrize("late", [False, True], ids=["packet lost", "answer lost"])
def test_what_became_of_those_within_a_shard_is_found_out(
    cluster: Cluster, process: WorkerProcess, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """A visit in which transfers begin, and others are done, is not answered."""
    bank = Bank(cluster, 8)
    real, hits = MySqlLocalTransaction.commit, []

    def broken(self: MySqlLocalTransaction, writes: LocalWrites, deadline: float) -> object:
        if hits or not writes.begun or len(writes.transfers) < 2:
            return real(self, writes, deadline)
        hits.append(self.shard)
        if late:
            return LateLoss(self, real(self, writes, deadline))
        self.connection.close()
        raise ConnectionLost(self.shard, "the packet was not sent, on purpose")

    monkeypatch.setattr(MySqlLocalTransaction, "commit", broken)
    others = cycle(bank.accounts[1:])
    statuses, _ = run(process, [(bank.accounts[0], next(others), 1, "saga") for _ in range(40)])
    assert hits == ["s1"]
    assert set(statuses) == {"committed"}
    bank.check()
