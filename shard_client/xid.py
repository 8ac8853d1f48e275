"""The names of global transactions.

    gtrid = CLUSTER.HOME.COORDINATOR.TIME.RANDOM     bqual = SHARD

TIME is milliseconds since the epoch in hexadecimal, RANDOM 64 random bits: the first half of them
is drawn once by each process, which is known by it (its *instance*), the other half for each name.
The home is where the decision is; a name is never used again.
"""

import re
from typing import NamedTuple

FORMAT_ID = 0x54414E44  # "TAND"

NAME_PATTERN = "[a-z0-9_-]{1,10}"
GTRID_PATTERN = (
    rf"({NAME_PATTERN})\.({NAME_PATTERN})\.({NAME_PATTERN})\.([0-9a-f]{{11}})\.([0-9a-f]{{16}})"
)
_GTRID = re.compile(GTRID_PATTERN)


class Gtrid(NamedTuple):
    """A global transaction's name, taken apart. `time_ms` is when its group was formed."""

    cluster: str
    home: str
    coordinator: str
    time_ms: int
    random: int

    def __str__(self) -> str:
        return (
            f"{self.cluster}.{self.home}.{self.coordinator}.{self.time_ms:011x}.{self.random:016x}"
        )

    @property
    def instance(self) -> int:
        """The process that has formed the group, among all that ever were."""
        return self.random >> 32

    @classmethod
    def parse(cls, text: str) -> "Gtrid | None":
        """Take a name apart; None if it is not one of Tandem's."""
        match = _GTRID.fullmatch(text)
        if not match:
            return None
        cluster, home, coordinator, time_ms, random = match.groups()
        return cls(cluster, home, coordinator, int(time_ms, 16), int(random, 16))


def xid(gtrid: str, shard: str) -> str:
    """The XID of a branch as SQL text. Both names are checked: they stand in it as they are."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", gtrid) or not re.fullmatch(NAME_PATTERN, shard):
        raise ValueError(f"no XID: {gtrid!r}, {shard!r}")
    return f"'{gtrid}','{shard}',{FORMAT_ID}"
