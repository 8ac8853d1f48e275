"""What the read side has on disk: a thread that writes full blocks as runs, merges runs, and says
in the manifest what is believed.

Each step leaves files that nobody names, or a manifest that names files that are there and durable.
So it may end at any point; whoever opens the folder next removes what is not named.
"""

import logging
import threading
from collections.abc import Iterator
from errno import ENOENT
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eventstore.reading import heads_file, manifest
from eventstore.reading.block import Block
from eventstore.reading.errors import Ended
from eventstore.reading.heads_file import Kept
from eventstore.reading.history import Stretch
from eventstore.reading.manifest import Manifest
from eventstore.reading.merging import due, merged
from eventstore.reading.names import MANIFEST, heads_name, is_own, run_name
from eventstore.reading.run import Run
from eventstore.reading.run_format import Header
from eventstore.reading.run_writer import RunWriter
from eventstore.reading.shapes import ENTRY_WORDS, Words
from eventstore.reading.sorting import gather, sorted_by_account
from eventstore.reading.writing import whole_file
from eventstore.rows import COMMANDS_MAX
from eventstore.segments.chain import Link
from eventstore.segments.errors import FileFailed, translated
from eventstore.segments.files import Files
from eventstore.segments.frame import Identity

log = logging.getLogger(__name__)

# Full blocks that may wait to be written; then whoever fills them waits.
_FULL_MAX = 2
_WRITTEN = 2**15


class Sizes(NamedTuple):
    """How large things become. `block_entries`: a block is full. `merged_runs`: of so many runs one
    is made; at seven of each level, and one that is being made, an account's entries are in few.
    """

    block_entries: int = 2**20
    merged_runs: int = 8


class _Full(NamedTuple):
    """A block that nothing more comes into, the last frame in it, and the accounts after that if
    they are to be kept.
    """

    block: Block
    last: Link
    kept: Kept | None


class Stock(NamedTuple):
    """How much there is: entries, and bytes of them in files and in memory; and the frame whose
    accounts are kept.
    """

    entries: int
    size_bytes: int
    heads: int


