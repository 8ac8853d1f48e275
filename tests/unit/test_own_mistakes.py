"""Our own mistakes stop the work loudly, also under `python -O`, which drops every `assert`."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.engine.in_flight import InFlight, Position, Task
from coordinator.protocols import saga, two_phase_commit
from coordinator.protocols import try_confirm_cancel as tcc
from coordinator.protocols.phased import Step
from ledger.chain import first_link
from ledger.decide import Move, move
from ledger.errors import Bug
from ledger.ids import transfer_id
from ledger.model import Account, Status, Transfer

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("ledger", "shard_client", "coordinator")
FILES = [path for package in PACKAGES for path in sorted((PROJECT / package).rglob("*.py"))]

TRANSFER = Transfer(transfer_id("a", "k"), "k", "a", "b", 5, "EUR", None, "tcc", 1)
OPEN = Status.OPEN.value
ACCOUNT = Account("a", "EUR", 100, 0, OPEN, 0, 1, first_link("a", "EUR"), held=4, expected=4)


def flight(position: Position) -> InFlight:
    return InFlight(TRANSFER, "g", position, 0.0, None)


def begin_with_nothing() -> object:
    phases = {**saga.PHASES}
    first = (saga.Phase.BEGINNING, saga.Event.ACCEPTED)
    phases[first] = Step(saga.Phase.CREDITING, None, saga.Call.CREDIT)
    return saga.SAGA._replace(phases=phases).first_move


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "more is released than is held": (
        lambda: move(Move.RELEASE, TRANSFER, ACCOUNT, 1),
        "-1 would be held and 4 expected, and neither can be less than nothing",
    ),
    "more is received than is expected": (
        lambda: move(Move.RECEIVE, TRANSFER, ACCOUNT, 1),
        "4 would be held and -1 expected, and neither can be less than nothing",
    ),
    "the payer of what is reserved is gone": (
        lambda: move(Move.PAY, TRANSFER, None, 1),
        "pay what is reserved of .*: its account is gone",
    ),
    "who is to have its money back is gone": (
        lambda: move(Move.REFUND, TRANSFER, None, 1),
        "refund of .*: its account is gone",
    ),
    "a vote is lost after the decision": (
        lambda: two_phase_commit.step(
            two_phase_commit.Phase.COMMITTING, two_phase_commit.Event.VOTE_LOST
        ),
        "vote lost cannot occur while committing",
    ),
    "a refund is overtaken by its credit": (
        lambda: saga.SAGA.step(saga.Phase.COMPENSATING, saga.Event.CREDITED),
        r"credited cannot occur while compensating \(saga\)",
    ),
    "what is confirmed is cancelled": (
        lambda: tcc.TCC.react(tcc.State.CONFIRMED, tcc.Call.CANCEL),
        r"cancel cannot be called when confirmed \(tcc\)",
    ),
    "the phase of what has not begun is asked": (
        lambda: flight(Position(None, Task.CALL)).call,
        "what has not begun is in no phase",
    ),
    "nobody is called": (
        lambda: flight(Position(tcc.Phase.CONFIRMED, Task.CALL)).call,
        "tcc calls nobody while confirmed",
    ),
    "nothing was heard": (
        lambda: flight(Position(tcc.Phase.TRYING, Task.ADVANCE)).step,
        "nothing was heard to be made durable",
    ),
    "nothing leaves the source": (
        begin_with_nothing,
        "saga begins without taking anything from the source",
    ),
}


@pytest.mark.parametrize(("mistake", "text"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(mistake: Callable[[], object], text: str) -> None:
    with pytest.raises(Bug, match=text):
        mistake()


def test_a_mistake_stops_the_work_under_python_o_too() -> None:
    command = [sys.executable, "-O", "-m", "tests.unit.test_own_mistakes"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{name}: it is stopped" for name in MISTAKES], done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_check_is_an_assert(path: Path) -> None:
    tree = ast.parse(path.read_text())
    left = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    left += [node.lineno for node in names if node.id in ("__debug__", "AssertionError")]
    assert left == [], "python -O leaves these out: let them raise ledger.errors.Bug"


def what_becomes_of(mistake: Callable[[], object]) -> str:
    try:
        return f"goes on, with {mistake()}"
    except Bug:
        return "it is stopped"


if __name__ == "__main__":
    if not sys.flags.optimize:
        sys.exit("to be run with -O")
    for name, (mistake, _) in MISTAKES.items():
        print(f"{name}: {what_becomes_of(mistake)}")
