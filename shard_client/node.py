"""What a shard promises to a coordinator, whatever kind of shard it is.

A shard holds accounts, their entries, the transfers that start on it, the decisions of groups whose
home it is, and how far transfers by TC/C and Saga are. It takes part in a group with a
`GroupBranch`, in TC/C and Saga with a `LocalTransaction`, in a read at one moment with a
`ReadHold`; everything else is asked with `ShardCalls`, each call by itself. A shard that decides
transfers itself is a `Decider` for those between its own accounts, and takes part in no groups.

    a call returns                what it says has happened, or is so, and stays so whatever crashes
    TryAgain, DuplicateRow        nothing of it has happened; locks or ids collided with others
    ShardUnavailable, ClockAhead  nothing of it has happened, and it would not now
    StatementRefused, TooLarge    nothing of it has happened; with other, or fewer, rows it might
    ConnectionLost                nobody knows whether it has happened

After any of these a session is over: the shard forgets what it had not prepared. A method says so
where more, or less, is certain. `errors.py` has the tree. A deadline is a time of
`time.monotonic()`, for all of a call; what has not been answered by then is `ConnectionLost`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol, TypeVar

from ledger.columns import Columns, NumberedColumns
from ledger.model import Entry, Refusal, Status, Transfer
from shard_client.columns import DecidedTogether, Packed
from shard_client.errors import ALL_SHARDS, NoList, ShardError
from shard_client.records import (
    AccountState,
    BalanceThen,
    Decided,
    Decision,
    DecisionOutcome,
    Found,
    Held,
    LocalWrites,
    Locked,
    Look,
    PhaseRow,
    PreparedBranch,
    Since,
    Statement,
    StepRow,
    StoredTransfer,
    Terms,
    TrialBalance,
    Undecided,
    Unfinished,
    Wanted,
    Writes,
)

T_co = TypeVar("T_co", covariant=True)

# An answer that is not there after so long is overdue.
SLOW_S = 0.5
# So long a shard waits for one lock, at most: a second, by a watch that it looks at once a second.
LOCK_WAIT_S = 2.0


class Reply(Protocol[T_co]):
    """The answer to a call that is on its way; read it once. One thread can so have calls under way
    on many shards; `waiting.py` says which of them has answered.
    """

    def get(self) -> T_co:
        """Wait for the answer, until the call's deadline. Raises ShardError; the session is over
        then.
        """


# --- sessions -------------------------------------------------------------------------------


class Session(ABC):
    """One transaction on one shard, for one thread. It begins with its first call. One call at a
    time is on its way; each raises ShardError if it cannot be sent, or else its Reply does.

    Who has begun a session ends it, with `give_back` or `abandon`.
    """

    shard: str
    gtrid: str

    @abstractmethod
    def wait_for(self, accounts: Iterable[str], deadline: float) -> Reply[None]:
        """Lock these accounts, waiting in line for each for up to LOCK_WAIT_S; TryAgain if one of
        them stays locked. Deadlocks are kept away by the caller, who waits in one global order of
        (shard, account).
        """

    @abstractmethod
    def existing(self, accounts: Iterable[str], deadline: float) -> Reply[set[str]]:
        """Which of these accounts exist, locked by somebody or not."""

    @abstractmethod
    def roll_back(self, deadline: float) -> Reply[None]:
        """Let go of all locks; nothing has happened here, also if it was prepared. If the answer is
        lost the shard lets go by itself, but not of what is prepared: that `ShardCalls.finish` has
        to roll back.
        """

    @abstractmethod
    def fileno(self) -> int | None:
        """The number of a file that can be read from when an answer begins to arrive; None: there
        is nothing to wait for, for it is there, or will never be.
        """

    @abstractmethod
    def give_back(self) -> None:
        """The session has come to its end, by an answer that says so or with no call at all: what
        it was made of may serve another one.
        """

    @abstractmethod
    def abandon(self) -> None:
        """Give it up wherever it is: the shard undoes what was not prepared, soon. May be repeated,
        and after `give_back` does nothing.
        """


class GroupBranch(Session):
    """The part of one shard in a group by two-phase commit: lock, write, then either home's
    `decide` and the others' `commit`, or `roll_back`.

    The home of a group, and a group on one shard, work in a local transaction (`is_local`); the
    other shards prepare.
    """

    is_local: bool
    is_prepared: bool

    @abstractmethod
    def lock(
        self, accounts: Iterable[str], transfers: Iterable[str], deadline: float
    ) -> Reply[Locked]:
        """Lock what is free of these accounts, without waiting, and look up these transfer ids.

        The slots that the shard owns come with it: for as long as the branch is open none of them
        is given away. What is found of transfers is seen, not proven: see
        `ShardCalls.find_transfers`.
        """

    @abstractmethod
    def write(self, writes: Writes, deadline: float) -> Reply[None]:
        """Write all of a group's rows; a branch that is not local also votes, by preparing.

        All of it or nothing. When this is answered by a branch that is not local, its part survives
        any crash, and only `commit`, `roll_back` or `ShardCalls.finish` end it. ConnectionLost
        leaves open whether it is prepared.
        """

    @abstractmethod
    def write_unprepared(self, writes: Writes, deadline: float) -> Reply[None]:
        """Write all of a group's rows on the only shard that it touches; nobody needs a vote."""

    @abstractmethod
    def decide(self, branches: Iterable[str], now: int, deadline: float) -> Reply[None]:
        """On the home: note that the group is committed, with its rows here. This is the commit
        point; `branches` are the group's other shards.

        A ShardError with `statement` 0 means that it has not happened, DuplicateRow among them:
        somebody has had it aborted. Any other leaves open whether it has; `ShardCalls.arbitrate`
        says.
        """

    @abstractmethod
    def commit_alone(self, deadline: float) -> Reply[None]:
        """Commit the only shard of a group. Any error leaves open whether it has happened."""

    @abstractmethod
    def commit(self, deadline: float) -> Reply[None]:
        """Commit a prepared branch. Any error leaves open whether it has happened; `finish` may
        repeat it, whoever calls it.
        """


