"""The clusters that tests run against: real servers, started once a session."""

from collections.abc import Iterator

import hypothesis
import pytest

from tandem.local import ports
from tests import reaper, warm
from tests.cluster import Cluster, started
from tests.extended import is_extended

# How long examples take says how busy the machine is. Whole tests have a time limit.
_TOO_SLOW = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("tandem", deadline=None, suppress_health_check=_TOO_SLOW)
hypothesis.settings.load_profile("tandem")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing that a run has started is left behind, however the run ends."""
    reaper.watch()
    warm.serve_local_clusters()
    # Servers that a test has stopped leave their ports free: whoever runs beside it takes others.
    lane = getattr(config, "workerinput", {}).get("workerid", "gw0")
    ports.FIRST = _PORTS + _PORTS_OF_A_LANE * int(lane.removeprefix("gw"))


_PORTS, _PORTS_OF_A_LANE = 9_000, 2_000


# Those that take longest begin first, so that none is left to run beside nothing in the end.
_ORDER = (
    "faults",
    "end_to_end",
    "auditing",
    "monitoring",
    "contract",
    "eventstore",
    "model",
    "unit",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is for `scripts/test --all`, and put the folders into their order."""
    for item in items:
        if is_extended(item.nodeid):
            item.add_marker("extended")
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    folder = item.nodeid.removeprefix("tests/").partition("/")[0]
    return _ORDER.index(folder) if folder in _ORDER else len(_ORDER)


@pytest.fixture(scope="session")
def mysql_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """ZooKeeper, two MySQL shards and two coordinators of two workers each."""
    with started(tmp_path_factory.mktemp("mysql"), "mysql") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def mariadb_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same on MariaDB."""
    with started(tmp_path_factory.mktemp("mariadb"), "mariadb") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def eventstore_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """ZooKeeper, a ledger group (its node and its read side) and two coordinators."""
    with started(tmp_path_factory.mktemp("eventstore"), "eventstore") as cluster:
        yield cluster


@pytest.fixture(params=["mysql", "mariadb"])
def any_cluster(request: pytest.FixtureRequest) -> Cluster:
    """A cluster of each kind of server, one after the other."""
    return request.getfixturevalue(f"{request.param}_cluster")
