"""Where a shard is, and as whom to log in there."""

from coordinator.settings import Settings, SettingsError
from shard_client.address import Address
from shard_client.shard_map import ShardAddress
from shard_client.tls import Tls


def admin_address(settings: Settings, shard: str, address: ShardAddress) -> Address:
    """The address of a shard with the name of its administrator. Raises SettingsError."""
    mysql = settings.mysql
    if not mysql.admin_user:
        raise SettingsError("mysql.admin_user is empty: setting up shards takes an administrator")
    return _address(settings, shard, address, mysql.admin_user, mysql.admin_password)


def service_address(settings: Settings, shard: str, address: ShardAddress) -> Address:
    """The address of a shard with the name of the coordinators' account."""
    return _address(settings, shard, address, settings.mysql.user, settings.mysql.password)


def audit_address(settings: Settings, shard: str, address: ShardAddress) -> Address:
    """The same for the audit: with the name of a user that can only read, if there is one."""
    mysql = settings.mysql
    if not mysql.audit_user:
        return service_address(settings, shard, address)
    return _address(settings, shard, address, mysql.audit_user, mysql.audit_password)


def _address(
    settings: Settings, shard: str, address: ShardAddress, user: str, password: str
) -> Address:
    mysql = settings.mysql
    tls = Tls(mysql.tls_ca, mysql.tls_certificate, mysql.tls_key)
    return Address(shard, address.host, address.port, address.database, user, password, tls)
