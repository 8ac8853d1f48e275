"""The tables of a shard. Who changes them raises SCHEMA_VERSION in `checks.py`.

No foreign keys and no unique secondary keys: both would lock rows that a group did not name.
Ids are ASCII compared byte by byte; stamps are microseconds since the epoch.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    MetaData,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.mysql import ENUM, INTEGER, TINYINT, VARCHAR
from sqlalchemy.schema import SchemaItem

from ledger.chain import CHAIN_LENGTH


def _ascii(length: int) -> VARCHAR:
    return VARCHAR(length, charset="ascii", collation="ascii_bin")


tables = MetaData()
_Table = Table[Any]


def _table(name: str, *columns: SchemaItem, comment: str) -> _Table:
    return Table(
        name,
        tables,
        *columns,
        comment=comment,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


identity = _table(
    "shard_identity",
    Column("one", TINYINT, CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
    Column("cluster_id", _ascii(10), nullable=False),
    Column("shard_id", _ascii(10), nullable=False),
    Column("schema_version", SmallInteger, nullable=False),
    Column(
        "touched",
        BigInteger,
        nullable=False,
        comment="written to prove that reads before it are durable",
    ),
    comment="Who this shard is; a server without this row, or with another, is not used",
)

slots = _table(
    "slots",
    Column("first_slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("last_slot", SmallInteger, nullable=False),
    CheckConstraint("0 <= first_slot AND first_slot <= last_slot AND last_slot < 4096"),
    comment="The slots that this shard owns, as ranges; what is not in here is elsewhere",
)

accounts = _table(
    "accounts",
    Column("id", _ascii(64), primary_key=True),
    Column("currency", _ascii(8), nullable=False),
    Column("balance", BigInteger, nullable=False),
    Column("overdraft_limit", BigInteger, nullable=True, comment="NULL: without limit"),
    Column("status", ENUM("open", "frozen", "closed"), nullable=False),
    Column("entry_count", BigInteger, nullable=False),
    Column("stamp_floor", BigInteger, nullable=False, comment="no later entry is stamped earlier"),
    Column("chain", _ascii(CHAIN_LENGTH), nullable=False, comment="that of the last entry"),
    Column("held", BigInteger, nullable=False, comment="reserved for unfinished transfers"),
    Column("expected", BigInteger, nullable=False, comment="what unfinished ones will bring"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    CheckConstraint("overdraft_limit IS NULL OR balance >= -overdraft_limit"),
    CheckConstraint("held >= 0 AND expected >= 0"),
    CheckConstraint("status <> 'closed' OR (balance = 0 AND held = 0 AND expected = 0)"),
    comment="Accounts as they stand",
)

entries = _table(
    "entries",
    Column("account_id", _ascii(64), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("transfer_id", _ascii(36), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("balance", BigInteger, nullable=False, comment="after this entry"),
    Column("counterparty", _ascii(64), nullable=False),
    Column("stamp", BigInteger, nullable=False),
    Column(
        "chain", _ascii(CHAIN_LENGTH), nullable=False, comment="digest of it and the one before"
    ),
    CheckConstraint("number > 0 AND amount <> 0"),
    comment="Every account's history, numbered without gaps; never changed",
)

transfers = _table(
    "transfers",
    Column("id", _ascii(36), primary_key=True),
    Column("gtrid", _ascii(64), nullable=False),
    Column("status", ENUM("committed", "rejected"), nullable=False),
    Column("idempotency_key", _ascii(128), nullable=False),
    Column("source", _ascii(64), nullable=False),
    Column("destination", _ascii(64), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", _ascii(8), nullable=False),
    Column("metadata", Text, nullable=True),
    Column("protocol", _ascii(8), nullable=False),
    Column("reason", _ascii(32), nullable=True),
    Column("detail", VARCHAR(512), nullable=True),
    Column("created_at", BigInteger, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    CheckConstraint("amount > 0"),
    comment="Transfers and their outcome, on the shard of the source account",
)

decisions = _table(
    "decisions",
    Column("gtrid", _ascii(64), primary_key=True),
    Column("outcome", ENUM("committed", "aborted"), nullable=False),
    Column("branches", VARCHAR(1024), nullable=False, comment="the other shards of the group"),
    Column("seen", INTEGER(unsigned=True), nullable=False, comment="how often it was asked for"),
    Column("decided_at", BigInteger, nullable=False),
    comment="On the home shard: what became of a global transaction",
)

markers = _table(
    "markers",
    Column("gtrid", _ascii(64), primary_key=True),
    Column("shard", _ascii(10), primary_key=True),
    Column("session", BigInteger, nullable=False, comment="that has prepared the branch"),
    comment="Written by each branch in its own transaction: proof that it has committed",
)

phases = _table(
    "phases",
    Column("transfer_id", _ascii(36), primary_key=True),
    Column("gtrid", _ascii(64), primary_key=True, comment="the attempt"),
    Column("protocol", _ascii(8), nullable=False),
    Column("phase", _ascii(16), nullable=False),
    Column(
        "outcome",
        ENUM("pending", "committed", "rejected", "lapsed"),
        nullable=False,
        comment="lapsed: nothing happened",
    ),
    Column("source_state", _ascii(16), nullable=False),
    Column("destination_state", _ascii(16), nullable=False, comment="as far as it is known here"),
    Column("attempts", INTEGER(unsigned=True), nullable=False, comment="in vain, at the next step"),
    Column("next_attempt_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, comment="when a reservation is cancelled"),
    Column("updated_at", BigInteger, nullable=False),
    Column("reason", _ascii(32), nullable=True),
    Column("detail", VARCHAR(512), nullable=True),
    Column("idempotency_key", _ascii(128), nullable=False),
    Column("source", _ascii(64), nullable=False),
    Column("destination", _ascii(64), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", _ascii(8), nullable=False),
    Column("metadata", Text, nullable=True),
    Column("created_at", BigInteger, nullable=False),
    Index("source", "source"),
    comment="On the source's shard: transfers by TC/C or Saga that are not finished",
)

steps = _table(
    "steps",
    Column("transfer_id", _ascii(36), primary_key=True),
    Column("gtrid", _ascii(64), primary_key=True, comment="the attempt"),
    Column("account", _ascii(64), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("state", _ascii(16), nullable=False),
    Column("is_empty", TINYINT, nullable=False, comment="1: it was cancelled before it was tried"),
    Column("stamp", BigInteger, nullable=False, comment="of the last change"),
    Column("reason", _ascii(32), nullable=True),
    Column("detail", VARCHAR(512), nullable=True),
    comment="On the destination's shard: how far transfers by TC/C or Saga are; kept for ever",
)
