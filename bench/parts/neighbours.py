"""What honest clients get beside somebody who misbehaves, as a share of what they get alone."""

import random
import resource
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from bench import oracles
from bench.draws import Pair
from bench.host import Host, hosted
from bench.loads.base import Scale, Tally
from bench.loads.batches import CURRENCY, Batches, Connection
from bench.loads.honest import Honest, HonestTally
from bench.parts.base import Finding, Outcome, Sizes
from bench.place import Place, cluster
from bench.quantiles import medians, percentile
from tandem.chaos import hostile
from tandem.chaos.lines import Lines, State
from tandem.chaos.tasks import Task
from tandem.local.progress import Report

GOAL = 0.5
_SHARDS = 3
_ACCOUNTS = 3000
_SICK = "s3"
_DRIP_S, _LATE_S = 0.5, 1.0
_IDLE = 1100
_LARGE_BATCH, _BATCH = 10_000, 1000
# Until a neighbour is at work, and until what it has left behind is over.
_BEGIN_S = 1.5
# After a refusal: sooner than Retry-After asks for, but not as fast as it can.
_PAUSE_S = 0.2
# Of the bench's own sockets.
_FILES = 8192
_MOST = 1 << 40


class Bench(NamedTuple):
    """What the neighbours work on: a cluster, its sick line, accounts of each shard, a name for
    keys.
    """

    place: Place
    lines: Lines
    at: dict[str, list[str]]
    run: str

    @property
    def url(self) -> str:
        return self.place.urls[0]

    def pairs(self, source: str, destination: str, number: int = 200) -> list[Pair]:
        """From accounts of one shard to as many others of another, or of the same."""
        to = self.at[destination][number : 2 * number]
        return list(zip(self.at[source][:number], to, strict=True))


class Neighbour(NamedTuple):
    """Somebody who misbehaves in the block of `at_work`, and whom of the honest that concerns."""

    title: str
    at_work: Callable[[Bench], AbstractContextManager[None]]
    honest: Callable[[Bench], list[Pair]]


def neighbours(sizes: Sizes, report: Report) -> Outcome:
    """For each neighbour the honest are measured alone and beside it, in turns. The ratios are of
    transfers/s, and of p99: alone to beside.
    """
    outcome = Outcome("Beside neighbours that misbehave")
    _raise_limit_of_files()
    lines = Lines()
    with ExitStack() as stack:
        stack.callback(lines.close)
        place = stack.enter_context(
            cluster(None, 1, sizes.workers, report, shards=_SHARDS, shard_door=_door(lines))
        )
        outcome.measured_on(place)
        outcome.settings["workers"] = place.workers
        run = secrets.token_hex(4)
        accounts = Batches(place, Scale(_ACCOUNTS, 1, 1, 1), run)
        accounts.set_up(report)
        bench = Bench(place, lines, _by_shard(place, accounts), run)
        total = Tally()
        for number, neighbour in enumerate(NEIGHBOURS):
            pairs = neighbour.honest(bench)
            load = Honest(neighbour.title, bench.url, f"{run}-{number}", pairs)
            with hosted(load) as host:
                outcome.findings += _measure(neighbour, bench, host, sizes, total, report)
        committed = range(_ACCOUNTS + total.committed, _MOST)
        outcome.violations = oracles.violations(place, f"bench.{run}.", committed)
    return outcome


def _door(lines: Lines) -> Callable[[str, int], int]:
    """Only the shard that will be sick is reached through a line."""
    return lambda name, port: lines.door(name, port) if name == _SICK else port


def _by_shard(place: Place, accounts: Batches) -> dict[str, list[str]]:
    at: dict[str, list[str]] = {name: [] for name in place.shard_map.shards}
    for id_ in accounts.ids():
        at[place.shard_map.shard_of(id_)].append(id_)
    return at


