"""Does on a shard all that transfers do, and undoes it: so that what stands in the way, a setting,
a privilege, a trigger, is found before a transfer finds it.
"""

import secrets
import time

from ledger.chain import CHAIN_LENGTH, first_link
from ledger.model import Account, Entry, Status, Transfer
from shard_client import statements as sql
from shard_client.connection import ShardConnection
from shard_client.errors import ConnectionLost, ShardError, ShardUnavailable, TryAgain
from shard_client.records import PENDING, PhaseRow, StepRow
from shard_client.remedies import explained
from shard_client.xid import Gtrid, xid

# In the place of a coordinator's name in the gtrid.
_NAME = "trial"
_CURRENCY = "XXX"


def try_writes(connection: ShardConnection, cluster: str, deadline: float) -> None:
    """Write and change a row of each table as transfers do, and roll back.

    Raises ShardUnavailable, which names what stands in the way, and TryAgain, ConnectionLost.
    """
    packet = ["START TRANSACTION", *_writes(connection, _name(connection, cluster)), "ROLLBACK"]
    _run(connection, packet, deadline)


def try_branch(connection: ShardConnection, cluster: str, deadline: float) -> None:
    """Prepare a branch, in the form that recovery knows, should it be left behind; roll it back.

    Raises the same.
    """
    gtrid = _name(connection, cluster)
    branch = xid(gtrid, connection.shard)
    marker = sql.fill(connection, sql.INSERT_MARKER, gtrid, connection.shard, 0)
    packet = [
        f"XA START {branch}",
        sql.listing(connection, sql.READ_SLOTS, ()),
        marker,
        f"XA END {branch}",
        f"XA PREPARE {branch}",
        f"XA ROLLBACK {branch}",
    ]
    _run(connection, packet, deadline)


def _run(connection: ShardConnection, packet: list[str], deadline: float) -> None:
    try:
        connection.query(packet, deadline)
    except (TryAgain, ConnectionLost):
        raise
    except ShardError as error:
        text = f"what transfers write cannot be written: {explained(error)}"
        raise ShardUnavailable(connection.shard, text, code=error.code) from error


def _name(connection: ShardConnection, cluster: str) -> str:
    now_ms = time.time_ns() // 1_000_000
    return str(Gtrid(cluster, connection.shard, _NAME, now_ms, secrets.randbits(64)))


def _writes(connection: ShardConnection, gtrid: str) -> list[str]:
    """All that is written in groups, in steps of TC/C and Saga, and by those who finish them."""
    one, two = (f"{_NAME}.{secrets.token_hex(12)}" for _ in range(2))
    transfer = Transfer(one, one, one, two, 1, _CURRENCY, None, "saga", 0)
    accounts = [
        Account(id_, _CURRENCY, 0, None, Status.OPEN.value, 0, 0, first_link(id_, _CURRENCY))
        for id_ in (one, two)
    ]
    entry = Entry(one, 1, one, -1, -1, two, 0, "0" * CHAIN_LENGTH)
    phase = PhaseRow(transfer, gtrid, _NAME, PENDING, "", "", 0, 0, 0, 0, None, None)
    step = StepRow(one, gtrid, two, 1, "", 0, 0, None, None)

    def listed(statement: str, *values: object) -> str:
        found = sql.listing(connection, statement, [one])
        return sql.fill(connection, found, *values) if values else found

    return [
        sql.listing(connection, sql.READ_SLOTS, ()),
        sql.insert(sql.INSERT_ACCOUNTS, [(*account, 0, 0) for account in accounts]),
        sql.listing(connection, sql.LOCK_ACCOUNTS, [one, two]),
        listed(sql.FIND_TRANSFERS),
        sql.insert(sql.INSERT_TRANSFERS, [(*transfer, gtrid, "committed", None, None, 0)]),
        sql.insert(sql.INSERT_ENTRIES, [entry]),
        sql.update_accounts(accounts[:1]),
        sql.update_accounts(accounts),
        sql.fill(connection, sql.CHANGE_STATUS, Status.CLOSED.value, 0, one),
        sql.fill(connection, sql.INSERT_DECISION, gtrid, connection.shard, 0),
        sql.ARBITRATE.format(rows=sql.fill(connection, sql.ABORTED_ROW, gtrid, 0)),
        sql.listing(connection, sql.DROP_DECISIONS, [gtrid]),
        sql.fill(connection, sql.INSERT_MARKER, gtrid, connection.shard, 0),
        sql.listing(connection, sql.DROP_MARKERS, [gtrid]),
        sql.insert(sql.INSERT_PHASES, [(*phase.transfer, *phase[1:])]),
        listed(sql.LOCK_PHASES),
        listed(sql.UPDATE_PHASES, *phase[2:8], 0, None, None, gtrid, _NAME),
        listed(sql.DROP_PHASES, gtrid, _NAME),
        sql.insert(sql.INSERT_STEPS, [step]),
        listed(sql.LOCK_STEPS),
        listed(sql.UPDATE_STEPS, _NAME, 0, gtrid),
        sql.join(sql.UPDATE_HOLDINGS, [(two, 0, 0, 0, accounts[1].chain, 0, 0)]),
        sql.TOUCH,
    ]
