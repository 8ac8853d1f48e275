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
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "cpu": _cpu(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "servers": {s.shard: s.rows("SELECT VERSION()")[0][0] for s in place.servers},
        "coordinators": len(place.urls),
        "workers": place.workers,
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
