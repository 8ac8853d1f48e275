"""What the texts of commands say: ids of accounts, and the transfers that the ledger speaks of."""

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.rows import (
    NOBODY,
    Commands,
    EventCode,
    Kind,
    ProtocolCode,
    step_parts,
    unpack_texts,
)
from ledger.errors import Bug
from ledger.ids import ACCOUNT_ID_PATTERN, slot_of
from ledger.model import Reason, Transfer

# By the pattern of ids.
ID_BYTES_MAX = 64
_ACCOUNT_ID = re.compile(ACCOUNT_ID_PATTERN)
# Those of global transactions.
_ATTEMPT = re.compile("[A-Za-z0-9._-]{1,64}")
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


class AdvanceTexts(NamedTuple):
    """The name of the attempt; and why its destination has refused, else both empty."""

    attempt: str
    reason: str
    detail: str


def attempt_words(transfer: bytes, attempt: str) -> tuple[int, int]:
    """The two words by which an attempt is found, of the transfer's id (16 bytes) and its name."""
    digest = blake2b(transfer + attempt.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


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
        elif row["kind"] == Kind.TRANSFER:
            found = transfer_texts(body)
            if row["source"] == NOBODY:
                words[index, :2] = account_words(found.source)
            if row["destination"] == NOBODY:
                words[index, 2:] = account_words(found.destination)
        else:
            _put_step(body, words[index])
    return opened


def _put_step(body: Body, words: NDArray[np.uint64]) -> None:
    """Put the words of a command of TC/C or Saga: see `views.Frame`."""
    transfer, attempt = body.row["id"].tobytes(), attempt_of(body)
    if body.row["kind"] == Kind.BEGIN:
        words[2:] = attempt_words(transfer, attempt)
        if body.row["source"] == NOBODY:
            words[:2] = account_words(transfer_texts(body).source)
        return
    words[:2] = attempt_words(transfer, attempt)
    if body.row["kind"] == Kind.CALL and body.row["destination"] == NOBODY:
        words[2:] = account_words(call_texts(body)[1])


def check_parts(body: Body) -> None:
    """Raises Bug if the texts of a command are not those that its kind has."""
    match int(body.row["kind"]):
        case Kind.OPEN | Kind.STATUS:
            account_id(body)
        case Kind.TRANSFER:
            transfer_texts(body)
        case _:
            attempt_of(body)


def attempt_of(body: Body) -> str:
    """The attempt that a BEGIN, a CALL or an ADVANCE names. Raises Bug if any of its texts is not
    what it should be.
    """
    match int(body.row["kind"]):
        case Kind.BEGIN:
            transfer_texts(body)
            attempt = _parts(body, 5)[4]
        case Kind.CALL:
            attempt = call_texts(body)[2]
        case _:
            attempt = advance_texts(body).attempt
    if not _ATTEMPT.fullmatch(attempt):
        raise Bug(f"{body.row} names {attempt!r}, which is no attempt: {_ATTEMPT.pattern}")
    return attempt


def call_texts(body: Body) -> tuple[str, str, str]:
    """The texts of a CALL: source, destination (empty where the row has its number), attempt."""
    source, destination, attempt = _parts(body, 3)
    is_by_name = int(body.row["destination"]) == NOBODY
    if not source or is_by_name != bool(destination):
        raise Bug(
            f"the call {body.row} is of {source!r} and {destination!r} by its texts: there must be "
            f"an id for each side that the row says {NOBODY} of, and only then"
        )
    return source, destination, attempt


def advance_texts(body: Body) -> AdvanceTexts:
    """The texts of an ADVANCE. Raises Bug if a refusal has no reason, or something else has one."""
    found = AdvanceTexts(*_parts(body, 3))
    _, event = step_parts(int(body.row["step"]))
    is_reason = found.reason in {reason.value for reason in Reason}
    is_empty = not found.reason and not found.detail
    if not (is_reason if event == EventCode.REFUSED else is_empty):
        raise Bug(f"the step {body.row}, by {event.name}, has the reason {found[1:]}")
    return found


def account_id(body: Body) -> str:
    """The id in the texts of an opening or a status."""
    parts = _parts(body, 1)
    return parts[0]


def transfer_texts(body: Body) -> TransferTexts:
    """The texts of a transfer, or of one that begins. Raises Bug if the id of an account is
    wanting, or there twice.
    """
    count = 5 if body.row["kind"] == Kind.BEGIN else 4
    found = TransferTexts(*_parts(body, count)[:4])
    for side in ("source", "destination"):
        is_by_name = int(body.row[side]) == NOBODY
        if is_by_name != bool(getattr(found, side)):
            raise Bug(
                f"the transfer {body.row} has the {side} {getattr(found, side)!r} in its texts: "
                f"there must be an id if the row says {NOBODY}, and only then"
            )
    return found


def transfer_of(body: Body, id_of: IdOf, created_at: int = 0) -> Transfer:
    """The transfer of a TRANSFER or a BEGIN, as the ledger knows it; of a CALL, which knows neither
    key nor metadata, without these. `id_of` gives the id of a number.
    """
    row = body.row
    if row["kind"] == Kind.CALL:
        found = TransferTexts("", "", *call_texts(body)[:2])
    else:
        found = transfer_texts(body)
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
