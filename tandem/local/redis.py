"""How a Redis node is found, started and asked whether it is ready.

Only the laboratory has such nodes.
"""

import os
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tandem.local import debian
from tandem.local.errors import LocalError
from tandem.local.ports import HOST
from tandem.local.progress import Report
from tandem.local.servers import (
    VERSION_TIMEOUT_S,
    fetch_missing,
    library_path,
    named_prefixes,
    on_path,
)

START_TIMEOUT_S = 30
STOP_GRACE_S = 15
# The first whose append-only file is kept in parts, as that of every later one.
OLDEST = (7, 0, 0)
# Every change is in the append-only file before it is answered, and flushed once a second: what
# Redis itself advises. When only the process is killed, nothing is lost by that.
DURABILITY = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")


@dataclass(frozen=True)
class Redis:
    """A Redis server program, and what it is started with besides."""

    program: str
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)


def find_redis(report: Report) -> Redis:
    """A Redis server. Raises LocalError if it is missing and cannot be fetched."""
    wrong: list[str] = []
    for prefix in named_prefixes("redis"):
        if found := _redis_in(prefix, wrong):
            return found
    for program in on_path(("redis-server",)):
        if found := _redis_at(program, {}, wrong):
            return found
    folder = fetch_missing("redis", "Redis", wrong, report)
    if found := _redis_in(folder, wrong):
        return found
    raise LocalError(
        f"the Redis in {folder} does not run: {'; '.join(wrong)}. Delete that folder to have it "
        f"fetched again. {debian.advice('Redis')}"
    )


def _redis_in(prefix: Path, wrong: list[str]) -> Redis | None:
    """The one below `prefix`: an installation, or the unpacked packages of one."""
    path = library_path(prefix)
    environment = {"LD_LIBRARY_PATH": path} if path else {}
    for folder in (prefix, prefix / "bin", prefix / "src", prefix / "usr/bin"):
        program = folder / "redis-server"
        if program.is_file() and (found := _redis_at(program, environment, wrong)):
            return found
    return None


def _redis_at(program: Path, environment: dict[str, str], wrong: list[str]) -> Redis | None:
    """The program if it is new enough; else `wrong` says why not."""
    try:
        answer = subprocess.run(
            [program, "--version"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        wrong.append(f"{program} does not run: {error}")
        return None
    version = parse_version(answer.stdout)
    if version is None:
        wrong.append(f"{program} does not run: {answer.stderr.strip() or answer.returncode}")
        return None
    if version < OLDEST:
        has, needs = (".".join(map(str, v)) for v in (version, OLDEST))
        wrong.append(f"{program} is Redis {has}; {needs} or later is needed")
        return None
    return Redis(str(program), ".".join(map(str, version)), environment)


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version in what `redis-server --version` prints."""
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def command(server: Redis, folder: Path, port: int) -> list[str]:
    """The command line of the node whose data lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    place = ("--bind", HOST, "--port", str(port), "--dir", str(folder))
    return [server.program, *place, *DURABILITY]


def is_ready(port: int) -> str | None:
    """None if the node serves clients, else why not."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(4096)
    except ConnectionRefusedError:
        return "no connections taken yet"
    except OSError as error:
        return str(error)
    return None if answer.startswith(b"+PONG") else answer.decode(errors="replace").strip()
