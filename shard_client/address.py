"""Where a shard is."""

from typing import NamedTuple

from shard_client.tls import Tls


class Address(NamedTuple):
    """Where a shard listens, and as whom to log in."""

    shard: str
    host: str
    port: int
    database: str | None
    user: str
    password: str
    tls: Tls = Tls()
