"""Clusters whose servers a test may kill, with everything that is waited for made short."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tandem.local.cluster import LocalCluster, Options
from tests.cluster import Cluster

SHORT = {
    "TANDEM_ZOOKEEPER_SESSION_TIMEOUT_S": "2",
    "TANDEM_COORDINATOR_WORKERS": "1",
    "TANDEM_ENGINE_SWEEP_INTERVAL_MS": "500",
    "TANDEM_ENGINE_LOCK_TIMEOUT_MS": "1500",
    "TANDEM_ENGINE_WRITE_TIMEOUT_MS": "3000",
    "TANDEM_ENGINE_SWEEP_GRACE_MS": "8000",
    "TANDEM_ENGINE_COLLECT_AFTER_MS": "1000",
}


@contextmanager
def short_cluster(folder: Path, engine: str) -> Iterator[Cluster]:
    """ZooKeeper, two shards and c1, of one worker."""
    local = LocalCluster(folder / "cluster", coordinator_environment=SHORT)
    try:
        local.up(Options(shards=2, coordinators=1, engine=engine))
        yield Cluster(local)
    finally:
        local.down()


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """One for each kind of server; each test may start coordinators of its own beside c1."""
    with short_cluster(tmp_path_factory.mktemp(f"short-{request.param}"), request.param) as made:
        yield made
