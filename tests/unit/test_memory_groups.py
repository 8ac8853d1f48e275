"""Groups run by the product's own engine and recovery on shards in memory: what a shard promises is
all that they need.
"""

import time
from collections.abc import Iterator
from typing import cast

import pytest

from coordinator.engine.local_transactions import LocalRunner
from coordinator.engine.phased_run import PhasedRun
from coordinator.engine.tickets import Refused, Settled, Ticket
from coordinator.engine.two_phase_run import GroupRun, GtridFactory, Homes, Timeouts
from coordinator.recovery.branches import BranchResolver
from coordinator.recovery.phased import PhasedResolver
from coordinator.services.accounts import Accounts
from coordinator.services.snapshot_reads import SnapshotReads
from coordinator.shards.clocks import ClockWatch
from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics
from coordinator.telemetry.tracing import Tracer
from shard_client.errors import ConnectionLost, ShardError
from shard_client.node import ShardNode
from shard_client.records import Terms
from tests.cluster import wait_until
from tests.memory_shard import Done, MemoryBranch, MemoryShard
from tests.unit import tickets


class MemoryShards(dict[str, MemoryShard]):
    """Account `1a` is on shard `s1`; all shards have all slots."""

    def __init__(self) -> None:
        super().__init__({name: MemoryShard(name, "tests") for name in ("s1", "s2")})
        self.clocks = ClockWatch(self.all)
        self.noted: list[ShardError] = []
        for shard in self.values():
            shard.admit()

    def shard_of(self, account: str) -> str:
        return f"s{account[0]}"

    def all(self) -> list[ShardNode]:
        return list(self.values())

    def trouble_with(self, shard: str) -> None:
        return None

    def note(self, error: ShardError) -> None:
        self.noted.append(error)


class World:
    """A process without servers: accounts 1a and 1b are on s1, 2a on s2, each with room for 5."""

    def __init__(self) -> None:
        self.memory = MemoryShards()
        self.shards = cast(Shards, self.memory)
        self.queue = tickets.queue()
        self.gtrids = GtridFactory("tests", "c1", 1)
        self.metrics = Metrics()
        self.timeouts = Timeouts(1.0, 1.0)
        self.resolver = BranchResolver(self.shards, self.metrics, Tracer())
        local = LocalRunner(self.shards, self.metrics, lock_s=1.0, write_s=1.0)
        self.phased_resolver = PhasedResolver(self.shards, self.queue, local)
        self.local = local
        self.accounts = Accounts(self.shards)
        self.accounts.open_all([Terms(name, "EUR", 5) for name in ("1a", "1b", "2a")])

    def run(self, *asked: Ticket) -> None:
        """The next group that the queue gives."""
        self.queue.put(list(asked))
        group = tickets.take(self.queue)
        if group.protocol == "xa":
            GroupRun(
                group,
                queue=self.queue,
                shards=self.shards,
                resolver=self.resolver,
                metrics=self.metrics,
                tracer=Tracer(),
                gtrids=self.gtrids,
                homes=Homes(),
                timeouts=self.timeouts,
            ).run()
        else:
            PhasedRun(
                group,
                queue=self.queue,
                shards=self.shards,
                local=self.local,
                resolver=self.phased_resolver,
                metrics=self.metrics,
                tracer=Tracer(),
                gtrids=self.gtrids,
                grace_s=5.0,
                unfinished_max=100,
            ).run()

    def balances(self, *names: str) -> list[int]:
        found = SnapshotReads(self.shards).read(names)
        return [found[name].balance for name in names]

    def is_idle(self) -> bool:
        """Nothing is locked or prepared, and nothing has to be finished."""
        nodes = self.memory.values()
        return not any(node.locks or node.prepared or node.table("phases") for node in nodes)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.resolver.pool.start()
    yield made
    made.resolver.pool.stop()


@pytest.mark.parametrize("protocol", ["xa", "tcc", "saga"])
@pytest.mark.parametrize("destination", ["1b", "2a"])
def test_a_transfer_is_made(world: World, protocol: str, destination: str) -> None:
    asked = tickets.ticket("1a", destination, protocol=protocol)
    world.run(asked)
    assert isinstance(asked.answer, Settled)
    assert asked.answer.stored.status == "committed"
    assert world.balances("1a", destination) == [-1, 1]
    found = world.accounts.entries(destination, None, 9, newest_first=True)
    assert found is not None
    (entry,) = found.entries
    assert (entry.transfer, entry.balance) == (asked.transfer.id, 1)
    assert world.is_idle()


@pytest.mark.parametrize("protocol", ["xa", "tcc", "saga"])
def test_a_refusal_is_recorded_and_answered_again(world: World, protocol: str) -> None:
    asked = tickets.ticket("1a", "2x", protocol=protocol)
    world.run(asked)
    again = tickets.ticket("1a", "2x", protocol=protocol, id_=asked.transfer.id)
    world.run(again)
    for ticket in (asked, again):
        assert isinstance(ticket.answer, Settled), ticket.answer
        assert ticket.answer.stored.reason == "account-not-found"
    assert isinstance(again.answer, Settled)
    assert again.answer.is_replay
    other = tickets.ticket("1a", "2a", protocol=protocol, id_=asked.transfer.id)
    world.run(other)
    assert isinstance(other.answer, Refused)
    assert world.balances("1a", "2a") == [0, 0]
    assert world.is_idle()


@pytest.mark.parametrize("was_decided", [True, False])
def test_home_says_what_became_of_a_lost_decision(
    world: World, monkeypatch: pytest.MonkeyPatch, was_decided: bool
) -> None:
    real = MemoryBranch.decide

    def decide(self: MemoryBranch, *arguments: object) -> Done[None]:
        monkeypatch.setattr(MemoryBranch, "decide", real)
        if was_decided:
            real(self, *arguments).get()

        def lost() -> None:
            raise ConnectionLost(self.shard, "the answer was lost, on purpose")

        return Done(lost)

    monkeypatch.setattr(MemoryBranch, "decide", decide)
    asked = tickets.ticket("1a", "2a")
    world.run(asked)
    if not was_decided:
        # It is known to have been aborted, and waits in the queue again.
        wait_until(lambda: world.is_idle() and world.queue.waiting == 1, 5, "it is not put back")
        assert world.balances("1a", "2a") == [0, 0]
        time.sleep(0.1)
        world.run()
    wait_until(lambda: asked.answer is not None, 5, "it is not answered")
    assert isinstance(asked.answer, Settled)
    wait_until(world.is_idle, 5, "its branch is not finished")
    assert world.balances("1a", "2a") == [-1, 1]
