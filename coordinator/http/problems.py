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
from shard_client.errors import ConnectionLost, ShardError, is_busy

log = logging.getLogger(__name__)

# type -> title. The types are stable: clients tell refusals apart by them.
TITLES = {
    "malformed": "The request cannot be understood",
    "not-found": "There is no such thing",
    "method-not-allowed": "The method does not go with this address",
    "unauthorized": "A token is needed",
    "forbidden": "The caller may not do this",
    "rate-limited": "The token is used too often",
    "content-type": "The body is not JSON",
    "too-large": "The request is too large",
    "too-slow": "The request did not come in time",
    "account-exists": "The account exists with other terms",
    "account-not-empty": "The account is not empty",
    "idempotency-key-in-use": "A request with this key is being worked on",
    "overloaded": "Too much is waiting",
    "account-busy": "An account is busy",
    "shard-unavailable": "A shard takes no work now",
    "no-leader": "Nobody leads, or can be elected, now",
    "internal-error": "This is a fault of the service",
    Reason.INSUFFICIENT_FUNDS: "The source has not enough funds",
    Reason.ACCOUNT_NOT_FOUND: "There is no such account",
    Reason.CURRENCY_MISMATCH: "The currencies differ",
    Reason.ACCOUNT_FROZEN: "The account is frozen",
    Reason.ACCOUNT_CLOSED: "The account is closed",
    Reason.SAME_ACCOUNT: "Source and destination are the same",
    Reason.BALANCE_OVERFLOW: "The balance would be too large",
    Reason.IDEMPOTENCY_KEY_REUSED: "The key was used for another transfer",
}

RETRY_AFTER_S = 1


class Refuse(Exception):
    """Answer with a problem document; `kind` is one of TITLES."""

    def __init__(self, status: int, kind: str, detail: str, transfer_id: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.transfer_id = transfer_id


def problem(status: int, kind: str, detail: str, transfer_id: str | None = None) -> Response:
    """A problem document as an answer."""
    # Not the detail: it may say a balance.
    note(problem=kind, transfer_id=transfer_id)
    document = Problem(f"/problems/{kind}", TITLES[kind], status, detail, transfer_id)
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
