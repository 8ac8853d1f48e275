"""The shard client's boundary, on both kinds of server."""

from collections.abc import Iterator

import pytest

from shard_client.branch import Branch
from tests.cluster import Cluster
from tests.contract.bench import Bench
from tests.contract.lone import Lone, lone_server


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
