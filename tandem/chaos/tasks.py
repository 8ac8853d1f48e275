"""Threads whose failure is not overlooked: a check that has ended silently would find nothing."""

import threading
from collections.abc import Callable
from typing import Any


class Task:
    """Runs `work` in a thread; `join` raises what it has raised."""

    def __init__(self, work: Callable[..., object], *arguments: Any) -> None:
        self._work = work
        self._arguments = arguments
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Task":
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            self._work(*self._arguments)
        except BaseException as error:
            self._error = error

    def join(self) -> None:
        self._thread.join()
        if self._error:
            raise self._error


class Activity:
    """Something that goes on between `start` and `stop`: `_work`, until `_over` is set."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._task = Task(self._work)

    def start(self) -> None:
        self._task.start()

    def stop(self) -> None:
        """Raises what went wrong in it, if something did."""
        self._over.set()
        self._task.join()

    def _work(self) -> None:
        raise NotImplementedError
