"""Starts server processes that outlive their starter, finds them again, and ends them.

A process is known by its id together with the moment it started, so that an id which the system
has given to somebody else since is never signalled.
"""

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

POLL_S = 0.05
# Ctrl-C, a request to end, and the end of the terminal.
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Processes that this process started, to be asked for their end (the system keeps a trace of an
# ended process until its starter asks).
_children: dict[int, "Child"] = {}


class Child(Protocol):
    """A process whose end can be asked for: `poll` gives its exit code, or None while it lives."""

    pid: int

    def poll(self) -> int | None: ...


def spawn(
    command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path
) -> tuple[int, str]:
    """Start `command` in a session of its own, writing to `log`. Returns its id and start mark."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    adopt(child)
    return child.pid, start_mark(child.pid) or ""


def adopt(child: Child) -> None:
    """Ask for the end of a process that this process has started, or had started."""
    _children[child.pid] = child


def start_mark(pid: int) -> str | None:
    """When the process started, in a form only to be compared; None if it does not run."""
    _reap(pid)
    try:
        # The name, in parentheses, may hold spaces. After it the state comes 1st, the start 20th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _start_mark_by_ps(pid)
    return None if fields[0] in "ZX" and not _has_threads(pid) else fields[19]


def _has_threads(pid: int) -> bool:
    """Whether threads are left of a process whose first one has ended: they hold its ports."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def _start_mark_by_ps(pid: int) -> str | None:
    """The same where there is no /proc."""
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    words = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return " ".join(words[1:]) if words and not words[0].startswith("Z") else None


def is_running(pid: int | None, mark: str) -> bool:
    """Whether the process that `spawn` returned lives."""
    return pid is not None and start_mark(pid) == mark


def wait_for_exit(pid: int, mark: str, timeout_s: float) -> bool:
    """Wait until the process has ended; False if it still runs after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    if hasattr(os, "pidfd_open"):
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        except OSError:
            handle = -1
        if handle >= 0:
            try:
                if is_running(pid, mark):
                    poller = select.poll()
                    poller.register(handle, select.POLLIN)
                    poller.poll(max(0, int(timeout_s * 1000)))
            finally:
                os.close(handle)
            return not is_running(pid, mark)
    while is_running(pid, mark):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def stop(ending: Sequence[tuple[int, str, float]]) -> None:
    """End processes (id, start mark, grace in seconds): ask all of them, then wait for each.

    One that has not ended within its grace, or has left others of its session behind, is killed.
    """
    for pid, mark, _ in ending:
        if is_running(pid, mark):
            os.kill(pid, signal.SIGTERM)
    for pid, mark, grace_s in ending:
        if not (wait_for_exit(pid, mark, grace_s) and not session(pid)):
            kill(pid, mark)


def kill(pid: int, mark: str) -> None:
    """End the process and all of its session at once, as a crash would."""
    if start_mark(pid) not in (mark, None):
        return  # the id belongs to somebody else now
    # As long as a member of the session lives, the system does not give its id away.
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    for member in {pid, *session(pid)}:
        if started := start_mark(member):
            wait_for_exit(member, started, 10.0)


def session(leader: int) -> list[int]:
    """The living processes of the session that `leader` leads or led, as far as /proc tells."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(entry.name)
        if fields[3] == str(leader) and (fields[0] not in "ZX" or _has_threads(pid)):
            members.append(pid)
    return members


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        # Another thread may have asked at the same moment.
        _children.pop(pid, None)


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-count:]) or "(the log is empty)"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and its kin until the block's end: between a start and its record, say."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, remember) for number in INTERRUPTS}
    try:
        yield
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
        if came:
            signal.raise_signal(came[0])
