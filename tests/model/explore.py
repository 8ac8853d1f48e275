"""Visits every state that a model can reach, breadth first, and looks for two kinds of wrong.

A state in which something has gone wrong; and a state from which no end can be reached any more,
even if nothing fails from there on. What is found comes with a shortest trace of named moves.
"""

import gc
from array import array
from collections.abc import Hashable, Iterable
from typing import NamedTuple, Protocol, TypeVar


class Move(NamedTuple):
    """One thing that can happen next. A fault may happen, but nothing may depend on it."""

    name: str
    target: Hashable
    is_fault: bool


S = TypeVar("S", bound=Hashable)


class Model(Protocol[S]):
    """What is explored; its states are immutable values."""

    def initial(self) -> S: ...

    def moves(self, state: S) -> Iterable[Move]: ...

    def what_is_wrong(self, state: S) -> str | None:
        """A sentence, or None if all is well."""

    def is_end(self, state: S) -> bool:
        """Whether nothing is left to be done."""

    def describe(self, state: S) -> str:
        """The state for a reader, on some lines."""


class Violation(NamedTuple):
    """Something wrong, and a shortest way there."""

    what: str
    trace: list[str]
    state: str

    def __str__(self) -> str:
        steps = [f"{number:3}. {name}" for number, name in enumerate(self.trace, 1)]
        return "\n".join([f"{self.what}, after {len(self.trace)} steps:", *steps, self.state])


class Report(NamedTuple):
    """What an exploration has seen. `depth` is the length of the longest of the shortest ways."""

    states: int
    moves: int
    ends: int
    depth: int
    violation: Violation | None


class TooManyStates(Exception):
    """The model is larger than was allowed for."""


class _Graph:
    """The states seen so far, by number, and how they were reached."""

    def __init__(self, first: Hashable) -> None:
        self.numbers: dict[Hashable, int] = {first: 0}
        self.states: list[Hashable] = [first]
        self.parents = array("l", [-1])
        self.depths = array("H", [0])
        # Where each state can come from without a fault.
        self.before: list[array[int]] = [array("I")]
        self.moves = 0

    def add(self, state: Hashable, parent: int) -> tuple[int, bool]:
        """The number of a state, and whether it is new."""
        number = self.numbers.setdefault(state, len(self.states))
        if number < len(self.states):
            return number, False
        self.states.append(state)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        self.before.append(array("I"))
        return number, True


def explore(model: Model[S], *, states_max: int) -> Report:
    """Visit all states, or all up to the first that is wrong. Raises TooManyStates."""
    # Nothing here is garbage before the end, and to look for it takes as long as all the rest.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _explore(model, states_max)
    finally:
        if was_enabled:
            gc.enable()


def _explore(model: Model[S], states_max: int) -> Report:
    first = model.initial()
    graph = _Graph(first)
    ends: list[int] = []
    current = 0
    while current < len(graph.states):
        state: S = graph.states[current]  # type: ignore[assignment]
        if wrong := model.what_is_wrong(state):
            return _report(model, graph, ends, current, wrong)
        if model.is_end(state):
            ends.append(current)
        for move in model.moves(state):
            graph.moves += 1
            number, _ = graph.add(move.target, current)
            if not move.is_fault:
                graph.before[number].append(current)
        if len(graph.states) > states_max:
            raise TooManyStates(f"more than {states_max} states")
        current += 1
    stuck = _first_without_end(graph, ends)
    if stuck is not None:
        return _report(model, graph, ends, stuck, "from here nothing can end any more")
    return _report(model, graph, ends, None, "")


def _first_without_end(graph: _Graph, ends: list[int]) -> int | None:
    """The first state from which no end can be reached without a fault."""
    can_end = bytearray(len(graph.states))
    waiting = list(ends)
    for number in ends:
        can_end[number] = 1
    while waiting:
        for number in graph.before[waiting.pop()]:
            if not can_end[number]:
                can_end[number] = 1
                waiting.append(number)
    found = can_end.find(0)
    return None if found < 0 else found


def _report(
    model: Model[S], graph: _Graph, ends: list[int], wrong: int | None, what: str
) -> Report:
    violation = None
    if wrong is not None:
        state: S = graph.states[wrong]  # type: ignore[assignment]
        violation = Violation(what, _trace(model, graph, wrong), model.describe(state))
    return Report(len(graph.states), graph.moves, len(ends), graph.depths[-1], violation)


def _trace(model: Model[S], graph: _Graph, number: int) -> list[str]:
    """The names of the moves from the first state to this one."""
    names: list[str] = []
    while number:
        parent: int = graph.parents[number]
        before: S = graph.states[parent]  # type: ignore[assignment]
        names.append(next(m.name for m in model.moves(before) if m.target == graph.states[number]))
        number = parent
    return names[::-1]
