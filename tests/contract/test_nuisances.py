"""What chaos does to a shard beside killing it, on real servers: it begins, and it ends."""

import random
import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pymysql
import pytest

from tandem.chaos import nemesis
from tandem.chaos.nemesis import NUISANCES, Deed, Disturbance
from tandem.chaos.nuisances import Nuisances
from tandem.chaos.workload import account_names
from tests.cluster import Cluster


def deed(name: str) -> Deed:
    return next(deed for deed in NUISANCES if deed.name == name)


@pytest.fixture
def nuisances(any_cluster: Cluster) -> Nuisances:
    kind = any_cluster.rows("s1", "SELECT VERSION()")[0][0]
    return Nuisances(any_cluster.local, None, "mariadb" if "MariaDB" in kind else "mysql")


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_each_variable_is_set_and_put_back(any_cluster: Cluster, nuisances: Nuisances) -> None:
    for variable, worst in nuisances.variables:
        read = f"SELECT @@GLOBAL.{variable}"
        before = any_cluster.rows("s1", read)
        told, end = nuisances.set_variable("s1", variable, worst)
        try:
            assert told == f"{variable} = {worst}"
            assert any_cluster.rows("s1", read) != before
        finally:
            end()
        assert any_cluster.rows("s1", read) == before


@pytest.mark.parametrize("name", [nemesis.LOCK, nemesis.LOCK_TABLE])
def test_accounts_are_locked_until_it_ends(
    any_cluster: Cluster, nuisances: Nuisances, ends: ExitStack, name: str
) -> None:
    names = account_names(f"chaos-{secrets.token_hex(4)}", 2)
    terms = {"accounts": [{"id": name, "currency": "EUR"} for name in names]}
    httpx.post(
        f"{any_cluster.urls[0]}/v1/accounts/batch", json=terms, verify=False
    ).raise_for_status()
    told, end = nuisances.begin(Disturbance(deed(name), "s1", 1.0), random.Random(1))
    ends.callback(end)
    assert "in vain" not in told
    with any_cluster.sql("s1") as session, session.cursor() as cursor:
        cursor.execute("SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1")
        with pytest.raises(pymysql.err.OperationalError, match="Lock wait timeout"):
            cursor.execute("UPDATE accounts SET updated_at = updated_at WHERE id LIKE 'chaos-%'")
        end()
        cursor.execute("UPDATE accounts SET updated_at = updated_at WHERE id LIKE 'chaos-%'")
