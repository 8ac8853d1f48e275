"""What of the read side's files is believed: read and written as a whole.

Two lines of JSON: the manifest, and the SHA-256 of the first line.
"""

from hashlib import sha256
from pathlib import Path

import msgspec

from eventstore.reading.errors import KeptDamaged, Where
from eventstore.reading.names import MANIFEST
from eventstore.reading.writing import whole_file
from eventstore.segments.chain import Link
from eventstore.segments.errors import translated
from eventstore.segments.files import Files
from eventstore.segments.frame import Identity

FORMAT = 1
# More than any manifest has.
_BYTES_MAX = 2**20


class Manifest(msgspec.Struct, frozen=True):
    """`last` is the frame up to which runs have all entries, `heads` the seq of that whose accounts
    are kept; `runs` names them in their order, each by the seqs behind which and up to which it is.
    """

    identity: Identity
    last: Link
    heads: int
    runs: list[tuple[int, int]]
    format: int = FORMAT


def write(files: Files, folder: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the one that there is. Raises FileFailed."""
    line = msgspec.json.encode(manifest)
    with whole_file(files, folder / MANIFEST) as output:
        output.write(0, line + b"\n" + sha256(line).hexdigest().encode() + b"\n")


def read(files: Files, folder: Path) -> Manifest | None:
    """None if there is none. Raises KeptDamaged, FileFailed."""
    path = folder / MANIFEST
    try:
        with translated(path):
            data = files.read(path, 0, _BYTES_MAX)
    except Exception as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    line, _, digest = data.partition(b"\n")
    where = Where(str(path), 0)
    where.demand("hash", digest.decode(errors="replace"), sha256(line).hexdigest() + "\n")
    try:
        manifest = msgspec.json.decode(line, type=Manifest)
    except msgspec.DecodeError as error:
        raise KeptDamaged(*where, "content", error, "a manifest") from error
    where.demand("format", manifest.format, FORMAT)
    return manifest
