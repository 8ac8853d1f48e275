"""The machine and the versions that figures belong to."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from bench.place import Place

PROJECT = Path(__file__).resolve().parent.parent


def surroundings(place: Place) -> dict[str, Any]:
    """What has to be known to compare figures with others."""
    own = {"coordinators": len(place.urls), "workers": place.workers}
    return machine() | {"servers": versions(place)} | own


def versions(place: Place) -> dict[str, str]:
    """The version of each shard's server."""
    return {server.shard: str(server.rows("SELECT VERSION()")[0][0]) for server in place.servers}


def machine() -> dict[str, Any]:
    """The machine and the code."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "cpu": _cpu(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    """The commit, and whether the files differ from it; None without git."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
