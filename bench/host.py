"""Runs a load in a process of its own, so that nothing else takes its time."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from bench.loads.base import Load, Tally
from tandem.local.processes import INTERRUPTS

_STOP_GRACE_S = 10.0


class Host:
    """The process of one load, told from here when to run."""

    def __init__(self, ours: "Connection[float | None, Tally | str]", title: str) -> None:
        self._pipe = ours
        self._title = title

    def run(self, seconds: float) -> Tally:
        """Run the load for so long. Raises RuntimeError with what went wrong there."""
        try:
            self._pipe.send(seconds)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            answer = "its process has ended"
        if isinstance(answer, str):
            raise RuntimeError(f"{self._title} broke off: {answer}")
        return answer


@contextmanager
def hosted(load: Load) -> Iterator[Host]:
    """A process for a load, connected and ready, for the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(load, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Host(ours, load.title)
        ours.send(None)
        process.join(_STOP_GRACE_S)
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        ours.close()


def _serve(load: Load, pipe: "Connection[Tally | str, float | None]") -> None:
    # Ctrl-C reaches every process of a terminal; who is measuring decides what ends.
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    try:
        runner = load.open()
        while seconds := pipe.recv():
            pipe.send(runner.run(seconds))
        runner.close()
    except EOFError:
        pass
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