class Keeper:
    """One thread fills blocks and hands them over; others read `stretches`."""

    def __init__(
        self, folder: Path, files: Files, identity: Identity, kept: Manifest | None, sizes: Sizes
    ) -> None:
        """Removes what the manifest does not name. Raises KeptDamaged, FileFailed."""
        self._folder, self._files, self._identity = folder, files, identity
        self._manifest, self._sizes = kept, sizes
        _remove_unnamed(files, folder, kept)
        pairs = kept.runs if kept else []
        self._runs = [Run.open(files, folder, *pair, identity) for pair in pairs]
        self._changed = threading.Condition()
        self._full: list[_Full] = []
        self.block = self._new_block()
        self.stretches: tuple[Stretch, ...] = (*self._runs, self.block)
        self._failed, self._is_closed = "", False
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._thread.start()

    # --- for the thread that fills blocks -----------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the block has as many entries as it is to have."""
        return self.block.filled >= self._sizes.block_entries

    def hand_over(self, last: Link, kept: Kept | None) -> None:
        """Have the block written, which ends with the frame `last`, and `kept`; go on with a new
        one. Waits if the disk does not keep up. Raises Ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ends or len(self._full) < _FULL_MAX)
            self._check()
            self._full.append(_Full(self.block, last, kept))
            self.block = self._new_block()
            self._show()

    def wait(self) -> None:
        """Until all that was handed over is kept, and merged as it is to be. Raises Ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ends or not (self._full or self._due is not None))
            self._check()

    def check(self) -> None:
        """Raises Ended if it has failed."""
        with self._changed:
            self._check()

    def close(self) -> None:
        """End the thread, between two steps of its work."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    # --- for all ------------------------------------------------------------------------------

    @property
    def stock(self) -> Stock:
        """How much there is."""
        with self._changed:
            headers = [run.header for run in self._runs]
            blocks = [*(full.block for full in self._full), self.block]
            heads = self._manifest.heads if self._manifest else 0
        in_memory = sum(block.filled for block in blocks)
        entries = in_memory + sum(header.entries for header in headers)
        size = in_memory * ENTRY_WORDS * 8 + sum(header.file_bytes for header in headers)
        return Stock(entries, size, heads)

    def verify(self) -> None:
        """Read all files. Raises KeptDamaged naming what is not as it was."""
        for run in list(self._runs):
            try:
                run.verify()
            except FileFailed as error:
                # It was merged meanwhile: what was taken of it was checked then.
                if error.errno != ENOENT or run in self._runs:
                    raise

    # --- its thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        merging: Iterator[None] | None = None
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._is_closed or self._full or self._due is not None
                    )
                    if self._is_closed:
                        return
                if self._full:
                    self._keep(self._full[0])
                else:
                    merging = merging or self._merge()
                    if next(merging, "ended") == "ended":
                        merging = None
        except BaseException as error:
            log.critical("the read side ends: %s", error, extra={"event": "reading.died"})
            with self._changed:
                self._failed = str(error) or repr(error)
                self._changed.notify_all()

    def _keep(self, full: _Full) -> None:
        """Write a full block as a run, and the accounts if they come with it."""
        after = self._manifest.last.seq if self._manifest else 0
        block = full.block
        header = Header(self._identity, after, full.last.seq, 0, block.filled, 0)
        with whole_file(self._files, self._folder / run_name(after, full.last.seq)) as output:
            writer = RunWriter(output, header)
            for words in _sorted(block):
                writer.add(words)
            writer.finish()
        if full.kept:
            heads_file.write(self._files, self._folder, self._identity, full.kept)
            heads = full.kept.link.seq
        else:
            heads = self._manifest.heads if self._manifest else 0
        run = Run.open(self._files, self._folder, after, full.last.seq, self._identity)
        self._believe([*self._runs, run], full.last, heads, full)

    def _merge(self) -> Iterator[None]:
        start, count = self._due, self._sizes.merged_runs
        if start is None:
            return
        # Runs are added behind these, meanwhile, and nothing else is done to the list.
        old = self._runs[start : start + count]
        yield from merged(self._files, self._folder, old)
        after, until = old[0].header.after, old[-1].header.until
        run = Run.open(self._files, self._folder, after, until, self._identity)
        runs = [*self._runs[:start], run, *self._runs[start + count :]]
        if self._manifest:
            self._believe(runs, self._manifest.last, self._manifest.heads, None)

    def _believe(self, runs: list[Run], last: Link, heads: int, full: _Full | None) -> None:
        """From here on these are what there is. What is not named any more is removed."""
        pairs = [(run.header.after, run.header.until) for run in runs]
        made = Manifest(self._identity, last, heads, pairs)
        manifest.write(self._files, self._folder, made)
        with self._changed:
            before, self._runs, self._manifest = self._manifest, runs, made
            self._full = [each for each in self._full if each is not full]
            self._show()
        self._remove(_named(before) - _named(made))

    def _remove(self, names: set[str]) -> None:
        with translated(self._folder):
            for name in sorted(names):
                self._files.remove(self._folder / name)

    @property
    def _due(self) -> int | None:
        return due([run.header.level for run in self._runs], self._sizes.merged_runs)

    @property
    def _ends(self) -> bool:
        return bool(self._failed) or self._is_closed

    def _check(self) -> None:
        if self._ends:
            raise Ended(self._folder, self._failed or "it was closed")

    def _new_block(self) -> Block:
        # Whether it is full is asked between frames.
        return Block(self._sizes.block_entries + 2 * COMMANDS_MAX)

    def _show(self) -> None:
        blocks = [*(full.block for full in self._full), self.block]
        self.stretches = (*self._runs, *blocks)
        self._changed.notify_all()


def _sorted(block: Block) -> Iterator[Words]:
    """The entries of a block in the order of their accounts, piece by piece."""
    order = sorted_by_account(block.accounts[: block.filled])
    into = np.empty((_WRITTEN, ENTRY_WORDS), np.uint64)
    for at in range(0, len(order), _WRITTEN):
        piece = order[at : at + _WRITTEN]
        gather(block.words, piece, into)
        yield into[: len(piece)]


def _named(kept: Manifest | None) -> set[str]:
    """The files that are believed, besides the manifest."""
    return {heads_name(kept.heads), *(run_name(*pair) for pair in kept.runs)} if kept else set()


def _remove_unnamed(files: Files, folder: Path, kept: Manifest | None) -> None:
    named = _named(kept) | ({MANIFEST} if kept else set())
    with translated(folder):
        for name in sorted(files.names(folder)):
            if is_own(name) and name not in named:
                files.remove(folder / name)


def remove_all(folder: Path, files: Files) -> None:
    """Remove all that the read side keeps; it is made anew from the list."""
    with translated(folder):
        # Without this nothing else is believed.
        if MANIFEST in files.names(folder):
            files.remove(folder / MANIFEST)
            files.flush_folder(folder)
    _remove_unnamed(files, folder, None)
