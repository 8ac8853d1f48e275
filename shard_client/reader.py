"""One MySQL shard for a program that comes and goes: an audit, an export, a check, a test."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from shard_client import accounts, checks, transfers
from shard_client.address import Address
from shard_client.calls import MySqlCalls
from shard_client.connection import ShardConnection
from shard_client.records import StoredTransfer
from shard_client.trial import try_branch, try_writes

_TIMEOUT_S = 5.0
_IDLE_S = 60


class Reader(MySqlCalls):
    """The calls of a shard, and more, by one connection: it is opened by the first call, and by the
    next one after an error. For one thread; to be closed.
    """

    def __init__(self, address: Address, cluster: str, timeout_s: float = _TIMEOUT_S) -> None:
        super().__init__(cluster, self._lent)
        self._address = address
        self._timeout_s = timeout_s
        self._open: ShardConnection | None = None

    @contextmanager
    def _lent(self, _: float) -> Iterator[ShardConnection]:
        if self._open is None or not self._open.is_open:
            self._open = ShardConnection(self._address, self._timeout_s, _IDLE_S)
        try:
            yield self._open
        except BaseException:
            self._open.close()
            raise

    def close(self) -> None:
        if self._open:
            self._open.close()

    # --- audit and export -------------------------------------------------------------------

    def is_durable_before_visible(self) -> bool:
        """Whether what can be read is there for good (rule R2)."""
        with self._lent(0) as connection:
            return connection.is_durable_before_visible

    def make_durable(self, deadline: float) -> None:
        """What anybody has read here before is there for good when this returns."""
        self._ask(deadline, transfers.make_durable, deadline)

    def glimpse(self, ids: Sequence[str], deadline: float) -> list[StoredTransfer]:
        """Those of these transfers whose row stands in any transaction, finished or not: only what
        may be.
        """
        return self._ask(deadline, transfers.glimpse, ids, deadline)

    def read_clock(self, deadline: float) -> int:
        """The server's clock, as a stamp."""
        return self._ask(deadline, checks.read_clock, deadline)

    def raise_floors(
        self, account: str | None, after: str, stamp: int, deadline: float
    ) -> str | None:
        """Let no later entry be stamped before `stamp`: on the next accounts behind `after`, or on
        one account. Gives the last of them, None if there are none left. May be repeated.

        Raises TryAgain when a group is at work on one of them and does not end within a second.
        """
        return self._ask(deadline, accounts.raise_floors, account, after, stamp, deadline)

    # --- checks -----------------------------------------------------------------------------

    def server_version(self) -> str:
        with self._lent(0) as connection:
            return connection.server_version

    def check_server(self, server_uuid: str, deadline: float) -> checks.ServerCheck:
        """Whether it is the shard that it is taken for (else ShardUnavailable), and what is wrong
        with it.
        """
        self._ask(deadline, checks.verify_identity, self._cluster, server_uuid, deadline)
        return self._ask(deadline, checks.check_server, deadline)

    def may_change_own_password(self, deadline: float) -> bool:
        """Whether who is logged in could change the password, as an earlier version left it."""
        return self._ask(deadline, checks.may_change_own_password, deadline)

    def owned_slots(self, deadline: float) -> list[tuple[int, int]]:
        """The ranges of slots that the shard says it owns."""
        return self._ask(deadline, checks.owned_slots, deadline)

    def try_all(self, deadline: float) -> None:
        """Do all that transfers do, and undo it. Raises ShardUnavailable, which names what stands
        in the way.
        """
        self._ask(deadline, try_writes, self._cluster, deadline)
        self._ask(deadline, try_branch, self._cluster, deadline)
