"""Recovery in the model: whoever finishes a group, and the purge of traces.

Both decide by the product's own functions; a rule that is taken away replaces one of them. The
packets of a worker may be lost and are repeated: a lost request is no move at all, a lost reply one
after which the worker is where it was. A packet of a worker that is late is no different from a
second worker that is slow.
"""

from collections.abc import Collection, Iterator, Set

from coordinator.protocols import recovery as product
from coordinator.protocols.recovery import Verdict
from coordinator.protocols.two_phase_commit import Event, Phase, step
from shard_client.records import DecisionOutcome, Look
from tests.model.explore import Move
from tests.model.steps import make_safe, wait_again
from tests.model.world import (
    ABORTED_ROW,
    ATTACHED,
    CLEARED,
    COMMITTED,
    COMMITTED_ROW,
    DECIDING,
    DONE,
    FADING_ROW,
    LETTERS,
    LISTED,
    NO_ROW,
    NOT_DONE,
    NOTHING,
    OPEN,
    PREPARED,
    VISIBLE,
    Draft,
    Rule,
    Setting,
    State,
    Worker,
    name_of,
)

RECOVERER = -1

_DECISION = {
    COMMITTED_ROW: DecisionOutcome.COMMITTED,
    ABORTED_ROW: DecisionOutcome.ABORTED,
    NO_ROW: None,
    FADING_ROW: None,
}
_FOUND = {
    DecisionOutcome.COMMITTED: Event.FOUND_COMMITTED,
    DecisionOutcome.ABORTED: Event.FOUND_ABORTED,
}
_OUTCOME = {
    Phase.COMMITTING: DecisionOutcome.COMMITTED,
    Phase.ABORTING: DecisionOutcome.ABORTED,
}

# --- the product's rules, whole or with one taken away ----------------------------------------


def _judge(
    without: frozenset[str], outcome: DecisionOutcome, look: Look, decision: DecisionOutcome | None
) -> Verdict:
    if Rule.LOOK_AT_MARKER in without:
        return Verdict.DONE
    if Rule.COLLECTED_IS_DONE in without:
        decision = outcome
    return product.judge_unknown(outcome, look, decision)


def _may_collect_committed(
    without: frozenset[str], branches: Collection[str], marked: Collection[str]
) -> bool:
    return Rule.MARKERS_FIRST in without or product.may_collect_committed(branches, marked)


def _may_collect_marker(without: frozenset[str], decision: DecisionOutcome | None) -> bool:
    return Rule.DECISION_FIRST in without or product.may_collect_marker(decision)


def _may_collect_aborted(
    without: frozenset[str], noted: Set[object], running: Set[object], is_prepared: bool
) -> bool:
    if Rule.HOME_IS_QUIET in without:
        running = frozenset()
    if Rule.NONE_LISTED in without:
        is_prepared = False
    return product.may_collect_aborted(noted, running, is_prepared)


# --- finishing --------------------------------------------------------------------------------


def worker_moves(setting: Setting, state: State) -> Iterator[Move]:
    """What those who finish groups may do next."""
    yield from _new_recoverers(setting, state)
    for index, worker in enumerate(state.workers):
        if index and worker == state.workers[index - 1]:
            continue
        if worker.owner == RECOVERER and state.faults:
            draft = Draft(setting, state)
            draft.faults -= 1
            del draft.workers[index]
            yield Move("a recoverer crashes", draft.freeze(), is_fault=True)
        if worker.phase is Phase.ARBITRATING:
            yield from _arbitration(setting, state, index)
        elif worker.absent >= 0:
            yield _question(setting, state, index)
        else:
            for shard in worker.shards:
                yield from _finishing(setting, state, index, shard)


def _new_recoverers(setting: Setting, state: State) -> Iterator[Move]:
    """Recovery finds prepared branches, whether their coordinator lives or not."""
    if sum(worker.owner == RECOVERER for worker in state.workers) >= setting.recoverers:
        return
    asks = Rule.RECOVERY_ASKS not in setting.without
    for number, group in enumerate(state.groups):
        listed = tuple(s for s in range(setting.shards) if group and group.parts[s] in LISTED)
        if listed:
            draft = Draft(setting, state)
            phase = Phase.ARBITRATING if asks else Phase.ABORTING
            draft.workers.append(Worker(RECOVERER, number, phase, listed))
            shards = " and ".join(map(str, listed))
            name = f"recovery finds {name_of(state, number)} prepared on shard {shards}"
            yield Move(name, draft.freeze(), is_fault=False)


