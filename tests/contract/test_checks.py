"""What a coordinator checks before it uses a server: each fault is named, with its remedy."""

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from shard_client import statements as sql
from shard_client.admin import make_shard
from shard_client.checks import (
    SCHEMA_VERSION,
    ServerCheck,
    check_server,
    read_clock,
    read_identity,
    verify_identity,
)
from shard_client.connection import ShardConnection
from shard_client.errors import ShardUnavailable
from shard_client.shard import Limits, Shard
from tests.contract.bench import soon
from tests.contract.lone import CLUSTER, PASSWORD, SERVICE, USER, Lone


@pytest.fixture
def connection(lone: Lone) -> Iterator[ShardConnection]:
    made = lone.connect()
    yield made
    made.close()


def check(lone: Lone) -> ServerCheck:
    connection = lone.connect()
    try:
        return check_server(connection, soon())
    finally:
        connection.close()


def shard(lone: Lone, *, refuse_weak: bool = True, uuid: str | None = None) -> Shard:
    return Shard(
        lone.address,
        CLUSTER,
        lone.uuid if uuid is None else uuid,
        Limits(2.0, 60, 4, 4, 4),
        refuse_weak_durability=refuse_weak,
    )


# --- durability -----------------------------------------------------------------------------


def test_a_good_server_has_no_problems(lone: Lone) -> None:
    found = check(lone)
    assert (found.problems, found.weak) == ([], [])
    assert found.server_uuid == lone.uuid
    assert bool(lone.uuid) != lone.is_mariadb
    assert found.version[0].isdigit()


@pytest.mark.parametrize("value", [0, 2])
def test_commits_that_are_not_flushed(lone: Lone, value: int) -> None:
    with lone.variables({"innodb_flush_log_at_trx_commit": value}):
        found = check(lone)
        assert found.problems == []
        (text,) = found.weak
        assert f"innodb_flush_log_at_trx_commit is {value}" in text
        assert "innodb_flush_log_at_trx_commit = 1" in text
        with pytest.raises(ShardUnavailable, match="innodb_flush_log_at_trx_commit"):
            shard(lone).admit()
        flagged = shard(lone, refuse_weak=False)
        flagged.admit()
        assert flagged.is_available
        assert flagged.last_check is not None
        assert flagged.last_check.weak == found.weak


def test_durability_that_is_lowered_while_a_shard_is_in_use(lone: Lone) -> None:
    strict, flagged = shard(lone), shard(lone, refuse_weak=False)
    strict.admit()
    flagged.admit()
    with lone.variables({"innodb_flush_log_at_trx_commit": 0}):
        strict.check_again()
        flagged.check_again()
        assert "innodb_flush_log_at_trx_commit is 0" in (strict.unavailable_because or "")
        assert flagged.is_available
        assert flagged.last_check is not None
        assert len(flagged.last_check.weak) == 1
    flagged.check_again()
    assert flagged.last_check.weak == []


@pytest.mark.parametrize("value", [0, 100])
def test_a_binlog_that_is_not_flushed(lone: Lone, value: int) -> None:
    with lone.variables({"sync_binlog": value}):
        found = check(lone)
        if lone.is_mariadb:
            # It has no binlog: the setting means nothing.
            assert found.weak == []
            return
        (text,) = found.weak
        assert f"sync_binlog is {value}" in text
        assert "SET PERSIST sync_binlog = 1" in text
        with pytest.raises(ShardUnavailable, match="sync_binlog"):
            shard(lone).admit()


def test_several_faults_are_named_together(lone: Lone) -> None:
    with lone.variables({"innodb_flush_log_at_trx_commit": 2, "read_only": 1}):
        with pytest.raises(ShardUnavailable) as caught:
            shard(lone).admit()
        assert "read_only" in str(caught.value)
        assert "innodb_flush_log_at_trx_commit" in str(caught.value)


# --- use ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"max_allowed_packet": 524288}, "max_allowed_packet is 524288"),
        ({"connection_memory_limit": 2097152}, "connection_memory_limit is 2097152"),
        ({"binlog_format": "'STATEMENT'"}, "binlog_format is STATEMENT"),
        ({"max_binlog_cache_size": 4096}, "max_binlog_cache_size is 4096"),
    ],
    ids=["packet", "memory", "binlog format", "binlog cache"],
)
def test_what_no_session_can_set_is_named(
    lone: Lone, values: dict[str, int | str], named: str
) -> None:
    if lone.is_mariadb and "packet" not in named:
        pytest.skip("MariaDB has no such limit, and this one no binary log")
    with lone.variables(values):
        (text,) = check(lone).problems
        assert named in text
        assert "SET GLOBAL" in text if lone.is_mariadb else "SET PERSIST" in text
        with pytest.raises(ShardUnavailable, match=named):
            shard(lone).admit()
    assert check(lone).problems == []


