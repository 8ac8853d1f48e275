"""How fast what a list says is made anew: the machine's state, the read side, and a node that
starts from a snapshot.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.loads.node_socket import node_process
from eventstore.look import ListView
from eventstore.reading.side import ReadSide
from eventstore.segments.frame import Frame
from eventstore.verify import replay
from tandem.local.progress import Report

# More of a list than that makes the figure no better.
COMMANDS_MAX = 1_000_000


def replay_rate(folder: Path) -> float:
    """Commands a second, from the first frame on, every outcome compared."""
    view = ListView(folder)
    machine = view.new_machine()
    return _rate(view, lambda frame: replay(frame, machine))


def catch_up_rate(folder: Path) -> float:
    """Commands a second of a read side that begins with nothing: replayed, and the entries of each
    account kept on disk.
    """
    view = ListView(folder)
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as kept:
        side = ReadSide.open(Path(kept), folder, view.identity, view.new_machine())
        try:
            return _rate(view, side.apply, side.seal)
        finally:
            side.close()


def start_seconds(folder: Path, times: int, report: Report) -> list[float]:
    """From the start of a node's process on the list in a folder until it answers, each time. Its
    state is in a snapshot, which is made here, up to the last frame.
    """
    report("Making a snapshot")
    ListView(folder).make_snapshot()
    found = []
    for _ in range(times):
        began = time.monotonic()
        with node_process(folder, report):
            found.append(time.monotonic() - began)
    return found


def _rate(
    view: ListView, apply: Callable[[Frame], None], finish: Callable[[], None] = lambda: None
) -> float:
    count, began = 0, time.monotonic()
    for frame in _frames(view):
        apply(frame)
        count += len(frame.body.commands)
    finish()
    return count / (time.monotonic() - began)


def _frames(view: ListView) -> Iterator[Frame]:
    """Those with the first COMMANDS_MAX commands."""
    count = 0
    for frame in view.reader.read(until=view.until):
        yield frame
        count += len(frame.body.commands)
        if count >= COMMANDS_MAX:
            return
