"""What both kinds of place offer: where a way runs, and the parts that faults are done to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lab.result import Deal
from lab.verdict import Moved

# What one shard holds of the accounts in all; None if the shard cannot be read now.
ReadSum = Callable[[], int | None]

# How long another client waits for a shard that it reads.
READ_TIMEOUT_S = 2.0


class Parts(Protocol):
    """Kills, freezes and starts parts by name: s1, s2, c1, c2, and a group's read side."""

    def kill(self, name: str) -> None: ...

    def freeze(self, name: str) -> None: ...

    def thaw(self, name: str) -> None: ...

    def start(self, name: str) -> None:
        """Start it if it does not run, without waiting for more."""

    def not_ready(self, name: str) -> str | None:
        """Why a part cannot be used; None if it can."""


class Place(Protocol):
    """Where a way runs."""

    @property
    def parts(self) -> Parts: ...

    @property
    def names(self) -> Sequence[str]:
        """Of the parts that faults may strike, in the order in which they are started again."""

    @property
    def urls(self) -> Sequence[str]:
        """Where its coordinators take transfers."""

    @property
    def can_read_at_once(self) -> bool:
        """Whether the coordinators tell all balances of one moment, and how long locks are held."""

    @property
    def versions(self) -> Mapping[str, str]:
        """What it is made of."""

    def shard_of(self, account: str) -> str:
        """Of two shards the one that has an account, or would have it: transfers go from accounts
        of the one to accounts of the other.
        """

    def fund(self, accounts: Sequence[str], each: int) -> None:
        """Open new accounts with so much money on each."""

    def readers(self, accounts: Sequence[str]) -> dict[str, ReadSum]:
        """For each shard, or for the group that has all, how another client reads, plainly, what
        the accounts hold there.
        """

    def balances(self, accounts: Sequence[str]) -> dict[str, int]:
        """What each account holds, when nothing is under way any more."""

    def unfinished(self) -> str | None:
        """What is still under way; None if nothing is."""

    def moved(self, accounts: Sequence[str]) -> Moved | None:
        """What each transfer has done; None if there is no record of it."""

    def violations(self, deals: Sequence[Deal]) -> list[str] | None:
        """What a look at every row finds wrong; None if there is no such look."""
