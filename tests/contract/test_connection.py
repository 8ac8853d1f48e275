"""A session on a shard: packets, time limits, and what is left after an error."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from shard_client.connection import Pool, ShardConnection
from shard_client.errors import (
    ConnectionLost,
    DuplicateRow,
    Hurried,
    ShardUnavailable,
    StatementRefused,
    TimedOut,
    TryAgain,
)
from tests.cluster import free_port, wait_until
from tests.contract.bench import soon
from tests.contract.lone import USER, Lone
from tests.proxy import Proxy


@pytest.fixture
def connection(lone: Lone) -> Iterator[ShardConnection]:
    made = lone.connect()
    yield made
    made.close()


@pytest.fixture
def table(lone: Lone) -> Iterator[str]:
    lone.admin(
        "CREATE TABLE scratch (n INT PRIMARY KEY, v INT CHECK (v >= 0))",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON scratch TO {USER}@'%'",
    )
    yield "scratch"
    lone.admin(f"REVOKE ALL ON scratch FROM {USER}@'%'", "DROP TABLE scratch")


# --- packets --------------------------------------------------------------------------------


def test_a_packet_gives_a_result_for_each_statement(
    connection: ShardConnection, table: str
) -> None:
    results = connection.query(
        [
            f"INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)",
            f"UPDATE {table} SET v = 2 WHERE n <= 2",
            f"SELECT n, v FROM {table} ORDER BY n",
            f"SELECT n FROM {table} WHERE n > 9",
        ],
        soon(),
    )
    # Rows that already are as wanted count as found.
    assert [result.found for result in results[:2]] == [3, 2]
    assert results[2].rows == ((1, 2), (2, 2), (3, 3))
    assert results[3].rows == ()


def test_an_error_ends_the_packet_and_says_where(connection: ShardConnection, table: str) -> None:
    insert = f"INSERT INTO {table} VALUES (1, 1)"
    with pytest.raises(DuplicateRow) as caught:
        connection.query(["START TRANSACTION", insert, insert, "COMMIT"], soon())
    assert (caught.value.statement, caught.value.code, caught.value.shard) == (2, 1062, "s1")
    assert not connection.is_open


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO scratch VALUES (5, -1)",
        "INSERT INTO scratch VALUES (2147483648, 1)",
        "nonsense",
    ],
)
def test_a_statement_that_is_refused(
    connection: ShardConnection, table: str, statement: str
) -> None:
    with pytest.raises(StatementRefused) as caught:
        connection.query([statement], soon())
    assert caught.value.statement == 0


def test_several_shards_are_asked_at_once(lone: Lone) -> None:
    connections = [lone.connect() for _ in range(4)]
    begun = time.monotonic()
    replies = [c.call(["SELECT SLEEP(0.3)"], soon(), len) for c in connections]
    assert [reply.get() for reply in replies] == [1, 1, 1, 1]
    assert time.monotonic() - begun < 1.0


def test_a_big_packet(connection: ShardConnection) -> None:
    text = "x" * (20 << 20)
    assert connection.rows(f"SELECT LENGTH('{text}')", soon()) == ((len(text),),)


@pytest.mark.parametrize("value", ["it's", "\\", '"', "\0", "ü\U0001f600", 5, None, "%s"])
def test_a_literal(connection: ShardConnection, value: object) -> None:
    assert connection.rows(f"SELECT {connection.literal(value)}", soon()) == ((value,),)


def test_the_session_is_as_asked(connection: ShardConnection) -> None:
    isolation = "@@tx_isolation" if connection.is_mariadb else "@@transaction_isolation"
    query = (
        f"SELECT @@autocommit, {isolation}, @@innodb_lock_wait_timeout, @@lock_wait_timeout,"
        " @@wait_timeout, @@net_read_timeout"
    )
    assert connection.rows(query, soon()) == ((1, "READ-COMMITTED", 1, 1, 60, 60),)


def test_the_kind_of_server_is_known(lone: Lone, connection: ShardConnection) -> None:
    assert connection.is_mariadb == lone.is_mariadb
    assert connection.server_version[0].isdigit()


# --- time limits ----------------------------------------------------------------------------


def test_a_slow_statement_is_lost_at_its_deadline(connection: ShardConnection) -> None:
    begun = time.monotonic()
    with pytest.raises(ConnectionLost):
        connection.query(["SELECT SLEEP(3)"], begun + 0.3)
    assert 0.25 < time.monotonic() - begun < 1.0
    assert not connection.is_open


def test_a_deadline_is_for_the_whole_packet(connection: ShardConnection) -> None:
    begun = time.monotonic()
    with pytest.raises(ConnectionLost) as caught:
        connection.query(["SELECT SLEEP(0.2)"] * 9, begun + 0.5)
    assert time.monotonic() - begun < 1.2
    assert caught.value.statement == 2


def test_an_answer_that_has_come_is_read_after_the_deadline(connection: ShardConnection) -> None:
    reply = connection.call(["SELECT 1", "SELECT 2"], time.monotonic() + 0.2, len)
    time.sleep(0.3)
    assert reply.get() == 2


def test_a_paused_server_costs_no_more_than_the_deadline(
    lone: Lone, connection: ShardConnection
) -> None:
    with lone.paused():
        begun = time.monotonic()
        with pytest.raises(ConnectionLost):
            connection.query(["SELECT 1"], begun + 0.3)
        assert time.monotonic() - begun < 1.0
        begun = time.monotonic()
        with pytest.raises(ShardUnavailable):
            ShardConnection(lone.address, 1.0, 60)
        assert time.monotonic() - begun < 3.0
    assert lone.connect().rows("SELECT 1", soon()) == ((1,),)


def test_closing_does_not_wait_for_a_paused_server(lone: Lone, connection: ShardConnection) -> None:
    with lone.paused():
        begun = time.monotonic()
        connection.close()
        assert time.monotonic() - begun < 0.2


def test_a_session_that_is_killed_is_lost(lone: Lone, connection: ShardConnection) -> None:
    lone.admin(f"KILL {connection.thread_id}")
    with pytest.raises(ConnectionLost):
        connection.query(["SELECT 1"], soon())
    assert not connection.is_open


def test_a_statement_that_is_killed_is_lost(lone: Lone, connection: ShardConnection) -> None:
    """What an interrupted packet did is not known."""
    reply = connection.call(["SELECT SLEEP(5) FROM shard_identity FOR UPDATE"], soon(), len)
    state = f"SELECT state FROM information_schema.processlist WHERE id = {connection.thread_id}"
    wait_until(lambda: lone.admin(state) == [("User sleep",)], 5, "the statement does not run")
    lone.admin(f"KILL {connection.thread_id}")
    with pytest.raises(ConnectionLost):
        reply.get()


def test_a_silent_session_is_let_go_with_its_locks(lone: Lone, table: str) -> None:
    """What frees the accounts of a coordinator that is frozen."""
    lone.admin(f"INSERT INTO {table} VALUES (1, 1)")
    frozen = lone.connect(idle_timeout_s=2)
    frozen.query(["START TRANSACTION", f"SELECT * FROM {table} FOR UPDATE"], soon())

    def is_free() -> bool:
        query = f"SELECT n FROM {table} FOR UPDATE SKIP LOCKED"
        return lone.connect().rows(query, soon()) == ((1,),)

    assert not is_free()
    wait_until(is_free, 8, "the lock is still held")
    with pytest.raises(ConnectionLost):
        frozen.query(["COMMIT"], soon())


def test_a_lock_is_waited_for_for_a_second(lone: Lone, table: str) -> None:
    lone.admin(f"INSERT INTO {table} VALUES (1, 1)")
    holder = lone.connect()
    holder.query(["START TRANSACTION", f"SELECT * FROM {table} FOR UPDATE"], soon())
    begun = time.monotonic()
    with pytest.raises(TryAgain):
        lone.connect().query([f"UPDATE {table} SET v = 2"], soon())
    assert 0.5 < time.monotonic() - begun < 4
    holder.close()


# --- no session at all ----------------------------------------------------------------------


def test_where_nothing_listens(lone: Lone) -> None:
    with pytest.raises(ShardUnavailable, match="cannot be reached"):
        ShardConnection(lone.address._replace(port=free_port()), 1.0, 60)


def test_where_something_listens_that_says_nothing(lone: Lone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(ShardUnavailable, match="cannot be reached"):
            ShardConnection(lone.address._replace(port=port), 1.0, 60)
        assert time.monotonic() - begun < 3.0


@pytest.mark.parametrize(
    "wrong", [{"password": "wrong"}, {"user": "nobody"}, {"database": "elsewhere"}]
)
def test_where_one_is_not_let_in(lone: Lone, wrong: dict[str, str]) -> None:
    with pytest.raises(ShardUnavailable) as caught:
        ShardConnection(lone.address._replace(**wrong), 1.0, 60)  # type: ignore[arg-type]
    assert "wrong" not in str(caught.value)


# --- the pool -------------------------------------------------------------------------------


def _pool(lone: Lone, size: int = 2, idle_max_s: float = 30) -> Pool:
    return Pool("s1", lone.connect, size, idle_max_s)


def test_a_session_is_used_again(lone: Lone) -> None:
    pool = _pool(lone)
    first = pool.take(soon())
    pool.give(first)
    assert pool.take(soon()) is first


def test_a_closed_session_is_not(lone: Lone) -> None:
    pool = _pool(lone)
    first = pool.take(soon())
    first.close()
    pool.give(first)
    second = pool.take(soon())
    assert second is not first
    assert second.rows("SELECT 1", soon()) == ((1,),)


def test_a_session_that_was_idle_too_long_is_not(lone: Lone) -> None:
    pool = _pool(lone, idle_max_s=0.05)
    first = pool.take(soon())
    pool.give(first)
    time.sleep(0.1)
    assert pool.take(soon()) is not first
    assert not first.is_open


def test_an_error_in_a_block_closes_the_session(lone: Lone) -> None:
    pool = _pool(lone)
    with pytest.raises(KeyError), pool.connection(soon()) as connection:
        raise KeyError
    assert not connection.is_open
    with pool.connection(soon()) as other:
        assert other is not connection


def test_there_are_no_more_than_its_size(lone: Lone) -> None:
    pool = _pool(lone, size=1)
    held = pool.take(soon())
    begun = time.monotonic()
    with pytest.raises(TryAgain, match="shard s1: all connections to it are in use"):
        pool.take(begun + 0.1)
    assert time.monotonic() - begun < 1.0
    threading.Timer(0.1, pool.give, [held]).start()
    assert pool.take(soon()) is held


def test_a_failed_connection_does_not_use_up_the_pool(lone: Lone) -> None:
    address = lone.address._replace(port=free_port())
    pool = Pool("s1", lambda: ShardConnection(address, 1.0, 60), 1, 30)
    for _ in range(3):
        with pytest.raises(ShardUnavailable, match="cannot be reached"):
            pool.take(soon())


def test_idle_sessions_are_discarded(lone: Lone) -> None:
    pool = _pool(lone)
    first = pool.take(soon())
    pool.give(first)
    pool.empty()
    assert not first.is_open
    assert pool.take(soon()) is not first


def test_a_session_in_use_while_the_pool_is_emptied_is_not_taken_back(lone: Lone) -> None:
    pool = _pool(lone, size=1)
    held = pool.take(soon())
    pool.empty()
    assert held.is_open
    pool.give(held)
    assert not held.is_open
    assert pool.take(soon()) is not held


# --- a server that trickles -----------------------------------------------------------------


@pytest.fixture
def proxy(lone: Lone) -> Iterator[Proxy]:
    with Proxy(lone.address.port) as made:
        yield made


def _through(lone: Lone, proxy: Proxy) -> ShardConnection:
    return ShardConnection(lone.address._replace(port=proxy.port), 1.0, 60)


def test_an_answer_that_trickles_is_lost_at_the_deadline(lone: Lone, proxy: Proxy) -> None:
    connection = _through(lone, proxy)
    proxy.mode, proxy.every_s = "drip", 0.05
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        connection.query(["SELECT REPEAT('x', 1000)"], begun + 1.0)
    assert 0.9 < time.monotonic() - begun < 2.0
    assert not connection.is_open


def test_a_login_that_trickles_is_given_up(lone: Lone, proxy: Proxy) -> None:
    proxy.mode, proxy.every_s = "drip", 0.1
    begun = time.monotonic()
    with pytest.raises(ShardUnavailable, match="cannot be reached"):
        _through(lone, proxy)
    assert time.monotonic() - begun < 4.0


def test_tls_that_trickles_is_given_up(lone: Lone, proxy: Proxy) -> None:
    """The greeting, of some hundred bytes, has come when the certificate begins to trickle."""
    if lone.is_mariadb:
        pytest.skip("it makes no certificate by itself")
    proxy.mode, proxy.every_s = "drip", 0.005
    begun = time.monotonic()
    with pytest.raises(ShardUnavailable, match="cannot be reached"):
        _through(lone, proxy)
    assert time.monotonic() - begun < 4.0


def test_a_packet_that_nobody_reads_is_given_up_at_the_deadline(lone: Lone, proxy: Proxy) -> None:
    connection = _through(lone, proxy)
    proxy.mode = "freeze"
    packet = f"SELECT '{'x' * (32 << 20)}'"
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        connection.query([packet], begun + 2.0)
    assert time.monotonic() - begun < 4.0


def test_a_short_deadline_says_nothing_of_the_shard(connection: ShardConnection) -> None:
    with pytest.raises(Hurried):
        connection.query(["SELECT SLEEP(3)"], time.monotonic() + 0.2)


def test_what_was_not_asked_was_not_lost(connection: ShardConnection) -> None:
    with pytest.raises(TryAgain, match="no time left"):
        connection.query(["SELECT 1"], time.monotonic())
    assert not connection.is_open


def test_an_answer_that_is_overdue_makes_a_shard_slow(lone: Lone, proxy: Proxy) -> None:
    pool = Pool("s1", lambda: _through(lone, proxy), 2, 30)
    connection = pool.take(soon())
    connection.query(["SELECT 1"], soon())
    assert not pool.is_slow(time.monotonic())
    proxy.mode = "freeze"
    reply = connection.call(["SELECT 1"], soon(), len)
    wait_until(lambda: pool.is_slow(time.monotonic()), 5, "nothing is slow")
    proxy.mode = "pass"
    assert reply.get() == 1
    pool.give(connection)
    wait_until(lambda: not pool.is_slow(time.monotonic()), 10, "it stays slow")


def test_a_wait_in_line_and_an_answer_that_nobody_has_read_make_no_shard_slow(lone: Lone) -> None:
    pool = Pool("s1", lone.connect, 2, 30)
    waiting, unread = pool.take(soon()), pool.take(soon())
    waiter = waiting.call(["SELECT SLEEP(1)"], soon(), len, waits=True)
    answered = unread.call(["SELECT 1"], soon(), len)
    assert waiter.get() == 1
    assert not pool.is_slow(time.monotonic())
    assert answered.get() == 1
