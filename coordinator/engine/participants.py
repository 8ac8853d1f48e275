"""The shards of one group: a branch on each, asked all at once."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics
from coordinator.telemetry.tracing import GroupTrace
from shard_client.errors import Hurried, ShardError
from shard_client.node import GroupBranch, LocalTransaction, Reply, Session, ShardNode
from shard_client.waiting import as_they_answer
from shard_client.xid import Gtrid

T = TypeVar("T")
S = TypeVar("S", bound=Session)

# Others keep no locks for a shard that is slow as long as nothing is lost by going on without it.
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


class Participants(ABC, Generic[S]):
    """The sessions of a group. One that fails is dropped, and `lost` says why; it is abandoned, so
    that its shard undoes what was not prepared.
    """

    def __init__(self, shards: Shards, gtrid: Gtrid, metrics: Metrics, trace: GroupTrace) -> None:
        self._shards = shards
        self._gtrid = gtrid
        self._metrics = metrics
        self._trace = trace
        # When the call that takes the locks was sent.
        self._locked_at: dict[str, float] = {}
        self.branches: dict[str, S] = {}
        self.lost: dict[str, ShardError] = {}

    @abstractmethod
    def _begin(self, shard: ShardNode, deadline: float) -> S:
        """A session on a shard. Raises ShardError."""

    @abstractmethod
    def _role(self, name: str) -> str:
        """What a session is to its group, for the metrics."""

    def open(self, names: Iterable[str], deadline: float) -> None:
        """Have a session on each of these shards; nothing is sent yet."""
        for name in names:
            began = time.monotonic()
            try:
                self.branches[name] = self._begin(self._shards[name], deadline)
            except ShardError as error:
                self._lose(name, error, "open", began)

    def ask(
        self,
        names: Iterable[str],
        call: Callable[[S], Reply[T]],
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
        for name, is_late in as_they_answer(replies, self.branches):
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

    def release(self, names: Iterable[str], timeout_s: float) -> None:
        """Roll back branches on which nothing is to be written, and let them go. Each may take so
        long.
        """

        def roll_back(branch: S) -> Reply[None]:
            return branch.roll_back(time.monotonic() + timeout_s)

        done = self.ask(list(names), roll_back, "roll_back", releases=True)
        for name in done:
            self.branches.pop(name).give_back()

    def leave_out(self, error: ShardError) -> None:
        """Go on without a shard, because of what was found on it; it rolls back."""
        self._lose(error.shard, error, "enter", time.monotonic())

    @contextmanager
    def used(self) -> Iterator[None]:
        """For a block, after which all sessions are given back. What it raises abandons them: an
        answer may be on its way still, or a transaction open.
        """
        try:
            yield
        except BaseException:
            self.abandon()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Give all sessions back."""
        for branch in self.branches.values():
            branch.give_back()
        self.branches.clear()

    def abandon(self) -> None:
        """Give all sessions up, wherever they are."""
        for branch in self.branches.values():
            branch.abandon()
        self.branches.clear()

    def _lose(self, name: str, error: ShardError, what: str, began: float) -> None:
        self._metrics.failed(error.code, _PHASES[what])
        self._trace.called(name, what, began, error)
        # Without it the group with all its rows would be a circle, through the frames.
        self.lost[name] = error.with_traceback(None)
        branch = self.branches.pop(name, None)
        if branch:
            branch.abandon()
        self._shards.note(error)


class GroupBranches(Participants[GroupBranch]):
    """Those of a group by two-phase commit."""

    def _begin(self, shard: ShardNode, deadline: float) -> GroupBranch:
        is_home = shard.id == self._gtrid.home
        return shard.branch(str(self._gtrid), deadline, is_local=is_home)

    def _role(self, name: str) -> str:
        return "home" if name == self._gtrid.home else "remote"


class LocalTransactions(Participants[LocalTransaction]):
    """Those of a group by TC/C or Saga: a local transaction on each shard, by itself."""

    def _begin(self, shard: ShardNode, deadline: float) -> LocalTransaction:
        return shard.local_transaction(str(self._gtrid), deadline)

    def _role(self, name: str) -> str:
        return "visit"
