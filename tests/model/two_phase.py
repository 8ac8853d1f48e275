"""Two-phase commit with its decision race, crashes, zombies and collection, as a model.

What moves is the product's own table and its own rules of recovery; what is modelled is the world
around them: shards and their locks, packets, clients. See world.Setting for what may happen and how
often. Not in it: refusals, batches, slots of accounts, identities, reads.

`python -m tests.model.two_phase [WORD ...]` explores the arrangements whose names contain one of
these words, or all, and prints how many states each has.
"""

import sys
import time
from collections.abc import Iterator, Sequence

from coordinator.protocols.two_phase_commit import Phase
from tests.model import recovery, steps
from tests.model.explore import Move, Report, explore
from tests.model.settings import LARGE, SMALL
from tests.model.world import (
    ADRIFT,
    ASKED,
    ATTACHED,
    COMMITTED,
    COMMITTED_ROW,
    DECIDING,
    DONE,
    FADING_ROW,
    GONE,
    LETTERS,
    LISTED,
    LOCKED,
    LOST,
    NO_ROW,
    NOT_DONE,
    NOTHING,
    OPEN,
    PREPARED,
    SEEN,
    VISIBLE,
    Coordinator,
    Draft,
    Group,
    Setting,
    State,
    name_of,
)


class TwoPhase:
    """The model; see explore.Model."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def initial(self) -> State:
        count = len(self.setting.homes)
        nobody = (None,) * self.setting.slots
        clients = (Coordinator(),) * count
        return State(clients, nobody, (), (0,) * count, self.setting.faults)

    def moves(self, state: State) -> Iterator[Move]:
        yield from self._beginnings(state)
        for number, group in enumerate(state.groups):
            if group is not None:
                for shard, line in enumerate(group.lines):
                    yield from self._packet(state, number, shard, line)
        yield from recovery.worker_moves(self.setting, state)
        yield from recovery.purge_moves(self.setting, state)
        if self.setting.shows_early:
            yield from self._flushes(state)
        if self.setting.has_deadlines:
            yield from self._deadlines(state)
        if state.faults:
            yield from self._crashes(state)
            yield from self._ended_sessions(state)
            yield from self._restarts(state)

    def is_end(self, state: State) -> bool:
        """Every client has an answer or is gone, and nothing is left: no branch, no lock, no row,
        no marker.
        """
        is_idle = not state.workers and not any(state.groups)
        return is_idle and all(c.answer and c.phase is None for c in state.coordinators)

    # --- what happens by itself -------------------------------------------------------------

    def _beginnings(self, state: State) -> Iterator[Move]:
        for owner, coordinator in enumerate(state.coordinators):
            if coordinator.phase is None and not coordinator.answer:
                draft = Draft(self.setting, state)
                if steps.begin(draft, owner):
                    yield Move(f"{LETTERS[owner]} forms a group", draft.freeze(), is_fault=False)

    def _packet(self, state: State, number: int, shard: int, line: str) -> Iterator[Move]:
        """What may become of a packet that is on its way."""
        what = f"{name_of(state, number)}, shard {shard}: "
        if line == ADRIFT:
            draft = Draft(self.setting, state)
            steps.deliver_adrift(draft, number, shard)
            yield Move(what + "the late packet is carried out", draft.freeze(), is_fault=False)
            draft = Draft(self.setting, state)
            draft.end_session(number, shard)
            draft.set_line(number, shard, LOST)
            yield Move(what + "the late packet is lost", draft.freeze(), is_fault=False)
        if line != ASKED:
            return
        what += f"{state.coordinators[_owner(state, number)].phase}, "
        draft = Draft(self.setting, state)
        steps.deliver(draft, number, shard)
        after = draft.freeze()
        if after != state:
            yield Move(what + "the packet is carried out", after, is_fault=False)
        if state.faults:
            yield from self._given_up(state, number, shard, what)

    def _flushes(self, state: State) -> Iterator[Move]:
        for shard in range(self.setting.shards):
            if self._is_unsafe(state, shard):
                draft = Draft(self.setting, state)
                steps.flush(draft, shard)
                yield Move(f"shard {shard} flushes its log", draft.freeze(), is_fault=False)

    def _is_unsafe(self, state: State, shard: int) -> bool:
        """Whether something can be seen on a shard that a restart would undo."""
        return any(
            group.parts[shard] == VISIBLE
            or (group.row == FADING_ROW and self.setting.homes[group.owner] == shard)
            for group in state.groups
            if group is not None
        )

    # --- what fails -------------------------------------------------------------------------

    def _failing(self, state: State) -> Draft:
        draft = Draft(self.setting, state)
        draft.faults -= 1
        return draft

    def _given_up(self, state: State, number: int, shard: int, what: str) -> Iterator[Move]:
        """The reply is lost, or does not come in time, and perhaps the packet is lost too."""
        phase = state.coordinators[_owner(state, number)].phase
        if phase in (Phase.COMMITTING, Phase.ABORTING):
            # To be carried out now or later is the same: others will do it, if not this packet.
            draft = self._failing(state)
            steps.carry_out(draft, number, shard)
            steps.give_up(draft, number, shard)
            steps.proceed(draft, draft.group(number).owner)
            yield Move(what + "the reply is lost", draft.freeze(), is_fault=True)
        draft = self._failing(state)
        steps.give_up(draft, number, shard)
        steps.proceed(draft, draft.group(number).owner)
        yield Move(what + "the coordinator gives up waiting", draft.freeze(), is_fault=True)

    def _crashes(self, state: State) -> Iterator[Move]:
        for owner, coordinator in enumerate(state.coordinators):
            has_resolver = any(worker.owner == owner for worker in state.workers)
            if coordinator.answer and coordinator.phase is None and not has_resolver:
                continue
            draft = self._failing(state)
            draft.workers = [worker for worker in draft.workers if worker.owner != owner]
            if coordinator.group >= 0:
                for shard in range(self.setting.shards):
                    steps.give_up(draft, coordinator.group, shard)
            draft.answer(owner, GONE)
            draft.coordinators[owner] = Coordinator(answer=draft.coordinators[owner].answer)
            yield Move(f"{LETTERS[owner]} crashes", draft.freeze(), is_fault=True)

    def _ended_sessions(self, state: State) -> Iterator[Move]:
        """A server lets go of a coordinator that was silent for too long, or an operator does."""
        for number, group in enumerate(state.groups):
            for shard, part in enumerate(group.parts if group else ""):
                if part in CUT:
                    draft = self._failing(state)
                    _cut(draft, number, shard)
                    _go_on(draft)
                    name = f"{name_of(state, number)}: shard {shard} ends its session"
                    yield Move(name, draft.freeze(), is_fault=True)

    def _restarts(self, state: State) -> Iterator[Move]:
        """What is left to a restart alone: several sessions at once, and what was not flushed."""
        for shard in range(self.setting.shards):
            held = [n for n, g in enumerate(state.groups) if g and g.parts[shard] in CUT]
            if len(held) < 2 and not self._is_unsafe(state, shard):
                continue
            draft = self._failing(state)
            for number, group in enumerate(state.groups):
                if group is not None:
                    self._undo(draft, number, shard)
                    _cut(draft, number, shard)
            _go_on(draft)
            yield Move(f"shard {shard} is restarted", draft.freeze(), is_fault=True)

    def _undo(self, draft: Draft, number: int, shard: int) -> None:
        """What was not flushed is as it was before."""
        is_home = draft.home(number) == shard
        if is_home and draft.group(number).row == FADING_ROW:
            draft.set_row(number, COMMITTED_ROW)
        if draft.part(number, shard) == VISIBLE:
            draft.set_part(number, shard, NOTHING if is_home else PREPARED)
            if is_home:
                draft.set_row(number, NO_ROW)

    def _deadlines(self, state: State) -> Iterator[Move]:
        """A client's patience ends. Nothing may depend on that, as on no fault."""
        for owner, coordinator in enumerate(state.coordinators):
            if not coordinator.answer and not coordinator.is_late:
                draft = Draft(self.setting, state)
                draft.change(owner, is_late=True)
                if coordinator.phase is None:
                    steps.wait_again(draft, owner)
                name = f"the deadline of {LETTERS[owner]}'s client passes"
                yield Move(name, draft.freeze(), is_fault=True)

    # --- what must never be -----------------------------------------------------------------

    def what_is_wrong(self, state: State) -> str | None:
        if state.alarm:
            return state.alarm
        effects = sum(state.effects)
        for number, group in enumerate(state.groups):
            if group is not None:
                home = self.setting.homes[group.owner]
                effects += group.parts[home] in SEEN
                if wrong := self._is_torn(group, home):
                    return f"{name_of(state, number)} {wrong}"
        if effects > 1:
            return "the transfer has taken effect twice"
        return self._wrong_answer(state)

    def _is_torn(self, group: Group, home: int) -> str | None:
        """Whether a part is committed while another is not, and cannot be any more or need not."""
        for shard in self.setting.remote(home):
            part = group.parts[shard]
            if group.parts[home] in SEEN and part not in SEEN and part not in LISTED:
                return f"is committed on its home and gone on shard {shard}"
            if part in SEEN and group.parts[home] != COMMITTED:
                return f"is committed on shard {shard} and not, or not for good, on its home"
        return None

    def _wrong_answer(self, state: State) -> str | None:
        safe, seen = list(state.effects), list(state.effects)
        for group in state.groups:
            if group is not None:
                part = group.parts[self.setting.homes[group.owner]]
                safe[group.owner] += part == COMMITTED
                seen[group.owner] += part in SEEN
        for owner, coordinator in enumerate(state.coordinators):
            if coordinator.answer == DONE and not any(safe):
                return f"{LETTERS[owner]}'s client was told that it is done, and it is not for good"
            if coordinator.answer == NOT_DONE and seen[owner]:
                return f"{LETTERS[owner]}'s client was told that nothing has happened, and it has"
        return None

    # --- for the reader ---------------------------------------------------------------------

    def describe(self, state: State) -> str:
        lines = []
        for owner, coordinator in enumerate(state.coordinators):
            doing = coordinator.phase or "no group"
            lines.append(f"{LETTERS[owner]}: {doing}; answer: {coordinator.answer or 'none'}")
        for number, group in enumerate(state.groups):
            if group is not None:
                home = self.setting.homes[group.owner]
                parts = ", ".join(
                    f"shard {shard}{' (home)' if shard == home else ''} {_WORDS[part]}"
                    for shard, part in enumerate(group.parts)
                )
                row = _ROWS[group.row]
                lines.append(f"{name_of(state, number)}: {parts}; decision: {row}")
        return "\n".join("     " + line for line in lines)


