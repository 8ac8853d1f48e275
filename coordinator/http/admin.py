"""The views of operators: the cluster, what is in doubt, finishing it, handing over."""

from flask import Response

from coordinator.cluster.election import Leader
from coordinator.http import reading, schemas
from coordinator.http.problems import Refuse
from coordinator.http.routes import View, by_name
from coordinator.operations.cluster_admin import (
    ClusterState,
    Doubts,
    InDoubt,
    Operation,
    Resolution,
)
from coordinator.operations.trace import Following
from coordinator.operations.unfinished import InPhase
from shard_client.xid import Gtrid


def views(operation: Operation, following: Following) -> dict[str, View]:
    """The views, on what this process sees of the cluster."""

    def show_cluster() -> Response:
        return reading.json(cluster_view(operation.cluster()))

    def show_in_doubt() -> Response:
        return reading.json(in_doubt_view(operation.in_doubt()))

    def resolve(gtrid: str) -> Response:
        name = Gtrid.parse(gtrid)
        if name is None:
            detail = (
                f"{reading.shown(gtrid)} is no gtrid, which is "
                "CLUSTER.HOME.COORDINATOR.TIME.RANDOM; nothing has happened"
            )
            raise Refuse(400, "malformed", detail)
        found = operation.resolve(name)
        if found is None:
            detail = (
                f"nothing is prepared or unfinished under {gtrid} on any shard, and there is no "
                "decision for it: it is finished, or never was; nothing has happened by asking"
            )
            raise Refuse(404, "not-found", detail)
        return reading.json(_resolution(gtrid, found))

    def trace_transfer(transfer: str) -> Response:
        way = following.way_of(transfer)
        if way is None:
            raise Refuse(404, "not-found", f"there is no transfer {reading.shown(transfer)}")
        return reading.json(schemas.way_view(way))

    def step_down() -> Response:
        old, new = operation.step_down()
        return reading.json(schemas.HandOverView(_leader(old), _leader(new) if new else None))

    return by_name(show_cluster, show_in_doubt, resolve, trace_transfer, step_down)


def cluster_view(state: ClusterState) -> schemas.ClusterView:
    return schemas.ClusterView(
        coordinators=[
            schemas.CoordinatorView(c.id, c.address, c.epoch is not None, c.epoch, c.processes)
            for c in state.coordinators
        ],
        shards=[
            schemas.ShardView(
                s.id, s.trouble is None, s.version, s.slots, s.in_doubt, s.unfinished, s.trouble
            )
            for s in state.shards
        ],
        shard_map_version=state.map_version,
        zookeeper="connected" if state.zookeeper_answers else "away",
    )


def in_doubt_view(found: Doubts) -> schemas.InDoubtList:
    return schemas.InDoubtList(
        list(map(_in_doubt, found.branches)),
        list(map(_unfinished, found.unfinished)),
        _unreachable(found.unreachable),
    )


def _in_doubt(item: InDoubt) -> schemas.InDoubtView:
    return schemas.InDoubtView(
        gtrid=str(item.gtrid),
        shard=item.shard,
        home=item.gtrid.home,
        coordinator=item.gtrid.coordinator,
        age_seconds=round(item.age_s, 3),
        decision=item.decision.value if item.decision else None,
        next=item.next,
        next_in_seconds=None if item.next_in_s is None else round(item.next_in_s, 3),
    )


def _unfinished(item: InPhase) -> schemas.UnfinishedView:
    return schemas.UnfinishedView(
        gtrid=str(item.gtrid),
        shard=item.shard,
        coordinator=item.gtrid.coordinator,
        protocol=item.protocol,  # type: ignore[arg-type]
        phase=item.phase,  # type: ignore[arg-type]
        transfers=item.transfers,
        transfer=item.transfer,
        age_seconds=round(item.age_s, 3),
        attempts=item.attempts,
        reason=item.reason,
        detail=item.detail,
        next=item.next,
        next_in_seconds=None if item.next_in_s is None else round(item.next_in_s, 3),
    )


def _unreachable(shards: dict[str, str]) -> list[schemas.Unreachable]:
    return [schemas.Unreachable(shard, reason) for shard, reason in sorted(shards.items())]


def _resolution(gtrid: str, found: Resolution) -> schemas.ResolutionView:
    return schemas.ResolutionView(
        gtrid=gtrid,
        outcome=found.outcome.value if found.outcome else None,
        finished=found.finished,
        unfinished=_unreachable(found.unfinished),
        transfers=[schemas.ResolvedView(*item) for item in found.transfers],  # type: ignore[arg-type]
    )


def _leader(leader: Leader) -> schemas.LeaderView:
    return schemas.LeaderView(leader.member.coordinator, leader.member.address, leader.epoch)