class LocalTransaction(Session):
    """One local transaction on one shard that takes many transfers by TC/C and Saga a step further:
    `lock`, unless nothing has to be locked or looked up, then `commit`.
    """

    @abstractmethod
    def lock(self, wanted: Wanted, deadline: float) -> Reply[Found]:
        """Lock and look up. An account that is locked by somebody else is left out; `wait_for` it
        before, if it is not to be. Phases and steps are waited for.
        """

    @abstractmethod
    def commit(self, writes: LocalWrites, deadline: float) -> Reply[None]:
        """Write everything and commit; nothing of it, unless every row was found as it is said to
        be (TryAgain; rule R8). What was only read is then as safe as what is written (rule R2).

        ConnectionLost leaves open whether it has happened. It may be repeated: what is there
        already is a DuplicateRow or a TryAgain, and changes nothing.
        """


class ReadHold(ABC):
    """Accounts of one shard that are locked against change while others are read (rule R10)."""

    @abstractmethod
    def lock(self, names: Sequence[str], deadline: float, *, waits: bool) -> Reply[Held]:
        """Lock these accounts, and read them and the unfinished transfers from them.

        Without `waits` nothing is waited for, and an account that is locked is left out. With it
        each is waited for, for up to LOCK_WAIT_S (TryAgain). Raises SlotMoved.
        """

    @abstractmethod
    def read_accounts(self, names: Sequence[str], deadline: float) -> dict[str, AccountState]:
        """As `ShardCalls.read_accounts`."""

    @abstractmethod
    def phases_to(self, names: Iterable[str], deadline: float) -> list[PhaseRow]:
        """As `ShardCalls.phases_to`."""

    @abstractmethod
    def read_steps(self, ids: Iterable[str], deadline: float) -> list[StepRow]:
        """As `ShardCalls.read_steps`."""

    @abstractmethod
    def release(self, deadline: float) -> Reply[None]:
        """Let go. The answer proves that the locks held until now, and that what was read under
        them is there for good; without it nothing that was read counts.
        """

    @abstractmethod
    def give_back(self) -> None:
        """As `Session.give_back`."""

    @abstractmethod
    def abandon(self) -> None:
        """As `Session.abandon`."""


