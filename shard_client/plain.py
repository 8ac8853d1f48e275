"""PyMySQL for those who write SQL themselves: administrators, auditors, tools, tests."""

import ssl

import pymysql

from shard_client.tls import Tls, context_of


class PlainConnection(pymysql.connections.Connection):  # type: ignore[misc]
    """Takes PyMySQL's options. Without `ssl` it encrypts if the server can, and verifies nobody.

    Where nothing is given PyMySQL would read all authorities of the system for each connection,
    though it asks none of them: for 24 to 50 ms nothing else would run in this process.
    """

    def _create_ssl_ctx(self, given: object) -> ssl.SSLContext:
        return given if isinstance(given, ssl.SSLContext) else context_of(Tls())
