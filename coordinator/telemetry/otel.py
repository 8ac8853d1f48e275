"""Traces by OpenTelemetry: see `tracing.py`; made through `tracers.py`, which alone imports this.

Nothing is made while a group is on its way: what it does is noted, and its spans are made when its
clients have their answers.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as SpanMaker
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from coordinator.settings import Settings
from coordinator.telemetry.tracing import GroupTrace, Origin, Tracer
from shard_client.errors import ShardError
from shard_client.xid import Gtrid

_STOP_PATIENCE_S = 2.0


class OtelTracer(Tracer):
    """See Tracer."""

    is_on = True

    def __init__(self, settings: Settings, member: str) -> None:
        self._processor = BatchSpanProcessor(OTLPSpanExporter(settings.tracing.endpoint))
        resource = Resource.create(
            {
                "service.name": "tandem",
                "service.namespace": settings.cluster.id,
                "service.instance.id": member,
            }
        )
        self._propagator = TraceContextTextMapPropagator()
        ratio = TraceIdRatioBased(settings.tracing.sample_ratio)
        self._requests = self._maker(resource, ParentBased(ratio))
        # Of what belongs to a request that is traced, each span is wanted.
        self._others = self._maker(resource, ALWAYS_ON)

    def _maker(self, resource: Resource, sampler: Sampler) -> SpanMaker:
        provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return provider.get_tracer("tandem")

    def begin_request(
        self, method: str, route: str, traceparent: str | None, tracestate: str | None
    ) -> Span | None:
        context = Context()
        if traceparent:
            carrier = {"traceparent": traceparent, "tracestate": tracestate or ""}
            context = self._propagator.extract(carrier, context)
        span = self._requests.start_span(
            f"{method} {route}".strip(),
            context,
            SpanKind.SERVER,
            {"http.request.method": method, "http.route": route},
        )
        return span if span.is_recording() else None

    def end_request(self, span: Span, status: int, fields: Mapping[str, object]) -> None:
        span.set_attribute("http.response.status_code", status)
        for name, value in fields.items():
            if isinstance(value, str | int | list):
                span.set_attribute(f"tandem.{name}", value)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()

    def group(self, gtrid: Gtrid, origins: Sequence[Origin | None]) -> GroupTrace:
        traced = Counter(origin for origin in origins if origin)
        if not traced:
            return GroupTrace()
        return _GroupTrace(self._others, gtrid, len(origins), traced)

    def recovered(self, gtrid: Gtrid, outcome: str, shards: Iterable[str], since: float) -> None:
        attributes: dict[str, AttributeValue] = {
            "tandem.gtrid": str(gtrid),
            "tandem.outcome": outcome,
            "tandem.home": gtrid.home,
            "tandem.shards": sorted(shards),
        }
        _span(self._others, "recovery", (since, time.monotonic()), attributes)

    def stop(self) -> None:
        # Its own patience is longer than a process has to end.
        stopper = threading.Thread(target=self._processor.shutdown, daemon=True)
        stopper.start()
        stopper.join(_STOP_PATIENCE_S)


Stretch = tuple[float, float]


class _Call(NamedTuple):
    shard: str
    what: str
    stretch: Stretch
    error: str | None


class _Phase(NamedTuple):
    name: str
    stretch: Stretch
    calls: list[_Call]


class _GroupTrace(GroupTrace):
    """Notes a group's phases and their calls, and makes spans of them in the end."""

    def __init__(
        self,
        maker: SpanMaker,
        gtrid: Gtrid,
        transfers: int,
        origins: Mapping[Origin, int],
    ) -> None:
        self._maker = maker
        self._gtrid = gtrid
        self._transfers = transfers
        self._origins = origins
        self._began = time.monotonic()
        self._phases: list[_Phase] = []
        self._calls: list[_Call] = []

    def phase(self, name: str, began: float) -> None:
        self._phases.append(_Phase(name, (began, time.monotonic()), self._calls))
        self._calls = []

    def called(self, shard: str, call: str, began: float, error: ShardError | None = None) -> None:
        stretch = began, time.monotonic()
        self._calls.append(_Call(shard, call, stretch, str(error) if error else None))

    def end(self, phase: str) -> None:
        gtrid: dict[str, AttributeValue] = {"tandem.gtrid": str(self._gtrid)}
        group = _span(
            self._maker,
            "group",
            (self._began, time.monotonic()),
            gtrid
            | {
                "tandem.home": self._gtrid.home,
                "tandem.transfers": self._transfers,
                "tandem.end": str(phase),
            },
            links=[Link(origin.span.get_span_context()) for origin in self._origins],
        )
        for name, stretch, calls in self._phases:
            parent = _span(self._maker, name, stretch, gtrid, group)
            for call in calls:
                role = "home" if call.shard == self._gtrid.home else "remote"
                attributes = gtrid | {"tandem.shard": call.shard, "tandem.role": role}
                _span(
                    self._maker,
                    call.what,
                    call.stretch,
                    attributes,
                    parent,
                    kind=SpanKind.CLIENT,
                    error=call.error,
                )
        for origin, count in self._origins.items():
            _span(
                self._maker,
                "queue",
                (origin.since, self._began),
                gtrid | {"tandem.transfers": count},
                origin.span,
                links=[Link(group.get_span_context())],
            )


def _span(
    maker: SpanMaker,
    name: str,
    stretch: Stretch,
    attributes: Mapping[str, AttributeValue],
    parent: Span | None = None,
    *,
    links: Sequence[Link] = (),
    kind: SpanKind = SpanKind.INTERNAL,
    error: str | None = None,
) -> Span:
    """A span of what is over; `stretch` is by the monotonic clock."""
    to_wall_ns = time.time_ns() - time.monotonic_ns()
    start_ns, end_ns = (int(at * 1e9) + to_wall_ns for at in stretch)
    # In a context of its own: what this thread is at work on has nothing to do with it.
    context = set_span_in_context(parent, Context()) if parent else Context()
    span = maker.start_span(name, context, kind, attributes, links, start_ns)
    if error:
        span.set_status(Status(StatusCode.ERROR, error))
    span.end(end_ns)
    return span
