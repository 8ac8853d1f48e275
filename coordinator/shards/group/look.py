"""What a ledger group says of itself to those who set up a cluster, and to those who check it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.settings import Settings
from coordinator.shards.group.link import Link
from eventstore.wire.questions import At, Barrier, Describe, Description
from ledger.ids import SLOT_COUNT
from shard_client.checks import Holding, Identity
from shard_client.errors import ShardError
from shard_client.shard_map import ShardAddress

_TIMEOUT_S = 5.0
# A group owns all slots, for it is a cluster's only shard.
_ALL = [(0, SLOT_COUNT - 1)]
# Of tables; a group's list has formats of its own.
_NO_SCHEMA = 0


def look(settings: Settings, shard: str, address: ShardAddress) -> Holding:
    """Who a group is, and what it owns. Raises ShardError."""
    with _connected(settings, shard, address) as (link, group):
        found = link.ask_node(Describe(), Description, time.monotonic() + _TIMEOUT_S)
        identity = Identity(settings.cluster.id, shard, _NO_SCHEMA, group)
        return Holding(identity, _ALL, found.accounts > 0)


def check(
    settings: Settings, shard: str, address: ShardAddress
) -> tuple[str, list[str], float | None]:
    """A group's version, what is wrong with it, and by how much its clock shows more than the
    monotonic one. Raises ShardError if it cannot be reached.
    """
    with _connected(settings, shard, address) as (link, _):
        deadline = time.monotonic() + _TIMEOUT_S
        problems = []
        found = link.ask_node(Describe(), Description, deadline)
        offset_s = found.time_us / 1e6 - time.monotonic()
        if found.room_bytes < found.room_bytes_min:
            problems.append(
                f"its disk has room for {found.room_bytes:,} bytes and {found.room_bytes_min:,} "
                "have to be left: it takes no commands; make room on it"
            )
        try:
            link.ask_node(Barrier(), At, deadline)
            link.connect_to_reads()
        except ShardError as error:
            problems.append(error.text)
        return f"ledger group, {found.version}", problems, offset_s


@contextmanager
def _connected(settings: Settings, shard: str, address: ShardAddress) -> Iterator[tuple[Link, str]]:
    secret, timeout_s = settings.eventstore.secret, settings.mysql.connect_timeout_ms / 1000
    link = Link(shard, address, settings.cluster.id, secret, timeout_s)
    try:
        yield link, str(link.connect().group)
    finally:
        link.close()
