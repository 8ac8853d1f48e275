"""Accounts on one shard: opening, changing, reading."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from ledger.chain import first_link
from ledger.decide import change_status
from ledger.ids import slot_of
from ledger.model import Account, Entry, Refusal, Status
from shard_client import statements as sql
from shard_client.branch import latest_of
from shard_client.connection import Reply, Result, ShardConnection
from shard_client.errors import ClockAhead, SlotMoved
from shard_client.records import AccountState, Held, PhaseRow, Terms, clock_is_ahead, moment
from shard_client.transfers import make_durable

_READ = (
    f"SELECT {', '.join(sql.ACCOUNT_COLUMNS)} FROM accounts FORCE INDEX (PRIMARY)"
    " WHERE id IN ({ids})"
)
# Locks a row until the transaction ends; one that is locked by somebody else is passed over.
_READ_LOCKED = f"{_READ} ORDER BY id {{share}} SKIP LOCKED"
# The same with waiting.
_READ_WAITING = f"{_READ} ORDER BY id {{share}}"
_LOCK_ONE = f"{_READ} FOR UPDATE"
_ENTRIES = (
    "SELECT account_id, number, transfer_id, amount, balance, counterparty, stamp, chain"
    " FROM entries"
)
_ONE_ENTRY = "SELECT stamp, balance FROM entries WHERE account_id = %s AND number = %s"
_ENTRY_OF = (
    f"{_ENTRIES} WHERE account_id = %s AND number > %s AND number <= %s AND transfer_id = %s"
)
# Entries of one account that may carry one stamp: those of a few groups.
_ONE_STAMP_MAX = 10_000
_RAISE_FLOOR = "UPDATE accounts SET stamp_floor = %s WHERE id = %s AND stamp_floor < %s"
_RAISE_FLOORS = (
    "UPDATE accounts FORCE INDEX (PRIMARY) SET stamp_floor = %s"
    " WHERE stamp_floor < %s AND id IN ({ids})"
)
_LOCK_FREE = (
    "SELECT id FROM accounts FORCE INDEX (PRIMARY) WHERE id IN ({ids}) FOR UPDATE SKIP LOCKED"
)
# They are locked for a moment: few, so that no transfer waits long for them.
_FLOORS_AT_ONCE = 200


def _state(row: tuple[object, ...]) -> AccountState:
    return AccountState(Account(*row[:10]), *row[10:])  # type: ignore[arg-type]


def _check_slots(connection: ShardConnection, accounts: Iterable[str], slots: Result) -> None:
    """Raise SlotMoved unless this shard owns the slots of all these accounts (rule R4)."""
    for account in accounts:
        slot = slot_of(account)
        if not any(first <= slot <= last for first, last, *_ in slots.rows):
            text = f"slot {slot} of account {account} is not on this shard"
            raise SlotMoved(connection.shard, text)


def _check_clock(connection: ShardConnection, stamp: int, slots: Result) -> None:
    """Raise ClockAhead if a stamp is too far ahead of this shard's clock."""
    latest = latest_of(slots)
    if stamp > latest:
        connection.close()
        raise ClockAhead(connection.shard, clock_is_ahead(stamp, latest))


def read(
    connection: ShardConnection, accounts: Sequence[str], deadline: float
) -> dict[str, AccountState]:
    """Those of these accounts that exist, as last committed."""
    return _look(connection, accounts, deadline)[1]


def _look(
    connection: ShardConnection, accounts: Sequence[str], deadline: float
) -> tuple[Result, dict[str, AccountState]]:
    """What READ_SLOTS brings, and those of these accounts that exist."""
    slots, found = connection.query(
        [sql.listing(connection, sql.READ_SLOTS, ()), sql.listing(connection, _READ, accounts)],
        deadline,
    )
    _check_slots(connection, accounts, slots)
    return slots, {row[0]: _state(row) for row in found.rows}