class Decider(ABC):
    """Decides transfers between accounts of its own, by the rules of `ledger.decide`."""

    @abstractmethod
    def decide(self, transfers: Sequence[Transfer]) -> "Future[list[Decided | ShardError]]":
        """Decide these, whose accounts are all here, in their order; each by itself, all of it or
        nothing, and once for its id. Nothing is waited for.

        The future has, for each, what became of it, once that survives any crash; or an error that
        says that it was not taken. It raises ConnectionLost if nobody knows: to send the same again
        gives what became of it. Whatever is raised at once, nothing has happened.
        """

    @abstractmethod
    def pack(
        self, columns: Columns | NumberedColumns, protocol: str, now: int, deadline: float
    ) -> Packed:
        """Transfers that came as columns, as they are sent; those that name no protocol go by this
        one. They were asked for at `now`, a stamp. Nothing is sent yet. Where accounts are named by
        numbers the shard may be asked for their ids; raises ShardError.
        """

    @abstractmethod
    def decide_packed(self, packed: Packed) -> "Future[DecidedTogether]":
        """The same as `decide`, for transfers that were packed here."""


# --- calls ----------------------------------------------------------------------------------


def refuse_since(since: Since | None) -> None:
    """Of tables nobody can say which frame they have seen. Raises NoList."""
    if since is not None:
        raise NoList(
            ALL_SHARDS, f"frame {since.seq} was to be seen, and these shards keep no list of frames"
        )


