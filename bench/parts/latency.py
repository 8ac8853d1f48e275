"""How long a request takes and accounts stay locked, at given rates: an open loop."""

import random
import secrets
from contextlib import ExitStack
from http.client import HTTPConnection
from urllib.parse import urlsplit
from urllib.request import urlopen

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from bench import wrk
from bench.draws import uniform
from bench.loads.base import Scale, Tally
from bench.loads.batches import CURRENCY, Batches
from bench.loads.singles import Singles
from bench.loads.textbook import Textbook
from bench.measure import measure
from bench.open_loop import Work, latencies
from bench.parts.base import Finding, Outcome, Sizes
from bench.place import Place, cluster
from bench.quantiles import histogram_quantile, medians, percentile
from tandem.local.progress import Report

_THREADS = 8
CONNECTIONS = 64
# Shares of textbook XA's highest rate at which both are asked.
STEPS = (0.25, 0.5, 0.75)
_HOLD = "coordinator_lock_hold_seconds_bucket"
_TIMEOUT_S = 60.0


def latency(sizes: Sizes, report: Report) -> Outcome:
    """The ratio is textbook XA's to ours: above 1 ours is quicker. They take turns."""
    outcome = Outcome("Latency at given rates, open loop")
    scale = Scale(sizes.few_accounts, _THREADS, sizes.clients, sizes.batch)
    with cluster(sizes.data_dir, 1, sizes.latency_workers, report) as place, ExitStack() as stack:
        outcome.measured_on(place)
        outcome.settings["workers"] = place.workers
        name = secrets.token_hex(4)
        most_of, textbook = (Textbook(place, scale, f"{name}{end}") for end in ("max", "open"))
        ours = Singles(
            place, scale, f"{name}max", wrk=wrk.find(report), draw=uniform, how="uniformly"
        )
        accounts = Batches(place, scale, f"{name}open")
        for load in (most_of, textbook, ours, accounts):
            load.set_up(report)
        # It only chooses the rates.
        most = measure(
            {"textbook": most_of, "ours": ours}, 1, sizes.seconds, sizes.warm_up_s, report
        )
        runner = textbook.open()
        stack.callback(runner.close)
        tally, our_holds = Tally(), Holds(place)
        drivers: list[Work] = [lambda d=driver: d.once(tally) for driver in runner.drivers]  # type: ignore[misc]
        clients = [Client(place, accounts, f"{name}-{n}") for n in range(CONNECTIONS)]
        most_rate = most["textbook"].rate
        # With connections that are open, and what the first requests make.
        for workers in (drivers, [client.once for client in clients]):
            latencies(workers, most_rate / 2, sizes.warm_up_s)
        for share in STEPS:
            rate = share * most_rate
            report(f"Open loop, {rate:,.0f}/s, {share:.0%} of textbook XA's most")
            book, us = [], []
            for _ in range(sizes.rounds):
                for driver in runner.drivers:
                    driver.holds.clear()
                times = latencies(drivers, rate, sizes.seconds)
                holds = [hold for driver in runner.drivers for hold in driver.holds]
                book.append(figures(rate, times, percentile(holds, 0.99)))
                us.append(_ours(clients, our_holds, rate, sizes.seconds))
            title = f"textbook XA at {share:.0%} of its most"
            outcome.findings.append(Finding(title, medians(book)))
            outcome.findings.append(Finding("this engine at the same rate", medians(us)))
            for what in ("p50 ms", "p99 ms", "lock p99 ms"):
                better = [
                    b[what] / u[what] if u[what] else 0.0 for b, u in zip(book, us, strict=True)
                ]
                outcome.findings.append(Finding(f"{what}: theirs to ours", {}, better, 1.0))
        half = most["ours"].rate / 2
        report(f"Open loop, {half:,.0f}/s, half of this engine's most")
        us = [_ours(clients, our_holds, half, sizes.seconds) for _ in range(sizes.rounds)]
        outcome.findings.append(Finding("this engine at half of its most", medians(us)))
        outcome.violations += most_of.violations(most["textbook"].total)
        outcome.violations += textbook.violations(tally)
        outcome.violations += ours.violations(most["ours"].total)
        done = Tally(sum(client.committed for client in clients))
        outcome.violations += accounts.violations(done)
    return outcome


def _ours(clients: "list[Client]", holds: "Holds", rate: float, seconds: float) -> dict[str, float]:
    holds.difference()
    times = latencies([client.once for client in clients], rate, seconds)
    return figures(rate, times, histogram_quantile(holds.difference(), 0.99))


def figures(rate: float, times: list[float], hold: float) -> dict[str, float]:
    """Of latencies in seconds, in ms."""
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    named = {"p50 ms": p50 * 1000, "p99 ms": p99 * 1000, "lock p99 ms": hold * 1000}
    return {"rate/s": rate} | named


class Client:
    """One connection that is kept alive."""

    def __init__(self, place: Place, accounts: Batches, name: str) -> None:
        self._http = HTTPConnection(urlsplit(place.urls[0]).netloc, timeout=_TIMEOUT_S)
        self._pairs = uniform(accounts.places(), random.Random(name))
        self._name = name
        self.committed = 0

    def once(self) -> None:
        """One transfer. Raises RuntimeError if it is not committed."""
        source, destination = next(self._pairs)
        wish = {"source": source, "destination": destination, "amount": 1, "currency": CURRENCY}
        key = f"{self._name}-{self.committed}"
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        self._http.request("POST", "/v1/transfers", msgspec.json.encode(wish), headers)
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status != 201:
            raise RuntimeError(f"a transfer was answered {answer.status}: {text.decode()}")
        self.committed += 1


class Holds:
    """The coordinator's histogram of how long accounts were locked, over all shards and roles."""

    def __init__(self, place: Place) -> None:
        self._url = f"{place.urls[0]}/metrics"
        self._before: dict[float, float] = {}

    def difference(self) -> list[tuple[float, float]]:
        """Upper bounds in seconds and how many were within, since the last call."""
        with urlopen(self._url, timeout=_TIMEOUT_S) as answer:
            text = answer.read().decode()
        now: dict[float, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == _HOLD:
                    bound = float(sample.labels["le"])
                    now[bound] = now.get(bound, 0.0) + sample.value
        before, self._before = self._before, now
        return sorted((bound, count - before.get(bound, 0.0)) for bound, count in now.items())
