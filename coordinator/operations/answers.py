"""What operators are told. The API answers with these values as they are, and the OpenAPI document
describes them.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

PhaseName = Literal["trying", "confirming", "cancelling", "crediting", "compensating"]


class CoordinatorView(Struct):
    """A coordinator; `epoch` is the term in which it leads."""

    id: str
    address: str
    leader: bool
    epoch: int | None
    processes: int


class ShardView(Struct):
    """A shard; `in_doubt` counts prepared branches, `unfinished` transfers by TC/C or Saga that are
    on their way. `trouble` is why it cannot be used; what cannot be asked then is null.
    """

    id: str
    reachable: bool
    server_version: str | None
    slots: int
    in_doubt: int | None
    unfinished: int | None
    trouble: str | None


class ClusterView(Struct):
    """`zookeeper`: "away" means that transfers go on, and no leader is elected."""

    coordinators: list[CoordinatorView]
    shards: list[ShardView]
    shard_map_version: int
    zookeeper: Literal["connected", "away"]


class InDoubtView(Struct):
    """A prepared branch. `next` says what will happen in words, `next_in_seconds` when at the
    latest; null: when what it waits for is back.
    """

    gtrid: str
    shard: str
    home: str
    coordinator: str
    age_seconds: float
    decision: Literal["committed", "aborted"] | None
    next: str
    next_in_seconds: float | None


# A shard that cannot be asked, or on which something is left, and why.
class Unreachable(Struct):
    shard: str
    reason: str


def listed(shards: Mapping[str, str]) -> list[Unreachable]:
    """Shard -> reason, in the order of the shards."""
    return [Unreachable(shard, reason) for shard, reason in sorted(shards.items())]


class UnfinishedView(Struct):
    """Transfers of a group by TC/C or Saga that are in one phase: how many, and one of them, of
    which `next` says what will happen in words, and `next_in_seconds` when at the latest; null:
    when what it waits for is back. `shard` is the source's, which has the phase. `attempts`: how
    often the next step of one has failed, as far as this coordinator knows. `reason` and `detail`:
    why it is refused.
    """

    gtrid: str
    shard: str
    coordinator: str
    protocol: Literal["tcc", "saga"]
    phase: PhaseName
    transfers: int
    transfer: str
    age_seconds: float
    attempts: int
    reason: str | None
    detail: str | None
    next: str
    next_in_seconds: float | None


class InDoubtList(Struct):
    """`branches` are prepared, `unfinished` are in a phase of TC/C or Saga; each oldest first. What
    is on a shard that is `unreachable` is not in the lists.
    """

    branches: list[InDoubtView]
    unfinished: list[UnfinishedView]
    unreachable: list[Unreachable]


class ResolvedView(Struct):
    """A transfer by TC/C or Saga that was to be finished. "lapsed": nothing has happened by this
    attempt. `phase`: in which it is left; null: it is finished. `reason`: why it is not.
    """

    id: str
    status: Literal["committed", "rejected", "pending", "lapsed", "unknown"]
    phase: PhaseName | None
    reason: str | None


class ResolutionView(Struct):
    """`outcome` is null when home has not said it (yet). `unfinished`: the shards whose branch is
    not finished, or that cannot be asked whether they have one; the leader goes on with them.
    `transfers`: of a group by TC/C or Saga each that was not finished, which has an outcome of its
    own.
    """

    gtrid: str
    outcome: Literal["committed", "aborted"] | None
    finished: list[str]
    unfinished: list[Unreachable]
    transfers: list[ResolvedView]


class LeaderView(Struct):
    coordinator: str
    address: str
    epoch: int


class HandOverView(Struct):
    """Who led and who leads now: the old one, if it has not stepped down in time; null: no
    new leader is known yet.
    """

    old: LeaderView
    new: LeaderView | None
