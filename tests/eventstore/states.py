"""What tests of snapshots need: machines with a state, the frames after which they are, and the
snapshot that is found of them.
"""

from pathlib import Path

from eventstore.machine.machine import Limits, Machine
from eventstore.segments.chain import Link
from eventstore.segments.files import DISK, Files
from eventstore.snapshots.reader import Loaded, newest
from eventstore.snapshots.writer import write
from tests.eventstore.groups import GROUP, accounts, transfers, wish

LIMITS = Limits(accounts=100, transfers=1000)
# Few bytes, so that there are several.
BLOCK_BYTES = 100


def link(seq: int) -> Link:
    """A frame of a list that nobody has written."""
    return Link(seq, 1, 1_000 + seq, bytes([seq]) * 32)


def machine_at(seq: int) -> Machine:
    """A machine that was given so many frames."""
    machine = new_machine()
    for number in range(1, seq + 1):
        paid = wish(f"{number}", "bank", "a", number)
        packed = transfers(paid) if number > 1 else accounts("bank", "a")
        machine.apply(link(number).time_us, number, *packed)
    return machine


def new_machine() -> Machine:
    return Machine(bytes(16), lambda place: None, LIMITS)  # type: ignore[arg-type,return-value]


def kept(folder: Path, seq: int, files: Files = DISK) -> Path:
    """Write the snapshot after a frame."""
    return write(
        *(folder, GROUP, link(seq), machine_at(seq), files),
        block_bytes=BLOCK_BYTES,
        room_bytes_min=0,
    )


def found(folder: Path, files: Files = DISK) -> Loaded | None:
    """The newest snapshot of that list."""
    return newest(*(folder, GROUP, lambda each: each == link(each.seq), new_machine), files=files)
