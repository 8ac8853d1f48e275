"""The shard in memory keeps what every kind of shard promises."""

from collections.abc import Mapping

import pytest

from ledger.ids import SLOT_COUNT
from shard_client.node import ShardNode
from tests.contract.shard_contract import ShardContract
from tests.memory_shard import MemoryShard

HALF = SLOT_COUNT // 2
SLOTS = {"s1": frozenset(range(HALF)), "s2": frozenset(range(HALF, SLOT_COUNT))}


class TestMemoryShard(ShardContract):
    @pytest.fixture
    def cluster_id(self) -> str:
        return "tests"

    @pytest.fixture
    def nodes(self, cluster_id: str) -> Mapping[str, ShardNode]:
        made = {
            name: MemoryShard(name, cluster_id, slots=SLOTS[name], lock_wait_s=0.05)
            for name in SLOTS
        }
        for node in made.values():
            node.admit()
        return made
