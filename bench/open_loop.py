"""An open-loop generator: work arrives on a schedule, whether what came before is done or not, and
its latency counts from when it was to begin.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence

Work = Callable[[], None]


def latencies(workers: Sequence[Work], rate: float, seconds: float) -> list[float]:
    """Let work arrive evenly, `rate` times a second, each to be done by whichever of the workers is
    free; a worker does one piece with each call. Gives how long each piece took, in seconds,
    including the time for which no worker was free. Raises what a worker raises.
    """
    count = int(rate * seconds)
    numbers = itertools.count()
    began = time.monotonic() + 0.05
    found: list[list[float]] = [[] for _ in workers]
    errors: list[BaseException] = []

    def serve(work: Work, mine: list[float]) -> None:
        try:
            while not errors and (number := next(numbers)) < count:
                intended = began + number / rate
                time.sleep(max(intended - time.monotonic(), 0))
                work()
                mine.append(time.monotonic() - intended)
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=serve, args=pair) for pair in zip(workers, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [latency for mine in found for latency in mine]
