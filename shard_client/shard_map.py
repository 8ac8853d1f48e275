"""Which shard owns which slot: an immutable, versioned table."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from ledger.ids import SLOT_COUNT, slot_of
from shard_client.xid import NAME_PATTERN

# A host by its name, or by its address: one of IPv6 stands in brackets.
HOST_PATTERN = r"(?:[^\s:/,\[\]]+|\[[0-9A-Fa-f:.]+(?:%[^\s\]]+)?\])"
# The name of a database may have any characters, which are quoted, of those that a server takes.
ADDRESS_PATTERN = (
    rf"^({HOST_PATTERN}):(\d{{1,5}})/([^\x00-\x1f\x7f\U00010000-\U0010ffff]{{0,63}}"
    r"[^\s\x00-\x1f\x7f\U00010000-\U0010ffff])\Z"
)
_ADDRESS = re.compile(ADDRESS_PATTERN)
# A ledger group is named by where its node listens.
GROUP_SCHEME = "ledger://"
GROUP_PATTERN = rf"^{GROUP_SCHEME}({HOST_PATTERN}):(\d{{1,5}})\Z"
_GROUP = re.compile(GROUP_PATTERN)


class ShardKind(StrEnum):
    """What a shard is."""

    MYSQL = "mysql"  # or MariaDB: a database on a server
    LEDGER = "ledger"  # a ledger group: a node of the event store


class ShardAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a shard is, and the uuid of the server, or of the group, that is known to be it ("" is
    any). A ledger group has no database.
    """

    host: str
    port: int
    database: str
    server_uuid: str = ""
    kind: ShardKind = ShardKind.MYSQL

    @classmethod
    def parse(cls, text: str) -> "ShardAddress":
        """From `host:port/database`, or `ledger://host:port` for a ledger group; the host may be an
        IPv6 address in brackets.
        """
        if group := _GROUP.fullmatch(text):
            host, port = group.groups()
            return cls(host.strip("[]"), int(port), "", kind=ShardKind.LEDGER)
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is like neither {ADDRESS_PATTERN} nor {GROUP_PATTERN}")
        host, port, database = found.groups()
        return cls(host.strip("[]"), int(port), database)

    def __str__(self) -> str:
        if self.kind is ShardKind.LEDGER:
            return GROUP_SCHEME + endpoint(self.host, self.port)
        return f"{endpoint(self.host, self.port)}/{self.database}"


def endpoint(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class SlotRange(NamedTuple):
    """Slots `first` to `last`, both included, belong to `shard`."""

    first: int
    last: int
    shard: str


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    shards: dict[str, ShardAddress]
    slots: list[SlotRange]


class BrokenShardMap(Exception):
    """A shard map that cannot be used; the text says why."""


class ShardMap:
    """The versioned table slot -> shard."""

    def __init__(
        self, version: int, shards: Mapping[str, ShardAddress], ranges: list[SlotRange]
    ) -> None:
        self.version = version
        self.shards = dict(shards)
        self.ranges = sorted(ranges)
        self._check()
        self._owners = [shard for first, last, shard in self.ranges for _ in range(first, last + 1)]

    def _check(self) -> None:
        for name in self.shards:
            if not re.fullmatch(NAME_PATTERN, name):
                raise BrokenShardMap(f"{name!r} is no name of a shard: {NAME_PATTERN}")
        expected = 0
        for first, last, shard in self.ranges:
            if first != expected or last < first:
                raise BrokenShardMap(f"slots {expected} and on: the next range is {first}-{last}")
            if shard not in self.shards:
                raise BrokenShardMap(f"slots {first}-{last} are given to unknown shard {shard}")
            expected = last + 1
        if expected != SLOT_COUNT:
            raise BrokenShardMap(f"the slots end at {expected - 1}, not {SLOT_COUNT - 1}")
        if self.version < 1:
            raise BrokenShardMap(f"version {self.version} is below 1")
        if self.has_groups and len(self.shards) > 1:
            raise BrokenShardMap(
                f"shards {', '.join(self.shards)} are beside a ledger group, and transfers between "
                "a group and other shards are not there yet: a group has to be the only shard"
            )

    @property
    def has_groups(self) -> bool:
        """Whether ledger groups are among the shards."""
        return any(address.kind is ShardKind.LEDGER for address in self.shards.values())

    def shard_of_slot(self, slot: int) -> str:
        return self._owners[slot]

    def shard_of(self, account_id: str) -> str:
        """The shard that owns an account."""
        return self._owners[slot_of(account_id)]

    def ranges_of(self, shard: str) -> list[tuple[int, int]]:
        return [(first, last) for first, last, owner in self.ranges if owner == shard]

    def to_json(self) -> bytes:
        return msgspec.json.encode(_Document(self.version, self.shards, self.ranges))

    @classmethod
    def from_json(cls, data: bytes) -> "ShardMap":
        """Raises BrokenShardMap."""
        try:
            document: Any = msgspec.json.decode(data, type=_Document)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BrokenShardMap(f"it cannot be read: {error}") from error
        return cls(document.version, document.shards, document.slots)

    @classmethod
    def evenly(cls, version: int, shards: Mapping[str, ShardAddress]) -> "ShardMap":
        """All slots dealt out in equal, contiguous ranges."""
        names = sorted(shards, key=lambda name: (len(name), name))
        bounds = [index * SLOT_COUNT // len(names) for index in range(len(names) + 1)]
        ranges = [SlotRange(bounds[i], bounds[i + 1] - 1, name) for i, name in enumerate(names)]
        return cls(version, shards, ranges)
