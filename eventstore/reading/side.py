"""The read side: what a group's list says of accounts and their entries, up to the last frame that
it was given.

One thread applies frames; others ask. The machine decides every frame again, and each outcome is
compared (rule E4). What is kept can be dropped: it is made anew from the list (rule E15).
"""

import logging
from collections.abc import Callable
from pathlib import Path

from eventstore.machine.machine import Limits, Machine
from eventstore.reading import heads_file, manifest
from eventstore.reading.answers import Answers
from eventstore.reading.books import Books
from eventstore.reading.clerk import Clerk
from eventstore.reading.errors import Ended, HoldsList
from eventstore.reading.heads import Heads
from eventstore.reading.keeper import Keeper, Sizes, Stock, remove_all
from eventstore.reading.manifest import Manifest
from eventstore.reading.view import View
from eventstore.segments.chain import GENESIS, Link, link_of
from eventstore.segments.errors import NotThere, translated
from eventstore.segments.files import DISK, Files
from eventstore.segments.frame import Frame, Identity
from eventstore.segments.names import segment_firsts
from eventstore.segments.reader import Reader
from eventstore.verify import replay
from eventstore.wire.questions import At
from ledger.errors import Bug

log = logging.getLogger(__name__)

# The accounts are kept anew when so many entries have come for each of them, so that this costs
# little beside the entries.
_ENTRIES_PER_HEAD = 4
_SIZES = Sizes()


class ReadSide(Answers):
    """See `open`; what can be asked is in `Answers`."""

    def __init__(
        self,
        files: Files,
        lock: int,
        new_reader: Callable[[], Reader],
        view: View,
        keeper: Keeper,
        entered: Link,
        kept_seq: int,
    ) -> None:
        super().__init__(view)
        self._files, self._lock, self._keeper = files, lock, keeper
        self._new_reader = new_reader
        self._machine, self._heads = view.machine, view.heads
        self._clerk = Clerk(view.heads, view.machine)
        # The last frame that `heads` have; the last whose entries were kept when this was opened;
        # and that whose accounts are.
        self._entered, self._kept_seq, self._kept_heads = entered, kept_seq, entered.seq
        self._entries_since = 0

    @classmethod
    def open(
        cls,
        folder: Path,
        list_folder: Path,
        identity: Identity,
        machine: Machine,
        *,
        accounts_max: int = Limits().accounts,
        sizes: Sizes = _SIZES,
        files: Files = DISK,
        list_files: Files = DISK,
    ) -> "ReadSide":
        """Take what is kept in `folder`, which must be there, of the list in `list_folder`.

        `machine` is new, or from a snapshot. Frames are to be applied from `next_seq` on. What is
        kept of another list, or up to a frame that this one does not have, is removed, and that is
        logged as `reading.discarded`. Raises FolderInUse, KeptDamaged, ListError.
        """

        def new_reader() -> Reader:
            return Reader(list_folder, identity, files=list_files)

        with translated(folder):
            lock = files.lock(folder)
        try:
            kept = _usable(files, folder, identity, new_reader())
            heads = Heads(accounts_max)
            entered = GENESIS
            if kept:
                entered = heads_file.read(files, folder, kept.heads, identity, heads)
            keeper = Keeper(folder, files, identity, kept, sizes)
        except BaseException:
            files.close(lock)
            raise
        kept_seq = kept.last.seq if kept else 0
        as_of = At(entered.seq, entered.time_us) if machine.seq == entered.seq else At(0, 0)
        view = View(folder, machine, heads, keeper, as_of, max(machine.seq, kept_seq))
        return cls(files, lock, new_reader, view, keeper, entered, kept_seq)

    @property
    def next_seq(self) -> int:
        """The frame that is to be applied next; after a start some are given again."""
        return min(self._machine.seq, self._entered.seq) + 1

    @property
    def stock(self) -> Stock:
        """How much is kept."""
        return self._keeper.stock

    def apply(self, frame: Frame) -> None:
        """See the next frame, which must be answerable. For one thread.

        Raises Differs if the machine decides it in another way, Ended. Whatever is raised, nothing
        is answered any more.
        """
        try:
            self._view.check()
            self._keeper.check()
            self._apply(frame)
        except BaseException as error:
            self._view.fail(error.why if isinstance(error, Ended) else str(error) or repr(error))
            raise

    def seal(self) -> None:
        """Keep all entries and accounts that there are; that is durable then, and what is to be
        merged is merged. For the thread that applies. Raises Ended.
        """
        self._view.check()
        if self._keeper.block.filled:
            self._hand_over(are_heads_kept=True)
        self._keeper.wait()

    def open_books(self) -> Books:
        """The books as they are now: they stay so until they are closed. Raises CatchingUp."""
        return Books(self._view, self._new_reader())

    def verify(self) -> None:
        """Read all that is kept. Raises KeptDamaged naming what is not as it was."""
        self._keeper.verify()

    def close(self) -> None:
        """Let go of the folder. What was not kept comes from the list again. May be repeated."""
        self._view.fail("it was closed")
        self._keeper.close()
        if self._lock >= 0:
            self._files.close(self._lock)
            self._lock = -1

    def _apply(self, frame: Frame) -> None:
        seq, view = frame.header.seq, self._view
        if seq != self.next_seq:
            raise Bug(f"frame {seq} was given to a read side whose next one is {self.next_seq}")
        with view.moments.change():
            if seq > self._machine.seq:
                replay(frame, self._machine)
            if seq > self._entered.seq:
                self._enter(frame)
            if self._machine.seq == self._entered.seq:
                view.as_of = At(seq, frame.header.time_us)
        if self._keeper.is_full:
            enough = _ENTRIES_PER_HEAD * len(self._heads)
            self._hand_over(are_heads_kept=self._entries_since >= enough)

    def _enter(self, frame: Frame) -> None:
        block, is_kept = self._keeper.block, frame.header.seq > self._kept_seq
        before = block.filled
        for account, status in self._clerk.enter(frame, block, is_kept=is_kept):
            for watch in self._view.watches:
                watch.setdefault(account, status)
        self._entries_since += block.filled - before
        self._entered = link_of(frame.header)

    def _hand_over(self, *, are_heads_kept: bool) -> None:
        kept = None
        if are_heads_kept or not self._kept_heads:
            kept = heads_file.copy_of(self._heads, self._entered)
            self._kept_heads, self._entries_since = self._entered.seq, 0
        self._keeper.hand_over(self._entered, kept)


def drop(folder: Path, *, files: Files = DISK) -> None:
    """Remove all that is kept in a folder: whoever opens it makes it anew. Raises FolderInUse, and
    HoldsList if it is a node's.
    """
    with translated(folder):
        lock = files.lock(folder)
    try:
        with translated(folder):
            if segment_firsts(files.names(folder)):
                raise HoldsList(folder)
        remove_all(folder, files)
    finally:
        files.close(lock)


def _usable(files: Files, folder: Path, identity: Identity, reader: Reader) -> Manifest | None:
    """What is kept of this list; anything else is removed."""
    kept = manifest.read(files, folder)
    if kept is None or (kept.identity == identity and _is_in(reader, kept.last)):
        return kept
    extra = {"event": "reading.discarded", "seq": kept.last.seq, "found": kept.last.hash.hex()}
    text = "what the read side has kept is made anew: the list of %s has no frame %d with hash %s"
    log.error(text, identity, kept.last.seq, kept.last.hash.hex(), extra=extra)
    remove_all(folder, files)
    return None


def _is_in(reader: Reader, link: Link) -> bool:
    try:
        return link_of(reader.find(link.seq).header) == link
    except NotThere:
        return False
