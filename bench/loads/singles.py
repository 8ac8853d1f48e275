"""This engine over HTTP, one transfer for each request, on connections that are kept alive: wrk."""

import random
import re
import subprocess
import tempfile
from itertools import islice
from os import environ
from pathlib import Path

import msgspec

from bench.draws import Draw, Pair
from bench.loads.base import Scale, Tally
from bench.loads.batches import Batches
from bench.place import Place
from bench.wrk import SCRIPT, Wrk
from tandem.local.progress import Report

CONNECTIONS = 64
# As many as are drawn; then they come again.
_PAIRS = 50_000
_GRACE_S = 30.0


class _Result(msgspec.Struct):
    statuses: dict[str, int]
    broken: int
    duration_us: int


class Singles:
    """The load, with its own accounts; its pairs are those of `draw`, a function of a module. A
    ledger group takes no protocol: None.
    """

    def __init__(
        self,
        place: Place,
        scale: Scale,
        run: str,
        *,
        wrk: Wrk,
        draw: Draw,
        how: str,
        protocol: str | None = "xa",
    ) -> None:
        self._protocol = protocol
        self.title = f"this engine, one transfer for each request, {how}"
        self._accounts = Batches(place, scale, run)
        self._url = place.urls[0]
        self._run = run
        self._wrk = wrk
        self._draw = draw

    def set_up(self, report: Report) -> None:
        self._accounts.set_up(report)

    def open(self) -> "SinglesRunner":
        pairs = self._draw(self._accounts.places(), random.Random(self._run))
        some = list(islice(pairs, _PAIRS))
        return SinglesRunner(self._wrk, self._url, self._run, some, self._protocol)

    def violations(self, total: Tally) -> list[str]:
        return self._accounts.violations(total)

    def acknowledged(self, total: Tally) -> range:
        """See `Batches`."""
        return self._accounts.acknowledged(total)


class SinglesRunner:
    """Runs wrk, anew each time."""

    def __init__(
        self, wrk: Wrk, url: str, run: str, pairs: list[Pair], protocol: str | None
    ) -> None:
        self._protocol = [protocol] if protocol else []
        self._wrk = wrk
        self._url = url
        self._run = run
        self._runs = 0
        self._folder = tempfile.TemporaryDirectory(prefix="tandem-wrk-")
        self._file = Path(self._folder.name) / "pairs"
        self._file.write_text("".join(f"{source} {to}\n" for source, to in pairs))

    def run(self, seconds: float) -> Tally:
        """Whole seconds. What is under way at the end is broken off: it is `pending`."""
        self._runs += 1
        whole = max(round(seconds), 1)
        command = [self._wrk.program, "--threads=1", f"--connections={CONNECTIONS}"]
        command += [f"--duration={whole}s", "--timeout=30s", f"--script={SCRIPT}", self._url, "--"]
        command += [str(self._file), f"{self._run}-{self._runs}", *self._protocol]
        done = subprocess.run(
            command,
            env={**environ, **self._wrk.environment},
            capture_output=True,
            text=True,
            timeout=whole + _GRACE_S,
            check=False,
        )
        found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
        if done.returncode or not found:
            raise RuntimeError(f"wrk ended with {done.returncode}: {done.stdout}{done.stderr}")
        result = msgspec.json.decode(found[1], type=_Result)
        tally = Tally(result.statuses.pop("201", 0), result.duration_us / 1e6)
        tally.other.update({f"answered {status}": n for status, n in result.statuses.items()})
        tally.other["pending"] += CONNECTIONS + result.broken
        tally.other["broken connections"] += result.broken
        return tally

    def close(self) -> None:
        self._folder.cleanup()
