"""A coordinator of the model: it walks the product's own table, this only performs the effects.

As soon as it has all answers it goes on and sends its next packets: that a coordinator is slow, or
frozen and taken for gone, is no different from packets that are slow. Nobody in the model ever asks
whether a coordinator lives, so every schedule in which a zombie returns is among those explored.
"""

from collections.abc import Callable

from coordinator.protocols.two_phase_commit import Effect, Event, Phase, step
from tests.model.world import (
    ABORTED_ROW,
    ADRIFT,
    ASKED,
    ATTACHED,
    COMMITTED,
    COMMITTED_ROW,
    DECIDING,
    DONE,
    FADING_ROW,
    FOUND,
    GOOD,
    LISTED,
    LOCKED,
    LOST,
    NO_ROW,
    NOT_DONE,
    NOTHING,
    OPEN,
    PASSED,
    PENDING,
    PREPARED,
    REFUSED,
    SKIPPED,
    VISIBLE,
    Draft,
    Rule,
    Worker,
)

# --- packets: what a shard does with one ----------------------------------------------------


def deliver(draft: Draft, number: int, shard: int) -> None:
    """A shard carries out the packet, or the next part of the packet, that a group has sent it."""
    carry_out(draft, number, shard)
    proceed(draft, draft.group(number).owner)


def carry_out(draft: Draft, number: int, shard: int) -> None:
    phase = draft.coordinators[draft.group(number).owner].phase
    if phase is None:
        raise AssertionError("a packet without a sender")
    draft.set_line(number, shard, _CARRY_OUT[phase](draft, number, shard))


def give_up(draft: Draft, number: int, shard: int) -> None:
    """The coordinator, or its end, closes a connection. A packet that is under way then and could
    change something goes on alone; of any other nothing comes but the end of its session.
    """
    phase = draft.coordinators[draft.group(number).owner].phase
    line, part = draft.line(number, shard), draft.part(number, shard)
    is_home = shard == draft.home(number)
    changes = _CHANGES_ON_HOME if is_home else _CHANGES_ON_REMOTE
    if line == ADRIFT or (line == ASKED and phase in changes and part in OPEN):
        draft.set_line(number, shard, ADRIFT)
        return
    draft.set_line(number, shard, LOST)
    draft.end_session(number, shard)


_CHANGES_ON_HOME = (Phase.DECIDING, Phase.COMMITTING_ALONE)
_CHANGES_ON_REMOTE = (Phase.PREPARING,)


def deliver_adrift(draft: Draft, number: int, shard: int) -> None:
    """The same with a packet that nobody waits for any more; its session ends with it."""
    is_home = shard == draft.home(number)
    if not is_home:
        _write(draft, number, shard)
    elif draft.setting.shards == 1:
        _commit_alone(draft, number, shard)
    elif _decide(draft, number, shard) == ASKED and draft.part(number, shard) == DECIDING:
        return
    draft.set_line(number, shard, LOST)
    draft.end_session(number, shard)


def _lock(draft: Draft, number: int, shard: int) -> str:
    is_taken = draft.is_locked(shard)
    draft.set_part(number, shard, SKIPPED if is_taken else LOCKED)
    found = draft.is_id_there() and Rule.IDS_LOOKED_UP not in draft.setting.without
    if Rule.IDS_UNDER_LOCK in draft.setting.without:
        # As it was when the group was begun, before its lock packets were sent.
        found = draft.coordinators[draft.group(number).owner].found
    if shard == draft.setting.source and found:
        return FOUND
    return PASSED if is_taken else GOOD


def _write(draft: Draft, number: int, shard: int) -> str:
    """Write; a remote branch prepares, too."""
    setting = draft.setting
    if draft.part(number, shard) != LOCKED:
        return LOST
    is_unique = Rule.UNIQUE_IDS not in setting.without
    if shard == setting.source and is_unique and draft.is_id_there():
        draft.end_session(number, shard)
        return REFUSED
    if shard != draft.home(number):
        draft.set_part(number, shard, ATTACHED if setting.stays_attached else PREPARED)
    return GOOD


def _decide(draft: Draft, number: int, shard: int) -> str:
    """Two statements, INSERT and COMMIT; in between the row is there and not decided."""
    part, row = draft.part(number, shard), draft.group(number).row
    if part == LOCKED and Rule.DECISION_ROW in draft.setting.without:
        draft.set_part(number, shard, COMMITTED)
        return GOOD
    if part == LOCKED and row in (COMMITTED_ROW, ABORTED_ROW):
        draft.end_session(number, shard)
        return REFUSED
    if part == LOCKED:
        draft.set_part(number, shard, DECIDING)
        return ASKED
    if part == DECIDING:
        draft.set_row(number, COMMITTED_ROW)
        return _commit(draft, number, shard)
    return ASKED if part == VISIBLE else LOST


def _commit_alone(draft: Draft, number: int, shard: int) -> str:
    if draft.part(number, shard) == LOCKED:
        return _commit(draft, number, shard)
    return ASKED if draft.part(number, shard) == VISIBLE else LOST


