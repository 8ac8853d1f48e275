"""One shard's part in TC/C and Saga: the phase table of transfers that start here, the steps of
those that end here, and the local transactions that take both further.

What a phase and a state mean, the protocol knows; here they are text.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ledger.model import Account, Entry, Transfer
from shard_client import statements as sql
from shard_client.branch import Branch, Locked, accounts_of, slots_of
from shard_client.connection import Reply, Result, Row, ShardConnection
from shard_client.transfers import StoredTransfer, make_durable
from shard_client.xid import Gtrid

PENDING, LAPSED = "pending", "lapsed"

# Whose attempt at which transfer: its id and the gtrid.
Attempt = tuple[str, str]


class PhaseRow(NamedTuple):
    """A line of the phase table: an attempt at a transfer that is not finished.

    `outcome` is what is recorded of the transfer, "pending" or "lapsed" as long as nothing is.
    Stamps are in microseconds; the transfer is to be tried again at `next_attempt_at`.
    """

    transfer: Transfer
    gtrid: str
    phase: str
    outcome: str
    source_state: str
    destination_state: str
    attempts: int
    next_attempt_at: int
    expires_at: int
    updated_at: int
    reason: str | None
    detail: str | None

    @property
    def attempt(self) -> Attempt:
        return self.transfer.id, self.gtrid

    @classmethod
    def from_row(cls, row: Row) -> "PhaseRow":
        return cls(Transfer(*row[:9]), *row[9:])


class StepRow(NamedTuple):
    """How far an attempt at a transfer is on its destination's shard; `is_empty` if it was
    cancelled there before it was tried; `reason` and `detail` say why it was refused.
    """

    transfer: str
    gtrid: str
    account: str
    amount: int
    state: str
    is_empty: int
    reason: str | None
    detail: str | None
    stamp: int

    @property
    def attempt(self) -> Attempt:
        return self.transfer, self.gtrid


class Wanted(NamedTuple):
    """What a visit locks and looks up: accounts, and by the ids of transfers their outcomes, their
    phases and their steps.
    """

    accounts: set[str]
    transfers: set[str]
    phases: set[str]
    steps: set[str]


class Found(NamedTuple):
    """What a visit has found. Phases and steps are locked: who has them decides what comes next."""

    locked: Locked
    phases: dict[Attempt, PhaseRow]
    steps: dict[Attempt, StepRow]


class PhaseChange(NamedTuple):
    """A phase row as it is to be, and the phase in which it was found; `row` None takes it away."""

    attempt: Attempt
    was: str
    row: PhaseRow | None


class VisitWrites:
    """All that a visit writes."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.entries: list[Entry] = []
        self.transfers: list[StoredTransfer] = []
        self.begun: list[PhaseRow] = []
        self.changed: list[PhaseChange] = []
        self.new_steps: list[StepRow] = []
        self.next_steps: list[StepRow] = []
        # What was only read counts too: it is to be as durable as what is written (rule R2).
        self.rests_on_reading = False

    @property
    def is_empty(self) -> bool:
        lists = (self.entries, self.transfers, self.begun, self.changed)
        more = (self.new_steps, self.next_steps, self.accounts)
        return not any(lists) and not any(more) and not self.rests_on_reading


