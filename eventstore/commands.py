"""Commands as the ledger speaks of them, made into rows and texts: pure."""

from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

import numpy as np

from eventstore.rows import (
    COMMAND,
    CURRENCY_BYTES,
    NOBODY,
    UNLIMITED,
    CallCode,
    Commands,
    EventCode,
    Kind,
    PhaseCode,
    ProtocolCode,
    StatusCode,
    currency_number,
    pack_texts,
    step_number,
)
from ledger.ids import transfer_id
from ledger.model import Refusal, Status, Transfer

PROTOCOLS = {"": ProtocolCode.UNNAMED} | {code.name.lower(): code for code in ProtocolCode}
# A row of `rows.COMMAND`.
_ROW = Struct("<16sqII8sBBHI")
_NO_ID, _NO_CURRENCY = bytes(16), bytes(CURRENCY_BYTES)
_CODES = {name: int(code) for name, code in PROTOCOLS.items()}
_OPEN, _STATUS, _TRANSFER = int(Kind.OPEN), int(Kind.STATUS), int(Kind.TRANSFER)


class Packed(NamedTuple):
    """Commands in their order, and their texts one after the other."""

    commands: Commands
    texts: bytes


class Packer:
    """Gathers commands; `packed` has them as a node takes them. Accounts are named by their ids."""

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._texts: list[bytes] = []

    def open(self, account: str, currency: str, overdraft_limit: int | None = 0) -> "Packer":
        """Open an account; a limit of None is none."""
        limit = UNLIMITED if overdraft_limit is None else overdraft_limit
        id_ = blake2b(account.encode(), digest_size=16).digest()
        return self._add(_OPEN, id_, limit, _currency_bytes(currency), [account])

    def status(self, account: str, status: Status) -> "Packer":
        """Change an account's status."""
        return self._add(_STATUS, _NO_ID, StatusCode[status.name], _NO_CURRENCY, [account])

    def transfer(self, wish: Transfer) -> "Packer":
        """Carry out a transfer. Its id, if it has none yet, is that of its source and key."""
        texts = [wish.key, wish.metadata or "", wish.source, wish.destination]
        return self._add(_TRANSFER, *_terms(wish), texts, _CODES[wish.protocol])

    # --- TC/C and Saga; an attempt is named by a gtrid, unlike all others at the same transfer --

    def begin(self, wish: Transfer, attempt: str) -> "Packer":
        """Begin an attempt at a transfer to another shard, by the transfer's protocol."""
        texts = [wish.key, wish.metadata or "", wish.source, wish.destination, attempt]
        return self._add(Kind.BEGIN, *_terms(wish), texts, _CODES[wish.protocol])

    def call(self, wish: Transfer, attempt: str, call: CallCode) -> "Packer":
        """Call the destination of an attempt that has begun on another shard."""
        texts = [wish.source, wish.destination, attempt]
        return self._add(Kind.CALL, *_terms(wish), texts, _CODES[wish.protocol], call)

    def advance(
        self,
        wish: Transfer,
        attempt: str,
        phase: PhaseCode,
        event: EventCode,
        refusal: Refusal | None = None,
    ) -> "Packer":
        """Take an attempt that is in `phase` further, by what was heard of its destination; of an
        event REFUSED `refusal` says why.
        """
        texts = [attempt, refusal.reason.value, refusal.detail] if refusal else [attempt, "", ""]
        step, protocol = step_number(phase, event), _CODES[wish.protocol]
        return self._add(Kind.ADVANCE, _digest_of(wish), 0, _NO_CURRENCY, texts, protocol, step)

    def _add(
        self,
        kind: int,
        id_: bytes,
        amount: int,
        currency: bytes,
        texts: list[str],
        protocol: int = 0,
        step: int = 0,
    ) -> "Packer":
        packed = pack_texts(texts)
        row = _ROW.pack(id_, amount, NOBODY, NOBODY, currency, kind, protocol, len(packed), step)
        self._rows.append(row)
        self._texts.append(packed)
        return self

    @property
    def packed(self) -> Packed:
        """All that was gathered."""
        return Packed(np.frombuffer(bytearray().join(self._rows), COMMAND), b"".join(self._texts))


def _terms(wish: Transfer) -> tuple[bytes, int, bytes]:
    """Its id, amount and currency, as a row has them."""
    return _digest_of(wish), wish.amount, _currency_bytes(wish.currency)


def _digest_of(wish: Transfer) -> bytes:
    id_ = wish.id or transfer_id(wish.source, wish.key)
    return bytes.fromhex(id_.partition("-")[2])


@lru_cache(256)
def _currency_bytes(currency: str) -> bytes:
    return currency_number(currency).to_bytes(CURRENCY_BYTES, "little")
