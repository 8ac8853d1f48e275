"""Looks at a shard that is in doubt, and who may keep whom from its connections."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from shard_client.connection import ShardConnection
from shard_client.errors import ShardError, ShardUnavailable, TimedOut, TryAgain
from shard_client.plain import PlainConnection
from shard_client.rehearsal import rehearse
from shard_client.shard import Limits, Shard
from tests.cluster import wait_until
from tests.contract.bench import soon
from tests.contract.lone import CLUSTER, Lone

CONNECTIONS = 3


@pytest.fixture
def connection(lone: Lone) -> Iterator[ShardConnection]:
    with closing(lone.connect()) as made:
        yield made


@pytest.fixture
def shard(lone: Lone) -> Iterator[Shard]:
    limits = Limits(2.0, 60, CONNECTIONS, CONNECTIONS, CONNECTIONS)
    made = Shard(lone.address, CLUSTER, lone.uuid, limits, refuse_weak_durability=True)
    made.admit()
    yield made
    made.close()


@contextmanager
def session(lone: Lone, *statements: str) -> Iterator[None]:
    """An administrator's session that has run these, for a block."""
    where = lone.admin_address
    login = {"user": where.user, "password": where.password, "database": where.database}
    with closing(PlainConnection(host=where.host, port=where.port, **login)) as made:
        with made.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        yield


def test_a_good_shard_is_left_as_it_was(lone: Lone, connection: ShardConnection) -> None:
    counts = "SELECT (SELECT COUNT(*) FROM transfers), (SELECT COUNT(*) FROM entries)"
    before = lone.admin(counts)
    rehearse(connection, soon())
    assert lone.admin(counts) == before


@pytest.mark.parametrize(
    "statement",
    ["LOCK TABLES entries READ", "LOCK TABLES accounts WRITE", "FLUSH TABLES WITH READ LOCK"],
)
def test_a_lock_on_a_whole_table_is_named(
    lone: Lone, connection: ShardConnection, statement: str
) -> None:
    with (
        session(lone, statement),
        pytest.raises(ShardUnavailable, match="locked a table as a whole"),
    ):
        rehearse(connection, soon())


def test_a_commit_that_hangs_is_named(lone: Lone, connection: ShardConnection) -> None:
    """As a look before this one does, on a disk that is full: it keeps the row that is written."""
    with (
        session(lone, "BEGIN", "UPDATE shard_identity SET touched = touched + 1"),
        pytest.raises(ShardUnavailable, match="its disk may be full"),
    ):
        rehearse(connection, soon())


def test_a_shard_that_is_doubted_is_given_up_only_if_it_is_not_well(
    lone: Lone, shard: Shard
) -> None:
    shard.is_doubted = True
    shard.look()
    assert shard.is_available
    assert not shard.is_doubted
    with session(lone, "LOCK TABLES entries READ"), pytest.raises(ShardUnavailable):
        shard.look()
    assert not shard.is_available


def test_a_shard_that_has_failed_repeatedly_has_to_be_well_for_longer(shard: Shard) -> None:
    for _ in range(2):
        shard.give_up(TimedOut(shard.id, "on purpose"))
        with_patience(shard)
    shard.give_up(TimedOut(shard.id, "on purpose"))
    with pytest.raises(
        ShardUnavailable, match="4 looks at it in a row have to be good: on purpose"
    ):
        shard.admit()
    with_patience(shard)


def test_a_full_disk_is_named_and_does_not_come_and_go(shard: Shard) -> None:
    shard.give_up(ShardUnavailable(shard.id, "The table 'entries' is full", code=1114))
    with pytest.raises(ShardUnavailable, match=r"16 looks .* its disk seems to be full"):
        shard.admit()


def with_patience(shard: Shard) -> None:
    """Look until it is admitted."""

    def is_admitted() -> bool:
        try:
            shard.admit()
        except ShardError:
            return False
        return True

    wait_until(is_admitted, 30, "it is not admitted", every_s=0.2)


def test_readers_do_not_keep_recovery_from_its_connections(shard: Shard) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(shard.connection(soon()))
        with shard.recovering(soon()) as connection:
            assert connection.rows("SELECT 1", soon()) == ((1,),)
        assert shard.pools["reads"].busy == CONNECTIONS


def test_recovery_does_not_keep_readers_from_theirs(shard: Shard) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(shard.recovering(soon()))
        with shard.connection(soon()) as connection:
            assert connection.rows("SELECT 1", soon()) == ((1,),)
        with pytest.raises(TryAgain, match="in use"), shard.recovering(soon() - 5):
            pass