# What a session takes with it, or lets go of, when it ends.
CUT = OPEN | {ATTACHED}

_WORDS = {
    NOTHING: "nothing",
    "s": "open without the lock",
    LOCKED: "open",
    DECIDING: "open with an undecided decision",
    VISIBLE: "committed but not flushed",
    ATTACHED: "prepared in its session",
    PREPARED: "prepared",
    COMMITTED: "committed",
    "e": "committed long ago",
}
_ROWS = {NO_ROW: "none", COMMITTED_ROW: "committed", "a": "aborted", FADING_ROW: "being deleted"}


def _owner(state: State, number: int) -> int:
    group = state.groups[number]
    if group is None:
        raise IndexError(f"there is no group in slot {number}")
    return group.owner


def _cut(draft: Draft, number: int, shard: int) -> None:
    draft.end_session(number, shard)
    if draft.line(number, shard) in (ASKED, ADRIFT):
        draft.set_line(number, shard, LOST)


def _go_on(draft: Draft) -> None:
    for owner in range(len(draft.coordinators)):
        steps.proceed(draft, owner)


def explored(setting: Setting, states_max: int) -> Report:
    """What an exploration has seen. What is wrong comes with a trace in which each coordinator
    keeps its name; that takes another, with twins told apart.
    """
    report = explore(TwoPhase(setting), states_max=states_max)
    if report.violation is None or not setting.has_twins:
        return report
    report = explore(TwoPhase(setting._replace(are_told_apart=True)), states_max=states_max)
    if report.violation is None:
        raise AssertionError("told apart, the coordinators do nothing wrong")
    return report


def main(words: Sequence[str]) -> int:
    """Explore what was named; says how many arrangements are wrong."""
    wrong = 0
    for name, setting in {**SMALL, **LARGE}.items():
        if words and not any(word in name for word in words):
            continue
        start = time.process_time()
        report = explored(setting, 10_000_000)
        took_s = time.process_time() - start
        print(f"{name}: {report.states:,} states, {report.moves:,} moves, {took_s:.1f} s")
        if report.violation:
            print(report.violation)
            wrong += 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