def open_all(
    connection: ShardConnection, terms: Sequence[Terms], now: int, deadline: float
) -> tuple[dict[str, AccountState], set[str]]:
    """Open those of these accounts that do not exist, in one transaction.

    Gives all of them as they are then, and the ids of the new ones. Raises TryAgain or
    DuplicateRow when somebody else is opening the same ones, SlotMoved, ClockAhead, and other
    ShardErrors; the call may be repeated.
    """
    wanted = {item.id: item for item in terms}
    _, slots, found = connection.query(
        [
            "START TRANSACTION",
            sql.listing(connection, sql.READ_SLOTS, ()),
            sql.listing(connection, _READ, wanted),
        ],
        deadline,
    )
    _check_slots(connection, wanted, slots)
    _check_clock(connection, now, slots)
    states = {row[0]: _state(row) for row in found.rows}
    new = sorted(wanted.keys() - states.keys())
    rows = []
    for id_ in new:
        _, currency, limit = wanted[id_]
        chain = first_link(id_, currency)
        account = Account(id_, currency, 0, limit, Status.OPEN.value, 0, now, chain)
        states[id_] = AccountState(account, now, now)
        rows.append((*account, now, now))
    insert = [sql.insert(sql.INSERT_ACCOUNTS, rows)] if rows else []
    connection.query([*insert, "COMMIT"], deadline)
    if len(new) < len(wanted):
        make_durable(connection, deadline)
    return states, set(new)


def set_status(
    connection: ShardConnection, account: str, status: Status, now: int, deadline: float
) -> AccountState | Refusal | None:
    """Change an account's status; None if it does not exist. Raises TryAgain if it is busy."""
    _, slots, found = connection.query(
        [
            "START TRANSACTION",
            sql.listing(connection, sql.READ_SLOTS, ()),
            sql.listing(connection, _LOCK_ONE, [account]),
        ],
        deadline,
    )
    _check_slots(connection, [account], slots)
    _check_clock(connection, now, slots)
    state = _state(found.rows[0]) if found.rows else None
    # Under the account's lock: nothing begins that would have to come back to it.
    count = sql.fill(connection, sql.COUNT_PHASES_OF, account)
    unfinished = connection.rows(count, deadline)[0][0] if status == Status.CLOSED else 0
    refusal = change_status(state.account, status, unfinished) if state else None
    if state is None or refusal or state.account.status == status:
        connection.query(["ROLLBACK"], deadline)
        make_durable(connection, deadline)
        return refusal or state
    change = sql.fill(connection, sql.CHANGE_STATUS, status.value, now, account)
    connection.query([change, "COMMIT"], deadline)
    changed = state.account._replace(status=status.value)
    return AccountState(changed, state.created_at, max(state.updated_at, now))


def statement(
    connection: ShardConnection,
    account: str,
    after: int | None,
    limit: int,
    deadline: float,
    *,
    newest_first: bool,
) -> list[Entry]:
    """At most `limit` entries of an account that come after entry number `after`."""
    compare, order = ("<", "DESC") if newest_first else (">", "ASC")
    where = f" WHERE account_id = %s AND number {compare} %s ORDER BY number {order} LIMIT %s"
    start = after if after is not None else (2**63 - 1 if newest_first else 0)
    text = sql.fill(connection, _ENTRIES + where, account, start, limit)
    return [Entry(*row) for row in connection.rows(text, deadline)]


def balance_at(
    connection: ShardConnection, account: str, at: int, deadline: float
) -> tuple[Account, int] | None:
    """The account as it is, and its balance as it was at a stamp: finally, for no later entry will
    be stamped so early. None if the account does not exist. Raises TryAgain if that cannot be
    promised because a group is at work on the account, ClockAhead if that time is not there yet, or
    what the account had then cannot be told because of entries that are stamped ahead of the clock.
    """
    slots, found = _look(connection, [account], deadline)
    state = found.get(account)
    if state is None:
        return None
    _check_clock(connection, at, slots)
    if state.account.stamp_floor <= at:
        floor = sql.fill(connection, _RAISE_FLOOR, at + 1, account, at + 1)
        connection.query([floor], deadline)
        state = read(connection, [account], deadline)[account]
    else:
        make_durable(connection, deadline)
    number = _last_up_to(connection, state.account, at, deadline)
    if number < state.account.entry_count:
        _check_next(connection, state.account, number + 1, latest_of(slots), deadline)
    if number == 0:
        return state.account, 0
    rows = connection.rows(sql.fill(connection, _ONE_ENTRY, account, number), deadline)
    return state.account, int(rows[0][1])


def _check_next(
    connection: ShardConnection, account: Account, number: int, latest: int, deadline: float
) -> None:
    """Raise ClockAhead if an entry is stamped ahead of the clock: it was made before, nobody knows
    when, so the balance may be with it or without it at any time since the entry before.
    """
    statement = sql.fill(connection, _ONE_ENTRY, account.id, number)
    stamp = int(connection.rows(statement, deadline)[0][0])
    if stamp <= latest:
        return
    raise ClockAhead(
        connection.shard,
        f"entry {number} of account {account.id} is stamped {moment(stamp)}, ahead of the clock: "
        "what the account had at that time cannot be told, what it has now the account itself says",
    )


