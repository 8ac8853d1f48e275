"""A span for each request that is traced."""

from flask import Flask, Response, g, request

from coordinator.http.request_log import PROBES, note
from coordinator.telemetry.tracing import Tracer, request_span


def register(app: Flask, tracer: Tracer) -> None:
    """To be registered after the request's line in the log, which then has the trace's id."""

    @app.before_request
    def begin() -> None:
        route = request.url_rule.rule if request.url_rule else ""
        g.span = None
        if route not in PROBES:
            parent = (request.headers.get(name) for name in ("traceparent", "tracestate"))
            g.span = tracer.begin_request(request.method, route, *parent)
        request_span.set(g.span)

    @app.after_request
    def end(answer: Response) -> Response:
        if g.span:
            request_span.set(None)
            tracer.end_request(g.span, answer.status_code, {"request_id": g.request_id, **g.noted})
            note(trace_id=f"{g.span.get_span_context().trace_id:032x}")
        return answer
