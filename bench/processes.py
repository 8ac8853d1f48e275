"""What processes have taken, as Linux keeps it in /proc."""

from collections.abc import Iterable
from pathlib import Path


def cpu_ns(pids: Iterable[int]) -> int:
    """Processor time of all their threads so far, in ns. Threads that have ended are not in it."""
    files = (file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(file.read_text().split()[0]) for file in files)


def resident_kib(pid: int) -> int:
    """Memory that a process holds in RAM, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
