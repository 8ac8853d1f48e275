"""Whether snapshots are what a list says: compared with a machine that replays it."""

from pathlib import Path

from eventstore.segments.chain import Link
from eventstore.segments.files import DISK, Files
from eventstore.segments.frame import Identity
from eventstore.snapshots.blocks import BlockReader
from eventstore.snapshots.errors import NotOfThisList, SnapshotDamaged, SnapshotError
from eventstore.snapshots.names import snapshot_name
from eventstore.snapshots.reader import check_header, seqs
from eventstore.verify import Machine


class Audit:
    """Of the snapshots that are in a folder when this is made. `violations` says what does not
    hold, and of which file; `compared` is how many were looked at.
    """

    def __init__(self, folder: Path, identity: Identity, *, files: Files = DISK) -> None:
        self._folder, self._identity, self._files = folder, identity, files
        self._waiting = set(seqs(folder, files))
        self.violations: list[str] = []
        self.compared = 0

    def after(self, link: Link, machine: Machine) -> None:
        """The machine has applied all frames up to this one. The snapshot after it, if there is
        one, must be whole, of this list, and have the machine's digest.
        """
        if link.seq not in self._waiting:
            return
        self._waiting.remove(link.seq)
        try:
            self._compare(link, machine)
            self.compared += 1
        except FileNotFoundError:
            # There are newer ones since.
            pass
        except SnapshotError as error:
            self.violations.append(str(error))

    def end(self, last: Link) -> None:
        """There is no frame behind this one: nor may there be a snapshot."""
        for seq in sorted(self._waiting):
            file = str(self._folder / snapshot_name(seq))
            error = NotOfThisList(file, "its frame", seq, f"at most the last one, {last.seq}")
            self.violations.append(str(error))

    def _compare(self, link: Link, machine: Machine) -> None:
        path = self._folder / snapshot_name(link.seq)
        blocks = BlockReader(path, self._files)
        check_header(blocks.header, path, link.seq, self._identity, lambda found: found == link)
        found, expected = blocks.header.digest, machine.digest()
        if found != expected:
            what = f"digest of the state after frame {link.seq}"
            raise SnapshotDamaged(str(path), 0, what, found.hex(), expected.hex())
        blocks.check_rest()
