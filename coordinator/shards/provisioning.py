"""Setting up the shards and the shard map, and checking them: what `tandem shards` does."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import groupby
from typing import NamedTuple, TypeVar

import msgspec

from coordinator.cluster import ClusterError, NoMapPublished, protect, publish_map, read_map
from coordinator.settings import Settings, SettingsError
from coordinator.shards.addresses import admin_address, service_address
from coordinator.shards.clocks import judge
from ledger.ids import SLOT_COUNT
from shard_client.address import Address
from shard_client.admin import Login, make_shard
from shard_client.checks import (
    Holding,
    Identity,
    ServerCheck,
    look,
)
from shard_client.errors import ShardError
from shard_client.reader import Reader
from shard_client.remedies import explained
from shard_client.shard_map import ShardAddress, ShardKind, ShardMap, SlotRange

T = TypeVar("T")

_TIMEOUT_S = 5.0
_CHANGEABLE = (
    "mysql.user may change its own password, so whoever stole it could lock coordinators out: run "
    "`tandem shards init` again"
)


class ShardCheck(NamedTuple):
    """The state of one shard; `problems` each name a setting and the fix."""

    shard: str
    address: str
    reachable: bool
    version: str
    problems: list[str]
    notes: list[str]


def provision(settings: Settings, report: Callable[[str], None]) -> None:
    """Make shards of the servers in [shards] and publish their map. May be repeated.

    The slots are dealt out evenly when the first map is published; later runs keep it. Shards that
    have data already get no map from here. Raises SettingsError, ClusterError, ShardError.
    """
    wanted = _addresses(settings)
    current = _published(settings)
    plan = current or _first_map(settings, wanted)
    if set(plan.shards) != set(wanted):
        raise ClusterError(
            f"the published map has shards {', '.join(plan.shards)}, the configuration "
            f"{', '.join(wanted)}; shards cannot be added or removed yet; nothing was changed"
        )

    mysql = settings.mysql
    service = Login(mysql.user, mysql.password)
    auditor = Login(mysql.audit_user, mysql.audit_password) if mysql.audit_user else None

    def make(shard: str) -> tuple[str, str]:
        if wanted[shard].kind is ShardKind.LEDGER:
            found = _check_is(settings, shard, _look(settings, shard, wanted[shard]))
            report(f"shard {shard} is the ledger group {found.server_uuid} at {wanted[shard]}")
            return shard, found.server_uuid
        address = admin_address(settings, shard, wanted[shard])
        uuid = make_shard(address, settings.cluster.id, plan.ranges_of(shard), service, auditor)
        report(f"shard {shard} is set up at {address.host}:{address.port}")
        return shard, uuid

    with ThreadPoolExecutor(len(wanted)) as pool:
        uuids = dict(pool.map(make, wanted))
    shards = {
        name: msgspec.structs.replace(address, server_uuid=uuids[name])
        for name, address in wanted.items()
    }
    if current is None:
        publish_map(settings, ShardMap(1, shards, plan.ranges))
        report("shard map version 1 is published")
    elif current.shards != shards:
        _republish(settings, current, shards, report)
    if protect(settings, report):
        report(f"what is in ZooKeeper belongs to the user {settings.zookeeper.user} alone")


def _published(settings: Settings) -> ShardMap | None:
    """The published map; None if there is none."""
    try:
        return read_map(settings)
    except NoMapPublished:
        return None


def _first_map(settings: Settings, wanted: Mapping[str, ShardAddress]) -> ShardMap:
    """All slots dealt out evenly, if that is what the servers say that are shards already, and none
    of them has data: whoever has some was in a map that is lost. Raises ClusterError.
    """
    plan = ShardMap.evenly(1, wanted)
    as_admin = partial(_look, settings, as_whom=admin_address)
    for shard, holding in _each(wanted, as_admin).items():
        if holding.identity is None:
            continue
        _check_is(settings, shard, holding)
        owned, dealt = holding.ranges, plan.ranges_of(shard)
        if holding.has_data or owned != dealt:
            has = "has data" if holding.has_data else f"would get {shown_ranges(dealt)}"
            raise ClusterError(
                f"no shard map is published for cluster {settings.cluster.id}, but shard {shard} "
                f"was in one: it owns {shown_ranges(owned)} and {has}. Nothing was changed. If "
                "ZooKeeper has lost the map, name all shards in [shards] and run `tandem shards "
                "restore-map`"
            )
    return plan


def restore_map(settings: Settings, report: Callable[[str], None]) -> ShardMap:
    """Publish the map again that ZooKeeper has lost, from what the shards in [shards] themselves
    say that they own: each slot once, or nothing is published.

    Raises SettingsError, ClusterError, ShardError.
    """
    wanted = _addresses(settings)
    if current := _published(settings):
        raise ClusterError(
            f"shard map version {current.version} is published; there is nothing to restore"
        )
    holdings = _each(wanted, partial(_look, settings))
    known = {shard: _check_is(settings, shard, holding) for shard, holding in holdings.items()}
    ranges = whole({shard: holding.ranges for shard, holding in holdings.items()})
    shards = {
        shard: msgspec.structs.replace(address, server_uuid=known[shard].server_uuid)
        for shard, address in wanted.items()
    }
    # Above every version that was counted up from 1, so that coordinators that run take it.
    made = ShardMap(int(time.time()), shards, ranges)
    publish_map(settings, made)
    report(f"shard map version {made.version} is published, as the shards say")
    if protect(settings, report):
        report(f"what is in ZooKeeper belongs to the user {settings.zookeeper.user} alone")
    return made


def _look(
    settings: Settings,
    shard: str,
    address: ShardAddress,
    as_whom: Callable[[Settings, str, ShardAddress], Address] = service_address,
) -> Holding:
    """What a shard is and owns. Raises ShardError."""
    if address.kind is ShardKind.LEDGER:
        from coordinator.shards.group.look import look as look_at_group

        return look_at_group(settings, shard, address)
    return look(as_whom(settings, shard, address))


def whole(owned: Mapping[str, list[tuple[int, int]]]) -> list[SlotRange]:
    """What the shards own, if that is each slot once. Raises ClusterError, which names the rest."""
    owners: list[list[str]] = [[] for _ in range(SLOT_COUNT)]
    for shard, ranges in owned.items():
        for first, last in ranges:
            for slot in range(first, last + 1):
                owners[slot].append(shard)
    wrong = []
    for names, slots in groupby(range(SLOT_COUNT), key=lambda slot: owners[slot]):
        if len(names) != 1:
            first, *rest = slots
            where = shown_ranges([(first, rest[-1] if rest else first)])
            wrong.append(f"{where} by {' and '.join(names)}" if names else f"{where} by none")
    if wrong:
        raise ClusterError(
            f"these slots are not owned by one shard each: {'; '.join(wrong)}. Nothing was "
            "published. Does [shards] name every shard of the cluster, and each as what it is?"
        )
    return [SlotRange(first, last, shard) for shard in owned for first, last in owned[shard]]


def shown_ranges(ranges: Sequence[tuple[int, int]]) -> str:
    return "slots " + (", ".join(f"{first}-{last}" for first, last in ranges) or "none")


def _check_is(settings: Settings, shard: str, holding: Holding) -> Identity:
    """Who a server says that it is. Raises ClusterError unless it is this shard of this cluster."""
    found = holding.identity
    if found is None:
        raise ClusterError(
            f"the server of shard {shard} is no shard: it has no identity row; nothing was changed"
        )
    if (found.cluster, found.shard) != (settings.cluster.id, shard):
        raise ClusterError(
            f"the server of shard {shard} is shard {found.shard} of cluster {found.cluster} "
            "already; nothing was changed; check its address in [shards]"
        )
    return found


def _each(
    wanted: Mapping[str, ShardAddress], call: Callable[[str, ShardAddress], T]
) -> dict[str, T]:
    """Ask all servers at once. Raises what one of them raises."""
    with ThreadPoolExecutor(len(wanted)) as pool:
        return dict(zip(wanted, pool.map(call, wanted, wanted.values()), strict=True))


def _republish(
    settings: Settings,
    current: ShardMap,
    shards: dict[str, ShardAddress],
    report: Callable[[str], None],
) -> None:
    """Publish new addresses of the same servers; another server is not taken for a shard."""
    for name, new in shards.items():
        old = current.shards[name]
        if old.server_uuid and new.server_uuid != old.server_uuid:
            raise ClusterError(
                f"shard {name} is another server (uuid {new.server_uuid}) than the map knows "
                f"({old.server_uuid}); nothing was published"
            )
    publish_map(settings, ShardMap(current.version + 1, shards, current.ranges))
    report(f"shard map version {current.version + 1} is published")


def _addresses(settings: Settings) -> dict[str, ShardAddress]:
    if not settings.shards:
        raise SettingsError('[shards] names no shard: add one, as s1 = "127.0.0.1:3306/tandem"')
    return {shard: ShardAddress.parse(text) for shard, text in settings.shards.items()}


def check_shards(settings: Settings) -> list[ShardCheck]:
    """Check every shard of the published map. Raises ClusterError."""
    published = read_map(settings)
    checked = _each(published.shards, lambda s, a: _check(settings, published, s, a))
    ours_s = time.time() - time.monotonic()
    offsets = {shard: offset_s for shard, (_, offset_s) in checked.items() if offset_s is not None}
    clocks = judge({shard: offset_s - ours_s for shard, offset_s in offsets.items()})
    found = []
    for shard, (check, _) in checked.items():
        # What this machine would stamp is refused there, if its clock is the one that is wrong.
        ours = clocks.ours if shard in offsets else None
        wrong = filter(None, [clocks.theirs.get(shard), ours])
        found.append(check._replace(problems=[*check.problems, *wrong]))
    return found


def _check(
    settings: Settings, published: ShardMap, shard: str, address: ShardAddress
) -> tuple[ShardCheck, float | None]:
    """The state of a shard, and by how much its clock shows more than the monotonic one."""
    where, refuses = str(address), settings.mysql.weak_durability == "refuse"
    if address.kind is ShardKind.LEDGER:
        return _check_group(settings, shard, address)
    found: ServerCheck | None = None
    problems, notes = [], []
    with closing(Reader(service_address(settings, shard, address), settings.cluster.id)) as reader:
        try:
            version = reader.server_version()
        except ShardError as error:
            # A server that gives a reason is there.
            is_there = 1000 <= error.code < 2000 or error.code >= 3000
            return ShardCheck(shard, where, is_there, "", [explained(error)], []), None
        deadline = time.monotonic() + _TIMEOUT_S
        try:
            found = reader.check_server(address.server_uuid, deadline)
            problems += found.problems + (found.weak if refuses else [])
            notes += [] if refuses else found.weak
            notes += [_CHANGEABLE] if reader.may_change_own_password(deadline) else []
            owned, mapped = reader.owned_slots(deadline), published.ranges_of(shard)
            if owned != mapped:
                problems.append(
                    f"it owns {shown_ranges(owned)}, the shard map gives it {shown_ranges(mapped)};"
                    " it takes transfers for what it owns alone"
                )
            if not problems:
                reader.try_all(deadline)
        except ShardError as error:
            problems.append(explained(error))
    offset_s = found.clock_offset_s if found else None
    return ShardCheck(shard, where, True, version, problems, notes), offset_s


def _check_group(
    settings: Settings, shard: str, address: ShardAddress
) -> tuple[ShardCheck, float | None]:
    """The same of a ledger group."""
    from coordinator.shards.group.look import check

    try:
        version, problems, offset_s = check(settings, shard, address)
    except ShardError as error:
        return ShardCheck(shard, str(address), False, "", [error.text], []), None
    return ShardCheck(shard, str(address), True, version, problems, []), offset_s
