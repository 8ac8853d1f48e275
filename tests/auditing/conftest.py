"""The clusters of these tests: new ones, which hold nothing yet. An audit reads all that a cluster
holds: where others have worked before it takes some times as long.
"""

from collections.abc import Iterator

import pytest

from tests.cluster import Cluster, started


@pytest.fixture(scope="package")
def mysql_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("own"), "mysql") as cluster:
        yield cluster


@pytest.fixture(scope="package")
def mariadb_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("own"), "mariadb") as cluster:
        yield cluster
