"""The shards of one group: a branch on each, asked all at once."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from coordinator.shards import Shards
from shard_client.branch import Branch
from shard_client.connection import Reply
from shard_client.errors import ShardError
from shard_client.shard import Shard
from shard_client.xid import Gtrid

T = TypeVar("T")


class Participants:
    """The branches of a group. One that fails is dropped, and `lost` says why; its connection is
    closed, so that the server rolls back what was not prepared.
    """

    def __init__(self, shards: Shards, gtrid: Gtrid) -> None:
        self._shards = shards
        self._gtrid = gtrid
        self.branches: dict[str, Branch] = {}
        # As they were when the connections were taken: the map may have changed since.
        self._held: dict[str, Shard] = {}
        self.lost: dict[str, ShardError] = {}

    def open(self, names: Iterable[str], deadline: float) -> None:
        """Take a connection to each of these shards; nothing is sent yet."""
        for name in names:
            try:
                shard = self._shards[name]
                connection = shard.take(deadline)
            except ShardError as error:
                self._lose(name, error)
                continue
            self._held[name] = shard
            is_local = name == self._gtrid.home
            self.branches[name] = Branch(connection, str(self._gtrid), is_local=is_local)

    def ask(self, names: Iterable[str], call: Callable[[Branch], Reply[T]]) -> dict[str, T]:
        """Send a packet to each of these shards, then read all answers; those of shards that are
        lost, now or before, are missing.
        """
        replies: dict[str, Reply[T]] = {}
        answers: dict[str, T] = {}
        for name in names:
            branch = self.branches.get(name)
            if branch is None:
                continue
            try:
                replies[name] = call(branch)
            except ShardError as error:
                self._lose(name, error)
        for name, reply in replies.items():
            try:
                answers[name] = reply.get()
            except ShardError as error:
                self._lose(name, error)
        return answers

    def release(self, names: Iterable[str], deadline: float) -> None:
        """Roll back branches on which nothing is to be written, and let them go."""
        for name in self.ask(list(names), lambda branch: branch.roll_back(deadline)):
            self._held[name].give(self.branches.pop(name).connection)

    def close(self) -> None:
        """Give all connections back."""
        for name, branch in self.branches.items():
            self._held[name].give(branch.connection)
        self.branches.clear()

    def _lose(self, name: str, error: ShardError) -> None:
        self.lost[name] = error
        branch = self.branches.pop(name, None)
        if branch:
            branch.connection.close()
            self._held[name].give(branch.connection)
        self._shards.note(error)
