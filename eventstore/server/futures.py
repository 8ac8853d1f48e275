"""One future from another."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def then(future: "Future[A]", make: Callable[[A], B], executor: Executor | None) -> "Future[B]":
    """What `make` makes of a future's result, by a thread of the executor; without one by whichever
    thread sets that result, which it must not hold up. Errors are handed on.
    """
    made: Future[B] = Future()

    def run(result: A) -> None:
        try:
            made.set_result(make(result))
        except Exception as error:
            made.set_exception(error)

    def go_on(done: "Future[A]") -> None:
        try:
            result = done.result()
            if executor:
                executor.submit(run, result)
            else:
                run(result)
        except Exception as error:
            made.set_exception(error)

    future.add_done_callback(go_on)
    return made
