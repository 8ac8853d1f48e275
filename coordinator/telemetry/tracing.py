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
from typing import TYPE_CHECKING, NamedTuple

from shard_client.errors import ShardError
from shard_client.xid import Gtrid

if TYPE_CHECKING:
    from opentelemetry.trace import Span


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

    def group(self, gtrid: Gtrid, origins: Sequence[Origin | None]) -> GroupTrace:
        """For a group that begins now: where each of its transfers comes from, if traced."""
        return _NOTHING

    def recovered(self, gtrid: Gtrid, outcome: str, shards: Iterable[str], since: float) -> None:
        """Recovery of a group, begun at `since` by the monotonic clock, ends now."""

    def stop(self) -> None:
        """Send what was not sent yet, if that can be done soon."""


_NOTHING = GroupTrace()