def _raise_limit_of_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _measure(
    neighbour: Neighbour, bench: Bench, host: Host, sizes: Sizes, total: Tally, report: Report
) -> list[Finding]:
    alone, beside = [], []
    total.add(host.run(sizes.warm_up_s))
    for number in range(1, sizes.rounds + 1):
        report(f"Round {number} of {sizes.rounds}, {neighbour.title}")
        alone.append(_run(host, sizes, total))
        with neighbour.at_work(bench):
            total.add(host.run(_BEGIN_S))
            beside.append(_run(host, sizes, total))
        # What it has left behind is its own.
        total.add(host.run(_BEGIN_S))
    title = neighbour.title
    each = list(zip(alone, beside, strict=True))
    rates = [b["transfers/s"] / a["transfers/s"] for a, b in each]
    times = [a["p99 ms"] / b["p99 ms"] for a, b in each]
    return [
        Finding(f"alone, before: {title}", medians(alone)),
        Finding(f"beside {title}", medians(beside), rates, GOAL),
        Finding("  p99, alone to beside", {}, times, GOAL),
    ]


def _run(host: Host, sizes: Sizes, total: Tally) -> dict[str, float]:
    done = host.run(sizes.seconds)
    assert isinstance(done, HonestTally)
    total.add(done)
    # A turn without any answer is as bad as it can be measured.
    times = done.latencies or [done.seconds]
    return {
        "transfers/s": done.committed / done.seconds,
        "p50 ms": percentile(times, 0.5) * 1000,
        "p99 ms": percentile(times, 0.99) * 1000,
        "not committed": sum(done.other.values()),
    }


# --- those who misbehave ------------------------------------------------------------------------


@contextmanager
def _clients(works: Sequence[Callable[[], object]]) -> Iterator[threading.Event]:
    """Each is called again and again in a thread of its own until the end of the block, or until
    the event is set; what fails is done again.
    """
    over = threading.Event()

    def repeat(work: Callable[[], object]) -> None:
        while not over.is_set():
            with suppress(OSError, RuntimeError):
                work()

    tasks = [Task(repeat, work).start() for work in works]
    try:
        yield over
    finally:
        over.set()
        for task in tasks:
            task.join()


class _Sender:
    """Sends transfers and does not care what becomes of them."""

    _runs = count()

    def __init__(self, bench: Bench, pairs: Sequence[Pair]) -> None:
        self._url = bench.url
        self._name = f"n{bench.run}-{next(self._runs)}"
        self._pairs = pairs
        self._chance = random.Random(self._name)
        self._numbers = count()

    def single(self) -> None:
        item = self._item()
        key = str(item.pop("idempotency_key"))
        self._post("/v1/transfers", item, {"Idempotency-Key": key})

    def batch(self, size: int) -> None:
        self._post("/v1/transfers/batch", {"transfers": [self._item() for _ in range(size)]}, {})

    def _item(self) -> dict[str, object]:
        source, destination = self._chance.choice(self._pairs)
        return {
            "idempotency_key": f"{self._name}-{next(self._numbers)}",
            "source": source,
            "destination": destination,
            "amount": 1,
            "currency": CURRENCY,
        }

    def _post(self, path: str, body: object, headers: dict[str, str]) -> None:
        connection = Connection(self._url)
        try:
            status, _ = connection.send(path, msgspec.json.encode(body), headers)
        finally:
            connection.close()
        if status >= 300:
            time.sleep(_PAUSE_S)


def _towards_the_sick(bench: Bench) -> list[Callable[[], object]]:
    ways = [("s1", _SICK), (_SICK, "s1"), ("s2", _SICK), (_SICK, "s2"), (_SICK, _SICK)]
    return [_Sender(bench, bench.pairs(*way, 400)).single for way in ways]


def _sick(state: State, every_s: float = 0.0) -> Callable[[Bench], AbstractContextManager[None]]:
    @contextmanager
    def at_work(bench: Bench) -> Iterator[None]:
        with _clients(_towards_the_sick(bench)):
            bench.lines.disturb(_SICK, state, every_s)
            try:
                yield
            finally:
                bench.lines.disturb(_SICK, State.WELL)

    return at_work


