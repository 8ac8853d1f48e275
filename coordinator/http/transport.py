"""What is told to a client whose request cannot be read, or not in time, or for which there is no
room. None of these has had any effect. What was sent is not quoted: it may hold a token.
"""

import logging
import random
from http import HTTPStatus

import msgspec
from flask import Flask, Response
from gunicorn.http import errors

from coordinator.http.problems import RETRY_AFTER_S, TITLES, problem
from coordinator.http.schemas import Problem

log = logging.getLogger(__name__)


class Late(errors.ParseException):  # type: ignore[misc]
    """What was awaited has not come in time."""


class Broken(errors.NoMoreData):  # type: ignore[misc]
    """The connection has ended within a request."""


_MALFORMED = (400, "malformed")
# By what the parser raises: status, kind, and what is wrong.
_READINGS: dict[type[Exception], tuple[int, str, str]] = {
    errors.InvalidRequestLine: (*_MALFORMED, "its first line is none of HTTP/1.1"),
    errors.InvalidRequestMethod: (*_MALFORMED, "its method is none of HTTP/1.1"),
    errors.InvalidHTTPVersion: (*_MALFORMED, "its version is neither HTTP/1.1 nor HTTP/1.0"),
    errors.InvalidHeaderName: (*_MALFORMED, "the name of a header or trailer is not allowed"),
    errors.InvalidHeader: (
        *_MALFORMED,
        "a header is malformed or contradicts another (each stands on a line of its own that ends "
        "with CR LF; Host, Content-Type and Content-Length come once; a body has a Content-Length, "
        "or the Transfer-Encoding chunked, not both)",
    ),
    errors.ObsoleteFolding: (*_MALFORMED, "a header goes over several lines"),
    errors.UnsupportedTransferCoding: (
        *_MALFORMED,
        "its Transfer-Encoding is not known; only chunked is",
    ),
    errors.InvalidChunkSize: (*_MALFORMED, "the size of a chunk is no hexadecimal number"),
    errors.InvalidChunkExtension: (*_MALFORMED, "the extension of a chunk is malformed"),
    errors.ChunkMissingTerminator: (*_MALFORMED, "a chunk, or the last, does not end with CR LF"),
    errors.ExpectationFailed: (417, "malformed", "its Expect is not 100-continue"),
    errors.LimitRequestLine: (414, "too-large", "its first line is too long"),
    errors.LimitRequestHeaders: (431, "too-large", "its headers are too many or too long"),
    Late: (408, "too-slow", "it did not come in time"),
}


def register(app: Flask) -> None:
    """Refuse a request whose body cannot be read, in whichever view."""

    @app.errorhandler(errors.ParseException)
    def malformed(error: errors.ParseException) -> Response:
        return problem(*reading_of(error))

    @app.errorhandler(errors.NoMoreData)
    def broken(_: errors.NoMoreData) -> Response:
        # Nobody will hear it; it is for the log.
        detail = "the connection has ended within the request; nothing has happened"
        return problem(400, "malformed", detail)


def reading_of(error: Exception) -> tuple[int, str, str]:
    """Status, kind of problem and detail for what could not be read of a request."""
    known = (_READINGS[kind] for kind in type(error).__mro__ if kind in _READINGS)
    status, kind, what = next(known, (*_MALFORMED, "it is none of HTTP/1.1"))
    return status, kind, f"the request cannot be read: {what}; nothing has happened"


def unreadable(error: Exception) -> bytes:
    """The whole answer to a request whose head cannot be read, which is logged."""
    status, kind, detail = reading_of(error)
    request_id = _new_id()
    extra = {
        "event": "http.unreadable",
        "status": status,
        "request_id": request_id,
        "problem": kind,
    }
    log.info("a request was refused unread: %s", type(error).__name__, extra=extra)
    return _answer(status, kind, detail, request_id)


def bug() -> bytes:
    """The whole answer to a request whose application has failed without an answer."""
    detail = (
        "the service met a fault of its own; whether anything has happened is not known: send the "
        "same request again, with the same key"
    )
    return _answer(500, "internal-error", detail, _new_id())


def no_room() -> bytes:
    """The whole answer on a connection that gives way to another."""
    detail = (
        "the coordinator has as many connections as it takes, and this one has waited longest; "
        "nothing has happened by a request that was not answered on it, the same may be sent again"
    )
    return _answer(503, "overloaded", detail, _new_id())


def _new_id() -> str:
    return f"{random.getrandbits(128):032x}"


def _answer(status: int, kind: str, detail: str, request_id: str) -> bytes:
    document = Problem(f"/problems/{kind}", TITLES[kind], status, detail, None)
    body = msgspec.json.encode(document)
    retry = f"Retry-After: {RETRY_AFTER_S}\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"X-Request-Id: {request_id}\r\n{retry}"
        "Content-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