def _commit_branch(draft: Draft, number: int, shard: int) -> str:
    if draft.part(number, shard) in LISTED:
        return _commit(draft, number, shard)
    return ASKED if draft.part(number, shard) == VISIBLE else REFUSED


def _commit(draft: Draft, number: int, shard: int) -> str:
    """Answered when it is safe, but some servers show it before."""
    if draft.setting.shows_early:
        draft.set_part(number, shard, VISIBLE)
        return ASKED
    draft.set_part(number, shard, COMMITTED)
    return GOOD


def _roll_back_branch(draft: Draft, number: int, shard: int) -> str:
    if draft.part(number, shard) in LISTED:
        draft.set_part(number, shard, NOTHING)
        return GOOD
    return REFUSED


_CARRY_OUT: dict[Phase, Callable[[Draft, int, int], str]] = {
    Phase.LOCKING: _lock,
    Phase.PREPARING: _write,
    Phase.WRITING_ALONE: _write,
    Phase.DECIDING: _decide,
    Phase.COMMITTING_ALONE: _commit_alone,
    Phase.COMMITTING: _commit_branch,
    Phase.ABORTING: _roll_back_branch,
}


def flush(draft: Draft, shard: int) -> None:
    """What can be seen on a shard is safe from now on; who waits for that has its answer."""
    for number, group in enumerate(draft.groups):
        if group is None:
            continue
        if shard == draft.setting.homes[group.owner] and group.row == FADING_ROW:
            draft.set_row(number, NO_ROW)
        if group.parts[shard] == VISIBLE:
            draft.set_part(number, shard, COMMITTED)
            if group.lines[shard] == ASKED:
                draft.set_line(number, shard, GOOD)
                proceed(draft, group.owner)


def make_safe(draft: Draft, shard: int, rule: Rule) -> None:
    """A write of the reader's own: with its commit the log is flushed (rule R2)."""
    if rule not in draft.setting.without:
        flush(draft, shard)


# --- the way through the table ----------------------------------------------------------------


def begin(draft: Draft, owner: int) -> bool:
    """Send the lock packets of a new group; says whether there was a slot for it."""
    number = draft.begin(owner)
    if number is None:
        return False
    without = draft.setting.without
    found = Rule.IDS_UNDER_LOCK in without and draft.is_id_there()
    draft.change(owner, phase=Phase.LOCKING, group=number, found=found)
    return True


def proceed(draft: Draft, owner: int) -> None:
    """Go on through the table until there is something to wait for."""
    while True:
        phase, number = draft.coordinators[owner][:2]
        # What is to be arbitrated is with the resolver.
        if phase is None or phase is Phase.ARBITRATING or ASKED in draft.group(number).lines:
            return
        phase, effect = step(phase, _EVENT[phase](draft, owner, number))
        draft.change(owner, phase=phase)
        _PERFORM[effect](draft, owner, number)


def _after_locking(draft: Draft, owner: int, number: int) -> Event:
    lines = draft.group(number).lines
    draft.change(owner, found=_is_found(draft, number))
    if lines[draft.home(number)] in (LOST, ADRIFT):
        return Event.LOCKS_LOST
    if lines.count(GOOD) < len(lines):
        return Event.NOTHING_TO_WRITE
    # It holds the locks and has not found the id: whatever was tried before has written nothing.
    if draft.coordinators[owner].is_late:
        draft.answer(owner, NOT_DONE)
        return Event.NOTHING_TO_WRITE
    draft.change(owner, is_sent=True, has_written=True)
    return Event.ONE_SHARD_WRITES if len(lines) == 1 else Event.SEVERAL_SHARDS_WRITE


def _is_found(draft: Draft, number: int) -> bool:
    """Whether the transfer's id was found. Who has read it proves it by a write in the same session
    (rule R2): in a new one that may be after a restart, and what was read is gone.
    """
    source = draft.setting.source
    is_same_session = draft.part(number, source) in OPEN
    any_session = Rule.SAME_SESSION in draft.setting.without
    return draft.line(number, source) == FOUND and (is_same_session or any_session)


def _after_writing(draft: Draft, owner: int, number: int) -> Event:
    lines = draft.group(number).lines
    return Event.ALL_VOTED_YES if lines.count(GOOD) == len(lines) else Event.VOTE_LOST


def _after_deciding(draft: Draft, owner: int, number: int) -> Event:
    line = draft.line(number, draft.home(number))
    known = {GOOD: Event.DECIDED, REFUSED: Event.DECISION_REFUSED}
    return known.get(line, Event.DECISION_UNKNOWN)


def _after_finishing(draft: Draft, owner: int, number: int) -> Event:
    """What was not finished is left to the resolver."""
    lines = draft.group(number).lines
    left = tuple(shard for shard in draft.remote(number) if lines[shard] != GOOD)
    phase = draft.coordinators[owner].phase
    if left and phase:
        draft.workers.append(Worker(owner, number, phase, left))
    return Event.FINISHED


