"""A shard in memory that keeps the promise of `shard_client.node`, for tests without servers.

Rows are values in tables of one dictionary; a session stages what it writes beside them, and has
the rows that it touches locked. What is prepared outlives its session, and a `crash`.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from ledger import decide
from ledger.chain import first_link
from ledger.ids import SLOT_COUNT, slot_of
from ledger.model import Account, Entry, Refusal, Status
from shard_client.errors import (
    ClockAhead,
    ConnectionLost,
    DuplicateRow,
    ShardError,
    ShardUnavailable,
    SlotMoved,
    StatementRefused,
    TryAgain,
    UnknownBranch,
)
from shard_client.node import (
    GroupBranch,
    LocalTransaction,
    PoolState,
    ReadHold,
    Session,
    ShardCalls,
    ShardNode,
    refuse_since,
)
from shard_client.records import (
    PENDING,
    STAMP_AHEAD_MAX_US,
    AccountState,
    BalanceThen,
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
    Undecided,
    Unfinished,
    Wanted,
    Writes,
    clock_is_ahead,
)
from shard_client.xid import Gtrid

T = TypeVar("T")

# A row's table and primary key.
Key = tuple[str, Any]
_ALL_SLOTS = frozenset(range(SLOT_COUNT))
_ACCOUNTS, _ENTRIES, _TRANSFERS = "accounts", "entries", "transfers"
_DECISIONS, _MARKERS, _PHASES, _STEPS = "decisions", "markers", "phases", "steps"


class Done(Generic[T]):
    """The answer to a call: what it gave or raised, or what is still to be waited for."""

    def __init__(self, call: Callable[[], T], *, waits: bool = False) -> None:
        self._call = call
        if not waits:
            try:
                value = call()
            except ShardError as error:
                self._error: ShardError | None = error
            else:
                self._error, self._call = None, lambda: value

    def get(self) -> T:
        if error := getattr(self, "_error", None):
            raise error
        return self._call()


class _Lock(NamedTuple):
    is_shared: bool
    holders: "set[_Work]"


class _Work:
    """What a session has locked, and staged: a row's key and the row, None to take it away."""

    def __init__(self, shard: "MemoryShard") -> None:
        self._shard = shard
        self.staged: dict[Key, Any] = {}
        self.is_over = False

    def lock(self, key: Key, *, is_shared: bool = False) -> bool:
        """Lock a row if nobody else has it."""
        lock = self._shard.locks.setdefault(key, _Lock(is_shared, set()))
        if lock.holders - {self} and not (is_shared and lock.is_shared):
            return False
        self._shard.locks[key] = _Lock(is_shared and lock.is_shared, lock.holders | {self})
        return True

    def wait_to_lock(self, key: Key, *, is_shared: bool = False) -> None:
        """The same with waiting. Raises TryAgain."""
        until = time.monotonic() + self._shard.lock_wait_s
        while not self.lock(key, is_shared=is_shared):
            if not self._shard.changed.wait(max(until - time.monotonic(), 0)):
                raise TryAgain(self._shard.id, f"{key} stays locked", code=1205)

    def row(self, key: Key) -> Any:
        return self.staged[key] if key in self.staged else self._shard.rows.get(key)

    def insert(self, table: str, rows: Mapping[Any, Any]) -> None:
        """Raises DuplicateRow, TryAgain."""
        for id_, row in rows.items():
            self.wait_to_lock((table, id_))
            if self.row((table, id_)) is not None:
                raise DuplicateRow(self._shard.id, f"{id_} is in {table} already", statement=0)
            self.staged[table, id_] = row

    def commit(self) -> None:
        for key, row in self.staged.items():
            if row is None:
                self._shard.rows.pop(key, None)
            else:
                self._shard.rows[key] = row
        self.end()

    def end(self) -> None:
        """Let go of all locks, and of what is staged."""
        self.is_over = True
        self.staged = {}
        for key, lock in list(self._shard.locks.items()):
            lock.holders.discard(self)
            if not lock.holders:
                del self._shard.locks[key]
        self._shard.open.discard(self)
        self._shard.changed.notify_all()


