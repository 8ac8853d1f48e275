"""What is looked at all the time: all balances of one moment, and what is in doubt."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from coordinator.cluster import read_map
from coordinator.settings import Settings
from coordinator.shards.addresses import service_address
from shard_client.errors import ShardError
from shard_client.reader import Reader
from shard_client.records import PreparedBranch, Unfinished
from shard_client.shard_map import ShardKind
from tandem.chaos.history import Reply
from tandem.chaos.oracles import Violation, check_balances, check_in_view
from tandem.chaos.tasks import Task
from tandem.chaos.workload import Wire

BALANCES_PAUSE_S = 0.1
VIEW_PAUSE_S = 0.5
_SHARD_TIMEOUT_S = 3.0
# A frozen coordinator is not waited for: another one is asked.
LOOK_TIMEOUT_S = 4.0

Branches = set[tuple[str, str]]


class View(NamedTuple):
    """The in-doubt view of one coordinator: branches as (gtrid, shard), and so are the transfers by
    TC/C and Saga that are not finished.
    """

    branches: Branches
    unreachable: set[str]


def read_balances(
    wire: Wire, url: str, accounts: Sequence[str]
) -> tuple[Reply, dict[str, int] | None]:
    """All balances as of one moment; None if the coordinator cannot tell now."""
    reply = wire.send("GET", f"{url}/v1/balances", params={"account": list(accounts)})
    if reply.status != 200:
        return reply, None
    return reply, {item["account"]: item["balance"] for item in reply.body["balances"]}


def read_view(wire: Wire, url: str) -> tuple[Reply, View | None]:
    """The in-doubt view; None if the coordinator cannot tell now."""
    reply = wire.send("GET", f"{url}/v1/admin/in-doubt")
    if reply.status != 200 or not isinstance(reply.body, dict):
        return reply, None
    listed = [*reply.body["branches"], *reply.body["unfinished"]]
    branches = {(item["gtrid"], item["shard"]) for item in listed}
    unreachable = {_name(item) for item in reply.body.get("unreachable", [])}
    return reply, View(branches, unreachable)


def _name(item: Any) -> str:
    return str(item["shard"]) if isinstance(item, dict) else str(item)


class Prepared:
    """Asks the shards themselves what is prepared on them."""

    def __init__(self, settings: Settings) -> None:
        """Reads the shard map once. Raises ClusterError, BrokenShardMap."""
        self._cluster = settings.cluster.id
        # On a ledger group nothing is ever prepared, nor unfinished.
        shards = read_map(settings).shards.items()
        servers = {name: where for name, where in shards if where.kind is ShardKind.MYSQL}
        self._addresses = {n: service_address(settings, n, servers[n]) for n in servers}

    def reader(self, shard: str, timeout_s: float = _SHARD_TIMEOUT_S) -> Reader:
        """For asking a shard by a connection; to be closed."""
        return Reader(self._addresses[shard], self._cluster, timeout_s)

    def look(self) -> tuple[Branches, set[str]]:
        """The prepared branches of this cluster, what its phase tables have, and the shards that
        could not be asked.
        """
        found: Branches = set()
        silent: set[str] = set()
        for shard in self._addresses:
            try:
                found |= {(str(branch.gtrid), shard) for branch in self._list(shard)}
                found |= {(str(item.gtrid), shard) for item in self._unfinished(shard)}
            except ShardError:
                silent.add(shard)
        return found, silent

    def branches(self) -> Iterator[PreparedBranch]:
        """The same, one after the other. Raises ShardError."""
        for shard in self._addresses:
            yield from self._list(shard)

    def _unfinished(self, shard: str) -> list[Unfinished]:
        with closing(self.reader(shard)) as reader:
            return reader.list_unfinished(time.monotonic() + _SHARD_TIMEOUT_S)

    def _list(self, shard: str) -> list[PreparedBranch]:
        with closing(self.reader(shard)) as reader:
            return reader.list_prepared(time.monotonic() + _SHARD_TIMEOUT_S)


class Watchers:
    """Threads that look until they are stopped, and accuse."""

    def __init__(
        self,
        wire: Wire,
        urls: Sequence[str],
        accounts: Sequence[str],
        total: int,
        prepared: Prepared | None,
        chance: random.Random,
        accuse: Callable[[Violation], None],
    ) -> None:
        self._wire = wire
        self._urls = urls
        self._accounts = accounts
        self._total = total
        self._prepared = prepared
        self._accuse = accuse
        self._chance = chance
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._tasks: list[Task] = []
        # How often what was looked at, and what was seen most.
        self.reads = 0
        self.views = 0
        self.in_doubt_most = 0

    def start(self) -> None:
        # A coordinator makes one such read at a time: one reader for each.
        self._tasks = [Task(self._watch_balances, url).start() for url in self._urls]
        if self._prepared:
            self._tasks.append(Task(self._watch_view, self._prepared).start())

    def stop(self) -> None:
        """Raises what went wrong in a watcher, if something did."""
        self._stop.set()
        for task in self._tasks:
            task.join()

    def _watch_balances(self, url: str) -> None:
        while not self._stop.wait(BALANCES_PAUSE_S):
            _, balances = read_balances(self._wire, url, self._accounts)
            if balances is None:
                continue
            with self._lock:
                self.reads += 1
                when = f"read {self.reads} at {url}"
            for violation in check_balances(balances, self._total, when):
                self._accuse(violation)

    def _watch_view(self, prepared: Prepared) -> None:
        while not self._stop.wait(VIEW_PAUSE_S):
            before, _ = prepared.look()
            if not before:
                continue
            url = self._chance.choice(self._urls)
            _, view = read_view(self._wire, url)
            after, _ = prepared.look()
            self.in_doubt_most = max(self.in_doubt_most, len(before & after))
            if view is None:
                continue
            self.views += 1
            for violation in check_in_view(before, view.branches, after, view.unreachable):
                self._accuse(violation)
