"""What is kept in numbers, as the ledger speaks of it."""

import re
from binascii import b2a_base64

from eventstore.reading.heads import Heads
from eventstore.reading.shapes import Entries
from ledger.ids import TRANSFER_ID_PATTERN, slot_of
from ledger.model import Entry

_TRANSFER_ID = re.compile(TRANSFER_ID_PATTERN)


def chain_text(digest: bytes) -> str:
    """A chain as `ledger.chain` gives it."""
    return b2a_base64(digest, newline=False).decode()


def transfer_bytes(transfer: str) -> bytes | None:
    """The 128 bits of a transfer's id, as in `rows.COMMAND`; None if it is none."""
    return bytes.fromhex(transfer[4:]) if _TRANSFER_ID.fullmatch(transfer) else None


class Texts:
    """Makes entries of numbers, by the accounts' ids."""

    def __init__(self, heads: Heads) -> None:
        self._heads = heads

    def entries(self, found: Entries) -> list[Entry]:
        """These entries."""
        numbers = set(found["account"].tolist()) | set(found["counterparty"].tolist())
        ids = {number: self._heads.id_of(number) for number in numbers}
        transfers, chains = found["transfer"].tobytes().hex(), found["chain"].tobytes()
        entries = []
        for i, (account, other, number, _, amount, balance, stamp, _, _) in enumerate(
            found.tolist()
        ):
            source = ids[account if amount < 0 else other]
            transfer = f"{slot_of(source):03x}-{transfers[32 * i : 32 * i + 32]}"
            chain = chain_text(chains[32 * i : 32 * i + 32])
            fields = (ids[account], number, transfer, amount, balance, ids[other], stamp, chain)
            entries.append(Entry(*fields))
        return entries