def _last_up_to(connection: ShardConnection, account: Account, at: int, deadline: float) -> int:
    """The number of an account's last entry that is stamped `at` or earlier; 0 if there is none."""

    def stamp_of(number: int) -> int:
        text = sql.fill(connection, _ONE_ENTRY, account.id, number)
        return int(connection.rows(text, deadline)[0][0])

    # Stamps never go backwards within an account, so it can be bisected.
    return bisect_right(range(1, account.entry_count + 1), at, key=stamp_of)


def entry_of(
    connection: ShardConnection, account: str, transfer: str, stamp: int, deadline: float
) -> Entry | None:
    """The entry of a transfer that was stamped so, if it is committed; it is durable then."""
    state = read(connection, [account], deadline).get(account)
    if state is None:
        return None
    last = _last_up_to(connection, state.account, stamp, deadline)
    text = sql.fill(connection, _ENTRY_OF, account, last - _ONE_STAMP_MAX, last, transfer)
    rows = connection.rows(text, deadline)
    if not rows:
        return None
    make_durable(connection, deadline)
    return Entry(*rows[0])


def entries_of(
    connection: ShardConnection,
    account: str,
    transfer: str,
    since: Iterable[int],
    deadline: float,
) -> list[Entry]:
    """The entries of a transfer on an account that were made soon after one of these stamps: among
    its next 10,000. They are durable then.
    """
    state = read(connection, [account], deadline).get(account)
    if state is None:
        return []
    found: set[Entry] = set()
    for stamp in since:
        first = _last_up_to(connection, state.account, stamp - 1, deadline)
        text = sql.fill(connection, _ENTRY_OF, account, first, first + _ONE_STAMP_MAX, transfer)
        found |= {Entry(*row) for row in connection.rows(text, deadline)}
    if found:
        make_durable(connection, deadline)
    return sorted(found, key=lambda entry: entry.number)


def raise_floors(
    connection: ShardConnection, account: str | None, after: str, stamp: int, deadline: float
) -> str | None:
    """Let no later entry be stamped before `stamp`: on the next accounts behind `after` of which
    that does not hold yet, or on one account. Gives the last of them, None if there are none left.

    Raises TryAgain when a group is at work on one of them and does not end within a second.
    """
    where = sql.fill(connection, "stamp_floor < %s AND id > %s", stamp, after)
    if account is not None:
        where += sql.fill(connection, " AND id = %s", account)
    found = connection.rows(
        "SELECT id FROM accounts FORCE INDEX (PRIMARY)"
        f" WHERE {where} ORDER BY id LIMIT {_FLOORS_AT_ONCE}",
        deadline,
    )
    if not found:
        return None
    ids = [id_ for (id_,) in found]
    update = sql.fill(connection, _RAISE_FLOORS, stamp, stamp)
    *_, free = connection.query(
        ["START TRANSACTION", sql.listing(connection, _LOCK_FREE, ids)], deadline
    )
    mine = [id_ for (id_,) in free.rows]
    raised = [sql.listing(connection, update, mine)] if mine else []
    connection.query([*raised, "COMMIT"], deadline)
    # The others are waited for one by one, with no other lock in hand.
    for id_ in sorted(set(ids) - set(mine)):
        connection.query([sql.listing(connection, update, [id_])], deadline)
    return str(ids[-1])


def hold(
    connection: ShardConnection, accounts: Sequence[str], deadline: float, *, waits: bool
) -> Reply[Held]:
    """Open a transaction and lock these accounts against change, to read them (rule R10).

    Without `waits` nothing is waited for, and an account that is locked is left out. With it,
    each is waited for, for up to a second (TryAgain).
    """
    packet = [
        "START TRANSACTION",
        sql.listing(connection, sql.READ_SLOTS, ()),
        sql.listing(connection, _READ_WAITING if waits else _READ_LOCKED, sorted(accounts)),
        # Behind the locks: what has left an account that is locked now is seen here.
        sql.listing(connection, sql.PHASES_FROM, sorted(accounts)),
    ]

    def parse(results: list[Result]) -> Held:
        _check_slots(connection, accounts, results[1])
        found = {row[0]: _state(row).account for row in results[2].rows}
        return Held(found, [PhaseRow.from_row(row) for row in results[3].rows])

    return connection.call(packet, deadline, parse, waits=waits)


def release(connection: ShardConnection, deadline: float) -> Reply[None]:
    """End a transaction that `hold` began. Its answer proves that the locks held until now."""
    return connection.call(["COMMIT"], deadline, lambda _: None)
