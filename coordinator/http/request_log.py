"""The id that goes with a request through the logs, and the one line that each request leaves."""

import logging
import random
import re
import time
from collections.abc import Mapping

from flask import Flask, Response, g, request

from coordinator.settings import Log
from coordinator.telemetry import logs

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_SHOWN_MAX = 200
# Asked every few seconds, by machines.
PROBES = {"/healthz", "/readyz", "/metrics"}
# A path's parts that are ids, and the fields that they are called.
_IDS = {"transfer": "transfer_id", "account": "account_id", "gtrid": "gtrid"}


def register(app: Flask, settings: Log) -> None:
    """Number each request and log it. To be registered before whatever else looks at requests."""
    is_all = settings.requests == "all"

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        g.began = time.monotonic()
        g.noted = {}
        logs.request_id.set(g.request_id)

    @app.after_request
    def end(answer: Response) -> Response:
        answer.headers["X-Request-Id"] = g.request_id
        route = request.url_rule.rule if request.url_rule else None
        level = level_of(route, answer.status_code, g.noted, is_all=is_all)
        if log.isEnabledFor(level):
            _write(level, route, answer.status_code)
        return answer

    @app.teardown_request
    def forget(_: BaseException | None) -> None:
        # The connection's greenlet goes on to other requests.
        logs.request_id.set(None)


def note(**fields: object) -> None:
    """Put fields into the line of the request at hand: ids and counts; None is left out."""
    g.noted.update((name, value) for name, value in fields.items() if value is not None)


def level_of(route: str | None, status: int, noted: Mapping[str, object], *, is_all: bool) -> int:
    """How important a request's line is. What was done as it was asked may be of no interest;
    what was refused, failed or is pending, also in a batch, always is.
    """
    if status >= 500:
        return logging.WARNING
    if status >= 400 or status == 202 or noted.get("failed") or noted.get("pending"):
        return logging.INFO
    if noted.get("scope") == "admin":
        # Who has opened accounts, and who has finished groups, is to be known later.
        return logging.INFO
    return logging.INFO if is_all and route not in PROBES else logging.DEBUG


def _write(level: int, route: str | None, status: int) -> None:
    duration_ms = round((time.monotonic() - g.began) * 1000, 3)
    # Not the query, and no headers: the caller may have put anything there.
    path = request.path[:_SHOWN_MAX]
    args = (request.view_args or {}).items()
    ids = {_IDS[name]: id_[:_SHOWN_MAX] for name, id_ in args if name in _IDS}
    extra = {
        "event": "http.request",
        "method": request.method,
        **({"route": route} if route else {"path": path}),
        "status": status,
        "duration_ms": duration_ms,
        "request_id": g.request_id,
        **ids,
        **g.noted,
    }
    text = "%s %s %d in %.1f ms"
    log.log(level, text, request.method, route or path, status, duration_ms, extra=extra)
