"""A file system in memory that keeps after a power cut what it has promised to, and of all else
whatever chance leaves: each sector of each write, each change of a folder, and the length of files.

A flush that fails drops what it should have brought to the disk, as Linux may: it is still read
back, and no later flush brings it. Errors, half writes and power cuts come at a step that is given:
steps are the calls that change something, counted from 1.
"""

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from eventstore.segments.errors import FolderInUse

SECTOR = 512

# What comes at a step: a power cut before or after it, or in the middle of a write; an error before
# it, or in the middle of a write.
Fault = Literal["cut-before", "cut-half", "cut-after", "error", "error-half"]


class PowerCut(Exception):
    """The machine is off: call `power_cut`, then go on with a new process."""


class _File:
    def __init__(self) -> None:
        self.seen = bytearray()
        self.durable = bytearray()
        self.unflushed: list[tuple[int, bytes]] = []

    def flush(self) -> None:
        """All that is to be brought to the disk is there; what was dropped before is not."""
        for offset, data in self.unflushed:
            _put(self.durable, offset, data)
        self.unflushed.clear()

    def after_power_cut(self, chance: random.Random) -> "_File":
        kept, likely = _File(), chance.choice([0, 0.5, 0.9, 1])
        kept.seen[:] = self.durable
        if chance.random() < 0.5 and len(self.seen) > len(kept.seen):
            # The length came to the disk, and what it holds did not.
            gap = chance.randrange(len(self.seen) - len(kept.seen) + 1)
            kept.seen += bytes(gap) if chance.random() < 0.7 else chance.randbytes(gap)
        for offset, data in self.unflushed:
            for start, sector in _sectors(offset, data):
                if chance.random() < likely:
                    _put(kept.seen, start, sector)
        kept.durable[:] = kept.seen
        return kept


class Forgetful:
    """Files, as `eventstore.segments.files.Files` describes them."""

    def __init__(self) -> None:
        self._seen: dict[Path, _File] = {}
        self._durable: dict[Path, _File] = {}
        # Changes of folders that are not flushed.
        self._unflushed: list[tuple[Path, Callable[[dict[Path, _File]], None]]] = []
        self._open: dict[int, _File | None] = {}
        self._last_number = 2
        self.steps = 0
        self.faults: dict[int, Fault] = {}
        self.space = 10**9
        # What was done, in order.
        self.done: list[str] = []

    # --- what tests do to it ----------------------------------------------------------------

    def power_cut(self, chance: random.Random) -> None:
        """All processes end, and what nothing promised may be gone."""
        for _, change in self._unflushed:
            if chance.random() < 0.5:
                change(self._durable)
        kept = {id(file): file.after_power_cut(chance) for file in self._durable.values()}
        self._durable = {path: kept[id(file)] for path, file in self._durable.items()}
        self._seen = dict(self._durable)
        self._unflushed.clear()
        self.kill()

    def kill(self) -> None:
        """All processes end; what they have written is there to be read."""
        self._open.clear()
        self.faults.clear()

    def contents(self, path: Path) -> bytearray:
        """The bytes of a file, to be changed by a test; use `tamper` to change them for good."""
        return self._seen[path].seen

    def tamper(self, path: Path, offset: int, value: int) -> None:
        """Change a byte, on the disk and in memory."""
        file = self._seen[path]
        file.seen[offset] = value
        if offset < len(file.durable):
            file.durable[offset] = value

    def paths(self, ending: str) -> list[Path]:
        return sorted(path for path in self._seen if path.name.endswith(ending))

    # --- Files ------------------------------------------------------------------------------

    def names(self, folder: Path) -> list[str]:
        return [path.name for path in self._seen if path.parent == folder]

    def read(self, path: Path, offset: int, length: int) -> bytes:
        if path not in self._seen:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return bytes(self._seen[path].seen[offset : offset + length])

    def create(self, path: Path) -> int:
        if path in self._seen:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        file = _File()
        self._change_folder(path, f"create {path.name}", lambda names: names.update({path: file}))
        return self._opened(file)

    def open(self, path: Path) -> int:
        return self._opened(self._seen[path])

    def write(self, file: int, offset: int, data: bytes) -> None:
        opened = self._file(file)

        def put(part: bytes) -> None:
            if part:
                _put(opened.seen, offset, part)
                opened.unflushed.append((offset, part))

        self._step("write", lambda: put(data), lambda: put(data[: len(data) // 2]))

    def flush(self, file: int) -> None:
        opened = self._file(file)
        # Nothing of it is dirty any more, so no later flush brings it.
        self._step("flush", opened.flush, opened.unflushed.clear)

    def close(self, file: int) -> None:
        del self._open[file]

    def flush_folder(self, folder: Path) -> None:
        def bring() -> None:
            for parent, change in self._unflushed:
                if parent == folder:
                    change(self._durable)
            self._unflushed[:] = [(p, change) for p, change in self._unflushed if p != folder]

        self._step("flush folder", bring)

    def rename(self, old: Path, new: Path) -> None:
        file = self._seen[old]

        def change(names: dict[Path, _File]) -> None:
            names.pop(old, None)
            names[new] = file

        self._change_folder(old, f"rename {old.name}", change)

    def remove(self, path: Path) -> None:
        self._change_folder(path, f"remove {path.name}", lambda names: names.pop(path, None))

    def room(self, folder: Path) -> int:
        return self.space

    def lock(self, folder: Path) -> int:
        if None in self._open.values():
            raise FolderInUse(folder, 1)
        return self._opened(None)

    # --- how it is done ---------------------------------------------------------------------

    def _change_folder(
        self, path: Path, what: str, change: Callable[[dict[Path, _File]], object]
    ) -> None:
        def both() -> None:
            change(self._seen)
            self._unflushed.append((path.parent, lambda names: (change(names), None)[1]))

        self._step(what, both)

    def _step(
        self, what: str, whole: Callable[[], None], half: Callable[[], None] = lambda: None
    ) -> None:
        self.steps += 1
        fault = self.faults.get(self.steps)
        if fault == "cut-before":
            raise PowerCut
        if fault in ("error", "error-half"):
            if fault == "error-half" or what == "flush":
                half()
            raise OSError(errno.ENOSPC if what == "write" else errno.EIO, f"{what} failed")
        if fault == "cut-half":
            if what == "write":
                half()
            raise PowerCut
        whole()
        self.done.append(what)
        if fault == "cut-after":
            raise PowerCut

    def _opened(self, file: _File | None) -> int:
        self._last_number += 1
        self._open[self._last_number] = file
        return self._last_number

    def _file(self, number: int) -> _File:
        file = self._open[number]
        assert file is not None
        return file


def _put(data: bytearray, offset: int, part: bytes) -> None:
    if len(data) < offset:
        data += bytes(offset - len(data))
    data[offset : offset + len(part)] = part


def _sectors(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """The parts of a write that lie in different sectors."""
    parts = []
    while data:
        length = SECTOR - offset % SECTOR
        parts.append((offset, data[:length]))
        offset, data = offset + length, data[length:]
    return parts
