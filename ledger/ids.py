"""Slots of accounts, and the ids of transfers."""

import hashlib
import re
from functools import lru_cache
from zlib import crc32

SLOT_COUNT = 4096
ACCOUNT_ID_PATTERN = r"^[A-Za-z0-9_.:{}-]{1,64}$"
TRANSFER_ID_PATTERN = r"^[0-9a-f]{3}-[0-9a-f]{32}$"

_TRANSFER_ID = re.compile(TRANSFER_ID_PATTERN)


@lru_cache(maxsize=65_536)
def slot_of(account_id: str) -> int:
    """The slot that owns an account, 0 to 4095.

    If the id holds a non-empty `{...}`, only the first such part is hashed, so that related
    accounts can share a shard.
    """
    start = account_id.find("{")
    if start >= 0:
        end = account_id.find("}", start)
        if end > start + 1:
            account_id = account_id[start + 1 : end]
    return crc32(account_id.encode("ascii")) % SLOT_COUNT


def transfer_id(source: str, key: str) -> str:
    """The id of the transfer that `key` names among those of `source`.

    The source's slot stands in front, so that the id alone says where the transfer is kept. The
    rest is a 128-bit digest; an account id cannot hold the zero byte that separates the two.
    """
    digest = hashlib.blake2b(f"{source}\0{key}".encode(), digest_size=16).hexdigest()
    return f"{slot_of(source):03x}-{digest}"


def slot_of_transfer(transfer: str) -> int | None:
    """The slot of the source account, or None if this is no transfer id."""
    return int(transfer[:3], 16) if _TRANSFER_ID.fullmatch(transfer) else None
