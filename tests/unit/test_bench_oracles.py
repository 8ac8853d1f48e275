"""The bench's oracles, on rows made up by hand."""

from dataclasses import dataclass

import pytest

from bench import oracles
from bench.oracles import _ENTRIES, _TRANSFERS


@dataclass
class Rows:
    """A server that answers each statement with given rows."""

    answers: dict[str, list[tuple]]
    shard: str = "s1"

    def rows(self, statement: str, *_: str) -> list[tuple]:
        return self.answers.get(statement, [])


ENTRIES = [("00a", "debits", 1, 77, 4), ("00a", "credits", 1, 77, 4)]
TRANSFER = ("00a", "transfers", 1, 77, 4)


@pytest.mark.parametrize(
    ("entries", "transfers", "gone"),
    [
        (ENTRIES, [], "'transfers': (0, 0, 0)"),
        (ENTRIES[:1], [TRANSFER], "'credits': (0, 0, 0)"),
        ([], [TRANSFER], "'debits': (0, 0, 0)"),
    ],
)
def test_the_last_row_of_a_part_is_missed_by_name(
    entries: list[tuple], transfers: list[tuple], gone: str
) -> None:
    server = Rows({_ENTRIES: entries, _TRANSFERS: transfers})
    (told,) = oracles._halved([server], "bench.%", range(2))
    assert gone in told


def test_sides_that_agree_are_well() -> None:
    server = Rows({_ENTRIES: ENTRIES, _TRANSFERS: [TRANSFER]})
    assert oracles._halved([server], "bench.%", range(1, 2)) == []
