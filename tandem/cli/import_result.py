"""What becomes of the lines of an import.

A line ends in exactly one way:

    committed    done by this import (an account: created)
    replayed     had been done by an earlier one; nothing was done again
    refused      for good, by a rule about money or accounts
    malformed    never sent, or not understood by the service
    unsettled    not known, or not taken, within the time allowed
"""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tandem.cli.import_rows import Kind

EXAMPLES_KEPT = 3

Outcome = Literal["committed", "replayed", "refused", "malformed", "unsettled"]


class Verdict(NamedTuple):
    """How one line ended."""

    outcome: Outcome
    reason: str = ""
    detail: str = ""
    # A refusal that an earlier import had been given already.
    is_replayed: bool = False


class RefusedLine(NamedTuple):
    """A line that was not carried out, and why. `name` is its key, or the id of its account."""

    line: int
    outcome: Outcome
    reason: str
    detail: str
    name: str


@dataclass
class Tally:
    """How often a reason was met, with the first examples."""

    count: int = 0
    examples: list[RefusedLine] = field(default_factory=list)


@dataclass
class ImportResult:
    """What has become of the lines so far."""

    kind: Kind
    bytes_total: int | None = None
    bytes_done: int = 0
    committed: int = 0
    replayed: int = 0
    refused: int = 0
    refused_before: int = 0  # of `refused`: known from an earlier import
    malformed: int = 0
    unsettled: int = 0
    reasons: dict[str, Tally] = field(default_factory=dict)
    seconds: float = 0.0
    waiting: str = ""  # what is being waited for at this moment
    stopped: str = ""  # why it stopped before the end
    stopped_line: int = 0
    is_unreachable: bool = False
    interruption: KeyboardInterrupt | None = None

    @property
    def rows(self) -> int:
        done = self.committed + self.replayed
        return done + self.refused + self.malformed + self.unsettled

    def count(self, line: int, name: str, verdict: Verdict) -> RefusedLine | None:
        """Count how a line ended; returned if it was not carried out."""
        setattr(self, verdict.outcome, getattr(self, verdict.outcome) + 1)
        if verdict.outcome in {"committed", "replayed"}:
            return None
        self.refused_before += verdict.is_replayed
        if verdict.outcome == "unsettled":
            self.stopped = self.stopped or "some lines could not be settled in time"
            self.stopped_line = self.stopped_line or line
        refused = RefusedLine(line, verdict.outcome, verdict.reason, verdict.detail, name)
        tally = self.reasons.setdefault(verdict.reason, Tally())
        tally.count += 1
        if len(tally.examples) < EXAMPLES_KEPT:
            tally.examples.append(refused)
        return refused


def judge(result: Any, was_pending: bool) -> Verdict | None:
    """What the service's result for a line means; None is "send it again"."""
    if not isinstance(result, dict):
        return Verdict("unsettled", "unknown-answer", f"the service answered {result!r}")
    status, reason = result.get("status"), str(result.get("reason") or "")
    detail, is_replayed = str(result.get("detail") or ""), bool(result.get("replayed"))
    if status in {"committed", "created"}:
        # Seen pending by this import: it is this import that did it.
        return Verdict("replayed" if is_replayed and not was_pending else "committed")
    if status == "exists":
        return Verdict("replayed")
    if status == "rejected":
        return Verdict(
            "malformed" if reason == "malformed" else "refused", reason, detail, is_replayed
        )
    if status in {"failed", "pending"}:
        return None
    return Verdict("unsettled", "unknown-answer", f"the service answered {result!r}")
