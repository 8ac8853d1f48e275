"""What the texts of commands say: ids of accounts, and the transfers that the ledger speaks of."""

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.rows import NOBODY, Commands, Kind, ProtocolCode, unpack_texts
from ledger.errors import Bug
from ledger.ids import ACCOUNT_ID_PATTERN, slot_of
from ledger.model import Transfer

# By the pattern of ids.
ID_BYTES_MAX = 64
_ACCOUNT_ID = re.compile(ACCOUNT_ID_PATTERN)
_PROTOCOLS = {
    ProtocolCode.UNNAMED: "",
    ProtocolCode.XA: "xa",
    ProtocolCode.TCC: "tcc",
    ProtocolCode.SAGA: "saga",
}

IdOf = Callable[[int], str]


class Body(NamedTuple):
    """A command: its row (of `rows.COMMAND`), and its packed texts."""

    row: np.void
    texts: bytes


class TransferTexts(NamedTuple):
    """Source and destination are empty where the row has their numbers."""

    key: str
    metadata: str
    source: str
    destination: str


def account_words(account: str) -> tuple[int, int]:
    """The 128 bits by which an account is found, as the two words of a command's `id`."""
    digest = blake2b(account.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def names_of(
    commands: Commands, named: NDArray[np.int64], texts: bytes, words: NDArray[np.uint64]
) -> dict[int, str]:
    """Put the words of accounts that commands give by name into `words`, see `naming.names`; gives
    the ids of those that are to be opened, by the command's index.
    """
    opened: dict[int, str] = {}
    for index, start in named.tolist():
        row = commands[index]
        body = Body(row, texts[start : start + int(row["text"])])
        if row["kind"] == Kind.OPEN:
            opened[index] = _opened_id(body)
        elif row["kind"] == Kind.STATUS:
            words[index, :2] = account_words(account_id(body))
        else:
            found = transfer_texts(body)
            if row["source"] == NOBODY:
                words[index, :2] = account_words(found.source)
            if row["destination"] == NOBODY:
                words[index, 2:] = account_words(found.destination)
    return opened


def account_id(body: Body) -> str:
    """The id in the texts of an opening or a status."""
    parts = _parts(body, 1)
    return parts[0]


def transfer_texts(body: Body) -> TransferTexts:
    """The texts of a transfer. Raises Bug if the id of an account is wanting, or there twice."""
    found = TransferTexts(*_parts(body, 4))
    for side in ("source", "destination"):
        is_by_name = int(body.row[side]) == NOBODY
        if is_by_name != bool(getattr(found, side)):
            raise Bug(
                f"the transfer {body.row} has the {side} {getattr(found, side)!r} in its texts: "
                f"there must be an id if the row says {NOBODY}, and only then"
            )
    return found


def transfer_of(body: Body, id_of: IdOf, created_at: int = 0) -> Transfer:
    """The transfer of a command, as the ledger knows it. `id_of` gives the id of a number."""
    row, found = body.row, transfer_texts(body)
    source = found.source or id_of(int(row["source"]))
    return Transfer(
        id=f"{slot_of(source):03x}-{row['id'].tobytes().hex()}",
        key=found.key,
        source=source,
        destination=found.destination or id_of(int(row["destination"])),
        amount=int(row["amount"]),
        currency=row["currency"].tobytes().rstrip(b"\0").decode("ascii"),
        metadata=found.metadata or None,
        protocol=_PROTOCOLS[ProtocolCode(int(row["protocol"]))],
        created_at=created_at,
    )


def _opened_id(body: Body) -> str:
    account = account_id(body)
    if not _ACCOUNT_ID.fullmatch(account):
        raise Bug(f"an opening names {account!r}, which is no account id: {ACCOUNT_ID_PATTERN}")
    if tuple(body.row["id"].tolist()) != account_words(account):
        raise Bug(f"an opening names {account!r}, and its row {body.row} has the id of another one")
    return account


def _parts(body: Body, count: int) -> list[str]:
    try:
        parts = unpack_texts(body.texts)
    except ValueError as error:
        raise Bug(f"the texts of the command {body.row} cannot be read: {error}") from error
    if len(parts) != count:
        raise Bug(f"the command {body.row} has {len(parts)} texts, not {count}")
    return parts
