"""Waits for whichever of several shards answers first."""

import select
from collections.abc import Iterable, Iterator, Mapping

from shard_client.node import SLOW_S, Session

_SILENCE_MS = round(SLOW_S * 1000)


def as_they_answer(
    names: Iterable[str], sessions: Mapping[str, Session]
) -> Iterator[tuple[str, bool]]:
    """The names of these sessions, which have a call on its way, as their answers arrive, so that a
    slow shard does not make others look slow; and whether one is late: after SLOW_S without a sign
    of any of them, answers are to be waited for one by one. The caller reads each answer before it
    asks for the next name, and leaves the others where they are.
    """
    waiting: dict[int, str] = {}
    poller = select.poll()
    for name in names:
        number = sessions[name].fileno()
        if number is None:
            yield name, False
            continue
        waiting[number] = name
        poller.register(number, select.POLLIN)
    is_lone = len(waiting) < 2
    while waiting and not is_lone and (ready := poller.poll(_SILENCE_MS)):
        for number, _ in ready:
            poller.unregister(number)
            yield waiting.pop(number), False
    while waiting:
        number, name = next(iter(waiting.items()))
        poller.unregister(number)
        del waiting[number]
        yield name, not is_lone
        # While that one was read others may have come.
        for number, _ in poller.poll(0):
            poller.unregister(number)
            yield waiting.pop(number), False
