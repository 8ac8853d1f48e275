"""Clusters of each kind for the HTTP contract, and the shard client's boundary on both kinds of
server.
"""

from collections.abc import Iterator

import pytest

from shard_client.branch import Branch
from tests.cluster import Cluster
from tests.contract.bench import Bench
from tests.contract.lone import Lone, lone_server
from tests.contract.on_a_group import runs_once_more


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not apply to a ledger group."""
    seen: set[tuple[str, str]] = set()
    left_out = [item for item in items if not runs_once_more(item, seen)]
    if left_out:
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="module", params=["mysql", "eventstore"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A cluster of MySQL shards, and one of a ledger group."""
    return request.getfixturevalue(f"{request.param}_cluster")


@pytest.fixture(params=["mysql", "mariadb", "eventstore"])
def every_cluster(request: pytest.FixtureRequest) -> Cluster:
    """The same, and one of MariaDB shards."""
    return request.getfixturevalue(f"{request.param}_cluster")


@pytest.fixture
def bench(any_cluster: Cluster) -> Iterator[Bench]:
    """The shards of a running cluster, for one test."""
    made = Bench(any_cluster)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["local", "xa"])
def branch(bench: Bench, request: pytest.FixtureRequest) -> Branch:
    """A branch on s1: as the home of its group, and as another participant."""
    return bench.branch("s1", bench.gtrid(home="s1" if request.param == "local" else "s2"))


@pytest.fixture(scope="session")
def lone_mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lone]:
    """A MySQL shard of its own, which may be stopped and badly configured, if that is mended by who
    has done it. No coordinator uses it.
    """
    with lone_server(tmp_path_factory.mktemp("lone") / "cluster", "mysql") as server:
        yield server


@pytest.fixture(scope="session")
def lone_mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lone]:
    """The same of MariaDB."""
    with lone_server(tmp_path_factory.mktemp("lone") / "cluster", "mariadb") as server:
        yield server


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def lone(request: pytest.FixtureRequest) -> Lone:
    """One of each kind; each is started once, whichever files use it."""
    server: Lone = request.getfixturevalue(f"lone_{request.param}")
    return server
