"""Where a shard is, and as whom to log in there."""

from coordinator.settings import Settings, SettingsError
from shard_client.connection import Address
from shard_client.shard_map import ShardAddress


def admin_address(settings: Settings, shard: str, address: ShardAddress) -> Address:
    """The address of a shard with the name of its administrator. Raises SettingsError."""
    mysql = settings.mysql
    if not mysql.admin_user:
        raise SettingsError("mysql.admin_user is empty: setting up shards takes an administrator")
    return Address(
        shard, address.host, address.port, address.database, mysql.admin_user, mysql.admin_password
    )


def service_address(settings: Settings, shard: str, address: ShardAddress) -> Address:
    """The address of a shard with the name of the coordinators' account."""
    mysql = settings.mysql
    return Address(shard, address.host, address.port, address.database, mysql.user, mysql.password)


def audit_address(settings: Settings, shard: str, address: ShardAddress) -> Address:
    """The same for the audit: with the name of a user that can only read, if there is one."""
    mysql = settings.mysql
    if not mysql.audit_user:
        return service_address(settings, shard, address)
    return Address(
        shard, address.host, address.port, address.database, mysql.audit_user, mysql.audit_password
    )
