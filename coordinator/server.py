"""Runs a coordinator: gunicorn with the number of workers that the settings say."""

import ctypes
import gc
import logging
import resource
import signal
import socket
import struct
import sys
import time
from importlib.util import find_spec
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.http import message
from gunicorn.workers.base import Worker

from coordinator.http.app import create_app
from coordinator.http.batches import kinds
from coordinator.http.connections import SPARE
from coordinator.http.strictness import keep_repeated_apart
from coordinator.security.tls import tls_options
from coordinator.security.tokens import check_access
from coordinator.settings import Settings, SettingsError, load
from coordinator.telemetry import logs, metrics, tracers
from coordinator.wiring import WorkerProcess

log = logging.getLogger("coordinator")

# How long a worker waits for map, shards and its own recovery before it answers that it is not
# ready; and how long it goes on, when all requests are answered, with what is not settled.
_START_PATIENCE_S = 10.0
_STOP_PATIENCE_S = 5.0
# Not more: a request for a path that does not exist leaves a circle with all it has sent, which is
# freed by the collector only.
_GC_THRESHOLDS = (5_000, 10, 10)
# A worker that has not been heard from for so long is taken for hung, and replaced. A test build
# changes it.
SILENCE_MAX_S = 60
# What a worker has open besides connections of clients: those to shards and to ZooKeeper, pipes,
# the files of its metrics.
_OTHER_FILES = 256
# 1,000 account ids of 64 characters, each of them escaped.
_REQUEST_LINE_MAX = 256 * 1024

# Linux; Python has no name for it.
_SO_ATTACH_FILTER = 26
# For the kernel, on the header of each TCP segment that comes to a listening socket: drop it if it
# begins a connection (SYN without ACK, in byte 13), else let it pass. Each is a code, where to go
# on if it is so and if not, and a value.
_NO_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


class Arbiter(GunicornArbiter):  # type: ignore[misc]
    """Gunicorn's, which looks after the workers. When all is to end, the kernel first begins no
    more connections, so that the workers can take all that it has begun. Without it the last of
    them would close the socket while somebody comes in.
    """

    def stop(self, graceful: bool = True) -> None:
        # Not a socket that others take connections from: a new server, or systemd.
        if not (self.reexec_pid or self.master_pid or self.systemd):
            for listener in self.LISTENERS:
                _begin_no_more(listener.sock)
        super().stop(graceful)


def _begin_no_more(listener: socket.socket) -> None:
    """Let the kernel ignore those who knock at a listening socket; they knock again a second later,
    when it is closed, and are refused. Connections that have begun are not touched.
    """
    if sys.platform != "linux":
        return
    code = b"".join(struct.pack("HBBI", *step) for step in _NO_NEW_CONNECTIONS)
    place = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(_NO_NEW_CONNECTIONS), ctypes.addressof(place))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError as error:
        extra = {"event": "http.no_filter"}
        log.info("a client that connects now may be cut off: %s", error, extra=extra)


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn, configured by Tandem's settings alone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started_ms = time.time_ns() // 1_000_000
        self._process: WorkerProcess | None = None
        super().__init__()

    def load_config(self) -> None:
        # A read of 1,000 balances names them all in its address. Without a bound gunicorn would
        # look through what has come so far again and again, before anybody is asked for a token.
        message.MAX_REQUEST_LINE = _REQUEST_LINE_MAX
        coordinator = self._settings.coordinator
        options: dict[str, Any] = {
            "bind": coordinator.listen,
            "workers": coordinator.workers,
            "worker_class": "coordinator.http.worker.Worker",
            "worker_connections": _room_for(coordinator.connections),
            "limit_request_line": message.MAX_REQUEST_LINE,
            # The parser in C, if somebody has installed it, answers some broken requests otherwise.
            "http_parser": "python",
            "timeout": SILENCE_MAX_S,
            # The longest that a batch may still be waiting, and time to answer it.
            "graceful_timeout": self._settings.engine.batch_deadline_ms // 1000 + 10,
            "keepalive": 75,
            "logger_class": logs.GunicornLogger,
            "loglevel": self._settings.log.level,
            "errorlog": None,
            "proc_name": f"tandem-{coordinator.id}",
            "pre_request": keep_repeated_apart,
            "post_fork": _heed_signals,
            "worker_exit": self._on_worker_exit,
            "child_exit": self._on_child_exit,
            # Headers of proxies are of no use here, and two of them would be taken for paths.
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            # A second way in would be a second thing to protect.
            "control_socket_disable": True,
        }
        options |= tls_options(self._settings.access)
        for name, value in options.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        Arbiter(self).run()

    def load(self) -> Flask:
        """Called in each worker, after the fork: threads and connections begin here."""
        process = WorkerProcess(self._settings, self._started_ms)
        process.start(_START_PATIENCE_S)
        self._process = process
        app = create_app(process)
        # What a group makes is freed by count of references; looking for circles among thousands of
        # tickets again and again would cost a transfer a good part of its processor time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        return app

    def on_draining(self) -> None:
        """Called in a worker when it has been told to end and takes no more connections."""
        if self._process:
            self._process.begin_to_stop()

    def _on_worker_exit(self, server: object, worker: object) -> None:
        if self._process:
            self._process.stop(_STOP_PATIENCE_S)

    def _on_child_exit(self, server: object, worker: Worker) -> None:
        """Called in the process that started the worker, however that has ended."""
        metrics.forget_worker(worker.pid)


def _heed_signals(server: GunicornArbiter, worker: Worker) -> None:
    """Called in a worker that has just begun. What it was told before it listens to signals itself
    stands in its copy of the arbiter's queue, where nobody would look.
    """
    signal.signal(signal.SIGTERM, worker.handle_exit)
    while not server.SIG_QUEUE.empty():
        if server.SIG_QUEUE.get_nowait() == signal.SIGTERM:
            worker.alive = False


def _room_for(connections: int) -> int:
    """How many connections each worker can have, of those that are wished for. Raises the limit of
    open files as far as it may.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == wanted:
        return connections
    room = max(1, soft - SPARE - _OTHER_FILES)
    extra = {"event": "http.few_files", "connections": room}
    log.warning(
        "each worker has %d connections, not %d (coordinator.connections): the system allows it %d "
        "open files, and %d are needed; raise the limit (ulimit -n, LimitNOFILE)",
        *(room, connections, soft, wanted),
        extra=extra,
    )
    return room


def prepare_for_groups() -> None:
    """Load what ledger groups need before there are workers, once for all of them: what is compiled
    takes 20 s where it never was before. Where its packages are not there, nothing: a cluster of
    MySQL shards needs none of it, even if a secret is set.
    """
    if not find_spec("numba"):
        return
    import coordinator.shards.group.node  # noqa: F401

    kinds.prepare()


def main() -> int:
    try:
        settings = load()
        tracers.check(settings)
        told = check_access(settings)
        logs.configure(settings.log, settings.coordinator.id)
        with metrics.shared(settings.coordinator.scratch_dir):
            for text in told:
                log.warning("%s", text, extra={"event": "access.weak"})
            if settings.eventstore.secret:
                prepare_for_groups()
            Server(settings).run()
    except SettingsError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return 2
    return 0
