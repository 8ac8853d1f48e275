"""Who may call a route: one check, by the table of routes, before anything of a request is read.

Everything needs a token that the table does not call public, also an address that does not exist:
to a caller without a token the service looks the same everywhere.
"""

import hmac
import math
import ssl
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Flask, Response, g, request

from coordinator.http import request_log
from coordinator.http.problems import Refuse, problem
from coordinator.http.reading import shown
from coordinator.http.routes import requested
from coordinator.security.tokens import Scope, Token, Tokens

# In a request's environment, where the worker has put it: a function to be called when a request
# is let in, which says whether there is room for it.
ADMIT = "tandem.admit"


def register(app: Flask, tokens: Tokens) -> None:
    """Check every request, before its body is read."""

    @app.before_request
    def check() -> Response | None:
        route = requested()
        if route and route.scope is None:
            return None
        token = _presented(tokens)
        if isinstance(token, Response):
            return token
        request_log.note(token=token.name)
        # Which methods an address has, and that it does not exist, every token may know.
        is_use = request.method != "OPTIONS"
        scope = route.scope if route and is_use else None
        if scope and scope not in token.scopes:
            return _forbidden(token, scope)
        wait_s = tokens.wait_s(token)
        if wait_s:
            return _limited(token, wait_s)
        request_log.note(scope=scope)
        g.token = token
        _check_room()
        return None


def register_open(app: Flask) -> None:
    """Without tokens: programs on this machine may call, but not a page in a browser that comes
    from elsewhere. Such a page names another host, or says where it comes from.
    """

    @app.before_request
    def check() -> Response | None:
        origin = request.headers.get("Origin")
        if not _is_here(request.host):
            why = f"it is addressed to {shown(request.host)}, which is not this machine"
        elif origin is not None and _host_of(origin) != request.host:
            why = f"it comes from a page of {shown(origin)}"
        else:
            _check_room()
            return None
        detail = (
            f"the request is refused: {why}. Without tokens only programs on this machine may "
            "call, by a loopback address; see docs/security.md; nothing has happened"
        )
        return problem(403, "forbidden", detail)


def _check_room() -> None:
    """The request is let in; probes always. Raises Refuse if too many are being worked on."""
    admit = request.environ.get(ADMIT)
    rule = request.url_rule
    if admit and not admit() and not (rule and rule.rule in request_log.PROBES):
        detail = (
            "this worker process has as many requests at work as coordinator.connections allows; "
            "nothing has happened, the same may be sent again"
        )
        raise Refuse(503, "overloaded", detail)


@lru_cache(maxsize=64)
def _is_here(address: str) -> bool:
    """Whether `host` or `host:port` is this machine."""
    try:
        host = urlsplit(f"//{address}").hostname
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _host_of(origin: str) -> str | None:
    """The host, with its port, that a page comes from; None if it cannot be read."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def caller() -> str:
    """With whom a request shares its part of the turns and of the room: those of its token, or
    where there are none, of its connection.
    """
    token: Token | None = g.get("token")
    if token:
        return token.name
    return f"{request.remote_addr}:{request.environ.get('REMOTE_PORT')}"


def charge(items: int) -> None:
    """Count the items of a batch against the caller's rate; the request itself was the first."""
    token: Token | None = g.get("token")
    if token and token.bucket:
        token.bucket.charge(max(items - 1, 0))


def _presented(tokens: Tokens) -> Token | Response:
    """The token of this request, or the answer if there is no good one."""
    # Flask's own reading of this header fails on some that are none.
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        return _unauthorized(
            "there is no token: send it as `Authorization: Bearer TOKEN`; the command `tandem` "
            "takes it from TANDEM_TOKEN or TANDEM_TOKEN_FILE",
            "",
        )
    token = tokens.find(secret)
    if token is None:
        return _unauthorized("the token is not known", ', error="invalid_token"')
    if token.expires and datetime.now(UTC) >= token.expires:
        text = f"the token {token.name} has expired at {token.expires.isoformat()}"
        return _unauthorized(text, ', error="invalid_token"')
    if token.certificate and not _came_with(token.certificate):
        text = (
            f"the token {token.name} is good only with the client certificate that it is bound to, "
            "on a TLS connection to the coordinator itself"
        )
        return _unauthorized(text, ', error="invalid_token"')
    return token


def _came_with(certificate: bytes) -> bool:
    """Whether this request's connection has shown the certificate of this SHA-256."""
    connection = request.environ.get("gunicorn.socket")
    if not isinstance(connection, ssl.SSLSocket):
        return False
    shown = connection.getpeercert(binary_form=True)
    return shown is not None and hmac.compare_digest(sha256(shown).digest(), certificate)


def _unauthorized(why: str, error: str) -> Response:
    answer = problem(401, "unauthorized", f"{why}; nothing has happened")
    answer.headers["WWW-Authenticate"] = f'Bearer realm="tandem"{error}'
    return answer


def _forbidden(token: Token, scope: Scope) -> Response:
    has = ", ".join(sorted(token.scopes))
    detail = (
        f"{request.method} {request.path} needs the scope {scope}; "
        f"the token {token.name} has {has}; nothing has happened"
    )
    answer = problem(403, "forbidden", detail)
    answer.headers["WWW-Authenticate"] = (
        f'Bearer realm="tandem", error="insufficient_scope", scope="{scope}"'
    )
    return answer


def _limited(token: Token, wait_s: float) -> Response:
    detail = (
        f"the token {token.name} may make {token.rate_per_s:g} requests or items of batches a "
        "second; nothing has happened, the same may be sent again"
    )
    answer = problem(429, "rate-limited", detail)
    answer.headers["Retry-After"] = str(math.ceil(wait_s))
    return answer