class _MemorySession(Session):
    def __init__(self, shard: "MemoryShard", gtrid: str) -> None:
        self.shard = shard.id
        self.gtrid = gtrid
        self._of = shard
        self._work: _Work | None = None

    def _open(self) -> _Work:
        if self._work is None:
            self._work = _Work(self._of)
            self._of.open.add(self._work)
        return self._work

    def _call(self, what: Callable[[_Work], T], *, waits: bool = False) -> Done[T]:
        """An error ends the session."""

        def call() -> T:
            with self._of.changed:
                work = self._open()
                if work.is_over:
                    raise ConnectionLost(self.shard, "the session is over")
                try:
                    return what(work)
                except ShardError:
                    self._drop(work)
                    raise

        return Done(call, waits=waits)

    def _drop(self, work: _Work) -> None:
        work.end()

    def wait_for(self, accounts: Iterable[str], deadline: float) -> Done[None]:
        def wait(work: _Work) -> None:
            for name in sorted(accounts):
                work.wait_to_lock((_ACCOUNTS, name))

        return self._call(wait, waits=True)

    def existing(self, accounts: Iterable[str], deadline: float) -> Done[set[str]]:
        return self._call(
            lambda _: {name for name in accounts if (_ACCOUNTS, name) in self._of.rows}
        )

    def roll_back(self, deadline: float) -> Done[None]:
        return self._call(lambda work: self._over(work, work.end))

    def _over(self, work: _Work, end: Callable[[], None]) -> None:
        """The session can be used again: its next call begins anew."""
        end()
        self._of.prepared.pop(self.gtrid, None)
        self._work = None

    def fileno(self) -> int | None:
        return None

    def give_back(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        with self._of.changed:
            if self._work:
                self._drop(self._work)

    def _locked(self, work: _Work, accounts: Iterable[str], known: Iterable[str]) -> Locked:
        free = [name for name in sorted(accounts) if work.lock((_ACCOUNTS, name))]
        states = {name: work.row((_ACCOUNTS, name)) for name in free}
        return Locked(
            slots=self._of.slots,
            is_writable=True,
            accounts={name: state.account for name, state in states.items() if state},
            known=self._of.known(known),
            latest=self._of.latest(),
        )


class MemoryBranch(_MemorySession, GroupBranch):
    def __init__(self, shard: "MemoryShard", gtrid: str, *, is_local: bool) -> None:
        super().__init__(shard, gtrid)
        self.is_local = is_local
        self.is_prepared = False

    def _drop(self, work: _Work) -> None:
        if not self.is_prepared:
            work.end()

    def lock(
        self, accounts: Iterable[str], transfers: Iterable[str], deadline: float
    ) -> Done[Locked]:
        return self._call(lambda work: self._locked(work, accounts, transfers))

    def write(self, writes: Writes, deadline: float) -> Done[None]:
        def write(work: _Work) -> None:
            self._stage(work, writes)
            if not self.is_local:
                work.insert(_MARKERS, {self.gtrid: self.gtrid})
                self.is_prepared = True
                self._of.prepared[self.gtrid] = work
                self._of.open.discard(work)

        return self._call(write)

    def write_unprepared(self, writes: Writes, deadline: float) -> Done[None]:
        return self._call(lambda work: self._stage(work, writes))

    def _stage(self, work: _Work, writes: Writes) -> None:
        work.insert(_TRANSFERS, {stored.transfer.id: stored for stored in writes.transfers})
        work.insert(_ENTRIES, {(e.account, e.number): e for e in writes.entries})
        for account in writes.accounts:
            state = work.row((_ACCOUNTS, account.id))
            if state is None:
                raise StatementRefused(self.shard, f"there is no account {account.id}")
            changed = state.account._replace(
                balance=account.balance,
                entry_count=account.entry_count,
                stamp_floor=account.stamp_floor,
                chain=account.chain,
            )
            stamp = account.stamp_floor
            work.staged[_ACCOUNTS, account.id] = AccountState(changed, state.created_at, stamp)

    def decide(self, branches: Iterable[str], now: int, deadline: float) -> Done[None]:
        def decide_(work: _Work) -> None:
            others = sorted(branches)
            row = Decision(self.gtrid, DecisionOutcome.COMMITTED, others, now)
            work.insert(_DECISIONS, {self.gtrid: row})
            self._over(work, work.commit)

        return self._call(decide_)

    def commit_alone(self, deadline: float) -> Done[None]:
        return self._call(lambda work: self._over(work, work.commit))

    def commit(self, deadline: float) -> Done[None]:
        return self._call(lambda work: self._over(work, work.commit))


class MemoryTransaction(_MemorySession, LocalTransaction):
    def lock(self, wanted: Wanted, deadline: float) -> Done[Found]:
        def lock(work: _Work) -> Found:
            locked = self._locked(work, wanted.accounts, wanted.transfers)
            phases = self._waited(work, _PHASES, wanted.phases)
            standing = self._waited(work, _PHASES, wanted.standing)
            steps = self._waited(work, _STEPS, wanted.steps)
            return Found(locked, phases, {a: row.phase for a, row in standing.items()}, steps)

        return self._call(lock, waits=True)

    def _waited(self, work: _Work, table: str, ids: Collection[str]) -> dict[Any, Any]:
        keys = [key for key, _ in self._of.table(table) if key[0] in ids]
        for key in sorted(keys):
            work.wait_to_lock((table, key))
        rows = {key: work.row((table, key)) for key in keys}
        return {key: row for key, row in rows.items() if row is not None}

    def commit(self, writes: LocalWrites, deadline: float) -> Done[None]:
        def commit(work: _Work) -> None:
            work.insert(_TRANSFERS, {stored.transfer.id: stored for stored in writes.transfers})
            for step in writes.next_steps:
                old = self._found(work, (_STEPS, step.attempt))
                work.staged[_STEPS, step.attempt] = old._replace(state=step.state, stamp=step.stamp)
            for attempt, was, state in writes.changed:
                row = self._found(work, (_PHASES, attempt))
                if row.phase != was:
                    raise TryAgain(self.shard, f"{attempt} is in {row.phase}, not {was}", code=1242)
                changed = row._replace(**state._asdict()) if state else None
                work.staged[_PHASES, attempt] = changed
            work.insert(_ENTRIES, {(e.account, e.number): e for e in writes.entries})
            work.insert(_PHASES, {row.attempt: row for row in writes.begun})
            work.insert(_STEPS, {step.attempt: step for step in writes.new_steps})
            for account in writes.accounts.values():
                state = self._found(work, (_ACCOUNTS, account.id))
                kept = {"status": state.account.status, "currency": state.account.currency}
                kept["overdraft_limit"] = state.account.overdraft_limit
                stamp = max(state.updated_at, account.stamp_floor)
                changed = AccountState(account._replace(**kept), state.created_at, stamp)
                work.staged[_ACCOUNTS, account.id] = changed
            self._over(work, work.commit)

        return self._call(commit, waits=True)

    def _found(self, work: _Work, key: Key) -> Any:
        work.wait_to_lock(key)
        row = work.row(key)
        if row is None:
            raise TryAgain(self.shard, f"{key} is not there", code=1242)
        return row


class MemoryHold(ReadHold):
    def __init__(self, shard: "MemoryShard") -> None:
        self._of = shard
        self._session = _MemorySession(shard, "")

    def lock(self, names: Sequence[str], deadline: float, *, waits: bool) -> Done[Held]:
        def lock(work: _Work) -> Held:
            self._of.check_slots(names)
            free = []
            for name in sorted(names):
                if waits:
                    work.wait_to_lock((_ACCOUNTS, name), is_shared=True)
                if work.lock((_ACCOUNTS, name), is_shared=True):
                    free.append(name)
            states = {name: work.row((_ACCOUNTS, name)) for name in free}
            accounts = {name: state.account for name, state in states.items() if state}
            leaving = [r for _, r in self._of.table(_PHASES) if r.transfer.source in names]
            return Held(accounts, leaving)

        return self._session._call(lock, waits=waits)

    def read_accounts(self, names: Sequence[str], deadline: float) -> dict[str, AccountState]:
        return self._of.read_accounts(names, deadline)

    def phases_to(self, names: Iterable[str], deadline: float) -> list[PhaseRow]:
        return self._of.phases_to(names, deadline)

    def read_steps(self, ids: Iterable[str], deadline: float) -> list[StepRow]:
        return self._of.read_steps(ids, deadline)

    def release(self, deadline: float) -> Done[None]:
        return self._session.roll_back(deadline)

    def give_back(self) -> None:
        self._session.give_back()

    def abandon(self) -> None:
        self._session.abandon()


class MemoryShard(ShardNode, ShardCalls):
    """See the module. `clock` gives stamps; a lock is waited for, for `lock_wait_s`."""

    def __init__(
        self,
        id_: str,
        cluster: str,
        *,
        slots: frozenset[int] = _ALL_SLOTS,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        lock_wait_s: float = 1.0,
    ) -> None:
        self.id = id_
        self.slots = slots
        self.lock_wait_s = lock_wait_s
        self._cluster = cluster
        self._clock = clock
        self.reads = self.recovery = self.purge = self
        self.unavailable_because: str | None = "it was not reached yet"
        self.unavailable_since = time.monotonic()
        self.is_doubted = False
        self.clock_offset_s: float | None = None
        # Notified whenever a lock is let go.
        self.changed = threading.Condition(threading.RLock())
        self.rows: dict[Key, Any] = {}
        self.locks: dict[Key, _Lock] = {}
        self.open: set[_Work] = set()
        self.prepared: dict[str, _Work] = {}

    def crash(self) -> None:
        """All sessions end; what is prepared stays."""
        with self.changed:
            for work in list(self.open):
                work.end()

    # --- rows -------------------------------------------------------------------------------

    def table(self, name: str) -> list[tuple[Any, Any]]:
        """The committed rows of a table, in the order of their keys."""
        return sorted((key, row) for (table, key), row in self.rows.items() if table == name)

    def known(self, ids: Iterable[str]) -> dict[str, StoredTransfer]:
        wanted = set(ids)
        pending = {
            row.transfer.id: StoredTransfer(
                row.transfer, row.gtrid, PENDING, None, None, row.updated_at
            )
            for _, row in self.table(_PHASES)
            if row.transfer.id in wanted and row.outcome == PENDING
        }
        settled = {id_: row for id_, row in self.table(_TRANSFERS) if id_ in wanted}
        return pending | settled

    def latest(self) -> int:
        return self._clock() + STAMP_AHEAD_MAX_US

    def check_slots(self, names: Iterable[str]) -> None:
        for name in names:
            if slot_of(name) not in self.slots:
                raise SlotMoved(self.id, f"the slot of account {name} is not on this shard")

    def _check_clock(self, stamp: int) -> None:
        if stamp > self.latest():
            raise ClockAhead(self.id, clock_is_ahead(stamp, self.latest()))

    def _check_available(self) -> None:
        if reason := self.unavailable_because:
            raise ShardUnavailable(self.id, reason)

    @contextmanager
    def _work(self) -> Iterator[_Work]:
        """A transaction for a block; what it raises undoes it."""
        self._check_available()
        with self.changed:
            work = _Work(self)
            self.open.add(work)
            try:
                yield work
                work.commit()
            finally:
                work.end()

    # --- sessions ---------------------------------------------------------------------------

    def branch(self, gtrid: str, deadline: float, *, is_local: bool) -> MemoryBranch:
        self._check_available()
        return MemoryBranch(self, gtrid, is_local=is_local)

    def local_transaction(self, gtrid: str, deadline: float) -> MemoryTransaction:
        self._check_available()
        return MemoryTransaction(self, gtrid)

    def hold(self, deadline: float) -> MemoryHold:
        self._check_available()
        return MemoryHold(self)

    # --- whether it can be used -------------------------------------------------------------

    @property
    def is_slow(self) -> bool:
        return False

    @property
    def version(self) -> str | None:
        return "in memory"

    @property
    def weaknesses(self) -> list[str]:
        return ["nothing is on a disk"]

    @property
    def pool_states(self) -> dict[str, PoolState]:
        return {}

    def admit(self) -> None:
        self.read_clock()
        self.unavailable_because = None

    def look(self) -> None:
        self.is_doubted = False

    def check_again(self) -> None:
        self.read_clock()

    def read_clock(self) -> None:
        self.clock_offset_s = self._clock() / 1e6 - time.monotonic()

    def give_up(self, error: ShardError) -> None:
        self.unavailable_because = error.text
        self.unavailable_since = time.monotonic()

    def close(self) -> None:
        pass

    # --- transfers --------------------------------------------------------------------------

    def find_transfers(
        self, ids: Sequence[str], deadline: float
    ) -> dict[str, StoredTransfer | Undecided]:
        with self._work():
            found: dict[str, StoredTransfer | Undecided] = {}
            for id_, stored in self.known(ids).items():
                is_settled = (_TRANSFERS, id_) in self.rows
                found[id_] = stored if is_settled else Undecided(stored)
            for work in (*self.open, *self.prepared.values()):
                for (table, key), row in work.staged.items():
                    if table == _TRANSFERS and key in ids:
                        found[key] = Undecided(row)
            return found

    # --- accounts ---------------------------------------------------------------------------

    def open_accounts(
        self, terms: Sequence[Terms], now: int, deadline: float
    ) -> tuple[dict[str, AccountState], set[str]]:
        with self._work() as work:
            self.check_slots(item.id for item in terms)
            self._check_clock(now)
            states = {item.id: work.row((_ACCOUNTS, item.id)) for item in terms}
            new = {item.id: item for item in terms if states[item.id] is None}
            for id_, currency, limit in new.values():
                chain = first_link(id_, currency)
                account = Account(id_, currency, 0, limit, Status.OPEN.value, 0, now, chain)
                states[id_] = AccountState(account, now, now)
            work.insert(_ACCOUNTS, {id_: states[id_] for id_ in new})
            return states, set(new)

    def change_status(
        self, account: str, status: Status, now: int, deadline: float
    ) -> AccountState | Refusal | None:
        with self._work() as work:
            self.check_slots([account])
            self._check_clock(now)
            work.wait_to_lock((_ACCOUNTS, account))
            state: AccountState | None = work.row((_ACCOUNTS, account))
            if state is None:
                return None
            leaving = [r for _, r in self.table(_PHASES) if r.transfer.source == account]
            refusal = decide.change_status(state.account, status, len(leaving))
            if refusal or state.account.status == status:
                return refusal or state
            changed = state.account._replace(status=status.value)
            state = AccountState(changed, state.created_at, max(state.updated_at, now))
            work.staged[_ACCOUNTS, account] = state
            return state

    def read_accounts(
        self, names: Sequence[str], deadline: float, since: Since | None = None
    ) -> dict[str, AccountState]:
        refuse_since(since)
        with self._work() as work:
            self.check_slots(names)
            states = {name: work.row((_ACCOUNTS, name)) for name in names}
            return {name: state for name, state in states.items() if state}

    def _entries(self, account: str) -> list[Entry]:
        return [row for (owner, _), row in self.table(_ENTRIES) if owner == account]

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
        refuse_since(since)
        if account not in self.read_accounts([account], deadline):
            return None
        found = self._entries(account)
        if newest_first:
            found = [e for e in reversed(found) if after is None or e.number < after]
        else:
            found = [e for e in found if e.number > (after or 0)]
        return Statement(found[:limit])

    def balance_at(
        self, account: str, at: int, deadline: float, since: Since | None = None
    ) -> BalanceThen | None:
        refuse_since(since)
        with self._work() as work:
            self.check_slots([account])
            state: AccountState | None = work.row((_ACCOUNTS, account))
            if state is None:
                return None
            self._check_clock(at)
            if state.account.stamp_floor <= at:
                work.wait_to_lock((_ACCOUNTS, account))
                state = work.row((_ACCOUNTS, account))
                assert state is not None
                floor = max(state.account.stamp_floor, at + 1)
                state = state._replace(account=state.account._replace(stamp_floor=floor))
                work.staged[_ACCOUNTS, account] = state
            entries = self._entries(account)
            before = [entry for entry in entries if entry.stamp <= at]
            behind = entries[len(before) : len(before) + 1]
            if behind and behind[0].stamp > self.latest():
                raise ClockAhead(self.id, "an entry is stamped ahead of the clock")
            return BalanceThen(state.account, before[-1].balance if before else 0)

    def entry_of(self, account: str, transfer: str, stamp: int, deadline: float) -> Entry | None:
        found = self.entries_of(account, transfer, [stamp], deadline)
        return next((entry for entry in found if entry.stamp == stamp), None)

    def entries_of(
        self, account: str, transfer: str, since: Iterable[int], deadline: float
    ) -> list[Entry]:
        stamps = list(since)
        self.read_accounts([account], deadline)
        return [
            entry
            for entry in self._entries(account)
            if entry.transfer == transfer and entry.stamp >= min(stamps, default=0)
        ]

    def wait_until_free(self, account: str, deadline: float) -> None:
        with self._work() as work:
            self.check_slots([account])
            work.wait_to_lock((_ACCOUNTS, account), is_shared=True)

    # --- what is in doubt -------------------------------------------------------------------

    def list_prepared(self, deadline: float) -> list[PreparedBranch]:
        self._check_available()
        names = filter(None, map(Gtrid.parse, self.prepared))
        return [PreparedBranch(name, self.id) for name in names if name.cluster == self._cluster]

    def arbitrate(
        self, gtrids: Iterable[str], now: int, deadline: float
    ) -> dict[str, DecisionOutcome]:
        wanted = sorted(gtrids)
        with self._work() as work:
            for gtrid in wanted:
                work.wait_to_lock((_DECISIONS, gtrid))
                if work.row((_DECISIONS, gtrid)) is None:
                    aborted = Decision(gtrid, DecisionOutcome.ABORTED, [], now)
                    work.staged[_DECISIONS, gtrid] = aborted
            return {gtrid: work.row((_DECISIONS, gtrid)).outcome for gtrid in wanted}

    def read_decisions(self, gtrids: Iterable[str], deadline: float) -> dict[str, DecisionOutcome]:
        with self._work() as work:
            rows = {gtrid: work.row((_DECISIONS, gtrid)) for gtrid in gtrids}
            return {gtrid: row.outcome for gtrid, row in rows.items() if row}

    def finish(self, branches: Iterable[tuple[str, DecisionOutcome]], deadline: float) -> None:
        self._check_available()
        with self.changed:
            for number, (gtrid, outcome) in enumerate(branches):
                work = self.prepared.pop(gtrid, None)
                if work is None:
                    raise UnknownBranch(self.id, f"{gtrid} is unknown", code=1397, statement=number)
                if outcome is DecisionOutcome.COMMITTED:
                    work.commit()
                else:
                    work.end()

    def branch_status(self, gtrids: Iterable[str], deadline: float) -> dict[str, Look]:
        with self._work():
            works = (*self.open, *self.prepared.values())
            busy = {key for work in works for table, key in work.staged if table == _MARKERS}
            return {
                gtrid: Look.COMMITTED
                if (_MARKERS, gtrid) in self.rows
                else (Look.BUSY if gtrid in busy else Look.ABSENT)
                for gtrid in gtrids
            }

    def end_sessions_of(self, gtrids: Iterable[str], deadline: float) -> bool:
        self._check_available()
        return False

    # --- TC/C and Saga ----------------------------------------------------------------------

    def list_unfinished(self, deadline: float) -> list[Unfinished]:
        self._check_available()
        alike: dict[tuple[str, str, str], list[PhaseRow]] = defaultdict(list)
        for _, row in self.table(_PHASES):
            alike[row.gtrid, row.transfer.protocol, row.phase].append(row)
        found = []
        for (gtrid, protocol, phase), rows in alike.items():
            name = Gtrid.parse(gtrid)
            if name and name.cluster == self._cluster:
                found.append(_unfinished(name, protocol, phase, rows))
        return found

    def read_phases(self, gtrids: Iterable[str], timeout_s: float) -> list[PhaseRow]:
        self._check_available()
        wanted = set(gtrids)
        return [row for _, row in self.table(_PHASES) if row.gtrid in wanted]

    def phases_of(self, ids: Iterable[str], deadline: float) -> list[PhaseRow]:
        self._check_available()
        wanted = set(ids)
        return [row for _, row in self.table(_PHASES) if row.transfer.id in wanted]

    def phases_to(self, names: Iterable[str], deadline: float) -> list[PhaseRow]:
        self._check_available()
        wanted = set(names)
        return [row for _, row in self.table(_PHASES) if row.transfer.destination in wanted]

    def read_steps(self, ids: Iterable[str], deadline: float) -> list[StepRow]:
        self._check_available()
        wanted = set(ids)
        return [row for (id_, _), row in self.table(_STEPS) if id_ in wanted]

    # --- purge ------------------------------------------------------------------------------

    def some_decisions(self, after_gtrid: str, limit: int, deadline: float) -> list[Decision]:
        self._check_available()
        return [row for gtrid, row in self.table(_DECISIONS) if gtrid > after_gtrid][:limit]

    def drop_decisions(self, gtrids: Iterable[str], deadline: float) -> None:
        self._remove(_DECISIONS, gtrids)

    def marked(self, gtrids: Iterable[str], deadline: float) -> set[str]:
        self._check_available()
        return {gtrid for gtrid in gtrids if (_MARKERS, gtrid) in self.rows}

    def some_markers(self, after_gtrid: str, limit: int, deadline: float) -> list[str]:
        self._check_available()
        return [gtrid for gtrid, _ in self.table(_MARKERS) if gtrid > after_gtrid][:limit]

    def drop_markers(self, gtrids: Iterable[str], deadline: float) -> None:
        self._remove(_MARKERS, gtrids)

    def _remove(self, table: str, ids: Iterable[str]) -> None:
        with self._work() as work:
            for id_ in ids:
                work.wait_to_lock((table, id_))
                work.staged[table, id_] = None

    def running(self, deadline: float) -> frozenset[tuple[int, str]] | None:
        self._check_available()
        return frozenset((id(work), "") for work in self.open)


def _unfinished(name: Gtrid, protocol: str, phase: str, rows: Sequence[PhaseRow]) -> Unfinished:
    return Unfinished(
        name,
        protocol,
        phase,
        len(rows),
        max(row.attempts for row in rows),
        min(row.next_attempt_at for row in rows),
        min(row.transfer.created_at for row in rows),
        max((row.reason for row in rows if row.reason), default=None),
        max((row.detail for row in rows if row.detail), default=None),
        min(row.transfer.id for row in rows),
    )
