"""Kills the making of a snapshot at every operation on files, and looks at what is there then.

    python -m tests.eventstore.killed_snapshots FOLDER

prints a line of JSON for each: whether it was killed, the snapshot that is found then, and the
files that are there when another one has been made. Each is forked from this process, which has
compiled the machine and has no threads.
"""

import itertools
import json
import sys
from functools import partial
from pathlib import Path

from eventstore.segments.files import Files
from tests.eventstore.killed import Deadly, dies
from tests.eventstore.states import found, kept, machine_at


def make(folder: Path, files: Files) -> None:
    kept(folder, 3, files)


def main() -> None:
    place = Path(sys.argv[1])
    digests = {machine_at(seq).digest(): seq for seq in range(1, 5)}
    for at in itertools.count(1):
        folder = place / f"{at}"
        for seq in (1, 2):
            kept(folder, seq)
        was_killed = dies(partial(make, folder, Deadly(at)))
        loaded = found(folder)
        seen = digests.get(loaded.machine.digest()) if loaded else None
        kept(folder, 4)
        names = sorted(path.name for path in folder.glob("*.snapshot*"))
        print(json.dumps({"killed": was_killed, "found": seen, "names": names}), flush=True)
        if not was_killed:
            break


if __name__ == "__main__":
    main()
