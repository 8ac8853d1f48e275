"""What the event store is to reach, row by row, beside what a run has found: pure."""

from collections.abc import Mapping
from typing import NamedTuple

from bench.parts.base import Finding, GoalRow


class Goal(NamedTuple):
    """A row: the load, what is to be reached, and by which finding of the part it is seen ("": by
    none). `why` says why there is none, or why one of a run without --full does not count.
    """

    load: str
    goal: str
    finding: str = ""
    why: str = ""
    needs_full: bool = False


_AT_SIZE = "not at this size without --full"
_BATCHES = "10 times the MySQL engine"
_SKEW = "0.8 of the uniform figure"
GOALS = (
    Goal("Arrow, 8,192, account numbers, through a coordinator", "1,500,000/s", "numbers"),
    Goal("batches of 8,192, account numbers, straight to the node", "2,000,000/s", "node"),
    Goal("NDJSON with ids and keys, through a coordinator", "600,000/s", "NDJSON"),
    Goal("Arrow with ids and keys, through a coordinator", "600,000/s", "Arrow"),
    Goal("JSON batches of 1,000", _BATCHES, "group"),
    Goal("one transfer for each request, 64 connections", "5 times the MySQL engine", "singles"),
    Goal("one request after another, one client", "p50 below textbook XA's", "alone"),
    Goal("at 25, 50 and 75 % of textbook XA's most", "p50 better at each", "rates p50 ms"),
    Goal("at 25, 50 and 75 % of textbook XA's most", "p99 better at each", "rates p99 ms"),
    Goal(
        "at 25, 50 and 75 % of textbook XA's most",
        "time under lock better",
        why="a group takes no locks",
    ),
    Goal("one hot account, JSON batches", _SKEW, "hot"),
    Goal("one hot account, one transfer for each request", _SKEW, "singles hot"),
    Goal("one hot account, straight to the node", _SKEW, "node hot"),
    Goal("Zipf, s = 1", _SKEW, "zipf 1"),
    Goal("Zipf, s = 2", _SKEW, "zipf 2"),
    Goal("10 million accounts, straight to the node", _SKEW, "many", _AT_SIZE, needs_full=True),
    Goal("100 million ids, a node without a socket", _SKEW, "ids", "takes --full", needs_full=True),
    Goal("a frame of 8,192, one after the other", "p99 below 10 ms", "frames"),
    Goal("replay, account numbers, no keys", "3,000,000/s", "replay"),
    Goal("replay, ids and keys", "3,000,000/s", "replay of texts"),
    Goal(
        "start with 10 million accounts from a snapshot", "10 s", "start", _AT_SIZE, needs_full=True
    ),
    Goal(
        "read side keeps up for ever",
        "200,000/s",
        why="rounds of seconds say nothing of that; how fast it catches up is the next line",
    ),
    Goal("read side catches up, account numbers, no keys", "500,000/s", "catch-up"),
    Goal("read side catches up, ids and keys", "500,000/s", "catch-up of texts"),
    Goal(
        "statement, 20 million entries", "p99 below 20 ms", "statement", _AT_SIZE, needs_full=True
    ),
    Goal(
        "balance at a time, 20 million entries",
        "p99 below 20 ms",
        "balance at",
        _AT_SIZE,
        needs_full=True,
    ),
    Goal("the list, for each transfer without key and metadata", "64 bytes", "bytes"),
)


def rows(found: Mapping[str, Finding], *, is_full: bool) -> list[GoalRow]:
    """Every goal, with what was found. `found`: the findings by the names in GOALS."""
    return [_row(goal, found, is_full=is_full) for goal in GOALS]


def _row(goal: Goal, found: Mapping[str, Finding], *, is_full: bool) -> GoalRow:
    finding = found.get(goal.finding)
    why = goal.why if finding is None or (goal.needs_full and not is_full) else ""
    figures = dict(finding.figures) if finding else {}
    ratio, least = (finding.ratio, finding.goal) if finding else (None, None)
    return GoalRow(goal.load, goal.goal, figures, ratio, least, why)
