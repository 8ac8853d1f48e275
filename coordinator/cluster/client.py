"""A connection to ZooKeeper for a moment, and where things are in it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoAuthError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.serialization import Connect
from kazoo.security import ACL, make_digest_acl

from coordinator.settings import Settings
from shard_client.tls import Tls, context_of

_CONNECT_TIMEOUT_S = 10.0


class ClusterError(Exception):
    """ZooKeeper does not have, or does not do, what is needed; the text says what to do."""


NOT_OURS = (
    "ZooKeeper does not let this process in: what is kept there belongs to another user; are "
    "zookeeper.user and zookeeper.password right? A cluster of another user needs a path of its "
    "own: zookeeper.hosts = host:port/PATH"
)


class Paths:
    """Where a cluster keeps what."""

    # Clusters may share it, if they have one user.
    top = "/tandem"

    def __init__(self, cluster: str) -> None:
        self.root = f"{self.top}/{cluster}"
        self.members = f"{self.root}/members"
        self.leader = f"{self.root}/leader"
        self.epoch = f"{self.root}/epoch"
        self.hand_over = f"{self.root}/hand-over"
        self.shard_map = f"{self.root}/shard-map"

    @property
    def fixed(self) -> tuple[str, ...]:
        """All that is there of any cluster, from the top."""
        own = self.root, self.members, self.leader, self.epoch, self.hand_over, self.shard_map
        return self.top, *own

    def member(self, name: str) -> str:
        return f"{self.members}/{name}"


class Grant:
    """What a server has said when a connection to it began: how long it waits for a word of the
    session before it ends it. Each connection has a grant of its own.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s


class Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's handler, whose connections speak TLS where servers are to be verified: by the given
    authorities alone and by their names, where kazoo itself would trust all that the system does.
    """

    def __init__(self, tls: Tls) -> None:
        super().__init__()
        self._tls = tls
        # Why the last server had no TLS to be trusted.
        self.trouble: str | None = None

    def create_connection(self, *arguments: Any, **options: Any) -> socket.socket:
        plain: socket.socket = super().create_connection(*arguments, **options)
        if not self._tls.verifies:
            return plain
        host = options["hostname"]
        try:
            secured = context_of(self._tls).wrap_socket(plain, server_hostname=host)
        except OSError as error:
            plain.close()
            self.trouble = (
                f"the TLS of ZooKeeper at {host} is not what zookeeper.tls_ca = {self._tls.ca} "
                f"asks for: {error}"
            )
            raise
        self.trouble = None
        return secured


class Client(KazooClient):  # type: ignore[misc]
    """kazoo's client, which also knows what was granted: the server may give a session less time
    than was asked for, or more, and another time when a connection is made again. kazoo keeps it
    to itself.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.handler: Handler
        # None from before the server is asked until its answer is there.
        self.grant: Grant | None = None
        self._asked = self._connection._invoke
        self._connection._invoke = self._invoke

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        if not isinstance(request, Connect):
            return self._asked(timeout, request, xid)
        self.grant = None
        answer = self._asked(timeout, request, xid)
        self.grant = Grant(answer[0].time_out / 1000)
        return answer


def new_client(settings: Settings, **options: Any) -> Client:
    """A client that is not started yet. With zookeeper.user what it makes belongs to that user."""
    keeper = settings.zookeeper
    return Client(
        keeper.hosts,
        timeout=keeper.session_timeout_s,
        auth_data=[("digest", f"{keeper.user}:{text}") for text in _passwords(settings)],
        default_acl=acl_of(settings),
        handler=Handler(Tls(keeper.tls_ca, keeper.tls_certificate, keeper.tls_key)),
        **options,
    )


def acl_of(settings: Settings) -> list[ACL] | None:
    """Who may do what with a cluster's nodes; None is everybody everything."""
    user = settings.zookeeper.user
    return [make_digest_acl(user, text, all=True) for text in _passwords(settings)] or None


def _passwords(settings: Settings) -> list[str]:
    """Those that are good: the previous one too, as long as it is set."""
    return [p for p in (settings.zookeeper.password, settings.zookeeper.previous_password) if p]


@contextmanager
def zookeeper(settings: Settings) -> Iterator[KazooClient]:
    """A connected client for a block. Raises ClusterError if no server answers."""
    client = new_client(settings)
    # Its own `start` warns of a path after the hosts that is yet to be made.
    client.start_async().wait(_CONNECT_TIMEOUT_S)
    if not client.connected:
        client.stop()
        client.close()
        raise ClusterError(
            client.handler.trouble
            or f"ZooKeeper at {settings.zookeeper.hosts} does not answer: is it running, and is "
            "zookeeper.hosts right?"
        )
    try:
        yield client
    except NoAuthError as error:
        raise ClusterError(NOT_OURS) from error
    except KazooException as error:
        raise ClusterError(f"ZooKeeper refused: {error!r}") from error
    finally:
        client.stop()
        client.close()
