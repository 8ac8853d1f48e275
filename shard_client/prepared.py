"""What is in doubt on a shard: prepared branches, decisions, markers; and how to finish one.

Everything here may be called by anybody, at any time, and repeated.
"""

import re
from collections.abc import Iterable

from shard_client import statements as sql
from shard_client.connection import ShardConnection
from shard_client.errors import StatementRefused, TryAgain
from shard_client.records import DecisionOutcome, Look, PreparedBranch
from shard_client.transfers import make_durable
from shard_client.xid import FORMAT_ID, Gtrid, xid

_NO_SUCH_SESSION = 1094


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


def arbitrate(
    home: ShardConnection, gtrids: Iterable[str], now: int, deadline: float
) -> dict[str, DecisionOutcome]:
    """Settle what became of groups, on their home: the decision that is there, or *aborted*.

    Waits for a transaction that is about to decide. Raises TryAgain when that takes too long, and
    other ShardErrors; nothing is known then, and the call is to be repeated (rule R1).
    """
    # In order, so that two who ask for the same groups do not wait for each other.
    wanted = sorted(gtrids)
    rows = ",".join(sql.fill(home, sql.ABORTED_ROW, gtrid, now) for gtrid in wanted)
    home.call([sql.ARBITRATE.format(rows=rows)], deadline, len, waits=True).get()
    found = _read(home, wanted, deadline)
    if len(found) < len(wanted):
        raise TryAgain(home.shard, "a decision is gone again")
    return found


def read_decisions(
    home: ShardConnection, gtrids: Iterable[str], deadline: float
) -> dict[str, DecisionOutcome]:
    """The decisions of groups as they stand. What is there is durable, and what is not there never
    was or is gone for good: also a removal may be seen and then lost (rule R2).
    """
    found = _read(home, gtrids, deadline)
    make_durable(home, deadline)
    return found


def _read(
    home: ShardConnection, gtrids: Iterable[str], deadline: float
) -> dict[str, DecisionOutcome]:
    rows = home.rows(sql.listing(home, sql.READ_DECISIONS, gtrids), deadline)
    return {gtrid: DecisionOutcome(outcome) for gtrid, outcome in rows}


def finish(
    connection: ShardConnection,
    branches: Iterable[tuple[str, DecisionOutcome]],
    deadline: float,
) -> None:
    """Commit or roll back prepared branches, by gtrid, on the word of their decisions.

    Raises UnknownBranch if the server does not know one: its `statement` counts those that are
    finished before it, those behind it were not tried, and `look` tells why. Other ShardErrors
    leave open which are finished.
    """
    verbs = {DecisionOutcome.COMMITTED: "COMMIT", DecisionOutcome.ABORTED: "ROLLBACK"}
    shard = connection.shard
    connection.query([f"XA {verbs[o]} {xid(gtrid, shard)}" for gtrid, o in branches], deadline)


def look(
    connection: ShardConnection, cluster: str, gtrids: Iterable[str], deadline: float
) -> dict[str, Look]:
    """What this shard shows of branches that were to be finished and are unknown (rule R6)."""
    wanted = list(gtrids)
    settled, _, dirty = connection.query(
        [
            sql.listing(connection, sql.SETTLED_MARKERS, wanted),
            sql.DIRTY,
            sql.listing(connection, sql.ANY_MARKERS, wanted),
        ],
        deadline,
    )
    if settled.rows:
        make_durable(connection, deadline)
    committed = {row[0] for row in settled.rows}
    busy = {row[0] for row in dirty.rows}
    if not committed.issuperset(wanted):
        busy |= {str(b.gtrid) for b in list_prepared(connection, cluster, deadline)}
    return {
        gtrid: Look.COMMITTED if gtrid in committed else Look.BUSY if gtrid in busy else Look.ABSENT
        for gtrid in wanted
    }


def end_sessions_of(
    connection: ShardConnection, cluster: str, gtrids: Iterable[str], deadline: float
) -> bool:
    """On MariaDB: end the sessions that keep prepared branches to themselves, so that others can
    finish them; says whether there were any.

    A branch stays with its session there, even when the process behind it is frozen or unreachable.
    The marker that the branch has written names the session. Raises ShardError.
    """
    if not connection.is_mariadb:
        return False
    # Not of those that are finished by now: their sessions are at other work.
    held = [
        gtrid
        for gtrid, seen in look(connection, cluster, gtrids, deadline).items()
        if seen is Look.BUSY
    ]
    _, found = connection.query(
        [sql.DIRTY, sql.listing(connection, sql.HOLDING_SESSIONS, held)], deadline
    )
    try:
        for (session,) in found.rows:
            connection.query([f"KILL {int(session)}"], deadline)
    except StatementRefused as error:
        # One has just ended by itself, and this connection with the error; the others next time.
        if error.code != _NO_SUCH_SESSION:
            raise
    return bool(found.rows)