class Visit(Branch):
    """One local transaction on one shard that takes many transfers a step further."""

    def enter(self, wanted: Wanted, deadline: float, *, waits: bool) -> Reply[Found]:
        """Lock and look up. An account that is locked by somebody else is left out or, if it
        `waits`, waited for, for up to a second.
        """
        lock = sql.LOCK_ACCOUNTS_WAITING if waits else sql.LOCK_ACCOUNTS
        packet = [
            *self._opening(),
            sql.listing(self.connection, sql.READ_SLOTS, ()),
            sql.listing(self.connection, lock, sorted(wanted.accounts)),
            sql.listing(self.connection, sql.LOCK_PHASES, sorted(wanted.phases)),
            sql.listing(self.connection, sql.LOCK_STEPS, sorted(wanted.steps)),
            sql.listing(self.connection, sql.FIND_TRANSFERS, sorted(wanted.transfers)),
        ]
        return self.connection.call(packet, deadline, _found)

    def leave(self, writes: VisitWrites, deadline: float) -> Reply[None]:
        """Write everything and commit; nothing of it, unless every row was found (rule R8)."""
        packet: list[str] = []

        def add(statement: str, rows: Sequence[Sequence[object]]) -> None:
            if rows:
                packet.append(sql.join(statement, rows))
                packet.append(sql.EXPECT_FOUND.format(count=len(rows)))

        if writes.transfers:
            transfers = [
                (*row.transfer, row.gtrid, row.status, row.reason, row.detail, row.decided_at)
                for row in writes.transfers
            ]
            packet.append(sql.insert(sql.INSERT_TRANSFERS, transfers))
        if writes.entries:
            packet.append(sql.insert(sql.INSERT_ENTRIES, writes.entries))
        if writes.begun:
            rows = [(*row.transfer, *row[1:]) for row in writes.begun]
            packet.append(sql.insert(sql.INSERT_PHASES, rows))
        if writes.new_steps:
            packet.append(sql.insert(sql.INSERT_STEPS, writes.new_steps))
        add(sql.UPDATE_STEPS, [(*row.attempt, row.state, row.stamp) for row in writes.next_steps])
        add(sql.UPDATE_HOLDINGS, [_holding(row) for row in writes.accounts.values()])
        add(sql.UPDATE_PHASES, [_change(c.was, c.row) for c in writes.changed if c.row])
        add(sql.DROP_PHASES, [(*c.attempt, c.was) for c in writes.changed if c.row is None])
        if writes.rests_on_reading and not self.connection.is_durable_before_visible:
            packet.append(sql.TOUCH)
        return self.connection.call([*packet, "COMMIT"], deadline, lambda _: None)


def _holding(account: Account) -> tuple[object, ...]:
    id_, _, balance, _, _, count, floor, chain, held, expected = account
    return id_, balance, count, floor, chain, held, expected


def _change(was: str, row: PhaseRow) -> tuple[object, ...]:
    return (
        *row.attempt,
        was,
        row.phase,
        row.outcome,
        row.source_state,
        row.destination_state,
        row.attempts,
        row.next_attempt_at,
        row.updated_at,
        row.reason,
        row.detail,
    )


def _found(results: list[Result]) -> Found:
    slots, ((accounts,),), phases, steps, known = (result.rows for result in results[-5:])
    locked = Locked(
        slots=slots_of(tuple((first, last) for first, last, _ in slots)),
        is_writable=not any(read_only for _, _, read_only in slots),
        accounts=accounts_of(accounts or ""),
        known={row[0]: StoredTransfer.from_row(row) for row in known},
    )
    phase_rows = map(PhaseRow.from_row, phases)
    step_rows = (StepRow(*row) for row in steps)
    return Found(
        locked, {row.attempt: row for row in phase_rows}, {row.attempt: row for row in step_rows}
    )


# --- looking on -----------------------------------------------------------------------------


class Unfinished(NamedTuple):
    """The transfers of a group that are in one phase: how many, how often the worst of them was
    tried in vain, when the next one is tried, when the oldest was taken, and one of them.
    """

    gtrid: Gtrid
    protocol: str
    phase: str
    transfers: int
    attempts: int
    next_attempt_at: int
    created_at: int
    reason: str | None
    detail: str | None
    transfer: str


def list_unfinished(connection: ShardConnection, cluster: str, deadline: float) -> list[Unfinished]:
    """What the phase table of this shard has, group by group. Raises ShardError."""
    found = []
    for gtrid, *rest in connection.rows(sql.COUNT_PHASES, deadline):
        name = Gtrid.parse(gtrid)
        if name and name.cluster == cluster:
            found.append(Unfinished(name, *rest))
    return found


def read_steps(
    connection: ShardConnection, transfers: Iterable[str], deadline: float
) -> Reply[list[StepRow]]:
    """How far transfers are on this shard, their destination's; see `make_durable`."""
    statement = sql.listing(connection, sql.READ_STEPS, transfers)
    return connection.call(
        [statement], deadline, lambda results: [StepRow(*row) for row in results[0].rows]
    )


def read_phases(
    connection: ShardConnection, gtrids: Iterable[str], deadline: float
) -> list[PhaseRow]:
    """The unfinished transfers of these groups; what is returned is durable. Raises ShardError."""
    statement = sql.listing(connection, sql.SOME_PHASES, gtrids)
    found = [PhaseRow.from_row(row) for row in connection.rows(statement, deadline)]
    if found:
        make_durable(connection, deadline)
    return found
