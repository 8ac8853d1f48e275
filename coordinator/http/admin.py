"""The views of operators: the cluster, what is in doubt, finishing it, handing over."""

from flask import Response

from coordinator.http import reading, schemas
from coordinator.http.problems import Refuse
from coordinator.http.routes import View, by_name
from coordinator.operations.cluster_admin import ClusterAdmin
from coordinator.operations.trace import TransferTraces
from shard_client.xid import Gtrid


def views(cluster_admin: ClusterAdmin, transfer_traces: TransferTraces) -> dict[str, View]:
    """The views, on what this process sees of the cluster."""

    def show_cluster() -> Response:
        return reading.json(cluster_admin.cluster())

    def show_in_doubt() -> Response:
        return reading.json(cluster_admin.in_doubt())

    def resolve(gtrid: str) -> Response:
        name = Gtrid.parse(gtrid)
        if name is None:
            detail = (
                f"{reading.shown(gtrid)} is no gtrid, which is "
                "CLUSTER.HOME.COORDINATOR.TIME.RANDOM; nothing has happened"
            )
            raise Refuse(400, "malformed", detail)
        found = cluster_admin.resolve(name)
        if found is None:
            detail = (
                f"nothing is prepared or unfinished under {gtrid} on any shard, and there is no "
                "decision for it: it is finished, or never was; nothing has happened by asking"
            )
            raise Refuse(404, "not-found", detail)
        return reading.json(found)

    def trace_transfer(transfer: str) -> Response:
        trace = transfer_traces.trace_of(transfer)
        if trace is None:
            raise Refuse(404, "not-found", f"there is no transfer {reading.shown(transfer)}")
        return reading.json(schemas.trace_view(trace))

    def step_down() -> Response:
        return reading.json(cluster_admin.step_down())

    return by_name(show_cluster, show_in_doubt, resolve, trace_transfer, step_down)
