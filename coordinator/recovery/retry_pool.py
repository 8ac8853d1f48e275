"""Threads that try things at shards until they are done. It knows nothing of protocols.

What is to be tried at one shard is handed on in portions, so that a thousand tasks take hardly
longer than one. A shard that hangs leaves some of the threads to others.
"""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

log = logging.getLogger(__name__)

# The longest pause between two tries, in seconds.
PAUSE_MAX_S = 5.0
_AFTER_BUG_S = 0.05
# So long is a portion under way waited for when the pool stops.
_JOIN_S = 3.0


def pause_after(failures: int, first_s: float) -> float:
    """How long a task is left alone that has failed so often before: it doubles each time."""
    pause: float = min(first_s * 2 ** min(failures, 16), PAUSE_MAX_S)
    return pause


class Retried(Protocol):
    """What the pool asks of a task. `not_before` is by the monotonic clock."""

    not_before: float
    is_running: bool


class Kind(NamedTuple):
    """Tasks of one kind at one shard may share a portion: those of the least `rank` come first, and
    of one rank what has been due for longest. What `waits` for locks may take long.
    """

    rank: int
    name: Hashable = None
    waits: bool = False


class Limits(NamedTuple):
    """How much is under way at once."""

    threads: int
    # Portions at one shard: fewer than there are threads.
    at_shard: int
    # Tasks in a portion.
    portion: int
    # Portions that wait for locks, of these one at each shard: the rest goes on beside them.
    waiting: int = 0


Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Task = TypeVar("Task", bound=Retried)


class Portion(NamedTuple, Generic[Task]):
    """Tasks of one kind at one shard."""

    shard: str
    kind: Kind
    tasks: list[Task]


class Resolver(ABC, Generic[Item, Task]):
    """Says what the items of a pool consist of, and what is done with a portion."""

    @abstractmethod
    def tasks_of(self, item: Item) -> Iterable[Task]:
        """What can be tried of an item now, or after a pause. The pool's lock is held."""

    @abstractmethod
    def spot_of(self, task: Task) -> tuple[str, Kind]:
        """The shard at which it is to be tried, and its kind. The pool's lock is held."""

    @abstractmethod
    def resolve(self, portion: Portion[Task]) -> None:
        """Try a portion, put off what has failed, and drop items that are done. No lock is held."""


class RetryPool(Generic[Key, Item, Task]):
    """Items that are not done, under their keys, and the threads that try their tasks.

    Who reads or changes items beside these threads holds `lock`. `name` is that of the threads;
    `bug_event` is what the log calls it when trying has met a bug that the resolver let through.
    """

    def __init__(
        self, resolver: Resolver[Item, Task], limits: Limits, *, name: str, bug_event: str
    ) -> None:
        self._resolver = resolver
        self._limits = limits
        self._bug_event = bug_event
        self._items: dict[Key, Item] = {}
        self._busy: Counter[str] = Counter()
        # The shards at which a portion waits for locks.
        self._waiting: set[str] = set()
        self.lock = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True)
            for i in range(limits.threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        with self.lock:
            self._stopping = True
            self.lock.notify_all()
        deadline = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    # --- items ------------------------------------------------------------------------------

    def add(
        self, items: Sequence[tuple[Key, Item]], join: Callable[[Item, Item], None]
    ) -> list[Item]:
        """Take items; gives those that stand under their keys now. Where one stands already it
        stays, and `join` is called, under the lock, with it and the one that has come.
        """
        with self.lock:
            kept = [self._items.setdefault(key, item) for key, item in items]
            for (_, item), known in zip(items, kept, strict=True):
                if known is not item:
                    join(known, item)
            self.lock.notify_all()
        return kept

    def drop(self, key: Key, item: Item) -> bool:
        """Forget an item that is done, while its portion is under way: who waits for it is woken
        when that is given back. Says whether it was here; another one under its key stays.
        """
        with self.lock:
            is_here = self._items.get(key) is item
            if is_here:
                del self._items[key]
            return is_here

    def hurry(self, is_meant: Callable[[Item], bool]) -> None:
        """Try these items at once, however long the next pause was to be."""
        with self.lock:
            for item in filter(is_meant, self._items.values()):
                for task in self._resolver.tasks_of(item):
                    task.not_before = 0.0
            self.lock.notify_all()

    def unfinished(self) -> list[Item]:
        with self.lock:
            return list(self._items.values())

    def wait_for(self, done: Callable[[list[Item]], bool], deadline: float) -> bool:
        """Wait until `done` says yes to what is unfinished, or the deadline."""
        with self.lock:
            return self.lock.wait_for(
                lambda: done(list(self._items.values())), max(deadline - time.monotonic(), 0)
            )

    # --- portions ---------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopping:
            try:
                self._work_on()
            except Exception:
                # A thread that ends would leave its part of the work undone for ever.
                log.exception("trying again met a bug", extra={"event": self._bug_event})
                time.sleep(_AFTER_BUG_S)

    def _work_on(self) -> None:
        while portion := self._next():
            try:
                self._resolver.resolve(portion)
            finally:
                self.give_back(portion)

    def _next(self) -> Portion[Task] | None:
        """Wait for something whose time has come; None when the pool stops."""
        with self.lock:
            while not self._stopping:
                portion, pause_s = self.take(time.monotonic())
                if portion:
                    return portion
                self.lock.wait(pause_s)
        return None

    def take(self, now: float) -> tuple[Portion[Task] | None, float | None]:
        """What to try next, under way until it is given back; if nothing, in how many seconds
        something is due, or None.
        """
        with self.lock:
            due, later = self._look(now)
            if not due:
                return None, None if later is None else later - now
            shard, kind = min(due, key=lambda spot: self._turn(spot, due[spot]))
            tasks = due[shard, kind][: self._limits.portion]
            self._busy[shard] += 1
            if kind.waits:
                self._waiting.add(shard)
            for task in tasks:
                task.is_running = True
            return Portion(shard, kind, tasks), None

    def give_back(self, portion: Portion[Task]) -> None:
        """A portion is under way no more."""
        with self.lock:
            self._busy[portion.shard] -= 1
            if portion.kind.waits:
                self._waiting.discard(portion.shard)
            for task in portion.tasks:
                task.is_running = False
            self.lock.notify_all()

    def _look(self, now: float) -> tuple[dict[tuple[str, Kind], list[Task]], float | None]:
        """What is due and has room, by shard and kind; and when the next task will be due."""
        due: dict[tuple[str, Kind], list[Task]] = defaultdict(list)
        later: float | None = None
        for item in self._items.values():
            for task in self._resolver.tasks_of(item):
                if task.is_running:
                    continue
                if task.not_before > now:
                    later = min(later or task.not_before, task.not_before)
                    continue
                shard, kind = self._resolver.spot_of(task)
                if self._has_room(shard, kind):
                    due[shard, kind].append(task)
        return due, later

    def _has_room(self, shard: str, kind: Kind) -> bool:
        if self._busy[shard] >= self._limits.at_shard:
            return False
        may_wait = shard not in self._waiting and len(self._waiting) < self._limits.waiting
        return may_wait or not kind.waits

    def _turn(self, spot: tuple[str, Kind], tasks: list[Task]) -> tuple[int, int, float]:
        """The least is tried first: at the shard with the fewest at work on it, so that one that
        hangs is no one's only hope.
        """
        shard, kind = spot
        return self._busy[shard], kind.rank, min(task.not_before for task in tasks)
