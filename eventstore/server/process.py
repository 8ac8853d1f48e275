"""The process of a node, from its start to its end.

It ends by a signal (SIGTERM, SIGINT): what was taken is answered, and the exit code is 0. When the
node fails, whoever waits is told, and it ends at once with 1: the next start believes the list
alone (rule E6).
"""

import logging
import os
from pathlib import Path
from typing import NamedTuple

from eventstore.machine.errors import LimitReached
from eventstore.machine.machine import Limits as MachineLimits
from eventstore.node.node import Node, Settings
from eventstore.segments.errors import ListError
from eventstore.server.beginning import identity_in
from eventstore.server.ending import End, Why
from eventstore.server.limits import Limits
from eventstore.server.node_service import NodeService
from eventstore.server.server import Server
from eventstore.wire.proofs import Hello

log = logging.getLogger(__name__)

# What is left to say when the node has failed is on its way by then.
_LAST_WORDS_S = 1.0


class Options(NamedTuple):
    """See `python -m eventstore node --help`."""

    folder: Path
    listen: tuple[str, int]
    cluster: str
    secret: bytes
    reads: tuple[str, int] | None
    may_begin: bool
    limits: Limits = Limits()
    machine: MachineLimits = MachineLimits()


def run_node(options: Options) -> int:
    """Serve until the end; the exit code."""
    end = End()
    try:
        identity = identity_in(options.folder, options.cluster, may_begin=options.may_begin)
        settings = Settings(machine=options.machine)
        node = Node.open(options.folder, identity, settings, on_death=end.tell_death)
    except (ListError, LimitReached) as error:
        log.critical("the node does not start: %s", error, extra={"event": "node.not_started"})
        return 1
    service = NodeService(node, options.folder, identity)
    hello = Hello(options.cluster, str(identity.group), identity.branch, node.epoch, options.reads)
    try:
        server = Server(options.listen, options.secret, hello, service.handlers, options.limits)
    except OSError as error:
        where = "{}:{}".format(*options.listen)
        extra = {"event": "node.not_started"}
        log.critical("the node cannot listen at %s: %s", where, error, extra=extra)
        node.stop()
        return 1
    end.catch_signals()
    with server:
        _tell_serving(server, hello, node)
        if end.wait() == Why.DEATH:
            # Its threads may hang: nothing is waited for but what is being sent.
            server.close(_LAST_WORDS_S)
            os._exit(1)
        log.info("the node ends: it was told to", extra={"event": "node.stopping"})
        server.stop_listening()
        node.stop()
        service.close()
    log.info("the node has ended", extra={"event": "node.stopped"})
    return 1 if end.is_death else 0


def _tell_serving(server: Server, hello: Hello, node: Node) -> None:
    where = "{}:{}".format(*server.address)
    extra = {
        "event": "node.serving",
        "address": where,
        "cluster": hello.cluster,
        "group": hello.group,
        "branch": hello.branch,
        "epoch": hello.epoch,
        "seq": node.durable.seq,
    }
    log.info("the node of group %s serves at %s", hello.group, where, extra=extra)
