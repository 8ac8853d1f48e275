"""Two processes' queues over the same accounts, in a time of the test's own.

A group takes a while that grows with its size and with what else runs, as on two cores; what the
other process has locked is put off. Figures are from `docs/performance.md`, rounded.
"""

import heapq
import random
import time
from typing import Any

import pytest

from coordinator.engine import scheduler as queues
from coordinator.engine.grouping import pause_after
from coordinator.engine.scheduler import Queue
from coordinator.engine.tickets import Group, Ticket, accounts_in_batch
from tests.unit.tickets import ANSWER, queue, ticket

_ACCOUNTS = 20_000
_EXECUTORS = 4
_GROUP_S, _TRANSFER_S, _PUT_OFF_S = 0.007, 0.00013, 0.00004
_CLIENTS = 4


class Clock:
    """Stands where it was put."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


class Process:
    """A queue, and what its groups have locked until when."""

    def __init__(self) -> None:
        self.queue: Queue = queue(waiting_max=100_000, group_max=2000)
        self.idle = _EXECUTORS
        self.locked: dict[str, float] = {}


class World:
    """Clients that send one batch after the other, half of them to each process."""

    def __init__(self, clock: Clock, size: int) -> None:
        self.committed = self.put_off = self.groups = 0
        self._clock = clock
        self._size = size
        self._chance = random.Random(size)
        self._processes = [Process(), Process()]
        self._ends: list[tuple[float, int, Any]] = []
        self._left: dict[int, int] = {}
        for number in range(_CLIENTS):
            self._send(self._processes[number % 2])

    def run(self, seconds: float) -> None:
        until = self._clock.now + seconds
        while self._clock.now < until:
            pauses = [self._take_all(process) for process in self._processes]
            if self._ends and self._ends[0][0] <= self._clock.now + min(pauses):
                self._clock.now, _, end = heapq.heappop(self._ends)
                self._end(*end)
            else:
                self._clock.now += max(min(pauses), 1e-4)

    def _send(self, process: Process) -> None:
        batch, tickets = object(), []
        for _ in range(self._size):
            ends = [f"{n}{self._chance.randrange(_ACCOUNTS // 2)}" for n in "12"]
            self._chance.shuffle(ends)
            tickets.append(ticket(*ends, batch=batch))
        self._left[id(batch)] = self._size
        process.queue.put(tickets)

    def _take_all(self, process: Process) -> float:
        """Let executors take what they can; how long nothing changes by itself."""
        waiting = process.queue
        while process.idle:
            group = waiting._pick()
            pause = waiting._linger_s(group) if group else waiting._pause()
            if group is None or pause:
                return pause
            with waiting._changed:
                waiting._begin(group)
            self._begin(process, group)
        return 1.0

    def _begin(self, process: Process, group: Group) -> None:
        process.idle -= 1
        (other,) = (one for one in self._processes if one is not process)
        taken = group.accounts & other.locked.keys()
        process.queue.met_others(group, len(taken), len(group.accounts))
        kept, again = self._sort(group, taken)
        work = _GROUP_S + len(kept) * _TRANSFER_S + len(again) * _PUT_OFF_S
        at_once = 2 * _EXECUTORS - sum(one.idle for one in self._processes)
        end = self._clock.now + work * max(at_once / 2, 1)
        mine = group.accounts - taken
        process.locked.update(dict.fromkeys(mine, end))
        self.groups += 1
        self.put_off += len(again)
        heapq.heappush(self._ends, (end, self.groups, (process, group, kept, again, mine)))

    def _sort(self, group: Group, taken: set[str]) -> tuple[list[Ticket], list[Ticket]]:
        kept, again, drawn = [], [], self._chance.random()
        held: set[tuple[int, str]] = set()
        for one in group.tickets:
            wanted = accounts_in_batch(one)
            if held.isdisjoint(wanted) and taken.isdisjoint(name for _, name in wanted):
                kept.append(one)
                continue
            held.update(wanted)
            one.skips += 1
            one.not_before = self._clock.now + pause_after(one.skips, lambda: drawn)
            again.append(one)
        return kept, again

    def _end(
        self,
        process: Process,
        group: Group,
        kept: list[Ticket],
        again: list[Ticket],
        mine: set[str],
    ) -> None:
        process.idle += 1
        for name in mine:
            del process.locked[name]
        process.queue.settle((one, ANSWER) for one in kept)
        process.queue.finished(group, again)
        self.committed += len(kept)
        for one in kept:
            self._left[id(one.batch)] -= 1
            if not self._left[id(one.batch)]:
                self._send(process)


def test_the_largest_batches_are_as_quick_as_those_of_a_thousand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worlds = []
    for size in (1000, 10_000):
        clock = Clock()
        monkeypatch.setattr(queues, "time", clock)
        world = World(clock, size)
        world.run(2.5)
        worlds.append(world)
    usual, large = worlds
    assert large.committed >= usual.committed
    assert large.put_off < large.committed
