"""What disturbs a cluster while every process of it stays as it is: lines, sessions of a person's,
global variables, clocks. Each begins here, and gives what ends it.
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql

from shard_client.plain import PlainConnection
from tandem.chaos import nemesis
from tandem.chaos.lines import Lines, State
from tandem.chaos.nemesis import Disturbance
from tandem.local.cluster import LocalCluster
from tandem.local.ports import HOST
from tandem.local.servers import Engine

# A byte of an answer, or a packet, waits for so long.
_DRIP_S, _LATE_S = 0.5, 1.0
_CALL_TIMEOUT_S = 5
# A variable is put back as soon as its shard can be reached again.
_PUT_BACK_S = 120.0
_PAUSE_S = 0.2
# Accounts of such names alone are locked: the folder may hold others.
_ACCOUNTS = "chaos-%"
# In a coordinator's scratch folder; the test build follows it.
CLOCK_FILE = "clock"

End = Callable[[], None]


def _nothing() -> None:
    pass


class Nuisances:
    """Begins one after the other. Threads may share it."""

    def __init__(self, cluster: LocalCluster, lines: Lines | None, engine: Engine) -> None:
        environment = cluster.environment()
        self._user = environment["TANDEM_MYSQL_ADMIN_USER"]
        self._password = environment["TANDEM_MYSQL_ADMIN_PASSWORD"]
        parts = cluster.status()["processes"]
        self._ports = {part["name"]: part["port"] for part in parts}
        self._folder = Path(cluster.data_dir)
        self._lines = lines
        self.variables = () if engine == "eventstore" else nemesis.VARIABLES[engine]

    def begin(self, chosen: Disturbance, chance: random.Random) -> tuple[str, End]:
        """Begin it; gives what it is in words, and what ends it. A shard that cannot be reached is
        left alone.
        """
        name = chosen.target
        begin: dict[str, Callable[[], tuple[str, End]]] = {
            nemesis.DRIP: lambda: self._line(name, State.DRIP, _DRIP_S),
            nemesis.LATE: lambda: self._line(name, State.LATE, _LATE_S),
            nemesis.STILL: lambda: self._line(name, State.STILL, 0.0),
            nemesis.CUT: lambda: self._cut(name),
            nemesis.LOCK: lambda: self._lock_account(name, chance),
            nemesis.LOCK_TABLE: lambda: self._lock(name, ["LOCK TABLES accounts WRITE"], ""),
            nemesis.VARIABLE: lambda: self.set_variable(name, *chance.choice(self.variables)),
            nemesis.CLOCK: lambda: self._turn_clock(name, chance.choice(nemesis.JUMPS_S)),
        }
        try:
            return begin[chosen.deed.name]()
        except pymysql.Error as error:
            return f"in vain, {error}", _nothing

    def _line(self, shard: str, state: State, every_s: float) -> tuple[str, End]:
        assert self._lines is not None
        lines = self._lines
        lines.disturb(shard, state, every_s)
        return "", lambda: lines.disturb(shard, State.WELL)

    def _cut(self, shard: str) -> tuple[str, End]:
        assert self._lines is not None
        self._lines.cut(shard)
        return "", _nothing

    def _lock_account(self, shard: str, chance: random.Random) -> tuple[str, End]:
        found = self._rows(shard, "SELECT id FROM accounts WHERE id LIKE %s ORDER BY id", _ACCOUNTS)
        if not found:
            return "in vain, it has none", _nothing
        account: str = chance.choice(found)[0]
        statement = "SELECT id FROM accounts WHERE id = %s FOR UPDATE"
        return self._lock(shard, ["BEGIN", statement], account)

    def _lock(self, shard: str, statements: Sequence[str], account: str) -> tuple[str, End]:
        """What these statements lock stays locked until the session ends."""
        session = self._connect(shard)
        try:
            with session.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement, (account,) if "%s" in statement else None)
        except BaseException:
            session.close()
            raise

        def end() -> None:
            if session.open:
                session.close()

        return account, end

    def set_variable(self, shard: str, variable: str, worst: str) -> tuple[str, End]:
        ((before,),) = self._rows(shard, f"SELECT @@GLOBAL.{variable}")
        self._rows(shard, f"SET GLOBAL {variable} = {worst}")
        return f"{variable} = {worst}", lambda: self._put_back(shard, variable, before)

    def _put_back(self, shard: str, variable: str, value: object) -> None:
        give_up = time.monotonic() + _PUT_BACK_S
        while True:
            try:
                self._rows(shard, f"SET GLOBAL {variable} = %s", value)
                return
            except pymysql.Error:
                # It may be away itself just now.
                if time.monotonic() > give_up:
                    raise
                time.sleep(_PAUSE_S)

    def _turn_clock(self, coordinator: str, by_s: float) -> tuple[str, End]:
        file = self._folder / coordinator / CLOCK_FILE
        part = file.with_suffix(".part")
        part.write_text(f"{by_s}")
        part.rename(file)
        return f"by {by_s:+,.0f} s", lambda: file.unlink(missing_ok=True)

    def _rows(self, shard: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(self._connect(shard)) as session, session.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def _connect(self, shard: str) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
        """The administrator's, past any line."""
        return PlainConnection(
            host=HOST,
            port=self._ports[shard],
            user=self._user,
            password=self._password,
            database="tandem",
            autocommit=True,
            connect_timeout=_CALL_TIMEOUT_S,
            read_timeout=_CALL_TIMEOUT_S,
            write_timeout=_CALL_TIMEOUT_S,
        )
