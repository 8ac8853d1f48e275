"""What to do about a server's error: for those that a setting or a privilege causes."""

from shard_client.errors import ShardError

_INIT = "`tandem shards init` gives the service's user all that it needs"
_PASSWORD = (
    "the password of the service's user has expired; as the administrator: ALTER USER ... PASSWORD "
    "EXPIRE NEVER, or run `tandem shards init`"
)
_UNLOCK = "the service's user is locked; as the administrator: ALTER USER ... ACCOUNT UNLOCK"
_READ_ONLY = "the server takes no writes; SET GLOBAL super_read_only = OFF (MySQL), read_only = OFF"
_BINLOG_FORMAT = "SET PERSIST binlog_format = ROW (SET GLOBAL on MariaDB)"
_TRIGGER = "a trigger stands in the way; Tandem's tables have none: SHOW TRIGGERS, DROP TRIGGER"
_TABLES = "its tables are not Tandem's; see docs/data-model.md, and run `tandem shards init`"
_REMEDIES = {
    **dict.fromkeys((1044, 1045, 1142, 1143, 1698), _INIT),
    **dict.fromkeys((1054, 1136, 1146), _TABLES),
    **dict.fromkeys((1290, 1792, 1836), _READ_ONLY),
    **dict.fromkeys((1644, 1442), _TRIGGER),
    **dict.fromkeys((1662, 1663, 1664, 1665), _BINLOG_FORMAT),
    **dict.fromkeys((1820, 1862), _PASSWORD),
    **dict.fromkeys((3118, 4151), _UNLOCK),
    1040: "max_connections is too low, or too many clients are connected",
    1049: "the database is not there; run `tandem shards init`",
    1129: "the server has blocked this host after many failed connects: FLUSH HOSTS",
    1226: "the service's user has a limit of its own; ALTER USER ... WITH MAX_USER_CONNECTIONS 0",
    1401: "XA_RECOVER_ADMIN is missing: GRANT XA_RECOVER_ADMIN ON *.* TO the service's user",
    3032: "the server is offline; SET GLOBAL offline_mode = OFF",
}


def with_remedy(code: int, text: str) -> str:
    """A server's words, and what to do if that is known."""
    remedy = _REMEDIES.get(code)
    return f"{text}: {remedy}" if remedy and remedy not in text else text


def explained(error: ShardError) -> str:
    """The same for an error."""
    return with_remedy(error.code, error.text)
