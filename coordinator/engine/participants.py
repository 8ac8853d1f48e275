"""The shards of one group: a branch on each, asked all at once."""

import select
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics
from coordinator.telemetry.tracing import GroupTrace
from shard_client.branch import Branch
from shard_client.connection import Reply
from shard_client.errors import Hurried, ShardError
from shard_client.node import SLOW_S
from shard_client.shard import Shard
from shard_client.xid import Gtrid

T = TypeVar("T")
# A Branch takes part in two-phase commit; a Visit is a local transaction of its own on each shard.
B = TypeVar("B", bound=Branch)

# After so long without a sign of any of them, answers are waited for one by one. But others keep no
# locks for one that is slow as long as nothing is lost by going on without it.
_SILENCE_MS = round(SLOW_S * 1000)
_MAY_GO_ON_WITHOUT = ("lock",)
# The phase of a group in which each call is made.
_PHASES = {
    "open": "locking",
    "lock": "locking",
    "enter": "locking",
    "leave": "writing",
    "write": "preparing",
    "write_alone": "writing",
    "decide": "deciding",
    "commit": "committing",
    "roll_back": "aborting",
}


class Participants(Generic[B]):
    """The branches of a group. One that fails is dropped, and `lost` says why; its connection is
    closed, so that the server rolls back what was not prepared.
    """

    def __init__(
        self,
        shards: Shards,
        gtrid: Gtrid,
        metrics: Metrics,
        trace: GroupTrace,
        kind: type[B] = Branch,  # type: ignore[assignment]
    ) -> None:
        self._shards = shards
        self._gtrid = gtrid
        self._metrics = metrics
        self._trace = trace
        # When the packet that takes the locks was sent.
        self._locked_at: dict[str, float] = {}
        self._kind = kind
        self.branches: dict[str, B] = {}
        # As they were when the connections were taken: the map may have changed since.
        self._held: dict[str, Shard] = {}
        self.lost: dict[str, ShardError] = {}

    def open(self, names: Iterable[str], deadline: float) -> None:
        """Take a connection to each of these shards; nothing is sent yet."""
        for name in names:
            began = time.monotonic()
            try:
                shard = self._shards[name]
                connection = shard.take(deadline)
            except ShardError as error:
                self._lose(name, error, "open", began)
                continue
            self._held[name] = shard
            self.branches[name] = self._kind(
                connection, str(self._gtrid), is_local=self._is_local(name)
            )

    def _is_local(self, name: str) -> bool:
        return self._kind is not Branch or name == self._gtrid.home

    def ask(
        self,
        names: Iterable[str],
        call: Callable[[B], Reply[T]],
        what: str,
        *,
        releases: bool = False,
    ) -> dict[str, T]:
        """Send a packet to each of these shards, then read all answers; those of shards that are
        lost, now or before, are missing.

        `what` names the call for the metrics; one that `releases` ends the branch and its locks.
        """
        replies: dict[str, Reply[T]] = {}
        sent: dict[str, float] = {}
        answers: dict[str, T] = {}
        for name in names:
            branch = self.branches.get(name)
            if branch is None:
                continue
            sent[name] = time.monotonic()
            self._locked_at.setdefault(name, sent[name])
            try:
                replies[name] = call(branch)
            except ShardError as error:
                self._lose(name, error, what, sent[name])
        for name, is_late in self._as_they_come(replies):
            if is_late and answers and what in _MAY_GO_ON_WITHOUT:
                late = Hurried(name, "it is slow to answer, and others do not wait for it")
                self._lose(name, late, what, sent[name])
                continue
            try:
                answers[name] = replies[name].get()
            except ShardError as error:
                self._lose(name, error, what, sent[name])
                continue
            now = time.monotonic()
            self._metrics.called(name, what, now - sent[name])
            self._trace.called(name, what, sent[name])
            if releases:
                self._metrics.released(self._role(name), name, now - self._locked_at[name])
        return answers

    def waited(self) -> None:
        """A lock that was waited for is had: only from now on do others wait for it."""
        self._locked_at = dict.fromkeys(self._locked_at, time.monotonic())

    def note_in(self, trace: GroupTrace) -> None:
        """What is called from now on is part of this trace."""
        self._trace = trace

    def _role(self, name: str) -> str:
        """What a branch is to its group, for the metrics."""
        if self._kind is not Branch:
            return "visit"
        return "home" if name == self._gtrid.home else "remote"

    def _as_they_come(self, names: Iterable[str]) -> Iterator[tuple[str, bool]]:
        """As their answers arrive, so that a slow shard does not make others look slow; and of
        which there was no sign for some time.
        """
        waiting: dict[int, str] = {}
        poller = select.poll()
        for name in names:
            connection = self.branches[name].connection
            if not connection.is_open:
                yield name, False
                continue
            waiting[connection.fileno()] = name
            poller.register(connection.fileno(), select.POLLIN)
        is_lone = len(waiting) < 2
        while waiting and not is_lone and (ready := poller.poll(_SILENCE_MS)):
            for number, _ in ready:
                poller.unregister(number)
                yield waiting.pop(number), False
        while waiting:
            number, name = next(iter(waiting.items()))
            poller.unregister(number)
            del waiting[number]
            yield name, not is_lone
            # While that one was read others may have come.
            for number, _ in poller.poll(0):
                poller.unregister(number)
                yield waiting.pop(number), False

    def release(self, names: Iterable[str], timeout_s: float) -> None:
        """Roll back branches on which nothing is to be written, and let them go. Each may take so
        long.
        """

        def roll_back(branch: B) -> Reply[None]:
            return branch.roll_back(time.monotonic() + timeout_s)

        done = self.ask(list(names), roll_back, "roll_back", releases=True)
        for name in done:
            self._held[name].give(self.branches.pop(name).connection)

    def leave_out(self, error: ShardError) -> None:
        """Go on without a shard, because of what was found on it; it rolls back."""
        self._lose(error.shard, error, "enter", time.monotonic())

    @contextmanager
    def used(self) -> Iterator[None]:
        """For a block, after which all connections are given back. What it raises closes them: an
        answer may be on its way still, or a transaction open.
        """
        try:
            yield
        except BaseException:
            for branch in self.branches.values():
                branch.connection.close()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Give all connections back."""
        for name, branch in self.branches.items():
            self._held[name].give(branch.connection)
        self.branches.clear()

    def _lose(self, name: str, error: ShardError, what: str, began: float) -> None:
        self._metrics.failed(error.code, _PHASES[what])
        self._trace.called(name, what, began, error)
        # Without it the group with all its rows would be a circle, through the frames.
        self.lost[name] = error.with_traceback(None)
        branch = self.branches.pop(name, None)
        if branch:
            branch.connection.close()
            self._held[name].give(branch.connection)
        self._shards.note(error)
