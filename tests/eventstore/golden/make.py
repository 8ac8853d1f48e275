"""Makes a golden list: a small list with every kind of command and every outcome, and expected.json
beside it, which says what it comes to.

    cd tests/eventstore && PYTHONPATH=CHECKOUT python -m golden.make FOLDER

FOLDER is new. CHECKOUT has the code that is to write it; from here come the commands alone. `v1`
was made by commit ad4ac02: format 1 of frames and of snapshots, version 1 of the machine. It is not
made again: what it shows is that today's code reads what that one wrote. A new version gets a
folder of its own, `v2`.

Nothing in here is drawn: the clock, the draws and the key of the machine's tables are given. So the
same code makes the same bytes, whatever it runs on, which `test_determinism.py` holds it to.
"""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import UUID

from eventstore.events import events_in
from eventstore.machine.machine import VERSION, Limits, Machine
from eventstore.node import node as node_module
from eventstore.node.node import Node, Settings
from eventstore.reading.side import ReadSide
from eventstore.recent import Recent
from eventstore.segments.chain import link_of
from eventstore.segments.frame import Frame, Identity
from eventstore.segments.names import HOLDER
from eventstore.segments.reader import Reader
from eventstore.segments.writer import begin
from eventstore.snapshots.names import FOLDER
from eventstore.snapshots.writer import write
from eventstore.verify import replay

# Relative, so that it can be run beside the code of another checkout.
from .commands import Wanted, epochs

GROUP = Identity(UUID(int=0xC1), UUID(int=0x6B), 1)
KEY = bytes(range(16))
LIMITS = Limits(accounts=1000, transfers=1_000_000)
SETTINGS = Settings(node=7, machine=LIMITS, room_bytes_min=2**20, segment_bytes=6000)
SNAPSHOT_BEHIND_EPOCH = 2
# Several blocks.
BLOCK_BYTES = 1000
NOW = 1_700_000_000_000_000
# Longer than anything here takes.
PATIENCE_S, PAUSE_S = 60, 3600.0

# --- the list -----------------------------------------------------------------------------------


def make(folder: Path, key: bytes = KEY, transfers: int = 0) -> None:
    """Write the list, and the snapshot in it, into a folder that is there."""
    begin(folder)
    given = _Given(key)
    with (
        patch.object(node_module, "secrets", given.secrets),
        # Of a pause in which an empty frame comes by itself nobody knows when it is over.
        patch.object(node_module, "PAUSE_S", PAUSE_S),
    ):
        for epoch, wanted in enumerate(epochs(transfers), start=1):
            _start(folder, given, wanted)
            if epoch == SNAPSHOT_BEHIND_EPOCH:
                _keep_snapshot(folder, key)


def _start(folder: Path, given: "_Given", wanted: list[Wanted]) -> None:
    node = Node.open(folder, GROUP, SETTINGS, clock_us=given.clock_us)
    for each in wanted:
        # One after the other: what comes together may share a frame.
        made: Any = node.submit(*each) if each else node.barrier()
        made.result(PATIENCE_S)
    node.stop()


class _Given:
    """What a node takes from the world, besides commands."""

    def __init__(self, key: bytes) -> None:
        self._calls = self._starts = 0
        self.secrets = SimpleNamespace(randbits=self._draw, token_bytes=lambda length: key[:length])

    def clock_us(self) -> int:
        """It stands still now and then, and goes back."""
        self._calls += 1
        return NOW + self._calls // 3 * 2_000 - (5_000 if self._calls % 10 == 0 else 0)

    def _draw(self, bits: int) -> int:
        self._starts += 1
        drawn = blake2b(b"start %d" % self._starts, digest_size=bits // 8).digest()
        return int.from_bytes(drawn, "little")


def _keep_snapshot(folder: Path, key: bytes) -> None:
    machine = new_machine(folder, key)
    for frame in frames_of(folder):
        replay(frame, machine)
    last = link_of(frame.header)
    write(folder / FOLDER, GROUP, last, machine, block_bytes=BLOCK_BYTES, room_bytes_min=2**20)


def new_machine(folder: Path, key: bytes = KEY) -> Machine:
    """A machine that can replay the list in a folder."""
    return Machine(key, Recent(Reader(folder, GROUP)).command, LIMITS)


def frames_of(folder: Path) -> Iterator[Frame]:
    """All frames of the list in a folder to which nobody appends."""
    reader = Reader(folder, GROUP)
    return reader.read(until=reader.tail().end.last.seq)


# --- what it comes to ---------------------------------------------------------------------------


def expected(folder: Path) -> dict[str, Any]:
    """What a list says, as it stands in expected.json."""
    machine, frames = new_machine(folder), []
    for frame in frames_of(folder):
        replay(frame, machine)
        frames.append(told(frame, machine))
    last = link_of(frame.header)
    return {
        "machine": VERSION,
        "state": machine.digest().hex(),
        "last": {"seq": last.seq, "epoch": last.epoch, "hash": last.hash.hex()},
        "events": sum(each["events"] for each in frames),
        "accounts": accounts(folder),
        "frames": frames,
    }


def told(frame: Frame, machine: Machine) -> dict[str, Any]:
    """What one frame says; of its outcomes and events there are digests."""
    codes, details = frame.body.outcomes
    events = [_event_text(event) for event, _ in events_in(frame, 0, machine)]
    return {
        "outcomes": _digest(codes.tobytes(), details.tobytes()),
        "events": len(events),
        "events_digest": _digest(*(text.encode() for text in events)),
    }


def accounts(folder: Path) -> list[dict[str, Any]]:
    """The accounts by their numbers, as the read side has them; it makes their chains."""
    with TemporaryDirectory() as kept:
        side = ReadSide.open(
            *(Path(kept), folder, GROUP, new_machine(folder)), accounts_max=LIMITS.accounts
        )
        machine = new_machine(folder)
        for frame in frames_of(folder):
            replay(frame, machine)
            side.apply(frame)
        ids = [machine.terms(number).id for number in range(len(machine))]
        found = [dated.account._asdict() for dated in side.accounts(ids).accounts if dated]
        side.close()
    return found


def _event_text(event: Any) -> str:
    """All that an event says; what later versions say besides is left out."""
    at = event.position
    words: list[object] = [type(event).__name__, at.seq, at.index, at.check, event.time_us]
    for name in ("account", "currency", "overdraft_limit", "status", "reason", "detail"):
        words.append(getattr(event, name, None))
    transfer = getattr(event, "transfer", None)
    of_transfer = ("id", "key", "source", "destination", "amount", "currency", "metadata")
    words += [getattr(transfer, name, None) for name in (*of_transfer, "protocol", "created_at")]
    return json.dumps(words)


def _digest(*parts: bytes) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def main(arguments: list[str]) -> None:
    """Make the list, and say what it comes to in a file beside it."""
    parser = ArgumentParser(description="Makes a golden list.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key", type=bytes.fromhex, default=KEY, help="of the machine's tables")
    parser.add_argument("--transfers", type=int, default=0, help="so many more, in one frame")
    asked = parser.parse_args(arguments)
    asked.folder.mkdir()
    make(asked.folder, asked.key, asked.transfers)
    # Who has a lock on the list writes his process into it.
    for holder in asked.folder.rglob(HOLDER):
        holder.unlink()
    found = json.dumps(expected(asked.folder), indent=1, ensure_ascii=False)
    (asked.folder / "expected.json").write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