def _who(worker: Worker) -> str:
    return "recovery" if worker.owner == RECOVERER else f"{LETTERS[worker.owner]}'s resolver"


def _arbitration(setting: Setting, state: State, index: int) -> Iterator[Move]:
    worker = state.workers[index]
    draft = Draft(setting, state)
    if Rule.LOST_DECISION in setting.without and worker.owner != RECOVERER:
        is_there = draft.group(worker.group).row == COMMITTED_ROW
        outcome = DecisionOutcome.COMMITTED if is_there else DecisionOutcome.ABORTED
    elif draft.part(worker.group, draft.home(worker.group)) == DECIDING:
        # The row is inserted and not decided: the statement waits.
        return
    else:
        outcome = _arbitrate(draft, worker.group)
        if state.faults:
            lost = Draft(setting, state)
            lost.faults -= 1
            _arbitrate(lost, worker.group)
            name = f"{_who(worker)} arbitrates {name_of(state, worker.group)}, its reply is lost"
            yield Move(name, lost.freeze(), is_fault=True)
    phase, _ = step(worker.phase, _FOUND[outcome])
    draft.workers[index] = worker._replace(phase=phase)
    _tell(draft, worker, outcome)
    name = f"{_who(worker)} asks home about {name_of(state, worker.group)}: {outcome.value}"
    yield Move(name, draft.freeze(), is_fault=False)


def _arbitrate(draft: Draft, number: int) -> DecisionOutcome:
    make_safe(draft, draft.home(number), Rule.SAFE_DECISION)
    if _DECISION[draft.group(number).row] is None:
        draft.set_row(number, ABORTED_ROW)
    found = _DECISION[draft.group(number).row]
    if found is None:
        raise AssertionError("an arbitration leaves a row")
    return found


def _tell(draft: Draft, worker: Worker, outcome: DecisionOutcome) -> None:
    """The coordinator whose own resolver this is hears what became of its group."""
    if worker.owner == RECOVERER:
        return
    waiting = draft.coordinators[worker.owner]
    if waiting.phase is not Phase.ARBITRATING or waiting.group != worker.group:
        return
    if outcome is DecisionOutcome.COMMITTED:
        draft.answer(worker.owner, DONE)
    elif Rule.ROUND_AGAIN in draft.setting.without:
        draft.answer(worker.owner, NOT_DONE)
    wait_again(draft, worker.owner)


def _finishing(setting: Setting, state: State, index: int, shard: int) -> Iterator[Move]:
    """Finish one branch; if its server does not know it, look why."""
    worker = state.workers[index]
    draft = Draft(setting, state)
    verb = "commits" if worker.phase is Phase.COMMITTING else "rolls back"
    what = f"{_who(worker)} {verb} {name_of(state, worker.group)} on shard {shard}"
    if draft.part(worker.group, shard) == PREPARED:
        is_commit = worker.phase is Phase.COMMITTING
        draft.set_part(worker.group, shard, COMMITTED if is_commit else NOTHING)
        _done(draft, index, shard)
        yield Move(what, draft.freeze(), is_fault=False)
        if state.faults:
            lost = Draft(setting, state)
            lost.faults -= 1
            lost.set_part(worker.group, shard, COMMITTED if is_commit else NOTHING)
            yield Move(f"{what}, its reply is lost", lost.freeze(), is_fault=True)
        return
    look = _look(draft, worker.group, shard)
    if look is Look.ABSENT:
        # Home is asked after that.
        draft.workers[index] = worker._replace(absent=shard)
    else:
        _obey(draft, index, shard, look, None)
    yield Move(f"{what}: it is unknown, and {look.value}", draft.freeze(), is_fault=False)
    if draft.part(worker.group, shard) == ATTACHED:
        draft = Draft(setting, state)
        draft.end_session(worker.group, shard)
        yield Move(f"{what}: it ends the session that holds it", draft.freeze(), is_fault=False)


def _look(draft: Draft, number: int, shard: int) -> Look:
    part = draft.part(number, shard)
    if part == VISIBLE:
        make_safe(draft, shard, Rule.SAFE_MARKER)
    if part in (VISIBLE, COMMITTED):
        return Look.COMMITTED
    is_busy = part in LISTED and Rule.BUSY_IS_LATER not in draft.setting.without
    return Look.BUSY if is_busy else Look.ABSENT


