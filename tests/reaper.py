"""Ends what a test run has started and left behind, when that run is ended from outside.

    python -m tests.reaper MARK

waits until its input ends, which it does when the run's process is gone, however it went. All
processes of the run carry its mark in their environment.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

_MARK = "TEST_RUN_MARK"
# Servers that are asked to end write what they hold; what stays is killed.
_GRACE_S = 10.0
_POLL_S = 0.1


def watch() -> None:
    """Have this process watched, and mark it, so that what it starts is marked too."""
    mark = os.environ[_MARK] = uuid.uuid4().hex
    # The pipe is this process's alone: what it starts inherits no end of it.
    reaper = subprocess.Popen(
        [sys.executable, "-m", "tests.reaper", mark],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, _MARK: "reaper"},
    )
    assert reaper.stdin is not None
    os.set_inheritable(reaper.stdin.fileno(), False)
    # Kept open as long as this process lives.
    _watched.append(reaper)


_watched: list["subprocess.Popen[bytes]"] = []


def marked(mark: str) -> list[int]:
    """The processes that carry the mark."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def reap(mark: str) -> None:
    """End the processes that carry the mark: first politely."""
    deadline = time.monotonic() + _GRACE_S
    asked: set[int] = set()
    while left := marked(mark):
        is_late = time.monotonic() > deadline
        for pid in left if is_late else set(left) - asked:
            with contextlib.suppress(ProcessLookupError):
                # What is frozen listens to nothing before it goes on.
                os.kill(pid, signal.SIGKILL if is_late else signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)
        asked.update(left)
        time.sleep(_POLL_S)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    reap(sys.argv[1])
