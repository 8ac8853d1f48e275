"""What a coordinator does before it has workers."""

import pytest

from coordinator import server
from coordinator.http.batches import kinds


@pytest.mark.parametrize("package", ["numba", None])
def test_without_what_groups_need_nothing_of_it_is_loaded(
    package: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a cluster of MySQL shards starts where those packages are not."""
    loaded: list[None] = []
    monkeypatch.setattr(kinds, "prepare", lambda: loaded.append(None))
    monkeypatch.setattr(server, "find_spec", lambda name: package)
    server.prepare_for_groups()
    assert bool(loaded) == (package is not None)
