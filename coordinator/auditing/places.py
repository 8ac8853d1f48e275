"""Where an audit or an export reads a shard, of whichever kind it is."""

from collections.abc import Callable
from typing import NamedTuple

from coordinator.cluster import read_map
from coordinator.settings import Settings
from coordinator.shards.addresses import audit_address
from shard_client.address import Address
from shard_client.audit import Snapshot
from shard_client.books import AuditCalls, Books
from shard_client.reader import Reader
from shard_client.shard_map import ShardAddress, ShardKind, ShardMap


class Place(NamedTuple):
    """A shard, and as whom to log in there if it is a MySQL server. It can pass from one process to
    another.
    """

    settings: Settings
    shard: str
    where: ShardAddress
    as_whom: Callable[[Settings, str, ShardAddress], Address] = audit_address

    def books(self) -> Books:
        """The shard's books, as they are now. Raises ShardError."""
        if self.where.kind is ShardKind.LEDGER:
            # Takes an extra that others need not have.
            from coordinator.shards.group.books import open_books

            return open_books(self.settings, self.shard, self.where)
        return Snapshot(self._address)

    def calls(self) -> AuditCalls:
        """To ask the shard what is not in its books. Raises ShardError."""
        if self.where.kind is ShardKind.LEDGER:
            from coordinator.shards.group.books import open_calls

            return open_calls(self.settings, self.shard, self.where)
        return Reader(self._address, self.settings.cluster.id)

    @property
    def _address(self) -> Address:
        return self.as_whom(self.settings, self.shard, self.where)


def places_of(settings: Settings) -> tuple[ShardMap, dict[str, Place]]:
    """The published map, and each of its shards. Raises ClusterError, BrokenShardMap."""
    shard_map = read_map(settings)
    return shard_map, {s: Place(settings, s, where) for s, where in shard_map.shards.items()}