def test_a_log_that_takes_no_statement_of_ours_is_no_lock(lone: Lone) -> None:
    """The server would refuse it again, whoever asks: the shard is not used."""
    if lone.is_mariadb:
        pytest.skip("it has no binary log")
    with (
        lone.variables({"binlog_format": "'STATEMENT'"}),
        pytest.raises(ShardUnavailable) as caught,
    ):
        lone.connect().query([sql.TOUCH], soon())
    assert caught.value.code == 1665
    assert "BINLOG_FORMAT = STATEMENT" in str(caught.value)


def test_a_table_that_is_gone_is_no_lock(lone: Lone) -> None:
    row = sql.insert(sql.INSERT_ENTRIES, [("a", 1, "t", 1, 1, "b", 1, "c")])
    lone.admin("RENAME TABLE entries TO elsewhere")
    try:
        with pytest.raises(ShardUnavailable) as caught:
            lone.connect().query([row], soon())
    finally:
        lone.admin("RENAME TABLE elsewhere TO entries")
    assert caught.value.code == 1146


def test_a_server_that_takes_no_writes(lone: Lone) -> None:
    with lone.variables({"read_only": 1}):
        (text,) = check(lone).problems
        assert "read_only is ON" in text
        assert "SET GLOBAL read_only = OFF" in text
        refused = shard(lone)
        with pytest.raises(ShardUnavailable, match="read_only"):
            refused.admit()
        assert not refused.is_available
        with pytest.raises(ShardUnavailable, match="read_only"):
            refused.take(soon())
    refused.admit()
    assert refused.is_available


def test_branches_that_only_their_session_could_finish(lone: Lone) -> None:
    if lone.is_mariadb:
        return
    with lone.variables({"xa_detach_on_prepare": 0}):
        (text,) = check(lone).problems
        assert "xa_detach_on_prepare is OFF" in text
        assert "SET PERSIST xa_detach_on_prepare = ON" in text


def test_missing_privileges(lone: Lone) -> None:
    """One after the other is named, with the way to give it. The server's own texts talk of
    something else, or it says nothing at all.
    """
    lone.admin(
        "CREATE USER poor@'%' IDENTIFIED BY 'pw'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON tandem.* TO poor@'%'",
    )
    try:
        for name in ["PROCESS"] if lone.is_mariadb else ["PROCESS", "XA_RECOVER_ADMIN"]:
            (text,) = _problems_of_poor(lone)
            assert f"{name} is missing" in text
            assert f"GRANT {name} ON *.*" in text
            lone.admin(f"GRANT {name} ON *.* TO poor@'%'")
        assert _problems_of_poor(lone) == []
    finally:
        lone.admin("DROP USER poor@'%'")


def _problems_of_poor(lone: Lone) -> list[str]:
    poor = ShardConnection(lone.address._replace(user="poor", password="pw"), 2.0, 60)
    try:
        return check_server(poor, soon()).problems
    finally:
        poor.close()


def test_a_wrong_clock_keeps_a_shard_out(lone: Lone) -> None:
    refused = shard(lone)
    refused._clock_problem = lambda _: "its clock is an hour off"
    with pytest.raises(ShardUnavailable, match="an hour off"):
        refused.admit()
    assert not refused.is_available
    refused._clock_problem = lambda _: None
    refused.admit()
    assert refused.is_available


@pytest.mark.parametrize("zone", ["+00:00", "+13:00", "SYSTEM"])
def test_a_clock_is_read_in_whatever_time_zone(lone: Lone, zone: str) -> None:
    before = lone.admin("SELECT @@global.time_zone")[0][0]
    lone.admin(f"SET GLOBAL time_zone = '{zone}'")
    try:
        ours_s = time.time() - time.monotonic()
        assert abs(check(lone).clock_offset_s - ours_s) < 1
        connection = lone.connect()
        assert abs(read_clock(connection, soon()) / 1e6 - time.time()) < 1
        connection.close()
    finally:
        lone.admin(f"SET GLOBAL time_zone = '{before}'")


