"""The variables of a server that no session of ours can set, and that stand in its way.

Those that it sets are in `session.py`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from shard_client.connection import ShardConnection

# A group of 2,000 can be asked for with one packet, and any transfer alone can be written. Groups
# that are larger, also by what they write, are split.
PACKET_MIN = 2**20
# The changes of a group of 2,000 with their metadata.
BINLOG_CACHE_MIN = 16 * 2**20
# A session that reads and writes such groups.
MEMORY_MIN = 64 * 2**20


class Needed(NamedTuple):
    """A global variable: which values will do, what goes wrong with others, and what to set."""

    name: str
    will_do: Callable[[str], bool]
    otherwise: str
    wanted: str


def _at_least(least: int) -> Callable[[str], bool]:
    return lambda value: int(value) >= least


_ALWAYS = (
    Needed(
        "max_allowed_packet",
        _at_least(PACKET_MIN),
        f"less than {PACKET_MIN}, a group of transfers does not fit into a packet",
        str(64 * 2**20),
    ),
    # It is known to MySQL only.
    Needed(
        "connection_memory_limit",
        _at_least(MEMORY_MIN),
        f"less than {MEMORY_MIN}, sessions at work on a group are ended",
        "DEFAULT",
    ),
)
_WITH_BINLOG = (
    Needed(
        "binlog_format",
        lambda value: value.upper() != "STATEMENT",
        "and groups run at READ COMMITTED, which cannot be logged so",
        "ROW",
    ),
    Needed(
        "max_binlog_cache_size",
        _at_least(BINLOG_CACHE_MIN),
        f"less than {BINLOG_CACHE_MIN}, the transaction of a group does not fit",
        "DEFAULT",
    ),
)


def misset(connection: ShardConnection, *, has_binlog: bool, deadline: float) -> list[str]:
    """What is wrong with the server's variables: each with its value and the fix. Raises
    ShardError.
    """
    needed = _ALWAYS + (_WITH_BINLOG if has_binlog else ())
    names = ", ".join(connection.literal(item.name) for item in needed)
    rows = connection.rows(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})", deadline)
    verb = "GLOBAL" if connection.is_mariadb else "PERSIST"
    return problems_of(dict(rows), needed, verb)


def problems_of(values: Mapping[str, str], needed: tuple[Needed, ...], verb: str) -> list[str]:
    """One for each variable that the server has and whose value will not do."""
    return [
        f"{name} is {values[name]}: {otherwise}; SET {verb} {name} = {wanted}"
        for name, will_do, otherwise, wanted in needed
        if name in values and not will_do(values[name])
    ]
