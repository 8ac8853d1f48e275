"""Transfers that came as columns, as a ledger group takes them."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from eventstore.packing import pack
from eventstore.rows import Commands, ProtocolCode, currency_text
from ledger.columns import PROTOCOLS, Columns
from ledger.ids import slot_of_transfer
from ledger.model import Transfer
from shard_client.columns import Packed


class GroupPacked(Packed):
    """See Packed. `commands` and `texts` are what its node is sent."""

    def __init__(self, columns: Columns, protocol: str, now: int) -> None:
        self.size = columns.size
        self._columns, self._now = columns, now
        packed = pack(columns, ProtocolCode[protocol.upper()])
        self.commands: Commands = packed.commands
        self.texts: bytes = packed.texts
        self.slots, self.digests = packed.slots, packed.digests

    def protocols(self, count: int) -> Counter[str]:
        codes = np.bincount(self.commands["protocol"][:count], minlength=len(PROTOCOLS)).tolist()
        return Counter({PROTOCOLS[code]: n for code, n in enumerate(codes) if n})

    def protocol_of(self, index: int) -> str:
        return PROTOCOLS[int(self.commands["protocol"][index])]

    def asked(self, index: int) -> Transfer:
        columns = self._columns
        return Transfer(
            self.id(index),
            self._text(columns.key[index]),
            self._text(columns.source[index]),
            self._text(columns.destination[index]),
            int(columns.amount[index]),
            currency_text(int(columns.currency[index])),
            None,
            PROTOCOLS[int(columns.protocol[index])],
            self._now,
        )

    def sent(self, index: int) -> Transfer:
        """One of them as its command has it: with the protocol that it goes by."""
        return self.asked(index)._replace(protocol=self.protocol_of(index))

    def index_of(self, transfer: str) -> int | None:
        if slot_of_transfer(transfer) is None:
            return None
        wanted = np.frombuffer(bytes.fromhex(transfer.partition("-")[2]), "<u8")
        ids = self.commands["id"]
        # A look at one half leaves few, mostly none.
        for index in np.flatnonzero(ids[:, 0] == wanted[0]).tolist():
            if ids[index, 1] == wanted[1] and self.id(index) == transfer:
                return int(index)
        return None

    def _text(self, ends: NDArray[np.int32]) -> str:
        begin, end = ends.tolist()
        return self._columns.data[begin:end].tobytes().decode("ascii")
