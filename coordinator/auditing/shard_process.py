"""The process or thread in which the audit of one shard runs.

Python checks entries on one core; so each shard has a process of its own, if there is much to read.
The parent pulls pages: of what is wrong, and of what must be compared across shards.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from coordinator.auditing.places import Place
from coordinator.auditing.shard_audit import ShardAudit
from shard_client.shard_map import ShardMap

P = ParamSpec("P")
T = TypeVar("T")

# Of the process or thread that does the work of one shard.
_mine = threading.local()


def _make(*arguments: Any) -> None:
    _mine.audit = ShardAudit(*arguments)
    parent = parent_process()
    if parent is None or threading.current_thread() is not threading.main_thread():
        return
    # Ctrl-C is the parent's, and without a parent there is nothing to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _call(method: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    return method(_mine.audit, *arguments)


def _stream(method: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    _mine.stream = method(_mine.audit, *arguments)


def _next() -> Any:
    return next(_mine.stream, None)


class ShardAuditor:
    """A ShardAudit in a process of its own, or in a thread, where there is little to read."""

    def __init__(
        self,
        place: Place,
        shard_map: ShardMap,
        key: bytes,
        anchors: Path | None,
        *,
        apart: bool,
    ) -> None:
        self.shard = place.shard
        arguments = (place, shard_map, key, anchors)
        self._executor: Executor = (
            ProcessPoolExecutor(1, get_context("spawn"), _make, arguments)
            if apart
            else ThreadPoolExecutor(1, "audit", _make, arguments)
        )

    def call(
        self, method: Callable[Concatenate[ShardAudit, P], T], *arguments: P.args, **_: P.kwargs
    ) -> "Future[T]":
        """Begin one call."""
        return self._executor.submit(_call, method, arguments)

    def pages(
        self,
        method: Callable[Concatenate[ShardAudit, P], Iterator[T]],
        *arguments: P.args,
        **_: P.kwargs,
    ) -> "Pages[T]":
        """Begin a stream; one at a time."""
        self._executor.submit(_stream, method, arguments)
        return Pages(self._executor)

    def close(self) -> None:
        self._executor.submit(_call, ShardAudit.close, ())
        self._executor.shutdown()


class Pages(Iterator[T]):
    """The pages of a stream. The next one is made while this one is looked at."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.ahead: Future[T | None] = executor.submit(_next)

    def __next__(self) -> T:
        page = self.ahead.result()
        if page is None:
            raise StopIteration
        self.ahead = self._executor.submit(_next)
        return page
