"""A naive coordinator, behind the same HTTP interface as Tandem's, so that the same clients serve.

It moves money as an engineer would begin: look at the balance, DECRBY on one node, INCRBY on the
other. It is as careful as that allows: it answers only when both are done, says which failures have
certainly done nothing, and never sends an update twice by itself. It keeps no record of transfers,
so it cannot know a request that comes again.
"""

import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from gevent.pywsgi import WSGIServer
from redis import RedisError

from lab.naive.nodes import Nodes

# The variables of its process.
PORT, ZOOKEEPER = "TANDEM_LAB_PORT", "TANDEM_LAB_ZOOKEEPER"
HOST = "127.0.0.1"
PROBLEMS = "/problems/"
STATUS = {200: "200 OK", 201: "201 Created", 404: "404 Not Found"}
STATUS |= {422: "422 Unprocessable Content", 500: "500 Internal Server Error"}
STATUS |= {503: "503 Service Unavailable"}

Answer = tuple[int, dict[str, Any]]


class Wish(msgspec.Struct):
    """A transfer, as POST /v1/transfers takes it."""

    source: str
    destination: str
    amount: int
    currency: str


def move(nodes: Nodes, wish: Wish) -> Answer:
    """Move the money: two plain updates, on two nodes."""
    try:
        balance = int(nodes.of(wish.source).get(wish.source) or 0)
    except RedisError as error:
        return _problem(503, "shard-unavailable", f"{error}; nothing has happened")
    if balance < wish.amount:
        return _problem(422, "insufficient-funds", f"{balance} is less than {wish.amount}")
    try:
        nodes.of(wish.source).decrby(wish.source, wish.amount)
        nodes.of(wish.destination).incrby(wish.destination, wish.amount)
    except RedisError as error:
        return _problem(500, "internal-error", f"{error}; what has happened is not known")
    return 201, {"status": "committed", **msgspec.to_builtins(wish)}


def _problem(status: int, name: str, detail: str) -> Answer:
    return status, {"type": f"{PROBLEMS}{name}", "status": status, "detail": detail}


def application(nodes: Nodes) -> Callable[..., Iterable[bytes]]:
    """The WSGI application."""
    decoder = msgspec.json.Decoder(Wish)

    def answer(environ: dict[str, Any]) -> Answer:
        asked = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if asked == ("POST", "/v1/transfers"):
            return move(nodes, decoder.decode(environ["wsgi.input"].read()))
        if asked == ("GET", "/readyz"):
            return 200, {"ready": True}
        return _problem(404, "not-found", "there is no such route")

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        status, body = answer(environ)
        content = msgspec.json.encode(body)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        start(STATUS[status], headers)
        return [content]

    return application


def serve() -> None:
    """Serve until the process is ended."""
    nodes = Nodes(os.environ[ZOOKEEPER])
    address = HOST, int(os.environ[PORT])
    _Server(address, application(nodes), log=None).serve_forever()


class _Server(WSGIServer):  # type: ignore[misc]
    def handle(self, connection: socket.socket, address: object) -> None:
        """An answer is sent at once; otherwise it would wait for 40 ms for the client's kernel."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle(connection, address)
