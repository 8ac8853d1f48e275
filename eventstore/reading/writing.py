"""Writing a file that is there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventstore.reading.names import scratch_name
from eventstore.segments.errors import translated
from eventstore.segments.files import Files

# A flush takes as long as there is to write, and whoever flushes the list beside it waits for that.
FLUSH_BYTES = 32 * 2**20


class Output:
    """A file that is being written, at any places of it."""

    def __init__(self, files: Files, file: int) -> None:
        self._files, self._file = files, file
        self._unflushed = 0

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write these bytes."""
        self._files.write(self._file, offset, bytes(data))
        self._unflushed += len(data)
        if self._unflushed >= FLUSH_BYTES:
            self._files.flush(self._file)
            self._unflushed = 0


@contextmanager
def whole_file(files: Files, path: Path) -> Iterator[Output]:
    """What is written in here has its name, and is durable, when it has ended well. Raises
    FileFailed.
    """
    scratch = path.with_name(scratch_name(path.name))
    with translated(path):
        file = files.create(scratch)
        try:
            yield Output(files, file)
            files.flush(file)
        finally:
            files.close(file)
        files.rename(scratch, path)
        files.flush_folder(path.parent)
