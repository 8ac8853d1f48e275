"""Runs a coordinator: gunicorn with the number of workers that the settings say."""

import gc
import logging
import sys
import time
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.http import message
from gunicorn.workers.base import Worker

from coordinator.access import check_access, tls_options
from coordinator.http.app import create_app
from coordinator.http.strictness import keep_repeated_apart
from coordinator.settings import Settings, SettingsError, load
from coordinator.telemetry import logs, metrics, tracing
from coordinator.wiring import Process

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
# 1,000 account ids of 64 characters, each of them escaped.
_REQUEST_LINE_MAX = 256 * 1024


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn, configured by Tandem's settings alone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started_ms = time.time_ns() // 1_000_000
        self._process: Process | None = None
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
            "worker_connections": coordinator.connections,
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
            "worker_exit": self._on_worker_exit,
            "child_exit": self._on_child_exit,
            # A second way in would be a second thing to protect.
            "control_socket_disable": True,
        }
        options |= tls_options(self._settings.access)
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called in each worker, after the fork: threads and connections begin here."""
        process = Process(self._settings, self._started_ms)
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


def main() -> int:
    try:
        settings = load()
        tracing.check(settings)
        told = check_access(settings)
        logs.configure(settings.log, settings.coordinator.id)
        with metrics.shared(settings.coordinator.scratch_dir):
            for text in told:
                log.warning("%s", text, extra={"event": "access.weak"})
            Server(settings).run()
    except SettingsError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return 2
    return 0