_EVENT: dict[Phase, Callable[[Draft, int, int], Event]] = {
    Phase.LOCKING: _after_locking,
    Phase.PREPARING: _after_writing,
    Phase.WRITING_ALONE: _after_writing,
    Phase.DECIDING: _after_deciding,
    Phase.COMMITTING_ALONE: _after_deciding,
    Phase.COMMITTING: _after_finishing,
    Phase.ABORTING: _after_finishing,
}


def _write_everywhere(draft: Draft, owner: int, number: int) -> None:
    """A home without rows to write has nothing to do but to stay."""
    setting = draft.setting
    for shard in range(setting.shards):
        if shard != draft.home(number) or shard in (setting.source, setting.destination):
            draft.set_line(number, shard, ASKED)


def _ask_home(draft: Draft, owner: int, number: int) -> None:
    draft.set_line(number, draft.home(number), ASKED)
    if Rule.ANSWER_LAST in draft.setting.without:
        draft.answer(owner, DONE)


def _leave_to_resolver(draft: Draft, owner: int, number: int) -> None:
    """All connections are closed; the packet that was lost may be on its way all the same."""
    for shard, line in enumerate(draft.group(number).lines):
        if line != ADRIFT:
            draft.end_session(number, shard)
    remote = draft.remote(number)
    draft.workers.append(Worker(owner, number, Phase.ARBITRATING, remote))


def _commit_branches(draft: Draft, owner: int, number: int) -> None:
    for shard in draft.remote(number):
        draft.set_line(number, shard, ASKED)


def _roll_back_branches(draft: Draft, owner: int, number: int) -> None:
    """What is not prepared is let go at once: nobody sees more of that than a lock that is free.

    Before the write packets nothing can be prepared; after them whoever has not voted may be.
    """
    group, home = draft.group(number), draft.home(number)
    for shard, line in enumerate(group.lines):
        if group.parts[shard] in OPEN and line != ADRIFT:
            draft.set_part(number, shard, NOTHING)
            draft.set_line(number, shard, line if line == LOST else GOOD)
        if not draft.coordinators[owner].has_written:
            draft.set_line(number, shard, GOOD)
        elif line == GOOD and shard != home:
            draft.set_line(number, shard, ASKED)


def _answer(draft: Draft, owner: int, number: int) -> None:
    draft.answer(owner, DONE)
    _leave(draft, owner)


def _run_again(draft: Draft, owner: int, number: int) -> None:
    if draft.coordinators[owner].found:
        make_safe(draft, draft.setting.source, Rule.SAFE_OUTCOME)
        draft.answer(owner, DONE)
    elif draft.coordinators[owner].phase is Phase.ABORTED:
        # A group that has only passed it over knows nothing of what another has sent.
        is_undone = draft.coordinators[owner].has_written
        if is_undone or Rule.REOPENED_BY_WRITER in draft.setting.without:
            draft.change(owner, is_sent=False)
    _leave(draft, owner)


def _leave(draft: Draft, owner: int) -> None:
    """The group is left behind; its connections are given back."""
    number = draft.coordinators[owner].group
    for shard in draft.remote(number):
        if draft.line(number, shard) != ADRIFT:
            draft.end_session(number, shard)
    wait_again(draft, owner)


def wait_again(draft: Draft, owner: int) -> None:
    """Without a group; who is late by now and was never written is withdrawn."""
    draft.change(owner, phase=None, group=-1, has_written=False, found=False)
    if draft.coordinators[owner].is_late and not draft.coordinators[owner].is_sent:
        draft.answer(owner, look_beneath(draft))


def look_beneath(draft: Draft) -> str:
    """What a client is told whose transfer was withdrawn: an earlier request with the same id may
    have taken effect, or be about to.
    """
    source = draft.setting.source
    if draft.is_id_there():
        make_safe(draft, source, Rule.SAFE_OUTCOME)
        return DONE
    for number, group in enumerate(draft.groups):
        if group is None or group.parts[source] not in (DECIDING, ATTACHED, PREPARED):
            continue
        if group.row == COMMITTED_ROW:
            make_safe(draft, draft.home(number), Rule.SAFE_DECISION)
            return DONE
        return PENDING
    return NOT_DONE


_PERFORM: dict[Effect, Callable[[Draft, int, int], None]] = {
    Effect.WRITE_AND_PREPARE: _write_everywhere,
    Effect.WRITE_ALONE: _write_everywhere,
    Effect.INSERT_DECISION: _ask_home,
    Effect.COMMIT_ALONE: _ask_home,
    Effect.ARBITRATE: _leave_to_resolver,
    Effect.COMMIT_BRANCHES: _commit_branches,
    Effect.ROLL_BACK_BRANCHES: _roll_back_branches,
    Effect.ANSWER: _answer,
    Effect.RUN_AGAIN: _run_again,
}
