"""The servers' users may do their work and no more: a stolen password cannot change history."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from coordinator.auditing.audit import audit
from coordinator.shards.provisioning import provision
from shard_client.address import Address
from shard_client.admin import Login, make_shard
from shard_client.checks import check_server, may_change_own_password
from shard_client.connection import ShardConnection
from shard_client.errors import ShardError, ShardUnavailable
from shard_client.prepared import list_prepared
from shard_client.schema import tables
from tests.cluster import Cluster
from tests.contract.bench import soon
from tests.contract.lone import CLUSTER, SERVICE, Lone

AUDITOR = Login("auditor", "another secret")
ENTRY = (
    "entries (account_id, number, transfer_id, amount, balance, counterparty, stamp)"
    " VALUES ('a', 1, 't', 5, 5, 'b', 1)"
)
FORBIDDEN = [
    "UPDATE entries SET amount = amount + 1",
    "DELETE FROM entries",
    f"REPLACE INTO {ENTRY}",
    f"INSERT INTO {ENTRY} ON DUPLICATE KEY UPDATE amount = 6",
    "UPDATE transfers SET status = 'rejected'",
    "DELETE FROM transfers",
    "DELETE FROM accounts",
    "UPDATE accounts SET overdraft_limit = NULL",
    "UPDATE accounts SET currency = 'USD'",
    "UPDATE markers SET session = 1",
    "UPDATE slots SET last_slot = 4095",
    "INSERT INTO slots VALUES (1, 2)",
    "UPDATE shard_identity SET shard_id = 's2'",
    "DELETE FROM shard_identity",
    "TRUNCATE entries",
    "DROP TABLE entries",
    "ALTER TABLE entries ADD COLUMN more INT",
    "CREATE TRIGGER t BEFORE INSERT ON entries FOR EACH ROW SET NEW.amount = 1",
    "CREATE USER another@'%' IDENTIFIED BY 'x'",
    "GRANT UPDATE ON entries TO tandem@'%'",
    "SELECT * FROM mysql.user",
]


@pytest.fixture(scope="module")
def auditor(lone: Lone) -> Iterator[Address]:
    make_shard(lone.admin_address, CLUSTER, [(0, 4095)], SERVICE, AUDITOR)
    yield lone.address._replace(user=AUDITOR.name, password=AUDITOR.password)
    lone.admin(f"DROP USER {AUDITOR.name}@'%'")


def try_(address: Address, statement: str) -> None:
    connection = ShardConnection(address, 2.0, 60)
    try:
        connection.query([statement], soon())
    finally:
        connection.close()


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_what_a_stolen_password_of_the_service_cannot_do(lone: Lone, statement: str) -> None:
    with pytest.raises(ShardUnavailable, match="denied"):
        try_(lone.address, statement)


def test_a_stolen_password_cannot_change_itself(lone: Lone, auditor: Address) -> None:
    """On MySQL not at all; on MariaDB another one can be had beside it, until `shards init`."""
    for address in (lone.address, auditor):
        name = f"{address.user}@'%'"
        current = f" REPLACE '{address.password}'"
        ways = [
            "SET PASSWORD = 'mine'",
            "SET PASSWORD = ''",
            f"SET PASSWORD = 'mine'{current}",
            f"ALTER USER {name} IDENTIFIED BY 'mine'",
            f"ALTER USER {name} IDENTIFIED BY 'mine'{current}",
            f"ALTER USER {name} IDENTIFIED BY ''{current}",
            f"ALTER USER {name} DISCARD OLD PASSWORD",
            f"ALTER USER {name} ACCOUNT LOCK",
            f"ALTER USER {name} PASSWORD EXPIRE",
            f"DROP USER {name}",
            f"RENAME USER {name} TO other@'%'",
        ]
        if lone.is_mariadb:
            ways = [way.replace("= 'mine'", "= PASSWORD('mine')") for way in ways]
        done = [way for way in ways if _succeeds(address, way)]
        ShardConnection(address, 2.0, 60).close()
        is_known = _succeeds(address._replace(password="mine"), "SELECT 1")
        if not lone.is_mariadb:
            assert (done, is_known) == ([], False)
    make_shard(lone.admin_address, CLUSTER, [(0, 4095)], SERVICE, AUDITOR)
    for address in (lone.address, auditor):
        assert not _succeeds(address._replace(password="mine"), "SELECT 1")
        assert not _succeeds(address._replace(password=""), "SELECT 1")


def _succeeds(address: Address, statement: str) -> bool:
    try:
        try_(address, statement)
    except ShardError:
        return False
    return True


def test_a_user_that_could_change_its_password_is_named(lone: Lone) -> None:
    """As one of an earlier version can, and one that an administrator has set."""
    connection = lone.connect()
    try:
        assert not may_change_own_password(connection, soon())
        if not lone.is_mariadb:
            lone.admin("ALTER USER tandem@'%' PASSWORD REQUIRE CURRENT OPTIONAL")
        else:
            lone.admin(f"ALTER USER tandem@'%' IDENTIFIED BY '{SERVICE.password}'")
        assert may_change_own_password(connection, soon())
        make_shard(lone.admin_address, CLUSTER, [(0, 4095)], SERVICE)
        assert not may_change_own_password(connection, soon())
    finally:
        connection.close()


def test_what_an_earlier_version_granted_is_taken_back(lone: Lone) -> None:
    """And a coordinator that is at work meanwhile does not notice."""
    lone.admin("GRANT SELECT, INSERT, UPDATE, DELETE ON tandem.* TO tandem@'%'")
    try_(lone.address, "UPDATE entries SET amount = amount")
    at_work = lone.connect()
    make_shard(lone.admin_address, CLUSTER, [(0, 4095)], SERVICE)
    at_work.query(["UPDATE shard_identity SET touched = touched + 1"], soon())
    at_work.close()
    with pytest.raises(ShardUnavailable, match="denied"):
        try_(lone.address, "UPDATE entries SET amount = amount")
    again = lone.connect()
    assert check_server(again, soon()).problems == []
    again.close()


def test_the_service_gets_another_user_without_a_gap(lone: Lone) -> None:
    """As docs/security.md says: both work side by side, then the old one goes."""
    new = Login("tandem2", "fresh")
    make_shard(lone.admin_address, CLUSTER, [(0, 4095)], new)
    work = "UPDATE shard_identity SET touched = touched + 1"
    new_address = lone.address._replace(user=new.name, password=new.password)
    try:
        for address in (lone.address, new_address):
            try_(address, work)
        lone.admin("DROP USER tandem@'%'")
        try_(new_address, work)
        with pytest.raises(ShardUnavailable, match="denied"):
            try_(lone.address, work)
    finally:
        lone.admin(f"DROP USER {new.name}@'%'")
        make_shard(lone.admin_address, CLUSTER, [(0, 4095)], SERVICE)
    try_(lone.address, work)


@pytest.mark.parametrize("table", [table.name for table in tables.sorted_tables])
def test_the_auditor_reads_every_table_and_changes_none(auditor: Address, table: str) -> None:
    column = tables.tables[table].columns.keys()[0]
    try_(auditor, f"SELECT * FROM {table}")
    for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
        with pytest.raises(ShardUnavailable, match="denied"):
            try_(auditor, statement)


def test_the_auditor_sees_what_is_prepared(auditor: Address) -> None:
    connection = ShardConnection(auditor, 2.0, 60)
    assert list_prepared(connection, CLUSTER, soon()) == []
    connection.close()


def test_the_audit_works_as_the_auditor(any_cluster: Cluster, tmp_path: Path) -> None:
    settings = any_cluster.settings
    login = {"audit_user": AUDITOR.name, "audit_password": AUDITOR.password}
    named = msgspec.structs.replace(settings.mysql, **login)
    provision(msgspec.structs.replace(settings, mysql=named), lambda text: None)
    try:
        # As the service it could not get in.
        alone = msgspec.structs.replace(named, password="wrong")
        as_auditor = msgspec.structs.replace(settings, mysql=alone)
        assert audit(as_auditor, print).violations == []
        # Anchors need the service only where what is visible may not be durable.
        shard = next(iter(settings.shards))
        if "MariaDB" in any_cluster.rows(shard, "SELECT VERSION()")[0][0]:
            with pytest.raises(ShardUnavailable, match=r"anchors cannot be taken.*Nothing was"):
                audit(as_auditor, print, anchor=tmp_path / "anchors")
            assert list(tmp_path.iterdir()) == []
        else:
            assert audit(as_auditor, print, anchor=tmp_path / "anchors").anchors
    finally:
        for shard in settings.shards:
            any_cluster.rows(shard, f"DROP USER {AUDITOR.name}@'%'")
