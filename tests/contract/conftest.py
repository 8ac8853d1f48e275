"""The shard client's boundary, on both kinds of server."""

from collections.abc import Iterator

import pytest

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


@pytest.fixture(scope="session", params=["mysql", "mariadb"])
def lone(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lone]:
    """A shard of its own, which may be stopped and badly configured. No coordinator uses it."""
    with lone_server(tmp_path_factory.mktemp("lone") / "cluster", request.param) as server:
        yield server