# --- what transfers write --------------------------------------------------------------------


def reason(lone: Lone) -> str:
    """Why the shard cannot be admitted."""
    with pytest.raises(ShardUnavailable) as caught:
        shard(lone).admit()
    return str(caught.value)


def test_a_trial_leaves_nothing(lone: Lone) -> None:
    tables = ("accounts", "entries", "transfers", "decisions", "markers", "phases", "steps")
    counts = "SELECT " + ", ".join(f"(SELECT COUNT(*) FROM {table})" for table in tables)
    before = lone.admin(counts)
    shard(lone).admit()
    assert lone.admin(counts) == before
    assert lone.admin("XA RECOVER") == []


@pytest.mark.parametrize(
    ("right", "table"),
    [
        ("INSERT", "entries"),
        ("INSERT", "transfers"),
        ("UPDATE (balance)", "accounts"),
        ("UPDATE (held)", "accounts"),
        ("UPDATE (status)", "accounts"),
        ("DELETE", "decisions"),
        ("DELETE", "markers"),
        ("INSERT", "markers"),
        ("UPDATE", "phases"),
        ("UPDATE (stamp)", "steps"),
        ("SELECT", "slots"),
        ("UPDATE (touched)", "shard_identity"),
    ],
)
def test_a_right_that_is_missing(lone: Lone, right: str, table: str) -> None:
    used = shard(lone)
    used.admit()
    lone.admin(f"REVOKE {right} ON tandem.{table} FROM '{USER}'@'%'")
    try:
        text = reason(lone)
        assert table in text or right.partition("(")[2].rstrip(")") in text
        assert right.partition(" ")[0] in text
        assert "tandem shards init" in text
        used.check_again()
        assert table in (used.unavailable_because or "")
    finally:
        lone.admin(f"GRANT {right} ON tandem.{table} TO '{USER}'@'%'")
    used.admit()


@pytest.mark.parametrize(
    ("table", "event"),
    [("entries", "BEFORE INSERT"), ("accounts", "AFTER UPDATE"), ("decisions", "BEFORE DELETE")],
)
def test_a_trigger_that_refuses(lone: Lone, table: str, event: str) -> None:
    lone.admin(
        f"CREATE TRIGGER forbids {event} ON {table} FOR EACH ROW"
        " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not on my server'"
    )
    try:
        text = reason(lone)
        assert "not on my server" in text
        assert "DROP TRIGGER" in text
    finally:
        lone.admin("DROP TRIGGER forbids")


@pytest.mark.parametrize(
    ("variable", "value"), [("super_read_only", 1), ("offline_mode", 1), ("binlog_format", "1")]
)
def test_a_setting_that_keeps_writes_away(lone: Lone, variable: str, value: str) -> None:
    """Statement format refuses what is written at READ COMMITTED. It is the session that counts."""
    if lone.is_mariadb:
        return
    used = shard(lone)
    used.admit()
    before = {name: lone.admin(f"SELECT @@global.{name}")[0][0] for name in ("read_only", variable)}
    lone.admin(f"SET GLOBAL {variable} = {value}")
    try:
        if variable == "binlog_format":
            _statement_format(lone, used)
            return
        assert variable in reason(lone)
        with suppress(ShardUnavailable):
            used.check_again()
        assert variable in (used.unavailable_because or "")
    finally:
        lone.admin(f"SET GLOBAL {variable} = {before[variable]!r}", "SET GLOBAL read_only = 0")
    used.admit()


def _statement_format(lone: Lone, used: Shard) -> None:
    """Either the session sets its own, or it is told."""
    connection = lone.connect()
    ((own,),) = connection.rows("SELECT @@session.binlog_format", soon())
    connection.close()
    if own == "ROW":
        used.check_again()
        assert used.is_available
        return
    assert "binlog_format = ROW" in reason(lone)
    used.check_again()
    assert "binlog_format" in (used.unavailable_because or "")


def test_a_password_that_has_expired(lone: Lone) -> None:
    lone.admin(f"ALTER USER '{USER}'@'%' PASSWORD EXPIRE")
    try:
        text = reason(lone)
        assert "has expired" in text
        assert "PASSWORD EXPIRE NEVER" in text
    finally:
        lone.admin(
            f"ALTER USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'",
            f"ALTER USER '{USER}'@'%' PASSWORD EXPIRE NEVER",
        )
    shard(lone).admit()


