"""Kills nodes at every operation on files, and looks at what their lists are then.

    python -m tests.eventstore.killed FOLDER

prints a line of JSON for each: how it died, what it had answered, and what the next node said. Each
is forked from this process, which has compiled the machine and has no threads.
"""

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from eventstore.machine.machine import Machine
from eventstore.node.node import Node
from eventstore.rows import Code
from eventstore.segments.files import Disk
from eventstore.verify import verify
from tests.eventstore.groups import (
    GROUP,
    PATIENCE_S,
    SETTINGS,
    accounts,
    balances,
    codes,
    new_folder,
    opened,
    transfers,
    wish,
)

# Few frames to a segment, so that there are several.
SMALL = SETTINGS._replace(segment_bytes=1500)
ROUNDS = 6
WISHES = [wish(f"{n}", "bank", "a", 1 + n) for n in range(ROUNDS)]
# Refused for good, and then covered: the refusal stands.
DEAR = wish("dear", "a", "bank", 10)


class Deadly(Disk):
    """Kills its process at the `at`th point of all that operations on files have: before each,
    after each, and half-way through each write.
    """

    def __init__(self, at: int) -> None:
        self._left = at

    def _point(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, file: int, offset: int, data: bytes) -> None:
        self._point()
        half = len(data) // 2
        super().write(file, offset, data[:half])
        self._point()
        super().write(file, offset + half, data[half:])
        self._point()

    def _around(self, operation: Callable[[], None]) -> None:
        self._point()
        operation()
        self._point()

    def flush(self, file: int) -> None:
        self._around(lambda: super(Deadly, self).flush(file))

    def flush_folder(self, folder: Path) -> None:
        self._around(lambda: super(Deadly, self).flush_folder(folder))

    def rename(self, old: Path, new: Path) -> None:
        self._around(lambda: super(Deadly, self).rename(old, new))

    def remove(self, path: Path) -> None:
        self._around(lambda: super(Deadly, self).remove(path))

    def create(self, path: Path) -> int:
        self._point()
        file = super().create(path)
        self._point()
        return file


def live(folder: Path, say: Callable[[str, Code], None], files: Disk) -> None:
    """A node that does its work; `say` is told each answer, when it has been given."""
    node = opened(folder, SMALL, files=files)
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    for each in (DEAR, *WISHES, DEAR):
        (code,) = codes(node.submit(*transfers(each)).result(PATIENCE_S))
        say(each.key, code)
    node.stop()


def dies(work: Callable[[], None]) -> bool:
    """Do it in a process of its own; whether that was killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"{error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code > 0:
        raise SystemExit(f"a node ended with {code}")
    return code == -signal.SIGKILL


def answers_of(file: Path) -> list[list[str]]:
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def told_to(file: Path) -> Callable[[str, Code], None]:
    """Writes answers down, at once."""
    out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return lambda key, code: (os.write(out, f"{key} {code.name}\n".encode()), None)[1]


def look_at(folder: Path) -> dict[str, object]:
    """The next node, which answers all of it again; and the list behind it."""
    node: Node = opened(folder, SMALL)
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    said = {}
    for each in (DEAR, *WISHES):
        answer = node.submit(*transfers(each)).result(PATIENCE_S)
        said[each.key] = codes(answer)[0].name
    found = balances(node, "bank", "a")
    node.stop()
    verified = verify(folder, GROUP, lambda: Machine(bytes(16), recent(folder)), lambda seq: None)
    return {"said": said, "balances": found, "frames": verified.frames}


def recent(folder: Path) -> Callable[[int], object]:
    from eventstore.recent import Recent
    from eventstore.segments.reader import Reader

    return Recent(Reader(folder, GROUP)).command


def run(place: Path, points: tuple[int, ...]) -> bool:
    """Lives of one group that end at these points, one after the other; then a whole one. Whether
    the last of them was killed at its point.
    """
    folder = new_folder(place)
    answers = place.with_suffix(".answers")
    was_killed = False
    for point in points:
        was_killed = dies(lambda at=point: live(folder, told_to(answers), Deadly(at)))
    result: dict[str, object] = {"points": points, "killed": was_killed}
    read_end, write_end = os.pipe()
    dies(lambda: (os.write(write_end, json.dumps(look_at(folder)).encode()), None)[1])
    os.close(write_end)
    with open(read_end) as found:
        result |= json.loads(found.read())
    print(json.dumps(result | {"answered": answers_of(answers)}), flush=True)
    return was_killed


def main() -> None:
    place = Path(sys.argv[1])
    numbers = itertools.count()
    # A first life that ends at each point, then lives that end at each point of their start.
    for at in itertools.count(1):
        if not run(place / f"{next(numbers)}", (at,)):
            break
    for first in (9, 31):
        for at in range(1, 30):
            run(place / f"{next(numbers)}", (first, at))


if __name__ == "__main__":
    main()
