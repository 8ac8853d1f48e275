"""What is in doubt on a shard: prepared branches, decisions, markers; and how to finish one.

Everything here may be called by anybody, at any time, and repeated.
"""

import re
from enum import Enum
from typing import NamedTuple

from shard_client import statements as sql
from shard_client.connection import ShardConnection
from shard_client.errors import TryAgain
from shard_client.transfers import make_durable
from shard_client.xid import FORMAT_ID, Gtrid, xid


class PreparedBranch(NamedTuple):
    """A branch that has voted yes and waits for its group's decision."""

    gtrid: Gtrid
    shard: str


class DecisionOutcome(Enum):
    COMMITTED = "committed"
    ABORTED = "aborted"


class Look(Enum):
    """What a shard shows of a branch that XA says it does not know."""

    COMMITTED = "committed, its marker is there"
    BUSY = "about to be finished by somebody"
    ABSENT = "neither prepared nor committed here"


def list_prepared(
    connection: ShardConnection, cluster: str, deadline: float
) -> list[PreparedBranch]:
    """The prepared branches of this cluster on this shard.

    `XA RECOVER` shows a whole server; what is not ours is left out (rule R3). It is asked for text
    that no foreign, binary XID can break.
    """
    statement = "XA RECOVER FORMAT='SQL'" if connection.is_mariadb else "XA RECOVER CONVERT XID"
    found = []
    for format_id, gtrid_length, bqual_length, data in connection.rows(statement, deadline):
        name = _text(data, gtrid_length, bqual_length) if format_id == FORMAT_ID else None
        gtrid = Gtrid.parse(name[0]) if name else None
        if name and gtrid and gtrid.cluster == cluster and name[1] == connection.shard:
            found.append(PreparedBranch(gtrid, name[1]))
    return found


def _text(data: str, gtrid_length: int, bqual_length: int) -> tuple[str, str] | None:
    """gtrid and bqual from the hexadecimal forms of both kinds of server."""
    digits = "".join(re.findall(r"(?<=0x)[0-9A-Fa-f]*|(?<=X')[0-9A-Fa-f]*(?=')", data))
    try:
        # MariaDB writes plain text as a plain literal.
        raw = bytes.fromhex(digits) if digits else "".join(re.findall("'([^']*)'", data)).encode()
        text = raw.decode("ascii")
    except ValueError:
        return None
    if len(text) != gtrid_length + bqual_length:
        return None
    return text[:gtrid_length], text[gtrid_length:]


def arbitrate(home: ShardConnection, gtrid: str, now: int, deadline: float) -> DecisionOutcome:
    """Settle what became of a group, on its home: the decision that is there, or *aborted*.

    Waits for a transaction that is about to decide. Raises TryAgain when that takes too long, and
    other ShardErrors; nothing is known then, and the call is to be repeated (rule R1).
    """
    home.query([sql.fill(home, sql.ARBITRATE, gtrid, now)], deadline)
    rows = home.rows(sql.fill(home, sql.READ_DECISION, gtrid), deadline)
    if not rows:
        raise TryAgain(home.shard, f"the decision of {gtrid} is gone again")
    return DecisionOutcome(rows[0][0])


def read_decision(home: ShardConnection, gtrid: str, deadline: float) -> DecisionOutcome | None:
    """The decision of a group as it stands, durable; None proves nothing."""
    rows = home.rows(sql.fill(home, sql.READ_DECISION, gtrid), deadline)
    if not rows:
        return None
    make_durable(home, deadline)
    return DecisionOutcome(rows[0][0])


def finish(
    connection: ShardConnection, gtrid: str, outcome: DecisionOutcome, deadline: float
) -> None:
    """Commit or roll back a prepared branch on the word of its decision.

    Raises UnknownBranch if the server does not know it: `look` tells why. Other ShardErrors leave
    open whether it has happened.
    """
    verb = "COMMIT" if outcome is DecisionOutcome.COMMITTED else "ROLLBACK"
    connection.query([f"XA {verb} {xid(gtrid, connection.shard)}"], deadline)


def look(connection: ShardConnection, branch: PreparedBranch, deadline: float) -> Look:
    """Why a branch that was to be finished is unknown (rule R6)."""
    gtrid = str(branch.gtrid)
    settled, _, dirty = connection.query(
        [
            sql.with_share(
                connection, sql.fill(connection, sql.LOCKED_MARKER, gtrid, branch.shard)
            ),
            sql.DIRTY,
            sql.fill(connection, sql.ANY_MARKER, gtrid, branch.shard),
        ],
        deadline,
    )
    if settled.rows:
        make_durable(connection, deadline)
        return Look.COMMITTED
    if dirty.rows or branch in list_prepared(connection, branch.gtrid.cluster, deadline):
        return Look.BUSY
    return Look.ABSENT
