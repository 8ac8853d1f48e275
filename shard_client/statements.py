"""The statements of a group on one shard, in the order in which a branch sends them.

`%s` stands for a literal that the connection has escaped. How many rows travel at once says
`docs/decisions/0003-rows-in-bulk.md`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ledger.model import Account
from shard_client.connection import END, ShardConnection
from shard_client.session import TEXT_MAX

_ID = "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin"
# Wider than the columns: MariaDB cuts what does not fit here, but refuses it there.
_SHORT = "VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin"
_encode = msgspec.json.Encoder().encode


def _rows(columns: dict[str, str]) -> str:
    """The table expression that makes rows of these columns from one JSON text."""
    paths = ", ".join(
        f"{name} {kind} PATH '$[{index}]' ERROR ON ERROR"
        for index, (name, kind) in enumerate(columns.items())
    )
    return f"JSON_TABLE(%s, '$[*]' COLUMNS ({paths})) AS given"


def as_text(*values: str) -> str:
    """What a SELECT begins with that brings all its rows as one text, and how many they are: the
    driver takes three times as long for a row of eight values. `ShardConnection.lines` reads it.
    """
    listed = ", ".join(values)
    return f"SELECT COUNT(*), GROUP_CONCAT(CONCAT_WS('\\t', {listed}, '{END[1:]}') SEPARATOR '\\n')"


def _insert(table: str, *columns: str) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES %s"


# The server's clock as a stamp. Local time would be an hour off when summer time ends, and
# UNIX_TIMESTAMP() ends in 2038 on older servers.
CLOCK = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"

# --- lock -----------------------------------------------------------------------------------

# Read first in every lock packet (rule R4): a slot that is not here is not this shard's, whatever
# the map says. The shared lock holds until the branch ends, so that a slot cannot be given away
# under a group; while somebody changes a range it reads as not owned, which means "look again".
# With the server's own clock, which says whether a stamp can be true; and with what the session
# says of whether answers are cut.
READ_SLOTS = (
    f"SELECT first_slot, last_slot, @@global.read_only, {CLOCK}, @@sql_select_limit FROM slots"
    " {share} SKIP LOCKED"
)
# In the order of the primary key, in which they are read and locked.
LOCK_ACCOUNTS = (
    as_text(
        *("id", "currency", "balance", "IFNULL(overdraft_limit, '')", "status", "entry_count"),
        *("stamp_floor", "chain", "held", "expected"),
    )
    + " FROM accounts FORCE INDEX (PRIMARY) WHERE id IN ({ids}) FOR UPDATE SKIP LOCKED"
)
# What the text of a row may take at most, in bytes.
ACCOUNT_MAX = 300
# The same with waiting, in line, for at most innodb_lock_wait_timeout (rule R9).
WAIT_FOR_ACCOUNTS = (
    "SELECT id FROM accounts FORCE INDEX (PRIMARY) WHERE id IN ({ids}) ORDER BY id FOR UPDATE"
)
# A row that SKIP LOCKED left out is either locked or not there; this tells which.
EXISTING_ACCOUNTS = "SELECT id FROM accounts FORCE INDEX (PRIMARY) WHERE id IN ({ids})"
# As one text for each row: the driver takes long for each column that a result may have.
_TRANSFERS = (
    "SELECT JSON_ARRAY(id, idempotency_key, source, destination, amount, currency, metadata,"
    " protocol, created_at, gtrid, status, reason, detail, decided_at)"
    " FROM transfers FORCE INDEX (PRIMARY) WHERE id IN ({ids})"
)
# What is pending is in the phase table only. It goes from there when the outcome has come, so it is
# looked for first.
FIND_TRANSFERS = (
    "SELECT JSON_ARRAY(transfer_id, idempotency_key, source, destination, amount, currency,"
    " metadata, protocol, created_at, gtrid, 'pending', NULL, NULL, updated_at)"
    " FROM phases FORCE INDEX (PRIMARY) WHERE transfer_id IN ({ids}) AND outcome = 'pending'"
    f" UNION ALL {_TRANSFERS}"
)
# Passes over a row whose transaction is not finished.
FIND_SETTLED_TRANSFERS = _TRANSFERS + " {share} SKIP LOCKED"
# Before a statement, lets it see rows whose transaction is not finished.
DIRTY = "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"

# --- accounts -------------------------------------------------------------------------------

ACCOUNT_COLUMNS = (
    "id",
    "currency",
    "balance",
    "overdraft_limit",
    "status",
    "entry_count",
    "stamp_floor",
    "chain",
    "held",
    "expected",
    "created_at",
    "updated_at",
)
INSERT_ACCOUNTS = _insert("accounts", *ACCOUNT_COLUMNS)
CHANGE_STATUS = (
    "UPDATE accounts SET status = %s, updated_at = GREATEST(updated_at, %s) WHERE id = %s"
)

# --- write ----------------------------------------------------------------------------------

INSERT_ENTRIES = _insert(
    "entries",
    "account_id",
    "number",
    "transfer_id",
    "amount",
    "balance",
    "counterparty",
    "stamp",
    "chain",
)
INSERT_TRANSFERS = _insert(
    "transfers",
    "id",
    "idempotency_key",
    "source",
    "destination",
    "amount",
    "currency",
    "metadata",
    "protocol",
    "created_at",
    "gtrid",
    "status",
    "reason",
    "detail",
    "decided_at",
)
_CHANGES = {
    "id": _ID,
    "balance": "BIGINT",
    "entry_count": "BIGINT",
    "stamp": "BIGINT",
    "chain": _SHORT,
}
# The straight join looks each given row up by primary key: no other row is read or locked.
_UPDATE_ACCOUNTS = (
    f"UPDATE {_rows(_CHANGES)} STRAIGHT_JOIN accounts FORCE INDEX (PRIMARY)"
    " ON accounts.id = given.id"
    " SET accounts.balance = given.balance, accounts.entry_count = given.entry_count,"
    " accounts.stamp_floor = given.stamp, accounts.updated_at = given.stamp,"
    " accounts.chain = given.chain"
)
# The same for one account, in half of the time.
_UPDATE_ACCOUNT = (
    "UPDATE accounts FORCE INDEX (PRIMARY) SET balance = %s, entry_count = %s, stamp_floor = %s,"
    " updated_at = %s, chain = %s WHERE id = %s"
)
# The session, so that it can be ended where it keeps a prepared branch to itself (MariaDB).
INSERT_MARKER = "INSERT INTO markers (gtrid, shard, session) VALUES (%s, %s, %s)"

# --- phases and steps (TC/C and Saga) ---------------------------------------------------------

PHASE_COLUMNS = (
    "transfer_id",
    "idempotency_key",
    "source",
    "destination",
    "amount",
    "currency",
    "metadata",
    "protocol",
    "created_at",
    "gtrid",
    "phase",
    "outcome",
    "source_state",
    "destination_state",
    "attempts",
    "next_attempt_at",
    "expires_at",
    "updated_at",
    "reason",
    "detail",
)
STEP_COLUMNS = (
    "transfer_id",
    "gtrid",
    "account",
    "amount",
    "state",
    "is_empty",
    "stamp",
    "reason",
    "detail",
)
READ_PHASES = f"SELECT {', '.join(PHASE_COLUMNS)} FROM phases"
PHASES_OF = f"{READ_PHASES} FORCE INDEX (PRIMARY) WHERE transfer_id IN ({{ids}})"
LOCK_PHASES = f"{PHASES_OF} FOR UPDATE"
LOCK_STANDING = (
    as_text("transfer_id", "gtrid", "phase")
    + " FROM phases FORCE INDEX (PRIMARY) WHERE transfer_id IN ({ids}) FOR UPDATE"
)
LOCK_STEPS = (
    as_text(
        *("transfer_id", "gtrid", "account", "amount", "state", "is_empty", "stamp"),
        *("IFNULL(reason, '')", "IFNULL(detail, '')"),
    )
    + " FROM steps FORCE INDEX (PRIMARY) WHERE transfer_id IN ({ids}) FOR UPDATE"
)
READ_STEPS = LOCK_STEPS.removesuffix(" FOR UPDATE")
STANDING_MAX, STEP_MAX = 150, 2500
INSERT_PHASES = _insert("phases", *PHASE_COLUMNS)
INSERT_STEPS = _insert("steps", *STEP_COLUMNS)
# Compare and set: a phase, or a state, that is another by now is not found.
UPDATE_PHASES = (
    "UPDATE phases FORCE INDEX (PRIMARY) SET phase = %s, outcome = %s, source_state = %s,"
    " destination_state = %s, attempts = %s, next_attempt_at = %s, updated_at = %s, reason = %s,"
    " detail = %s WHERE gtrid = %s AND phase = %s AND transfer_id IN ({ids})"
)
DROP_PHASES = (
    "DELETE phases FROM phases FORCE INDEX (PRIMARY)"
    " WHERE gtrid = %s AND phase = %s AND transfer_id IN ({ids})"
)
UPDATE_STEPS = (
    "UPDATE steps FORCE INDEX (PRIMARY) SET state = %s, stamp = %s"
    " WHERE gtrid = %s AND transfer_id IN ({ids})"
)
UPDATE_HOLDINGS = (
    f"UPDATE {_rows(_CHANGES | {'held': 'BIGINT', 'expected': 'BIGINT'})}"
    " STRAIGHT_JOIN accounts FORCE INDEX (PRIMARY) ON accounts.id = given.id"
    " SET accounts.balance = given.balance, accounts.entry_count = given.entry_count,"
    " accounts.updated_at = GREATEST(accounts.updated_at, given.stamp),"
    " accounts.stamp_floor = given.stamp, accounts.chain = given.chain,"
    " accounts.held = given.held, accounts.expected = given.expected"
)
PHASES_FROM = f"{READ_PHASES} FORCE INDEX (source) WHERE source IN ({{ids}})"
# Of those that are not finished, which are few.
PHASES_TO = f"{READ_PHASES} WHERE destination IN ({{ids}})"
# Fails unless the statement before it has found so many rows, and with it all that comes after. No
# SELECT: with sql_select_limit=0 that is not even looked at.
EXPECT_FOUND = "SET @found = IF(ROW_COUNT() = {count}, 1, (SELECT 1 UNION ALL SELECT 2))"
# No index has the gtrid: all are read once, in pages, whoever of them is looked for.
SOME_PHASES = (
    f"{READ_PHASES} FORCE INDEX (PRIMARY)"
    " WHERE transfer_id > %s OR (transfer_id = %s AND gtrid > %s)"
    " ORDER BY transfer_id, gtrid LIMIT {limit}"
)
COUNT_PHASES = (
    "SELECT gtrid, protocol, phase, COUNT(*), MAX(attempts), MIN(next_attempt_at), MIN(created_at),"
    " MAX(reason), MAX(detail), MIN(transfer_id) FROM phases GROUP BY gtrid, protocol, phase"
)
COUNT_PHASES_OF = "SELECT COUNT(*) FROM phases FORCE INDEX (source) WHERE source = %s"

# --- decide ---------------------------------------------------------------------------------

INSERT_DECISION = (
    "INSERT INTO decisions (gtrid, outcome, branches, seen, decided_at)"
    " VALUES (%s, 'committed', %s, 0, %s)"
)
# Whoever is not the coordinator of a group, or has lost its own decision, asks with this (R1):
# it waits for a coordinator that is about to decide, and it makes what is read next durable (R2).
ABORTED_ROW = "(%s, 'aborted', '', 0, %s)"
ARBITRATE = (
    "INSERT INTO decisions (gtrid, outcome, branches, seen, decided_at)"
    " VALUES {rows} ON DUPLICATE KEY UPDATE seen = seen + 1"
)
READ_DECISIONS = "SELECT gtrid, outcome FROM decisions WHERE gtrid IN ({ids})"
# A shard holds markers of its own branches alone. An undecided row is skipped by the first of
# these and shown by the second; one that is not there by neither. No error is raised, so the
# connection stays good.
SETTLED_MARKERS = "SELECT gtrid FROM markers WHERE gtrid IN ({ids}) {share} SKIP LOCKED"
ANY_MARKERS = "SELECT gtrid FROM markers WHERE gtrid IN ({ids})"
HOLDING_SESSIONS = (
    "SELECT session FROM markers WHERE gtrid IN ({ids}) AND session <> CONNECTION_ID()"
    " AND session IN (SELECT trx_mysql_thread_id FROM information_schema.innodb_trx)"
)

# --- collect --------------------------------------------------------------------------------

SOME_DECISIONS = (
    "SELECT gtrid, outcome, branches, decided_at FROM decisions"
    " WHERE gtrid > %s ORDER BY gtrid LIMIT {limit}"
)
# In this form, which takes a hint: a scan would wait for the rows of branches in doubt.
DROP_DECISIONS = (
    "DELETE decisions FROM decisions FORCE INDEX (PRIMARY) WHERE decisions.gtrid IN ({ids})"
)
SOME_MARKERS = (
    "SELECT gtrid FROM markers WHERE gtrid > %s ORDER BY gtrid LIMIT {limit} {share} SKIP LOCKED"
)
DROP_MARKERS = "DELETE markers FROM markers FORCE INDEX (PRIMARY) WHERE markers.gtrid IN ({ids})"
# Prepared branches that have lost their session have thread 0; they decide nothing. The last column
# says which of them is asking this: by a text that is in no other statement.
RUNNING = (
    "SELECT trx_mysql_thread_id, CAST(trx_started AS CHAR), COALESCE(INSTR(trx_query, %s), 0)"
    " FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> 0"
)

# --- prove ----------------------------------------------------------------------------------

# A write of the reader's own: what it has read before is durable once this has committed (R2).
TOUCH = "UPDATE shard_identity SET touched = touched + 1"


def insert(statement: str, rows: Sequence[Sequence[Any]]) -> str:
    """An INSERT with its rows."""
    text = _encode(rows).decode()[1:-1]
    # JSON differs from SQL in the brackets alone, unless a text holds one, or something escaped: a
    # text in double quotes is a literal here too. Six times as fast as one literal after the other.
    if "\\" not in text and text.count("[") == len(rows) == text.count("]"):
        return statement % text.replace("[", "(").replace("]", ")")
    return statement % ",".join(f"({','.join(map(_literal, row))})" for row in rows)


def update_accounts(accounts: Sequence[Account]) -> str:
    """An UPDATE that brings these accounts, one or more, to their balance, entry and chain."""
    if len(accounts) > 1:
        rows = ((a.id, a.balance, a.entry_count, a.stamp_floor, a.chain) for a in accounts)
        return join(_UPDATE_ACCOUNTS, rows)
    (one,) = accounts
    balance, count, floor = one.balance, one.entry_count, one.stamp_floor
    values: tuple[int | str, ...] = (balance, count, floor, floor, one.chain, one.id)
    return _UPDATE_ACCOUNT % tuple(map(_literal, values))


def join(statement: str, rows: Iterable[Sequence[Any]]) -> str:
    """A statement on the table that the server makes of these rows."""
    return statement % _literal(_encode(list(rows)).decode())


def _literal(value: int | str | None) -> str:
    """A value as SQL text, in half of the time that the driver takes."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fill(connection: ShardConnection, statement: str, *values: object) -> str:
    """A statement with its literals in the place of each %s."""
    return statement % tuple(connection.literal(value) for value in values)


def listing(connection: ShardConnection, statement: str, ids: Iterable[str]) -> str:
    """A statement with the ids of its IN list."""
    text = ",".join(map(_literal, ids)) or "''"
    return with_share(connection, statement).format(ids=text)


def listings(
    connection: ShardConnection, statement: str, ids: Sequence[str], row_max: int
) -> list[str]:
    """The same for a statement whose rows come as one text, of `row_max` bytes each: as often as it
    takes for no text to be longer than the server makes one. No statement for no ids.
    """
    size = max(min(connection.packet_max, TEXT_MAX) // row_max, 1)
    return [
        listing(connection, statement, ids[first : first + size])
        for first in range(0, len(ids), size)
    ]


def with_share(connection: ShardConnection, statement: str) -> str:
    """A statement with the words that this kind of server has for a shared lock."""
    words = "LOCK IN SHARE MODE" if connection.is_mariadb else "FOR SHARE"
    return statement.replace("{share}", words)
