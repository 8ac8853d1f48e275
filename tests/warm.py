"""Coordinators started by tests/forker.py, of which each process that runs tests has one."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tandem.local import coordinators, processes

ROOT = Path(__file__).parents[1]


def start(module: str, log: Path, environment: Mapping[str, str]) -> "Forked":
    """Start `module`, coordinator or faults, in a session of its own, writing to `log`."""
    request = {
        "module": module,
        "log": str(log),
        "folder": str(ROOT),
        "environment": dict(environment),
    }
    return Forked(_forker().ask(request))


def serve_local_clusters() -> None:
    """Coordinators of local clusters that this process starts itself are forked, too."""
    plain = processes.spawn

    def spawn(
        command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path
    ) -> tuple[int, str]:
        if list(command) != coordinators.command():
            return plain(command, log, environment, folder)
        log.parent.mkdir(parents=True, exist_ok=True)
        forked = start("coordinator", log, environment)
        processes.adopt(forked)
        return forked.pid, processes.start_mark(forked.pid) or ""

    processes.spawn = spawn


class Forked:
    """A process that was started so, with what subprocess.Popen offers."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        # Good for this process only, also when the system gives its id to another.
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _forker().ask({"ended": self.pid})
            if self.returncode is not None:
                os.close(self._handle)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            poller = select.poll()
            poller.register(self._handle, select.POLLIN)
            if not poller.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        returncode = self.poll()
        assert returncode is not None
        return returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Forker:
    """The process, and the one conversation with it at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for those who run the tests.
            start_new_session=True,
        )

    def ask(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        with self._turn:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@cache
def _forker() -> _Forker:
    return _Forker()
