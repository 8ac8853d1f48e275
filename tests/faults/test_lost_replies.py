"""A connection is lost at every step of a group, on every shard, before its packet or after.

The product's own process runs inside the test, so that a step can be hit exactly.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coordinator.engine.tickets import Latch, Settled, State, Ticket
from coordinator.wiring import WorkerProcess
from ledger.ids import transfer_id
from ledger.model import Transfer
from shard_client import prepared
from shard_client.branch import Branch
from shard_client.errors import ConnectionLost
from tests.bank import Bank
from tests.cluster import Cluster, wait_until

# Each step of a group, with the shards that take it when s1 is the home.
STEPS = [
    ("lock", "s1"),
    ("lock", "s2"),
    ("existing", "s2"),
    ("write", "s1"),
    ("write", "s2"),
    ("write_unprepared", "s1"),
    ("decide", "s1"),
    ("commit_alone", "s1"),
    ("commit", "s2"),
]


@pytest.fixture
def process(any_cluster: Cluster) -> Iterator[WorkerProcess]:
    with any_cluster.process() as running:
        yield running


class LateLoss:
    """The packet has been carried out; its answer never comes."""

    def __init__(self, branch: Branch, reply: object) -> None:
        self._branch = branch
        self._reply = reply

    def get(self) -> None:
        self._reply.get()  # type: ignore[attr-defined]
        self._branch.connection.close()
        raise ConnectionLost(self._branch.shard, "the answer was lost, on purpose", statement=0)


def sabotage(
    monkeypatch: pytest.MonkeyPatch, step: str, shard: str, *, late: bool
) -> Callable[[], int]:
    """Break `step` on `shard`, once; the result says how often that was done."""
    real = getattr(Branch, step)
    hits = []

    def broken(self: Branch, *args: object, **kwargs: object) -> object:
        if self.shard != shard or hits:
            return real(self, *args, **kwargs)
        hits.append(step)
        if late:
            return LateLoss(self, real(self, *args, **kwargs))
        self.connection.close()
        raise ConnectionLost(shard, "the packet was not sent, on purpose")

    monkeypatch.setattr(Branch, step, broken)
    return lambda: len(hits)


def group(bank: Bank, *, crossing: bool) -> list[Transfer]:
    """A batch whose home is s1; one of its accounts does not exist."""
    on_s1, on_s2 = bank.accounts[0::2], bank.accounts[1::2]
    pairs = [(on_s1[0], on_s1[1]), (on_s1[2], on_s1[3]), (on_s1[3], on_s1[0])]
    if crossing:
        ghost = next(n for n in (f"{on_s2[0]}-{i}" for i in range(99)) if bank.shard_of(n) == "s2")
        pairs += [(on_s1[1], on_s2[0]), (on_s2[1], on_s1[2]), (on_s1[0], ghost)]
    return [wish(source, destination) for source, destination in pairs]


def wish(source: str, destination: str, amount: int = 5) -> Transfer:
    key, now = uuid.uuid4().hex, time.time_ns() // 1000
    id_ = transfer_id(source, key)
    return Transfer(id_, key, source, destination, amount, "EUR", None, "xa", now)


def outcomes(process: WorkerProcess, transfers: list[Transfer]) -> list[str]:
    tickets = process.transfers.submit(transfers, 20, "test", is_batch=True)
    answers = process.transfers.wait(tickets, 10)
    assert all(isinstance(answer, Settled) for answer in answers), answers
    return [answer.stored.status for answer in answers]


@pytest.mark.parametrize("late", [False, True], ids=["packet lost", "answer lost"])
@pytest.mark.parametrize(("step", "shard"), STEPS)
def test_connection_lost(
    any_cluster: Cluster,
    process: WorkerProcess,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    shard: str,
    late: bool,
) -> None:
    is_alone = step in ("write_unprepared", "commit_alone")
    bank = Bank(any_cluster, 8)
    transfers = group(bank, crossing=not is_alone)
    hits = sabotage(monkeypatch, step, shard, late=late)
    first = outcomes(process, transfers)
    assert hits() == 1
    committed = 3 if is_alone else 5
    assert first == ["committed"] * committed + ["rejected"] * (len(transfers) - committed)
    again = process.transfers.submit(transfers, 20, "test", is_batch=True)
    replays = process.transfers.wait(again)
    assert [(a.stored.status, a.is_replay) for a in replays] == [(s, True) for s in first]
    wait_until(
        lambda: process.branch_resolver.pool.unfinished() == [], 20, "something stays unfinished"
    )
    bank.check()


def test_nothing_of_its_batch_overtakes_it(
    any_cluster: Cluster, process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home has let go of the accounts of a group, and nobody knows yet what became of it."""
    bank = Bank(any_cluster, 6)
    alice, bob, carol, dave, *others = bank.accounts
    may_ask = threading.Event()
    real = prepared.arbitrate

    def arbitrate(*args: Any) -> object:
        assert may_ask.wait(20)
        return real(*args)

    monkeypatch.setattr(prepared, "arbitrate", arbitrate)
    hits = sabotage(monkeypatch, "decide", "s1", late=False)
    batch, latch = object(), Latch(2)

    def ticket(transfer: Transfer) -> Ticket:
        return Ticket(transfer, time.monotonic() + 20, latch, batch)

    # The second one takes all that alice has: only in front of the first one could it do so.
    first, second = ticket(wish(alice, bob)), ticket(wish(alice, carol, 1000))
    process.queue.put([first])
    wait_until(
        lambda: process.branch_resolver.pool.unfinished() != [], 20, "the decision is not lost"
    )
    process.queue.put([second])
    # What comes later has its turn, and is done.
    assert outcomes(process, [wish(others[0], dave)]) == ["committed"]
    assert (hits(), first.state, second.state) == (1, State.SENT, State.OPEN)
    may_ask.set()
    assert latch.wait(time.monotonic() + 20)
    assert [settled(t) for t in (first, second)] == ["committed", "rejected"]
    bank.check()


def settled(ticket: Ticket) -> str:
    assert isinstance(ticket.answer, Settled)
    return ticket.answer.stored.status
