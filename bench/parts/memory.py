"""The memory of a coordinator's workers, sampled while batches keep them at full load."""

import secrets
import threading
import time
from dataclasses import dataclass, field
from statistics import linear_regression, median

from bench.host import hosted
from bench.loads.base import Scale, Tally
from bench.loads.batches import Batches
from bench.parts.base import Curve, Finding, Outcome, Sizes
from bench.place import cluster
from bench.processes import resident_kib
from tandem.local.progress import Report

GOAL = 0.95
_SAMPLE_S = 1.0
_ACCOUNTS = 50_000
# What is reported between turns, and after which memory is taken to be warm.
_TURN_S = 10.0
_WARM_SHARE = 0.2


def memory(sizes: Sizes, report: Report) -> Outcome:
    """Resident memory of all workers together; the ratio is that of its beginning to its end."""
    outcome = Outcome("memory of a coordinator", axes=("minutes", "MiB"))
    with cluster(sizes.data_dir, 1, sizes.workers, report) as place:
        outcome.measured_on(place)
        scale = Scale(min(_ACCOUNTS, sizes.many_accounts), 1, sizes.clients, sizes.batch)
        load = Batches(place, scale, secrets.token_hex(4))
        load.set_up(report)
        total, samples = Tally(), Samples()
        with hosted(load) as host:
            total.add(host.run(sizes.warm_up_s))
            until = time.monotonic() + sizes.minutes * 60
            with samples.of(place.worker_pids):
                while (left := until - time.monotonic()) > 0:
                    report(f"Memory of a coordinator at full load: {left / 60:.1f} minutes to go")
                    total.add(host.run(min(_TURN_S, left)))
        outcome.violations += load.violations(total)
    outcome.findings.append(_finding(samples, total.committed))
    minutes = [second / 60 for second in samples.seconds]
    outcome.curves.append(Curve("all workers", minutes, samples.mib))
    return outcome


def _finding(samples: "Samples", committed: int) -> Finding:
    first, last = ends(samples.mib, _WARM_SHARE)
    figures = {
        "MiB after the first fifth": first,
        "MiB at the end": last,
        "MiB/hour since then": slope(samples.seconds, samples.mib, _WARM_SHARE) * 3600,
        "minutes": samples.seconds[-1] / 60,
        "transfers": committed,
    }
    return Finding("memory at the beginning to memory at the end", figures, [first / last], GOAL)


def slope(seconds: list[float], values: list[float], left_out: float) -> float:
    """How fast values grow, for each second, without the first share of them; least squares."""
    begin = int(len(values) * left_out)
    if len(values) - begin < 2:
        return 0.0
    return linear_regression(seconds[begin:], values[begin:]).slope


def ends(values: list[float], left_out: float) -> tuple[float, float]:
    """The medians of the first and the last fifth of what remains without the first share."""
    rest = values[int(len(values) * left_out) :]
    fifth = max(len(rest) // 5, 1)
    return median(rest[:fifth]), median(rest[-fifth:])


@dataclass
class Samples:
    """Memory of some processes together, over time."""

    seconds: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    def of(self, pids: list[int]) -> "_Sampling":
        return _Sampling(self, pids)


class _Sampling:
    """A thread that takes samples for the block."""

    def __init__(self, samples: Samples, pids: list[int]) -> None:
        self._samples = samples
        self._pids = pids
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while True:
            self._samples.seconds.append(time.monotonic() - began)
            self._samples.mib.append(sum(map(resident_kib, self._pids)) / 1024)
            if self._done.wait(_SAMPLE_S):
                return
