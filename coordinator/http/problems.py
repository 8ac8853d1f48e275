"""Refusals over HTTP: problem documents that say what was wrong and what has happened."""

import logging
from http import HTTPStatus

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from coordinator.cluster import ClusterError
from coordinator.cluster.session import HandOverUnknown
from coordinator.engine.scheduler import Closed, Overloaded
from coordinator.http.request_log import note
from coordinator.http.schemas import Problem
from coordinator.shards.registry import NoShardMap
from ledger.model import Reason
from shard_client.errors import (
    ConnectionLost,
    NoList,
    NotInList,
    NotSeen,
    NotYet,
    ShardError,
    is_busy,
)

log = logging.getLogger(__name__)

# type -> title. The types are stable: clients tell refusals apart by them.
TITLES = {
    "malformed": "Malformed request",
    "not-found": "Not found",
    "method-not-allowed": "Method not allowed",
    "unauthorized": "Unauthorized",
    "forbidden": "Forbidden",
    "rate-limited": "Too many requests",
    "content-type": "Unsupported media type",
    "too-large": "Request too large",
    "too-slow": "Request timeout",
    "account-exists": "Account exists with other terms",
    "account-not-empty": "Account not empty",
    "idempotency-key-in-use": "Idempotency key in use",
    "not-in-list": "Not in the list",
    "not-yet": "Not yet",
    "overloaded": "Overloaded",
    "account-busy": "Account busy",
    "shard-unavailable": "Shard unavailable",
    "no-leader": "No leader",
    "protocol-not-offered": "Protocol not offered",
    "internal-error": "Internal error",
    Reason.INSUFFICIENT_FUNDS: "Insufficient funds",
    Reason.ACCOUNT_NOT_FOUND: "Account not found",
    Reason.CURRENCY_MISMATCH: "Currency mismatch",
    Reason.ACCOUNT_FROZEN: "Account frozen",
    Reason.ACCOUNT_CLOSED: "Account closed",
    Reason.SAME_ACCOUNT: "Source and destination are the same",
    Reason.BALANCE_OVERFLOW: "Balance overflow",
    Reason.IDEMPOTENCY_KEY_REUSED: "Idempotency key reused",
}

RETRY_AFTER_S = 1
# What it means that an answer has not seen the frame `min_seq`.
_NOT_SEEN: dict[type[NotSeen], tuple[int, str]] = {
    NotYet: (409, "not-yet"),
    NotInList: (409, "not-in-list"),
    NoList: (409, "not-in-list"),
}


class Refuse(Exception):
    """Answer with a problem document; `kind` is one of TITLES."""

    def __init__(self, status: int, kind: str, detail: str, transfer_id: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.transfer_id = transfer_id


def problem(
    status: int, kind: str, detail: str, transfer_id: str | None = None, seq: int | None = None
) -> Response:
    """A problem document as an answer."""
    # Not the detail: it may say a balance.
    note(problem=kind, transfer_id=transfer_id)
    document = Problem(f"/problems/{kind}", TITLES[kind], status, detail, transfer_id, seq)
    answer = Response(
        msgspec.json.encode(document), status, content_type="application/problem+json"
    )
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer


def kind_of(error: ShardError) -> str:
    """What a shard's error is to a client."""
    return "account-busy" if is_busy(error) else "shard-unavailable"


def register(app: Flask) -> None:
    """Translate every exception that can reach the rim, in one place."""

    @app.errorhandler(Refuse)
    def refused(error: Refuse) -> Response:
        return problem(error.status, error.kind, error.detail, error.transfer_id)

    @app.errorhandler(Overloaded)
    def overloaded(error: Overloaded) -> Response:
        detail = f"the queue is full: {error}; nothing has happened, send it again later"
        return problem(429, "overloaded", detail)

    @app.errorhandler(Closed)
    def closed(_: Closed) -> Response:
        detail = "this coordinator is shutting down; nothing has happened, send it again"
        return problem(503, "overloaded", detail)

    @app.errorhandler(NoShardMap)
    def no_map(error: NoShardMap) -> Response:
        return problem(503, "shard-unavailable", f"{error}; nothing has happened")

    @app.errorhandler(HandOverUnknown)
    def hand_over_unknown(error: HandOverUnknown) -> Response:
        detail = f"{error}; whether the leader was asked to step down is not known; no money moves"
        return problem(503, "no-leader", detail)

    @app.errorhandler(ClusterError)
    def cluster_error(error: ClusterError) -> Response:
        return problem(503, "no-leader", f"{error}; nothing has happened")

    @app.errorhandler(ShardError)
    def shard_error(error: ShardError) -> Response:
        happened = "nothing has happened"
        if isinstance(error, ConnectionLost) and request.method != "GET":
            happened = "whether anything has happened is not known"
        return problem(503, kind_of(error), f"{error}; {happened}, the same may be sent again")

    @app.errorhandler(NotSeen)
    def not_seen(error: NotSeen) -> Response:
        status, kind = _NOT_SEEN[type(error)]
        return problem(status, kind, f"{error}; nothing has happened")

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        return _from_werkzeug(error)

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        log.exception("%s %s met a bug", request.method, request.path, extra={"event": "http.bug"})
        detail = (
            "the service met a fault of its own; whether anything has happened is not known: send "
            "the same request again, with the same key"
        )
        return problem(500, "internal-error", detail)


def _from_werkzeug(error: HTTPException) -> Response:
    kinds = {
        404: "not-found",
        405: "method-not-allowed",
        413: "too-large",
        415: "content-type",
    }
    status = error.code or 500
    if status < 400:
        return Response(status=status, headers=error.get_headers())
    kind = kinds.get(status, "malformed" if status < 500 else "internal-error")
    detail = f"{request.method} {request.path}: {error.description}"
    if status < 500:
        detail += " Nothing has happened."
    answer = problem(status if status in kinds or status >= 500 else 400, kind, detail)
    for name, value in error.get_headers():
        if name == "Allow":
            answer.headers[name] = value
    return answer
