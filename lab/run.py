"""Puts it together: each way with new accounts, under the same load and the same faults."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from coordinator.telemetry.metrics import PROTOCOLS
from lab.faults import Disturber
from lab.observer import Observer, PlainReader, ServiceReader
from lab.parts import Place
from lab.result import Deal, Disturbed, Outcome
from lab.schedule import of_group, schedule
from lab.seen import committed, distribution, rates, seen, spread, thinned
from lab.shard_place import ShardPlace, shard_place
from lab.verdict import judge
from lab.ways import Way
from lab.workload import Plan, Tally, clients
from tandem.chaos.history import longest_gap_s
from tandem.chaos.tasks import Task
from tandem.chaos.workload import Wire, account_names
from tandem.local.errors import LocalError
from tandem.local.progress import Report

EACH = 1000
# How long what is unfinished after the last fault may take.
SETTLE_S = 90.0
POLL_S = 0.2
RATE_STEP_S, RATES_MAX = 0.5, 120
LATENCIES, SUMS = 200, 600


@dataclass(frozen=True)
class Wanted:
    """What to run."""

    ways: Sequence[Way]
    seed: int
    seconds: float
    clients: int
    accounts: int


def run(wanted: Wanted, folder: Path, report: Report, tell: Callable[[str], None]) -> list[Outcome]:
    """Run each way, one after the other. Raises LocalError, ClusterError, ShardError."""
    outcomes = []
    stamp = f"{time.time_ns() // 1_000_000:x}"
    with ExitStack() as stack:
        places = _Places(folder, stack, report)
        for way in wanted.ways:
            place = places.of(way)
            tell(f"{way.title}: {wanted.seconds:g} s of load and faults")
            outcomes.append(_run_way(way, place, wanted, f"lab-{way.name}-{stamp}", tell))
    return outcomes


def check_known(ways: Sequence[Way]) -> None:
    """Raises LocalError for a way that Tandem does not have, before anything is started."""
    for way in ways:
        if way.protocol and way.protocol not in PROTOCOLS:
            raise LocalError(
                f'this Tandem does not know the protocol "{way.name}" (it knows '
                f"{', '.join(PROTOCOLS)}); leave it out of --ways. Nothing was started"
            )


class _Places:
    """The protocols that run one after the other share a cluster; every other way has a place of
    its own. One place runs at a time.
    """

    def __init__(self, folder: Path, stack: ExitStack, report: Report) -> None:
        self._folder = folder
        self._running = stack.enter_context(ExitStack())
        self._report = report
        self._shards: ShardPlace | None = None

    def of(self, way: Way) -> Place:
        """It runs until another one is asked for, or the end."""
        if way.protocol and self._shards:
            self._shards.check_protocol(way.protocol)
            return self._shards
        self._running.close()
        self._shards = None
        if way.is_naive:
            # Here, since it needs a package that only the laboratory needs.
            from lab.redis_place import redis_place

            return self._running.enter_context(redis_place(self._folder / way.name, self._report))
        wire = self._running.enter_context(closing(Wire(4)))
        if way.is_group:
            # Here, since it needs what other clusters do without.
            from lab.group_place import group_place

            place = group_place(self._folder / way.name, wire, self._report)
            return self._running.enter_context(place)
        cluster = shard_place(self._folder / "cluster", wire, self._report)
        self._shards = self._running.enter_context(cluster)
        self._shards.check_protocol(way.protocol)
        return self._shards


@dataclass(frozen=True)
class _Measured:
    """What came of the load: what the clients say, what was seen, what was done to the parts."""

    tally: Tally
    plain: PlainReader
    service: ServiceReader | None
    faults: list[Disturbed]
    settled_s: float
    until: float


def _run_way(
    way: Way, place: Place, wanted: Wanted, name: str, tell: Callable[[str], None]
) -> Outcome:
    accounts = account_names(name, wanted.accounts)
    place.fund(accounts, EACH)
    before = place.balances(accounts)
    measured = _measure(way, place, wanted, name, accounts, tell)
    tell("comparing the books with what the clients were told")
    deals, total = measured.tally.deals, sum(before.values())
    service = measured.service
    verdict = judge(before, deals, place.balances(accounts), place.moved(accounts))
    done = committed(deals, wanted.seconds)
    waits = [deal.ended - deal.began for deal in done]
    return Outcome(
        way=way.name,
        title=way.title,
        versions=dict(place.versions),
        asked=len(deals),
        **{outcome: _count(deals, outcome) for outcome in ("committed", "rejected", "unanswered")},
        resent=sum(deal.tries > 1 for deal in deals),
        rate=len(done) / wanted.seconds,
        gap_s=longest_gap_s([deal.ended for deal in done], 0.0, wanted.seconds),
        latency=spread(waits),
        locks=service.locks.spread() if service else None,
        plain=seen(measured.plain.reads, total, measured.until),
        service=seen(service.reads, total, measured.until) if service else None,
        faults=measured.faults,
        verdict=verdict,
        settled_s=measured.settled_s,
        violations=place.violations(deals),
        answers=dict(sorted(measured.tally.answers.items())),
        rates=rates(deals, wanted.seconds, max(RATE_STEP_S, wanted.seconds / RATES_MAX)),
        latencies=distribution(waits, LATENCIES),
        sums=thinned(measured.plain.reads, total, SUMS),
    )


def _count(deals: Sequence[Deal], outcome: str) -> int:
    return sum(deal.outcome == outcome for deal in deals)


def _measure(
    way: Way,
    place: Place,
    wanted: Wanted,
    name: str,
    accounts: Sequence[str],
    tell: Callable[[str], None],
) -> _Measured:
    """Load, faults and readers together; then everything is healed and comes to its end."""
    plan = Plan(
        run=name,
        urls=list(place.urls),
        shards={account: place.shard_of(account) for account in accounts},
        clients=wanted.clients,
        seed=wanted.seed,
        protocol=way.protocol,
    )
    with clients(plan) as load:
        began = load.start()

        def clock() -> float:
            return time.monotonic() - began

        plain = PlainReader(list(place.readers(accounts).values()), clock)
        service = ServiceReader(place.urls, accounts, clock) if place.can_read_at_once else None
        observer = Observer([plain, service] if service else [plain])
        faults = schedule(wanted.seed, wanted.seconds)
        faults = of_group(faults) if way.is_group else faults
        disturber = Disturber(place.parts, place.names, faults, clock, tell)
        disturbing = Task(disturber.run).start()
        observer.start()
        try:
            threading.Event().wait(wanted.seconds - clock())
        finally:
            load.end()
            disturber.stop()
            disturbing.join()
            disturber.heal()
        tally = load.tally()
        _settle(place)
        settled_s = clock() - wanted.seconds
        observer.stop()
        return _Measured(tally, plain, service, disturber.done, settled_s, clock())


def _settle(place: Place) -> None:
    """Wait until nothing is under way. Raises LocalError."""
    give_up = time.monotonic() + SETTLE_S
    while (why := place.unfinished()) is not None:
        if time.monotonic() > give_up:
            raise LocalError(f"{SETTLE_S:.0f} s after the last fault: {why}")
        time.sleep(POLL_S)
