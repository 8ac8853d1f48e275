"""Commands as the ledger speaks of them, made into rows and texts: pure."""

from typing import NamedTuple

import numpy as np

from eventstore.machine.texts import account_words
from eventstore.rows import (
    COMMAND,
    CURRENCY_BYTES,
    NOBODY,
    UNLIMITED,
    Commands,
    Kind,
    ProtocolCode,
    StatusCode,
    currency_number,
    pack_texts,
)
from ledger.ids import transfer_id
from ledger.model import Status, Transfer

PROTOCOLS = {"": ProtocolCode.UNNAMED} | {code.name.lower(): code for code in ProtocolCode}


class Packed(NamedTuple):
    """Commands in their order, and their texts one after the other."""

    commands: Commands
    texts: bytes


class Packer:
    """Gathers commands; `packed` has them as a node takes them. Accounts are named by their ids."""

    def __init__(self) -> None:
        self._rows: list[tuple[object, ...]] = []
        self._texts: list[bytes] = []

    def open(self, account: str, currency: str, overdraft_limit: int | None = 0) -> "Packer":
        """Open an account; a limit of None is none."""
        limit = UNLIMITED if overdraft_limit is None else overdraft_limit
        number = currency_number(currency)
        return self._add(Kind.OPEN, account_words(account), limit, number, [account])

    def status(self, account: str, status: Status) -> "Packer":
        """Change an account's status."""
        return self._add(Kind.STATUS, (0, 0), StatusCode[status.name], 0, [account])

    def transfer(self, wish: Transfer) -> "Packer":
        """Carry out a transfer. Its id, if it has none yet, is that of its source and key."""
        id_ = wish.id or transfer_id(wish.source, wish.key)
        digest = bytes.fromhex(id_.partition("-")[2])
        words = (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))
        texts = [wish.key, wish.metadata or "", wish.source, wish.destination]
        currency, protocol = currency_number(wish.currency), PROTOCOLS[wish.protocol]
        return self._add(Kind.TRANSFER, words, wish.amount, currency, texts, protocol)

    def _add(
        self,
        kind: Kind,
        id_: tuple[int, int],
        amount: int,
        currency: int,
        texts: list[str],
        protocol: ProtocolCode = ProtocolCode.UNNAMED,
    ) -> "Packer":
        packed = pack_texts(texts)
        letters = tuple(currency.to_bytes(CURRENCY_BYTES, "little"))
        row = (id_, amount, NOBODY, NOBODY, letters, kind, protocol, len(packed), 0)
        self._rows.append(row)
        self._texts.append(packed)
        return self

    @property
    def packed(self) -> Packed:
        """All that was gathered."""
        return Packed(np.array(self._rows, COMMAND), b"".join(self._texts))