def _question(setting: Setting, state: State, index: int) -> Move:
    """A branch was looked for in vain: what does home say now?"""
    worker = state.workers[index]
    draft = Draft(setting, state)
    row = draft.group(worker.group).row
    if row in (COMMITTED_ROW, ABORTED_ROW):
        make_safe(draft, draft.home(worker.group), Rule.SAFE_DECISION)
    decision = _DECISION[row]
    draft.workers[index] = worker._replace(absent=-1)
    _obey(draft, index, worker.absent, Look.ABSENT, decision)
    answer = decision.value if decision else "nothing"
    name = f"{_who(worker)} asks home about the absent branch on shard {worker.absent}: {answer}"
    return Move(name, draft.freeze(), is_fault=False)


def _obey(
    draft: Draft, index: int, shard: int, look: Look, decision: DecisionOutcome | None
) -> None:
    outcome = _OUTCOME[draft.workers[index].phase]
    verdict = _judge(draft.setting.without, outcome, look, decision)
    if verdict is Verdict.DONE:
        _done(draft, index, shard)
    elif verdict is Verdict.MISSING:
        draft.alarm = f"a committed branch is missing on shard {shard}"


def _done(draft: Draft, index: int, shard: int) -> None:
    worker = draft.workers[index]
    left = tuple(other for other in worker.shards if other != shard)
    if left:
        draft.workers[index] = worker._replace(shards=left)
    else:
        del draft.workers[index]


# --- collecting -------------------------------------------------------------------------------


def purge_moves(setting: Setting, state: State) -> Iterator[Move]:
    """What may be removed next; that stays so, so it makes no difference how slow a purge is,
    or how many there are.
    """
    for number, group in enumerate(state.groups):
        if group is None:
            continue
        if group.row == COMMITTED_ROW:
            yield from _collect_committed(setting, state, number)
        if group.row == ABORTED_ROW:
            yield from _collect_aborted(setting, state, number)
        for shard in setting.remote(setting.homes[group.owner]):
            if group.parts[shard] == COMMITTED:
                yield from _collect_marker(setting, state, number, shard)


def _collect_committed(setting: Setting, state: State, number: int) -> Iterator[Move]:
    draft = Draft(setting, state)
    branches = draft.remote(number)
    if Rule.LOOK_AT_MARKER in setting.without:
        # A commit of each is tried again, and "unknown" is taken for "done".
        finished = [s for s in branches if draft.part(number, s) != PREPARED]
    else:
        finished = [s for s in branches if draft.part(number, s) in (VISIBLE, COMMITTED)]
        for shard in finished:
            make_safe(draft, shard, Rule.SAFE_MARKER)
    if _may_collect_committed(setting.without, _names(branches), _names(finished)):
        draft.set_row(number, FADING_ROW if setting.shows_early else NO_ROW)
        name = f"the decision of {name_of(state, number)} is collected"
        yield Move(name, draft.freeze(), is_fault=False)


def _collect_marker(setting: Setting, state: State, number: int, shard: int) -> Iterator[Move]:
    draft = Draft(setting, state)
    decision = _DECISION[draft.group(number).row]
    if _may_collect_marker(setting.without, decision):
        make_safe(draft, draft.home(number), Rule.SAFE_ABSENCE)
        draft.set_part(number, shard, CLEARED)
        name = f"the marker of {name_of(state, number)} on shard {shard} is collected"
        yield Move(name, draft.freeze(), is_fault=False)


def _collect_aborted(setting: Setting, state: State, number: int) -> Iterator[Move]:
    """A group's transaction on home begins before the row is in, and only once: if it runs now it
    ran when the transactions were noted, so the two moments can be one here.
    """
    draft = Draft(setting, state)
    parts = draft.group(number).parts
    running = {number} if parts[draft.home(number)] in OPEN else set()
    is_prepared = any(part in LISTED for part in parts)
    if _may_collect_aborted(setting.without, running, running, is_prepared):
        draft.set_row(number, NO_ROW)
        name = f"the aborted decision of {name_of(state, number)} is collected"
        yield Move(name, draft.freeze(), is_fault=False)


def _names(shards: Collection[int]) -> list[str]:
    return [str(shard) for shard in shards]
