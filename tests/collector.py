"""A collector of traces: takes what is sent to it by OTLP over HTTP, and shows it as a tree."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    name: str
    id: str
    parent: str
    trace: str
    attributes: dict[str, object]
    resource: dict[str, object]
    # Of the spans that it is linked to.
    links: list[str]
    start_ns: int
    end_ns: int
    is_error: bool


class Collector:
    """What has come. `endpoint` is where it is sent to."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}/v1/traces"
        self.spans: list[Span] = []

    def take(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_span(raw, resource) for raw in scope.spans]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def children(self, parent: Span) -> list[Span]:
        """In the order in which they began."""
        found = [span for span in self.spans if span.parent == parent.id]
        return sorted(found, key=lambda span: span.start_ns)


def _span(raw, resource: dict[str, object]) -> Span:
    return Span(
        raw.name,
        raw.span_id.hex(),
        raw.parent_span_id.hex(),
        raw.trace_id.hex(),
        _attributes(raw.attributes),
        resource,
        [link.span_id.hex() for link in raw.links],
        raw.start_time_unix_nano,
        raw.end_time_unix_nano,
        raw.status.code == raw.status.STATUS_CODE_ERROR,
    )


def _attributes(raw) -> dict[str, object]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in raw}


@contextmanager
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            running.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = Collector(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
