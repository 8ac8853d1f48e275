"""What a sweep reads of transfers by TC/C and Saga that nobody is at work on."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from shard_client.connection import ShardConnection
from shard_client.phases import read_phases
from shard_client.statements import INSERT_PHASES, PHASE_COLUMNS, insert
from tests.contract.bench import soon
from tests.contract.lone import CLUSTER, Lone

ORPHANS = 1000


@pytest.fixture
def orphans(lone: Lone) -> Iterator[list[str]]:
    """The gtrids of groups of one that somebody has left behind; each transfer was tried twice."""
    gtrids = [f"{CLUSTER}.s1.zz.{n:012x}.{n:016x}" for n in range(ORPHANS)]
    rows = [_row(f"{n - n % 2:036d}", gtrid) for n, gtrid in enumerate(gtrids)]
    with closing(lone.connect()) as connection:
        connection.query([insert(INSERT_PHASES, rows)], soon())
    yield gtrids
    lone.admin("DELETE FROM phases")


def _row(transfer: str, gtrid: str) -> list[str | int | None]:
    values: dict[str, str | int | None] = dict.fromkeys(PHASE_COLUMNS, 0)
    values |= dict.fromkeys(("idempotency_key", "source", "destination", "currency"), "a")
    values |= {"transfer_id": transfer, "gtrid": gtrid, "metadata": None, "protocol": "tcc"}
    values |= {"phase": "trying", "outcome": "pending", "reason": None, "detail": None}
    return list(values.values())


def test_orphans_are_read_in_a_time_that_grows_as_their_number(
    lone: Lone, orphans: list[str]
) -> None:
    with closing(lone.connect()) as connection:
        before = _rows_read(connection)
        found = read_phases(connection, orphans, 5)
        read = _rows_read(connection) - before
    assert [row.gtrid for row in found] == orphans
    assert read < 3 * ORPHANS


def test_only_those_of_the_groups_that_are_asked_for(lone: Lone, orphans: list[str]) -> None:
    with closing(lone.connect()) as connection:
        found = read_phases(connection, [orphans[3], "nobody"], 5)
    assert [row.gtrid for row in found] == [orphans[3]]


def _rows_read(connection: ShardConnection) -> int:
    """How many rows the server has looked at for this session."""
    rows = connection.rows("SHOW SESSION STATUS LIKE 'Handler_read%'", soon())
    return sum(int(count) for _, count in rows)
