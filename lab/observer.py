"""Another client, which only looks: at the shards themselves, and at what the service says."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import httpx

from lab.locks import LockTimes
from lab.parts import ReadSum
from lab.seen import Read
from tandem.chaos.tasks import Task
from tandem.chaos.watchers import LOOK_TIMEOUT_S, read_balances
from tandem.chaos.workload import Wire

PLAIN_PAUSE_S = 0.02
SERVICE_PAUSE_S = 0.25
METRICS_PAUSE_S = 1.0


class PlainReader:
    """Reads the sum of each shard, all shards at the same time, again and again.

    Nothing makes these reads one: what is on its way from one shard to the other is in neither.
    """

    def __init__(self, readers: Sequence[ReadSum], clock: Callable[[], float]) -> None:
        self._readers = readers
        self._clock = clock
        self._stop = threading.Event()
        self.reads: list[Read] = []

    def run(self) -> None:
        with ThreadPoolExecutor(len(self._readers)) as pool:
            while not self._stop.wait(PLAIN_PAUSE_S):
                self._read(pool)
            # Once more, now that nothing is under way.
            self._read(pool)

    def _read(self, pool: ThreadPoolExecutor) -> None:
        at = self._clock()
        parts = list(pool.map(lambda read: read(), self._readers))
        sums = [part for part in parts if part is not None]
        self.reads.append(Read(at, sum(sums) if len(sums) == len(parts) else None))

    def stop(self) -> None:
        self._stop.set()


class ServiceReader:
    """Asks the service for all balances of one moment, and how long locks were held."""

    def __init__(
        self, urls: Sequence[str], accounts: Sequence[str], clock: Callable[[], float]
    ) -> None:
        self._urls = urls
        self._accounts = accounts
        self._clock = clock
        self._stop = threading.Event()
        self._wire = Wire(len(urls), LOOK_TIMEOUT_S)
        self.reads: list[Read] = []
        self.locks = LockTimes()

    def run(self) -> None:
        for url in self._urls:
            self.locks.begin(url, self._metrics(url))
        due = time.monotonic() + METRICS_PAUSE_S
        turns = cycle(self._urls)
        while not self._stop.wait(SERVICE_PAUSE_S):
            at = self._clock()
            _, balances = read_balances(self._wire, next(turns), self._accounts)
            self.reads.append(Read(at, None if balances is None else sum(balances.values())))
            if time.monotonic() >= due:
                due = time.monotonic() + METRICS_PAUSE_S
                self._look_at_locks()
        self._look_at_locks()
        self._wire.close()

    def stop(self) -> None:
        self._stop.set()

    def _look_at_locks(self) -> None:
        for url in self._urls:
            if metrics := self._metrics(url):
                self.locks.add(url, metrics)

    def _metrics(self, url: str) -> str:
        """What a coordinator counts; "" if it does not answer."""
        try:
            # Plain HTTP, asked again and again: to read authorities each time would cost 50 ms.
            answer = httpx.get(
                f"{url}/metrics", timeout=LOOK_TIMEOUT_S, trust_env=False, verify=False
            )
        except httpx.HTTPError:
            return ""
        return answer.text if answer.status_code == 200 else ""


class Observer:
    """Readers at work, each in a thread, between `start` and `stop`."""

    def __init__(self, readers: Sequence[PlainReader | ServiceReader]) -> None:
        self._readers = readers
        self._tasks: list[Task] = []

    def start(self) -> None:
        self._tasks = [Task(reader.run).start() for reader in self._readers]

    def stop(self) -> None:
        """Raises what went wrong in a reader, if something did."""
        for reader in self._readers:
            reader.stop()
        for task in self._tasks:
            task.join()