class ShardCalls(ABC):
    """What can be asked of a shard by itself. Every call raises ShardError and may be repeated."""

    # --- transfers --------------------------------------------------------------------------

    @abstractmethod
    def find_transfers(
        self, ids: Sequence[str], deadline: float
    ) -> dict[str, StoredTransfer | Undecided]:
        """Look for transfers, also in branches that are not finished. Nothing is waited for.

        One that is not in the answer is held by no transaction on this shard, finished or not, at
        this moment. What is returned as stored is there for good.
        """

    # --- accounts ---------------------------------------------------------------------------

    @abstractmethod
    def open_accounts(
        self, terms: Sequence[Terms], now: int, deadline: float
    ) -> tuple[dict[str, AccountState], set[str]]:
        """Open those of these accounts that do not exist, in one transaction.

        Gives all of them as they are then, and the ids of the new ones. Raises TryAgain or
        DuplicateRow when somebody else is opening the same ones, SlotMoved, ClockAhead.
        """

    @abstractmethod
    def change_status(
        self, account: str, status: Status, now: int, deadline: float
    ) -> AccountState | Refusal | None:
        """Change an account's status; None if it does not exist, a Refusal if the rules forbid it.
        Raises TryAgain if it is busy, SlotMoved, ClockAhead.
        """

    # Reads are at least as new as all that was answered before. With `since` it is enough that
    # they have seen that frame: they wait for it, and raise NotYet, NotInList, or NoList.

    @abstractmethod
    def read_accounts(
        self, names: Sequence[str], deadline: float, since: Since | None = None
    ) -> dict[str, AccountState]:
        """Those of these accounts that exist, as last committed. Raises SlotMoved, NotSeen."""

    @abstractmethod
    def entries(
        self,
        account: str,
        after: int | None,
        limit: int,
        deadline: float,
        *,
        newest_first: bool,
        since: Since | None = None,
    ) -> Statement | None:
        """At most `limit` entries of an account that come after entry number `after`; None if it
        does not exist. Raises SlotMoved, NotSeen.
        """

    @abstractmethod
    def balance_at(
        self, account: str, at: int, deadline: float, since: Since | None = None
    ) -> BalanceThen | None:
        """The account as it is, and its balance as it was at a stamp: for good, for no later entry
        will be stamped so early. None if the account does not exist. Raises NotSeen.

        Raises TryAgain if that cannot be promised because a group is at work on the account,
        ClockAhead if that time is not there yet, or what the account had then cannot be told
        because of entries that are stamped ahead of the clock; SlotMoved.
        """

    def trial_balance(
        self, at: int | None, deadline: float, since: Since | None = None
    ) -> TrialBalance:
        """What all accounts had at a stamp, for good; None: now. Raises as `balance_at` does, and
        NoList where there is none.
        """
        raise NoList(ALL_SHARDS, "these shards keep no list, of which all moments could be told")

    @abstractmethod
    def entry_of(self, account: str, transfer: str, stamp: int, deadline: float) -> Entry | None:
        """The entry of a transfer that was stamped so, if it is committed; it is there for good.
        Raises SlotMoved.
        """

    @abstractmethod
    def entries_of(
        self, account: str, transfer: str, since: Iterable[int], deadline: float
    ) -> list[Entry]:
        """The entries of a transfer on an account that were made soon after one of these stamps,
        for good. Raises SlotMoved.
        """

    @abstractmethod
    def wait_until_free(self, account: str, deadline: float) -> None:
        """Wait, for up to LOCK_WAIT_S, until nobody has an account locked against readers; it may
        be locked again when this returns. Raises TryAgain if it stays so, SlotMoved.
        """

    # --- what is in doubt -------------------------------------------------------------------

    @abstractmethod
    def list_prepared(self, deadline: float) -> list[PreparedBranch]:
        """The branches of the cluster's groups that are prepared on this shard."""

    @abstractmethod
    def arbitrate(
        self, gtrids: Iterable[str], now: int, deadline: float
    ) -> dict[str, DecisionOutcome]:
        """On their home: settle what became of groups. What is asked for is there, for good, when
        this returns: the decision that was there before, or *aborted* (presumed abort, rule R1).

        Waits for a transaction that is about to decide. Whatever it raises, nothing is known.
        """

    @abstractmethod
    def read_decisions(self, gtrids: Iterable[str], deadline: float) -> dict[str, DecisionOutcome]:
        """On their home: the decisions of groups as they stand. What is there is so for good, and
        what is not there never was or was removed, for good (rule R2).
        """

    @abstractmethod
    def finish(self, branches: Iterable[tuple[str, DecisionOutcome]], deadline: float) -> None:
        """Commit or roll back prepared branches, by gtrid, on the word of their decisions.

        Raises UnknownBranch if the shard does not know one: its `statement` counts those that are
        finished before it, those behind it were not tried, and `branch_status` tells why. Other
        ShardErrors leave open which are finished.
        """

    @abstractmethod
    def branch_status(self, gtrids: Iterable[str], deadline: float) -> dict[str, Look]:
        """What this shard shows of branches that were to be finished and are unknown (rule R6).
        COMMITTED is for good.
        """

    @abstractmethod
    def end_sessions_of(self, gtrids: Iterable[str], deadline: float) -> bool:
        """End the sessions that keep these prepared branches to themselves, so that `finish` finds
        them; says whether there were any. Where a branch does not stay with its session there are
        none.
        """

    # --- TC/C and Saga ----------------------------------------------------------------------

    @abstractmethod
    def list_unfinished(self, deadline: float) -> list[Unfinished]:
        """What the phase table has of the cluster's groups, group by group, as last committed."""

    @abstractmethod
    def read_phases(self, gtrids: Iterable[str], timeout_s: float) -> list[PhaseRow]:
        """The unfinished transfers of these groups, for good. Each page of the table may take
        `timeout_s`.
        """

    @abstractmethod
    def phases_of(self, ids: Iterable[str], deadline: float) -> list[PhaseRow]:
        """The unfinished attempts at these transfers, as last committed."""

    @abstractmethod
    def phases_to(self, names: Iterable[str], deadline: float) -> list[PhaseRow]:
        """The unfinished transfers from this shard to these accounts, as last committed."""

    @abstractmethod
    def read_steps(self, ids: Iterable[str], deadline: float) -> list[StepRow]:
        """How far transfers are on this shard, their destination's, as last committed."""

    # --- purge ------------------------------------------------------------------------------

    @abstractmethod
    def some_decisions(self, after_gtrid: str, limit: int, deadline: float) -> list[Decision]:
        """The next decisions in the order of their names."""

    @abstractmethod
    def drop_decisions(self, gtrids: Iterable[str], deadline: float) -> None:
        """Remove decisions. Which may go, the caller knows, who sees all shards (rule R7)."""

    @abstractmethod
    def marked(self, gtrids: Iterable[str], deadline: float) -> set[str]:
        """Those of these groups whose branch on this shard has committed, for good."""

    @abstractmethod
    def some_markers(self, after_gtrid: str, limit: int, deadline: float) -> list[str]:
        """The next groups, in the order of their names, whose branch has committed here."""

    @abstractmethod
    def drop_markers(self, gtrids: Iterable[str], deadline: float) -> None:
        """Remove the proof that these branches have committed here (rule R7)."""

    @abstractmethod
    def running(self, deadline: float) -> frozenset[tuple[int, str]] | None:
        """The transactions that are open now and could still decide: (session, start). None: they
        cannot be told just now.
        """


