"""Transfers in columns that have ids and the numbers of accounts, made into rows: pure."""

import numpy as np

from eventstore.commands import Packed
from eventstore.rows import COMMAND, CURRENCY_BYTES, Kind, ProtocolCode, pack_texts
from ledger.columns import NumberedColumns

# Neither key nor metadata, nor the ids of accounts.
_TEXTS = pack_texts(["", "", "", ""])


def pack_numbered(columns: NumberedColumns, default: ProtocolCode) -> Packed:
    """Rows and texts. Where no protocol is named it is `default`."""
    rows = np.zeros(columns.size, COMMAND)
    rows["id"] = np.ascontiguousarray(columns.id).view("<u8")
    rows["amount"] = columns.amount
    rows["source"] = columns.source
    rows["destination"] = columns.destination
    letters = np.ascontiguousarray(columns.currency, "<i8").view(np.uint8)
    rows["currency"] = letters.reshape(-1, CURRENCY_BYTES)
    rows["kind"] = int(Kind.TRANSFER)
    rows["protocol"] = np.where(columns.protocol == 0, int(default), columns.protocol)
    rows["text"] = len(_TEXTS)
    return Packed(rows, _TEXTS * columns.size)
