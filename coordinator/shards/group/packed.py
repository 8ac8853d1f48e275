"""Transfers that came as columns, as a ledger group takes them."""

from abc import abstractmethod
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from coordinator.shards.group.directory import Directory
from eventstore.numbered_packing import pack_numbered
from eventstore.packing import pack
from eventstore.rows import Commands, ProtocolCode, currency_text
from ledger.columns import PROTOCOLS, Columns, NumberedColumns
from ledger.ids import slot_of_transfer
from ledger.model import Transfer
from shard_client.columns import Packed


class GroupPacked(Packed):
    """See Packed. `commands` and `texts` are what its node is sent."""

    commands: Commands
    texts: bytes

    def __init__(self, columns: Columns | NumberedColumns, now: int) -> None:
        self.size = columns.size
        self._asked_for, self._now = columns, now

    def protocols(self, count: int) -> Counter[str]:
        codes = np.bincount(self.commands["protocol"][:count], minlength=len(PROTOCOLS)).tolist()
        return Counter({PROTOCOLS[code]: n for code, n in enumerate(codes) if n})

    def protocol_of(self, index: int) -> str:
        return PROTOCOLS[int(self.commands["protocol"][index])]

    def asked(self, index: int) -> Transfer:
        columns = self._asked_for
        return Transfer(
            self.id(index),
            *self._names(index),
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

    @abstractmethod
    def _names(self, index: int) -> tuple[str, str, str]:
        """Key, source and destination of one of them."""


class NamedPacked(GroupPacked):
    """Of transfers that name accounts by their ids."""

    def __init__(self, columns: Columns, protocol: str, now: int) -> None:
        super().__init__(columns, now)
        self._columns = columns
        packed = pack(columns, ProtocolCode[protocol.upper()])
        self.commands, self.texts = packed.commands, packed.texts
        self.slots, self.digests = packed.slots, packed.digests

    def _names(self, index: int) -> tuple[str, str, str]:
        columns = self._columns
        key, source, destination = (
            self._text(spans[index]) for spans in (columns.key, columns.source, columns.destination)
        )
        return key, source, destination

    def _text(self, ends: NDArray[np.int32]) -> str:
        begin, end = ends.tolist()
        return self._columns.data[begin:end].tobytes().decode("ascii")


class NumberedPacked(GroupPacked):
    """Of transfers that name accounts by their numbers, all of which the directory has learnt."""

    def __init__(
        self, columns: NumberedColumns, protocol: str, now: int, directory: Directory
    ) -> None:
        super().__init__(columns, now)
        self._columns, self._directory = columns, directory
        self.commands, self.texts = pack_numbered(columns, ProtocolCode[protocol.upper()])
        self.slots, self.digests = directory.slots(columns.source), columns.id

    def _names(self, index: int) -> tuple[str, str, str]:
        columns, id_of = self._columns, self._directory.id_of
        return "", id_of(int(columns.source[index])), id_of(int(columns.destination[index]))
