"""OpenTelemetry traces, when `tracing.endpoint` says where they go. If it does not, nothing of
OpenTelemetry is imported, and what is here does nothing; `otel.py` is what does.

    a request's trace   METHOD ROUTE -> queue (with a link to the group)
    a group's trace     group (with links to its requests) -> each phase -> each call to a shard
    a recovery's trace  recovery

A group serves many requests, so it belongs to none of their traces. It is traced if one of its
requests is.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from coordinator.settings import Settings, SettingsError
from shard_client.errors import ShardError
from shard_client.xid import Gtrid

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from coordinator.tickets import Ticket


class Origin(NamedTuple):
    """Where a transfer of a traced request comes from: the request's span, and since when it is
    queued, by the monotonic clock.
    """

    span: "Span"
    since: float


# The span of the request that this thread is at work on, if it is traced.
request_span: ContextVar["Span | None"] = ContextVar("request_span", default=None)


class GroupTrace:
    """Notes what a group does, by the monotonic clock. This one notes nothing."""

    def phase(self, name: str, began: float) -> None:
        """A phase ends now."""

    def called(self, shard: str, call: str, began: float, error: ShardError | None = None) -> None:
        """A call to a shard ends now, within the phase that ends next."""

    def end(self, phase: str) -> None:
        """The group is at its end; its clients are answered."""


class Tracer:
    """Makes the traces of one process. This one makes none."""

    is_on = False

    def begin_request(
        self, method: str, route: str, traceparent: str | None, tracestate: str | None
    ) -> "Span | None":
        """The span of a request, if it is to be traced, in the trace of its caller if it has one:
        then the caller says whether it is.
        """
        return None

    def end_request(self, span: "Span", status: int, fields: Mapping[str, object]) -> None:
        """A request that is traced was answered."""

    def group(self, gtrid: Gtrid, tickets: Sequence["Ticket"]) -> GroupTrace:
        """For a group that begins now."""
        return _NOTHING

    def recovered(self, gtrid: Gtrid, outcome: str, shards: Iterable[str], since: float) -> None:
        """Recovery of a group, begun at `since` by the monotonic clock, ends now."""

    def stop(self) -> None:
        """Send what was not sent yet, if that can be done soon."""


_NOTHING = GroupTrace()


def check(settings: Settings) -> None:
    """Raises SettingsError if traces are asked for and cannot be made."""
    if settings.tracing.endpoint and not _is_installed():
        raise SettingsError(
            f"tracing.endpoint = {settings.tracing.endpoint!r} cannot be used: OpenTelemetry is "
            "not installed. Install it, pip install 'tandem[tracing]', or leave tracing.endpoint "
            "empty"
        )


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False


def tracer(settings: Settings, member: str) -> Tracer:
    """The tracer of the process `member`. To be called after the fork."""
    if not settings.tracing.endpoint:
        return Tracer()
    from coordinator.telemetry.otel import OtelTracer

    return OtelTracer(settings, member)
