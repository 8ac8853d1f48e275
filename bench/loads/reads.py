"""Reads over HTTP, one after the other: statements, and balances at times that are past."""

import random
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from bench.loads.base import Tally
from bench.loads.honest import PAUSE_S
from bench.loads.one_by_one import TimedRunner
from coordinator.http.schemas import time_text
from tandem.local.progress import Report

# As many entries as the API gives if nobody says.
PAGE = 100
_TIMEOUT_S = 60.0


class History(NamedTuple):
    """An account with so many entries at least, which were made between these times (in us)."""

    account: str
    entries: int
    began_us: int
    ended_us: int


Draw = Callable[[History, random.Random], str]


def statement(history: History, chance: random.Random) -> str:
    """A page from somewhere."""
    after = chance.randrange(history.entries - PAGE)
    return f"/v1/accounts/{history.account}/entries?after={after}&limit={PAGE}"


def balance_at(history: History, chance: random.Random) -> str:
    """The balance at some time."""
    at = time_text(chance.randint(history.began_us, history.ended_us))
    return f"/v1/accounts/{history.account}/balance?{urlencode({'at': at})}"


class Reads:
    """The load; `draw`, a function of this module, says what is read."""

    def __init__(self, title: str, url: str, history: History, draw: Draw) -> None:
        self.title = title
        self._url, self._history, self._draw = url, history, draw

    def set_up(self, report: Report) -> None:
        """Nothing is to be done."""

    def open(self) -> TimedRunner:
        connection = HTTPConnection(urlsplit(self._url).netloc, timeout=_TIMEOUT_S)
        paths = self._paths()

        def once(tally: Tally) -> None:
            path = next(paths)
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 200:
                tally.committed += 1
            elif answer.status in (429, 503):
                tally.other[f"answered {answer.status}"] += 1
                time.sleep(PAUSE_S)
            else:
                raise RuntimeError(f"{path} was answered {answer.status}: {text[:300].decode()}")

        return TimedRunner(once, rest=connection.close)

    def violations(self, total: Tally) -> list[str]:
        """Reads change nothing."""
        return []

    def _paths(self) -> Iterator[str]:
        chance = random.Random(self.title)
        while True:
            yield self._draw(self._history, chance)
