"""The Flask application: what is checked on every request, and the views that serve the routes."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, Response, g, request

from coordinator.http import (
    access,
    accounts,
    admin,
    events,
    ledger_events,
    pages,
    problems,
    reading,
    request_log,
    request_trace,
    routes,
    schemas,
    strictness,
    transfers,
    transport,
)
from coordinator.http.openapi import document
from coordinator.telemetry.metrics import Metrics
from coordinator.wiring import WorkerProcess


class _App(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """None of the functions here is a coroutine: Flask would look at each again and again."""
        return func


def create_app(process: WorkerProcess) -> Flask:
    """The application of one worker process."""
    app = _App("tandem", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = process.settings.coordinator.body_max_bytes
    app.config["REQUEST_MAX_BYTES"] = process.settings.coordinator.request_max_bytes
    app.url_map.strict_slashes = False
    # An account without a name is none, and not the next part of the address.
    app.url_map.merge_slashes = False
    problems.register(app)
    transport.register(app)
    request_log.register(app, process.settings.log)
    if process.tracer.is_on:
        request_trace.register(app, process.tracer)
    if process.tokens:
        access.register(app, process.tokens)
        strictness.register_headers(app)
    else:
        strictness.register_headers(app)
        access.register_open(app)
    strictness.register(app)
    app.after_request(partial(_measure, process.metrics))
    routes.serve(
        app,
        {
            **accounts.views(process.accounts, process.snapshot_reads),
            **transfers.views(process.transfers, process.column_transfers, process.settings.engine),
            **admin.views(process.cluster_admin, process.transfer_traces),
            **events.views(process),
            **ledger_events.views(process),
            **pages.views(),
            **_process_views(process),
        },
    )
    return app


# Of a header that says which form of metrics is wanted so much is looked at.
_ACCEPT_MAX = 1000
# Of what else clients send, each word would be a series of its own.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def _measure(metrics: Metrics, answer: Response) -> Response:
    method = request.method if request.method in _METHODS else "other"
    route = str(request.url_rule) if request.url_rule else "none"
    seconds = time.monotonic() - g.get("began", time.monotonic())
    metrics.requested(method, route, answer.status_code, seconds)
    return answer


def _process_views(process: WorkerProcess) -> dict[str, routes.View]:
    """The views that tell about this process."""

    def show_health() -> Response:
        return reading.json(schemas.Health("ok"))

    def show_readiness() -> Response:
        reasons = process.reasons_not_ready()
        answer = schemas.Readiness(not reasons, reasons, process.troubles())
        return reading.json(answer, 503 if reasons else 200)

    def show_metrics() -> Response:
        accepted = request.headers.get("Accept", "")[:_ACCEPT_MAX]
        text, content_type = process.metrics.exposition(accepted)
        return Response(text, content_type=content_type)

    def show_openapi() -> Response:
        return reading.json(document(needs_token=process.tokens is not None))

    return routes.by_name(show_health, show_readiness, show_metrics, show_openapi)
