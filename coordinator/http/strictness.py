"""What makes a request ambiguous is refused before a view reads it: a header twice that must be
single, a slash within a part of the address, unknown or repeated parameters, a body where none is
read. A proxy between a client and the service may have read the other one of the two.
"""

from typing import Any

from flask import Flask, request
from gunicorn.http.errors import LimitRequestLine

from coordinator.http import reading
from coordinator.http.problems import Refuse
from coordinator.http.reading import shown
from coordinator.http.routes import Route, requested

# Whose meaning is one value. Of Host, Content-Type and Content-Length gunicorn takes no second one.
SINGLE_HEADERS = (
    "AUTHORIZATION",
    "CONTENT-ENCODING",
    "IDEMPOTENCY-KEY",
    "LAST-EVENT-ID",
    "ORIGIN",
    "X-REQUEST-ID",
)
# Between the values of such a header: no value holds it, as it does a comma.
_BETWEEN = "\n"
_NAMES = [(name, "HTTP_" + name.replace("-", "_")) for name in SINGLE_HEADERS]
_PATH_MAX = 2000


def keep_repeated_apart(_: object, message: Any) -> None:
    """Called by gunicorn for each request that it has read, before it joins the values of repeated
    headers by commas: those of headers that must be single stay apart, to be refused. An address
    that is longer than any is not taken apart.
    """
    if len(message.path) > _PATH_MAX:
        raise LimitRequestLine(len(message.path), _PATH_MAX)
    names = [name for name, _ in message.headers]
    if len(set(names)) == len(names):
        return
    for name in SINGLE_HEADERS:
        if names.count(name) > 1:
            values = [value for other, value in message.headers if other == name]
            kept = [pair for pair in message.headers if pair[0] != name]
            message.headers = [*kept, (name, _BETWEEN.join(values))]


def register_headers(app: Flask) -> None:
    """Check the headers of every request: behind what asks for a token, where that is asked for, so
    that nobody without one is counted. Two tokens are none that is known.
    """

    @app.before_request
    def check_headers() -> None:
        environ = request.environ
        for name, key in _NAMES:
            if _BETWEEN in environ.get(key, ""):
                _refuse(f"the header {name.title()} is there more than once")


def register(app: Flask) -> None:
    """Check the rest of every request. To be registered behind what asks for a token: without one
    all addresses look alike.
    """

    @app.before_request
    def check() -> None:
        environ = request.environ
        path = environ.get("RAW_URI", "").partition("?")[0]
        if "%2F" in path or "%2f" in path:
            # No part of any address has one; decoded it would lead elsewhere.
            raise Refuse(404, "not-found", "no address has an encoded slash; nothing has happened")
        route = requested()
        if route is None:
            return
        if environ.get("QUERY_STRING"):
            _check_query(route)
        if route.body is None and request.method != "OPTIONS":
            reading.no_body()


def _check_query(route: Route) -> None:
    """Refuse parameters that nobody would read, or of which one would be read. Raises Refuse."""
    known = {parameter.name: parameter for parameter in route.query}
    for name, values in reading.query().items():
        if name not in known:
            names = ", ".join(sorted(known)) or "there are none"
            _refuse(f"{shown(name)} is no parameter here ({names})")
        if len(values) > 1 and not known[name].is_many:
            _refuse(f"the parameter {name} is given {len(values)} times")


def _refuse(why: str) -> None:
    raise Refuse(400, "malformed", f"{why}; nothing has happened")
