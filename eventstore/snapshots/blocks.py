"""A snapshot's content, block by block: what is used of it was checked before.

Each block is followed by its hash: SHA-256 of the hash before (for the first block, that of the
header) and of its bytes. So a block that is in another place, or of another snapshot, is noticed.
All blocks but the last have the length that the header says.
"""

from hashlib import sha256
from pathlib import Path

from eventstore.segments.files import Files
from eventstore.snapshots.errors import SnapshotDamaged
from eventstore.snapshots.header import HEADER_BYTES, Header, decode, hash_of, header_of

BLOCK_BYTES = 2**20
HASH_BYTES = 32
# A flush takes as long as there is to write, and whoever flushes the list beside it waits for that.
_FLUSH_BLOCKS = 64


def file_bytes(header: Header) -> int:
    """How long a snapshot is."""
    content = header.sizes.dump_bytes
    return HEADER_BYTES + content + -(-content // header.block_bytes) * HASH_BYTES


class BlockWriter:
    """Writes a content behind the header of a file that is open for writing."""

    def __init__(self, files: Files, file: int, encoded: bytes, block_bytes: int) -> None:
        self._files, self._file, self._block_bytes = files, file, block_bytes
        self._offset, self._before = len(encoded), hash_of(encoded)
        self._block = bytearray()
        self._unflushed = 0
        files.write(file, 0, encoded)

    def add(self, data: memoryview) -> None:
        """The next bytes of the content."""
        at = 0
        while at < len(data):
            part = data[at : at + self._block_bytes - len(self._block)]
            self._block += part
            at += len(part)
            if len(self._block) == self._block_bytes:
                self._write()

    def finish(self) -> None:
        """There is no more; all of it is flushed."""
        if self._block:
            self._write()
        self._files.flush(self._file)

    def _write(self) -> None:
        self._before = _hash(self._before, self._block)
        data = bytes(self._block) + self._before
        self._files.write(self._file, self._offset, data)
        self._offset += len(data)
        self._block.clear()
        self._unflushed += 1
        if self._unflushed == _FLUSH_BLOCKS:
            self._files.flush(self._file)
            self._unflushed = 0


class BlockReader:
    """A snapshot's header, and its content from the beginning. Raises SnapshotDamaged, or
    FileNotFoundError if it was removed; and NotOfThisList for its header.
    """

    def __init__(self, path: Path, files: Files) -> None:
        self._path, self._files = path, files
        self._offset = 0
        encoded = header_of(self._bytes(HEADER_BYTES))
        self.header = decode(encoded, str(path))
        self._offset, self._before = len(encoded), hash_of(encoded)
        # What was not read yet of the content, and what was not asked for yet of a block.
        self._left = self.header.sizes.dump_bytes
        self._block = memoryview(b"")

    def fill(self, memory: memoryview) -> None:
        """Put the next bytes of the content into memory, all of them."""
        at = 0
        while at < len(memory):
            if not self._block:
                self._block = self._read()
            part = self._block[: len(memory) - at]
            memory[at : at + len(part)] = part
            self._block = self._block[len(part) :]
            at += len(part)

    def check_rest(self) -> None:
        """Read what is left of the content, and check that nothing stands behind it."""
        while self._left:
            self._read()
        self._demand("number of bytes behind it", len(self._bytes(1)), 0)

    def _read(self) -> memoryview:
        length = min(self._left, self.header.block_bytes)
        data = memoryview(self._bytes(length + HASH_BYTES))
        self._demand("number of bytes that are there of it", len(data), length + HASH_BYTES)
        block, stored = data[:length], bytes(data[length:])
        self._demand("hash", stored.hex(), _hash(self._before, block).hex())
        self._before, self._left = stored, self._left - length
        self._offset += len(data)
        return block

    def _bytes(self, length: int) -> bytes:
        try:
            return self._files.read(self._path, self._offset, length)
        except FileNotFoundError:
            raise
        except OSError as error:
            where = str(self._path), self._offset
            raise SnapshotDamaged(*where, "what reading gives", error.strerror, "bytes") from error

    def _demand(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            raise SnapshotDamaged(str(self._path), self._offset, what, found, expected)


def _hash(before: bytes, block: bytearray | memoryview) -> bytes:
    digest = sha256(before)
    digest.update(block)
    return digest.digest()