# --- the shard ------------------------------------------------------------------------------


class PoolState(NamedTuple):
    """Connections that a process has to a shard for one purpose: at most, in use, open and idle."""

    size: int
    busy: int
    idle: int


class ShardNode(ABC):
    """One shard, as a process holds it.

    It starts as unavailable; `admit` makes it available, a failure takes that back. While it is
    unavailable every call fails at once with ShardUnavailable, so that a dead shard costs nobody
    time. What a call raises is told to whoever has made the node, once, but for `purge`.

    Each purpose has connections of its own, so that many readers keep neither groups nor recovery
    waiting. NoneFree is raised if none becomes free in time.
    """

    id: str
    # For services and operators; for recovery; for the purge, whose failures say nothing of a
    # shard: that to tidy up takes long is no reason to take it for lost.
    reads: ShardCalls
    recovery: ShardCalls
    purge: ShardCalls
    # None: it is available.
    unavailable_because: str | None
    # By `time.monotonic()`.
    unavailable_since: float
    # Something happened to a call for which the shard may be to blame, or not.
    is_doubted: bool
    # By how much its clock shows more than this machine's monotonic one, as last read.
    clock_offset_s: float | None
    # None: it decides nothing itself, and its transfers go in groups.
    decider: Decider | None = None

    @property
    def is_available(self) -> bool:
        return self.unavailable_because is None

    # --- sessions ---------------------------------------------------------------------------

    @abstractmethod
    def branch(self, gtrid: str, deadline: float, *, is_local: bool) -> GroupBranch:
        """The session of a group here; the deadline is for having one. Nothing is sent yet."""

    @abstractmethod
    def local_transaction(self, gtrid: str, deadline: float) -> LocalTransaction:
        """The same for a step of TC/C or Saga."""

    @abstractmethod
    def hold(self, deadline: float) -> ReadHold:
        """The same for a read of many accounts at one moment."""

    # --- whether it can be used -------------------------------------------------------------

    @property
    @abstractmethod
    def is_slow(self) -> bool:
        """Whether an answer to a group is overdue, or was a moment ago."""

    @property
    @abstractmethod
    def version(self) -> str | None:
        """Of its software, as last checked."""

    @property
    @abstractmethod
    def weaknesses(self) -> list[str]:
        """The settings by which it may lose what it has committed, as last checked."""

    @property
    @abstractmethod
    def pool_states(self) -> Mapping[str, PoolState]:
        """Its connections by purpose: groups, reads, recovery."""

    @abstractmethod
    def admit(self) -> None:
        """Check the shard from the ground up and, if it is good, use it; if it has failed often of
        late, it has to be good several times. Raises ShardError.
        """

    @abstractmethod
    def look(self) -> None:
        """Whether a shard that is in use, and doubted, does what transfers ask, and in time; if
        not, it is given up. Raises ShardError.
        """

    @abstractmethod
    def check_again(self) -> None:
        """Look whether a shard that is in use still is good, and give it up if it is not. Raises
        ShardError.
        """

    @abstractmethod
    def read_clock(self) -> None:
        """Look at its clock alone. Raises ShardError."""

    @abstractmethod
    def give_up(self, error: ShardError) -> None:
        """Use the shard no more until it is admitted again."""

    @abstractmethod
    def close(self) -> None:
        """Use it no more; sessions that are out end when they come back."""
