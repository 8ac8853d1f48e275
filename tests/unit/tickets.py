"""Queues and tickets for tests: accounts whose names say on which shard they are."""

import random
import time
from typing import Any

from coordinator.engine.scheduler import Queue
from coordinator.engine.tickets import Group, Latch, NotExecuted, NotExecutedReason, Refused, Ticket
from ledger.model import Reason, Refusal, Transfer

FAR_S = 60.0
GONE = NotExecuted(NotExecutedReason.ACCOUNT_BUSY, "withdrawn")
ANSWER = Refused(Refusal(Reason.SAME_ACCOUNT, "an answer like any other"))


class Shards:
    """Account `1a` is on shard `s1`; a shard is in trouble since so many seconds."""

    def __init__(self) -> None:
        self.trouble: dict[str, float] = {}
        self.moved: dict[str, str] = {}

    def shard_of(self, account: str) -> str:
        return self.moved.get(account[0], f"s{account[0]}")

    def trouble_with(self, shard: str) -> tuple[str, float] | None:
        return (f"{shard} is down", self.trouble[shard]) if shard in self.trouble else None


def queue(shards: Shards | None = None, **limits: Any) -> Queue:
    shards = shards or Shards()
    given_limits = {"waiting_max": 1000, "group_max": 100, "skips_max": 3}
    given_limits |= {"stuck_max": 1000, "shard_patience_s": 0.5}
    return Queue(
        **(given_limits | limits), shard_of=shards.shard_of, trouble_with=shards.trouble_with
    )


def ticket(
    source: str,
    destination: str,
    *,
    batch: object = None,
    deadline_s: float = FAR_S,
    id_: str = "",
    latch: Latch | None = None,
    protocol: str = "xa",
    caller: str = "",
) -> Ticket:
    name = id_ or f"{source}>{destination}#{random.getrandbits(32):x}"
    transfer = Transfer(name, name, source, destination, 1, "EUR", None, protocol, 0)
    return Ticket(transfer, time.monotonic() + deadline_s, latch or Latch(1), batch, caller=caller)


def take(waiting: Queue) -> Group:
    group = waiting.take()
    assert group is not None
    return group


def take_at_once(waiting: Queue) -> Group:
    """What can be taken now, without lingering."""
    with waiting._changed:
        group = picked(waiting)
        waiting._begin(group)
    return group


def has_nothing(waiting: Queue) -> bool:
    """Whether nothing can be taken now."""
    return waiting._pick() is None


def picked(waiting: Queue) -> Group:
    """The group that would be taken next."""
    group = waiting._pick()
    assert group is not None
    return group
