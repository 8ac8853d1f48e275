"""The columns of the files, and what a file says of itself. Takes pyarrow, an extra."""

from typing import Any

import pyarrow

from eventstore.history.rows import COLUMNS, Row
from eventstore.history.sealed import Segment
from eventstore.segments.frame import Identity

FORMAT = 1
_TEXT, _NUMBER = pyarrow.string(), pyarrow.int64()
_KINDS: dict[str, Any] = {
    "position": pyarrow.int32(),
    "time": pyarrow.timestamp("us", tz="UTC"),
} | dict.fromkeys(
    ("seq", "amount", "source_entry", "source_balance", "destination_entry", "destination_balance"),
    _NUMBER,
)
_MAY_BE_NULL = {*COLUMNS[COLUMNS.index("reason") :], "metadata"}
FIELDS = [
    pyarrow.field(name, _KINDS.get(name, _TEXT), nullable=name in _MAY_BE_NULL) for name in COLUMNS
]


def schema_of(identity: Identity, segment: Segment) -> Any:
    """The schema of a segment's file, with what the file says of itself."""
    said = {
        "format": f"{FORMAT}",
        "cluster": f"{identity.cluster}",
        "group": f"{identity.group}",
        "branch": f"{identity.branch}",
        "first_seq": f"{segment.first}",
        "last_seq": f"{segment.last.seq}",
        "last_hash": segment.last.hash.hex(),
    }
    return pyarrow.schema(FIELDS, {f"tandem.{name}": value for name, value in said.items()})


def said_by(schema: Any) -> dict[str, str]:
    """What a file says of itself."""
    pairs = (schema.metadata or {}).items()
    return {
        name.decode(): value.decode(errors="replace")
        for name, value in pairs
        if name.startswith(b"tandem.")
    }


def batch_of(rows: list[Row], schema: Any) -> Any:
    """Rows as a record batch."""
    columns = [
        pyarrow.array(values, field.type)
        for values, field in zip(zip(*rows, strict=True), FIELDS, strict=True)
    ]
    return pyarrow.record_batch(columns, schema=schema)
