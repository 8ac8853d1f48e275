"""What is asked of a ledger group by itself, as every shard is asked."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from coordinator.shards.group.decider import stored_transfer
from coordinator.shards.group.link import Link
from eventstore.client import Answered
from eventstore.commands import Packer
from eventstore.machine.refusals import closing_refusal
from eventstore.rows import Code
from eventstore.wire import questions as ask
from eventstore.wire.questions import (
    FIND_MAX,
    WHOLE_FRAME,
    Accounts,
    AccountsAre,
    At,
    BalanceAt,
    BalanceWas,
    Barrier,
    Dated,
    Entries,
    EntriesAre,
    EntriesOf,
    Find,
    Finding,
    Position,
    Reach,
    Reached,
)
from ledger.model import Entry, Refusal, Status
from shard_client.errors import (
    ClockAhead,
    ConnectionLost,
    NotInList,
    ShardError,
    StatementRefused,
    TryAgain,
)
from shard_client.node import ReadHold, Reply, ShardCalls
from shard_client.records import (
    AccountState,
    AsOf,
    BalanceThen,
    CurrencyTotals,
    Decision,
    DecisionOutcome,
    Held,
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
    clock_is_ahead,
)

T = TypeVar("T")

# Of a read's time, what is left for the answer when it has waited for a frame in vain: the read
# side looks twice a second who has waited for long enough.
_ANSWER_S = 1.0


class GroupCalls(ShardCalls):
    """See ShardCalls. `note` is told what the node raises.

    What reads rest on is durable, and at least as new as all that was answered before: the node
    says up to where its list is answerable, and the read side waits until it has seen that frame.
    """

    def __init__(self, link: Link, note: Callable[[ShardError], None]) -> None:
        self._link = link
        self._note = note

    # --- transfers ------------------------------------------------------------------------------

    def find_transfers(
        self, ids: Sequence[str], deadline: float
    ) -> dict[str, StoredTransfer | Undecided]:
        found: dict[str, StoredTransfer | Undecided] = {}
        for start in range(0, len(ids), FIND_MAX):
            question = Find(list(ids[start : start + FIND_MAX]))
            finding = self._noting(partial(self._link.ask_node, question, Finding, deadline))
            found |= {id_: stored_transfer(first) for id_, first in finding.found.items()}
        return found

    # --- accounts -------------------------------------------------------------------------------

    def open_accounts(
        self, terms: Sequence[Terms], now: int, deadline: float
    ) -> tuple[dict[str, AccountState], set[str]]:
        packer = Packer()
        for item in terms:
            packer.open(item.id, item.currency, item.overdraft_limit)
        answered = self._decide(packer, deadline)
        new = {
            terms[piece.first + index].id
            for piece in answered.pieces
            for index, code in enumerate(piece.outcomes.codes.tolist())
            if code == Code.DONE
        }
        names = [item.id for item in terms]
        return self._after(names, answered.pieces[-1].seq, deadline), new

    def change_status(
        self, account: str, status: Status, now: int, deadline: float
    ) -> AccountState | Refusal | None:
        (piece,) = self._decide(Packer().status(account, status), deadline).pieces
        code = int(piece.outcomes.codes[0])
        if code == Code.NO_ACCOUNT:
            return None
        if code == Code.NOT_EMPTY:
            # Nothing has happened, whether it can be said in which currency or not.
            found = self._accounts([account], piece.seq, deadline)[account]
            return closing_refusal(account, found.account.currency, piece.outcomes.details[0])
        return self._after([account], piece.seq, deadline)[account]

    def read_accounts(
        self, names: Sequence[str], deadline: float, since: Since | None = None
    ) -> dict[str, AccountState]:
        return self._accounts(names, self._to_see(since, deadline), deadline)

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
        seq = self._to_see(since, deadline)
        question = Entries(account, after, limit, newest_first, seq)
        found = self._link.ask_reads(question, EntriesAre, deadline)
        return None if found.entries is None else Statement(found.entries, _as_of(found.as_of))

    def balance_at(
        self, account: str, at: int, deadline: float, since: Since | None = None
    ) -> BalanceThen | None:
        # What is later than that time changes nothing of the answer, so `since` spares nothing.
        seq = max(self._past(at, deadline).seq, self._reached(since, deadline))
        was = self._link.ask_reads(BalanceAt(account, at, seq), BalanceWas, deadline)
        return BalanceThen(was.account, was.balance, _as_of(was.as_of)) if was.account else None

    def trial_balance(
        self, at: int | None, deadline: float, since: Since | None = None
    ) -> TrialBalance:
        if at is None:
            seq = self._to_see(since, deadline)
        else:
            seq = max(self._past(at, deadline).seq, self._reached(since, deadline))
        found = self._link.ask_reads(ask.TrialBalance(at, seq), ask.TrialBalanceIs, deadline)
        totals = [
            CurrencyTotals(
                each.currency,
                each.accounts,
                int(each.debits),
                int(each.credits),
                int(each.balances),
            )
            for each in found.currencies
        ]
        return TrialBalance(found.time_us, totals, _as_of(found.as_of))

    def entry_of(self, account: str, transfer: str, stamp: int, deadline: float) -> Entry | None:
        found = self.entries_of(account, transfer, [stamp], deadline)
        return next((entry for entry in found if entry.stamp == stamp), None)

    def entries_of(
        self, account: str, transfer: str, since: Iterable[int], deadline: float
    ) -> list[Entry]:
        question = EntriesOf(account, transfer, self._now(deadline).seq)
        return self._link.ask_reads(question, EntriesAre, deadline).entries or []

    def wait_until_free(self, account: str, deadline: float) -> None:
        """No account of a group is ever locked."""

    # --- what is in doubt: nothing, for a group takes part in no other group's commit -----------

    def list_prepared(self, deadline: float) -> list[PreparedBranch]:
        self._now(deadline)
        return []

    def arbitrate(
        self, gtrids: Iterable[str], now: int, deadline: float
    ) -> dict[str, DecisionOutcome]:
        raise self._no_home(gtrids)

    def read_decisions(self, gtrids: Iterable[str], deadline: float) -> dict[str, DecisionOutcome]:
        return {}

    def finish(self, branches: Iterable[tuple[str, DecisionOutcome]], deadline: float) -> None:
        raise self._no_home(gtrid for gtrid, _ in branches)

    def branch_status(self, gtrids: Iterable[str], deadline: float) -> dict[str, Look]:
        return dict.fromkeys(gtrids, Look.ABSENT)

    def end_sessions_of(self, gtrids: Iterable[str], deadline: float) -> bool:
        return False

    def _no_home(self, gtrids: Iterable[str]) -> StatementRefused:
        names = ", ".join(gtrids)
        text = f"it is a ledger group and has no part in two-phase commit, nor in {names}"
        return StatementRefused(self._link.shard, text)

    # --- TC/C and Saga --------------------------------------------------------------------------

    def list_unfinished(self, deadline: float) -> list[Unfinished]:
        return []

    def read_phases(self, gtrids: Iterable[str], timeout_s: float) -> list[PhaseRow]:
        return []

    def phases_of(self, ids: Iterable[str], deadline: float) -> list[PhaseRow]:
        return []

    def phases_to(self, names: Iterable[str], deadline: float) -> list[PhaseRow]:
        return []

    def read_steps(self, ids: Iterable[str], deadline: float) -> list[StepRow]:
        return []

    # --- purge: a list only grows ---------------------------------------------------------------

    def some_decisions(self, after_gtrid: str, limit: int, deadline: float) -> list[Decision]:
        return []

    def drop_decisions(self, gtrids: Iterable[str], deadline: float) -> None:
        """There are none."""

    def marked(self, gtrids: Iterable[str], deadline: float) -> set[str]:
        return set()

    def some_markers(self, after_gtrid: str, limit: int, deadline: float) -> list[str]:
        return []

    def drop_markers(self, gtrids: Iterable[str], deadline: float) -> None:
        """There are none."""

    def running(self, deadline: float) -> frozenset[tuple[int, str]] | None:
        return frozenset()

    # --- asking ---------------------------------------------------------------------------------

    def _now(self, deadline: float) -> At:
        return self._noting(lambda: self._link.answerable(deadline))

    def _past(self, at: int, deadline: float) -> At:
        """A frame behind a time. Raises ClockAhead if that has not passed."""
        now = self._now(deadline)
        if now.time_us <= at:
            # A time is past when an answerable frame is stamped later (rule E10).
            now = self._noting(lambda: self._link.ask_node(Barrier(), At, deadline))
        if now.time_us <= at:
            raise ClockAhead(self._link.shard, clock_is_ahead(at, now.time_us))
        return now

    def _to_see(self, since: Since | None, deadline: float) -> int:
        """The frame that a read is to have seen: the last one, unless an earlier one will do."""
        return self._now(deadline).seq if since is None else self._reached(since, deadline)

    def _reached(self, since: Since | None, deadline: float) -> int:
        """Wait until the read side has seen a frame of its list. Raises NotYet, NotInList."""
        if since is None:
            return 0
        index = WHOLE_FRAME if since.command is None else since.command
        wait_s = max(0.0, deadline - time.monotonic() - _ANSWER_S)
        question = Reach(Position(since.seq, index, since.check), wait_s)
        found = self._link.ask_reads(question, Reached, deadline)
        if not found.is_in_list:
            text = f"its list has another frame {since.seq} than the one that was to be seen"
            raise NotInList(self._link.shard, text)
        return since.seq

    def _accounts(
        self, names: Sequence[str], min_seq: int, deadline: float
    ) -> dict[str, AccountState]:
        found = self._link.ask_reads(Accounts(list(names), min_seq), AccountsAre, deadline)
        as_of = _as_of(found.as_of)
        return {dated.account.id: _state(dated, as_of) for dated in found.accounts if dated}

    def _after(self, names: Sequence[str], seq: int, deadline: float) -> dict[str, AccountState]:
        """Accounts after a frame that may have changed them: what it did has happened, whether they
        can be shown or not.
        """
        try:
            return self._accounts(names, seq, deadline)
        except ShardError as error:
            text = f"what was asked is decided, and cannot be shown: {error.text}"
            raise ConnectionLost(self._link.shard, text) from error

    def _decide(self, packer: Packer, deadline: float) -> Answered:
        """Have commands decided, all of them."""
        answered = self._noting(
            lambda: self._link.result(self._link.submit(*packer.packed), deadline)
        )
        if answered.rest is not None:
            if answered.pieces:
                text = f"only the first of what was asked is decided: {answered.rest}"
                raise ConnectionLost(self._link.shard, text)
            raise TryAgain(self._link.shard, answered.rest)
        return answered

    def _noting(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except ShardError as error:
            self._note(error)
            raise


class GroupHold(ReadHold):
    """See ReadHold. Nothing is locked: the read side answers between two frames, so accounts that
    are read together stood so at one moment.
    """

    def __init__(self, calls: GroupCalls) -> None:
        self._calls = calls

    def lock(self, names: Sequence[str], deadline: float, *, waits: bool) -> Reply[Held]:
        return _Later(
            lambda: Held(
                {n: s.account for n, s in self._calls.read_accounts(names, deadline).items()}, []
            )
        )

    def read_accounts(self, names: Sequence[str], deadline: float) -> dict[str, AccountState]:
        return self._calls.read_accounts(names, deadline)

    def phases_to(self, names: Iterable[str], deadline: float) -> list[PhaseRow]:
        return []

    def read_steps(self, ids: Iterable[str], deadline: float) -> list[StepRow]:
        return []

    def release(self, deadline: float) -> Reply[None]:
        return _Later(lambda: None)

    def give_back(self) -> None:
        """There is nothing to give back."""

    def abandon(self) -> None:
        """There is nothing to give up."""


class _Later(Reply[T]):
    """An answer that is fetched when it is read."""

    def __init__(self, fetch: Callable[[], T]) -> None:
        self._fetch = fetch

    def get(self) -> T:
        return self._fetch()


def _as_of(at: At) -> AsOf:
    return AsOf(at.seq, at.time_us)


def _state(dated: Dated, as_of: AsOf) -> AccountState:
    return AccountState(dated.account, dated.created_at, dated.updated_at, as_of, dated.number)
