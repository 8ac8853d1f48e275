"""Setting up the shards and the shard map, and checking them: what `tandem shards` does."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from coordinator.addresses import admin_address, service_address
from coordinator.cluster import ClusterError, protect, publish_map, read_map
from coordinator.settings import Settings, SettingsError
from shard_client.admin import Login, make_shard, may_change_own_password
from shard_client.checks import check_server, verify_identity
from shard_client.connection import ShardConnection
from shard_client.errors import ShardError
from shard_client.shard_map import ShardAddress, ShardMap

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

    The slots are dealt out evenly when the first map is published; later runs keep it. Raises
    SettingsError, ClusterError, ShardError.
    """
    wanted = _addresses(settings)
    try:
        current = read_map(settings)
    except ClusterError as error:
        if "no shard map" not in str(error):
            raise
        current = None
    plan = current or ShardMap.evenly(1, wanted)
    if set(plan.shards) != set(wanted):
        raise ClusterError(
            f"the published map has shards {', '.join(plan.shards)}, the configuration "
            f"{', '.join(wanted)}; shards cannot be added or removed yet; nothing was changed"
        )

    mysql = settings.mysql
    service = Login(mysql.user, mysql.password)
    auditor = Login(mysql.audit_user, mysql.audit_password) if mysql.audit_user else None

    def make(shard: str) -> tuple[str, str]:
        address = admin_address(settings, shard, wanted[shard])
        uuid = make_shard(address, settings.cluster.id, plan.ranges_of(shard), service, auditor)
        report(f"shard {shard} is set up at {address.host}:{address.port}")
        return shard, uuid

    with ThreadPoolExecutor(len(wanted)) as pool:
        uuids = dict(pool.map(make, wanted))
    shards = {
        name: ShardAddress(a.host, a.port, a.database, uuids[name]) for name, a in wanted.items()
    }
    if current is None:
        publish_map(settings, ShardMap(1, shards, plan.ranges))
        report("shard map version 1 is published")
    elif current.shards != shards:
        _republish(settings, current, shards, report)
    if protect(settings, report):
        report(f"what is in ZooKeeper belongs to the user {settings.zookeeper.user} alone")


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
    found = {}
    for shard, text in settings.shards.items():
        host, _, rest = text.partition(":")
        port, _, database = rest.partition("/")
        found[shard] = ShardAddress(host, int(port), database)
    return found


def check_shards(settings: Settings) -> list[ShardCheck]:
    """Check every shard of the published map. Raises ClusterError."""
    shards = read_map(settings).shards
    with ThreadPoolExecutor(max(len(shards), 1)) as pool:
        return list(pool.map(lambda item: _check(settings, *item), shards.items()))


def _check(settings: Settings, shard: str, address: ShardAddress) -> ShardCheck:
    where = f"{address.host}:{address.port}/{address.database}"
    deadline = time.monotonic() + _TIMEOUT_S
    try:
        connection = ShardConnection(service_address(settings, shard, address), _TIMEOUT_S, 60)
    except ShardError as error:
        return ShardCheck(shard, where, False, "", [error.text], [])
    try:
        version = connection.server_version
        verify_identity(connection, settings.cluster.id, address.server_uuid, deadline)
        found = check_server(connection, time.time(), deadline)
        notes = [_CHANGEABLE] if may_change_own_password(connection, deadline) else []
    except ShardError as error:
        return ShardCheck(shard, where, True, version, [error.text], [])
    finally:
        connection.close()
    flagged = settings.mysql.weak_durability == "flag"
    problems = found.problems + ([] if flagged else found.weak)
    return ShardCheck(shard, where, True, version, problems, notes + flagged * found.weak)
