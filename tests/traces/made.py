"""The golden traces, by the names of their files."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.traces import phased, two_phase
from tests.traces.world import Trace

FOLDER = Path(__file__).resolve().parent

SCENES: Mapping[str, Callable[[], Trace]] = {
    "commit-across-shards": two_phase.commit_across_shards,
    "refused": two_phase.refused,
    "decision-answer-lost": two_phase.decision_answer_lost,
    "abort-by-recovery": two_phase.abort_by_recovery,
    "try-expires": phased.try_expires,
    "saga-refunded": phased.saga_refunded,
}


def make(name: str) -> str:
    """The text of a trace's file."""
    scene = SCENES[name]
    return f"{scene.__doc__}\n\n{scene()}"


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.txt"