def test_a_user_that_is_locked(lone: Lone) -> None:
    lone.admin(f"ALTER USER '{USER}'@'%' ACCOUNT LOCK")
    try:
        assert "ACCOUNT UNLOCK" in reason(lone)
    finally:
        lone.admin(f"ALTER USER '{USER}'@'%' ACCOUNT UNLOCK")
    shard(lone).admit()


# --- identity -------------------------------------------------------------------------------


def test_who_a_server_is(lone: Lone, connection: ShardConnection) -> None:
    assert read_identity(connection, soon()) == (CLUSTER, "s1", SCHEMA_VERSION, lone.uuid)
    verify_identity(connection, CLUSTER, lone.uuid, soon())
    # Without a uuid in the map any server with this identity is taken.
    verify_identity(connection, CLUSTER, "", soon())
    assert connection.is_open


def test_the_shard_of_another_cluster(connection: ShardConnection) -> None:
    with pytest.raises(ShardUnavailable) as caught:
        verify_identity(connection, "tandem", "", soon())
    assert f"cluster {CLUSTER}" in str(caught.value)
    assert "wanted is cluster tandem" in str(caught.value)
    assert not connection.is_open


def test_another_shard(lone: Lone) -> None:
    other = ShardConnection(lone.address._replace(shard="s2"), 2.0, 60)
    with pytest.raises(ShardUnavailable) as caught:
        verify_identity(other, CLUSTER, lone.uuid, soon())
    assert "shard s1" in str(caught.value)
    assert "shard s2" in str(caught.value)
    assert not other.is_open


def test_a_copy_of_the_server(lone: Lone, connection: ShardConnection) -> None:
    with pytest.raises(ShardUnavailable, match="the shard map has other-uuid"):
        verify_identity(connection, CLUSTER, "other-uuid", soon())
    with pytest.raises(ShardUnavailable, match="uuid"):
        shard(lone, uuid="other-uuid").admit()


def test_another_schema(lone: Lone) -> None:
    lone.admin("UPDATE shard_identity SET schema_version = schema_version + 1")
    try:
        with pytest.raises(ShardUnavailable, match=f"schema {SCHEMA_VERSION + 1}; wanted"):
            verify_identity(lone.connect(), CLUSTER, "", soon())
    finally:
        lone.admin("UPDATE shard_identity SET schema_version = schema_version - 1")


def test_a_server_that_is_no_shard(lone: Lone) -> None:
    lone.admin("CREATE DATABASE vacant", f"GRANT SELECT ON vacant.* TO '{USER}'@'%'")
    try:
        address = lone.address._replace(database="vacant")
        assert read_identity(ShardConnection(address, 2.0, 60), soon()) is None
        with pytest.raises(ShardUnavailable, match="tandem shards init"):
            verify_identity(ShardConnection(address, 2.0, 60), CLUSTER, "", soon())
    finally:
        lone.admin("DROP DATABASE vacant")


def test_a_shard_is_made_once(lone: Lone) -> None:
    lone.admin(f"ALTER USER '{USER}'@'%' IDENTIFIED BY 'forgotten'")
    again = make_shard(lone.admin_address, CLUSTER, [(5, 9)], SERVICE)
    assert again == lone.uuid
    # Its slots are as they were; its user can log in again.
    assert lone.connect().rows("SELECT first_slot, last_slot FROM slots", soon()) == ((0, 4095),)


@pytest.mark.parametrize(("cluster", "name"), [("tandem", "s1"), (CLUSTER, "s2")])
def test_a_shard_is_not_made_into_another(lone: Lone, cluster: str, name: str) -> None:
    address = lone.admin_address._replace(shard=name)
    with pytest.raises(ShardUnavailable, match=f"is shard s1 of cluster {CLUSTER} already"):
        make_shard(address, cluster, [(0, 4095)], SERVICE)
    assert read_identity(lone.connect(), soon()) == (CLUSTER, "s1", SCHEMA_VERSION, lone.uuid)


def test_the_service_user_may_do_its_work_and_no_more(lone: Lone) -> None:
    for statement in ("CREATE TABLE t (a INT)", "DROP TABLE markers", "TRUNCATE markers"):
        with pytest.raises(ShardUnavailable):
            lone.connect().query([statement], soon())