@contextmanager
def _locked(bench: Bench, shard: str, *statements: str) -> Iterator[None]:
    """What these lock stays locked in the block: a person's session."""
    server = next(server for server in bench.place.servers if server.shard == shard)
    session = server.connect(server.database)
    try:
        with session.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        yield
    finally:
        session.close()


def _lock_row(account: str) -> tuple[str, str]:
    return "BEGIN", f"SELECT id FROM accounts WHERE id = '{account}' FOR UPDATE"


@contextmanager
def _table_locked(bench: Bench) -> Iterator[None]:
    with _clients(_towards_the_sick(bench)), _locked(bench, _SICK, "LOCK TABLES accounts WRITE"):
        yield


def _hot(bench: Bench) -> str:
    return bench.at["s1"][0]


def _stuck(bench: Bench) -> str:
    return bench.at[_SICK][0]


@contextmanager
def _stuck_payee(bench: Bench) -> Iterator[None]:
    """Three clients that pay a locked account from the hot one."""
    pair = [(_hot(bench), _stuck(bench))]
    senders = [_Sender(bench, pair).single for _ in range(3)]
    with _clients(senders), _locked(bench, _SICK, *_lock_row(_stuck(bench))):
        yield


@contextmanager
def _stuck_batches(bench: Bench) -> Iterator[None]:
    """Two batches of 10,000 from a locked account."""
    pairs = [(_stuck(bench), to) for to in bench.at["s2"][500:700]]
    senders = [_Sender(bench, pairs) for _ in range(2)]
    works = [partial(sender.batch, _LARGE_BATCH) for sender in senders]
    with _clients(works), _locked(bench, _SICK, *_lock_row(_stuck(bench))):
        yield


@contextmanager
def _batches(bench: Bench) -> Iterator[None]:
    """Two clients that send batches all the time."""
    senders = [_Sender(bench, bench.pairs(a, b, 400)) for a, b in (("s1", "s2"), ("s2", "s1"))]
    with _clients([partial(sender.batch, _BATCH) for sender in senders]):
        yield


@contextmanager
def _hostile(bench: Bench) -> Iterator[None]:
    """Three clients that send 6 MiB of nested metadata, which is refused."""
    source, destination = bench.pairs("s1", "s2", 1)[0]
    costly = next(r for r in hostile.requests(source, destination, "x") if "nested" in r.name)
    with _clients([lambda: hostile.answer_to(costly, bench.url)] * 3):
        yield


@contextmanager
def _idle(bench: Bench) -> Iterator[None]:
    """Connections that say nothing."""
    address = urlsplit(bench.url)
    with ExitStack() as stack:
        for _ in range(_IDLE):
            with suppress(OSError):
                made = socket.create_connection((address.hostname, address.port), 2.0)
                stack.enter_context(made)
        yield


def _across(bench: Bench) -> list[Pair]:
    return bench.pairs("s1", "s2")


def _from_the_hot(bench: Bench) -> list[Pair]:
    return [(_hot(bench), to) for to in bench.at["s2"][:100] + bench.at[_SICK][100:200]]


NEIGHBOURS = [
    Neighbour("a shard that answers a byte every 0.5 s", _sick(State.DRIP, _DRIP_S), _across),
    Neighbour("a shard that is late by 1 s", _sick(State.LATE, _LATE_S), _across),
    Neighbour("a shard that does not answer", _sick(State.STILL), _across),
    Neighbour("a shard whose accounts are locked as a table", _table_locked, _across),
    Neighbour("a stuck payee of the same hot account", _stuck_payee, _from_the_hot),
    Neighbour("batches of 10,000 from a stuck account", _stuck_batches, _across),
    Neighbour("batches of 1,000, two clients", _batches, _across),
    Neighbour("6 MiB of nested metadata, three clients", _hostile, _across),
    Neighbour(f"{_IDLE:,} idle connections", _idle, _across),
]
