"""The steps of TC/C and Saga: the compiled machine says and does what the ledger's moves and the
protocols' tables say, whatever comes late, twice, or before what it follows on.
"""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.protocols import saga
from coordinator.protocols import try_confirm_cancel as tcc
from eventstore.machine.errors import LimitReached
from eventstore.machine.machine import Limits
from eventstore.node.check import check
from eventstore.rows import Code, EventCode, PhaseCode, StateCode, place, step_number
from ledger.errors import Bug
from ledger.model import AMOUNT_MAX, Reason, Refusal, Status
from tests.unit.eventstore.machine_books import (
    KEY,
    LIMITS,
    NOW,
    Answer,
    Change,
    Opening,
    Wish,
)
from tests.unit.eventstore.step_books import (
    PROTOCOLS,
    Advance,
    Begin,
    Call,
    Command,
    StepCommand,
    StepLedger,
    StepNode,
    id_bytes,
    pack,
    same_books,
)
from tests.unit.eventstore.test_snapshots_state import OTHER_KEY, dumped, giving

IDS = ["a", "b", "c", "{d}"]
_ends = [1, 2**31, 2**62, AMOUNT_MAX]
_near = [end + step for end in _ends for step in (-1, 0, 1) if 1 <= end + step <= AMOUNT_MAX]
_ids = st.sampled_from(IDS)
_currencies = st.sampled_from(["EUR"] * 5 + ["USD"])
_wishes = st.builds(
    Wish,
    source=_ids,
    destination=_ids,
    amount=st.integers(1, 9) | st.sampled_from(_near),
    key=st.sampled_from("kl"),
    currency=_currencies,
    metadata=st.sampled_from([None, '{"a":"é"}']),
    protocol=st.sampled_from(["tcc", "saga"]),
    by_name=st.booleans(),
)
_limits = st.sampled_from([None, None, None, 0, 20, 2**62])
_status = st.sampled_from([Status.OPEN, Status.OPEN, Status.FROZEN, Status.CLOSED])
_times = st.integers(NOW - 3, NOW + 3)


def _commands_of(wish: Wish) -> list[Command]:
    """All that can be asked of a transfer; what matters most several times."""
    protocol, found = PROTOCOLS[wish.protocol], list[Command]()
    calls = dict.fromkeys(call for _, call in protocol.calls)
    for attempt in ("g1", "g1", "g2"):
        found += [Begin(wish, attempt)] * 3
        found += [Call(wish, call, attempt) for call in calls]
        steps = [pair for pair in protocol.phases if pair[0] is not protocol.begin]
        found += [Advance(wish, *pair, attempt) for pair in steps]
    # The same transfer within the group, another protocol, and another body.
    odd = wish._replace(amount=2)
    return [*found, wish, wish._replace(protocol=""), odd, Begin(odd), Begin(odd, "g3")]


@st.composite
def _histories(draw: st.DrawFn) -> list[list[Command]]:
    """Frames of commands about few transfers: most have to do with each other."""
    wishes = draw(st.lists(_wishes, min_size=1, max_size=3))
    beginning = draw(
        st.tuples(*[st.builds(Opening, st.just(id_), _limits, _currencies) for id_ in IDS[:3]])
    )
    commands = st.sampled_from([each for wish in wishes for each in _commands_of(wish)])
    others = st.builds(Change, _ids, _status) | st.builds(Opening, _ids, _limits, _currencies)
    mixed = st.one_of(*[commands] * 9, others)
    frames = draw(st.lists(st.lists(mixed, max_size=15), max_size=5))
    return [list(beginning), *frames]


def decided(ledger: StepLedger, seq: int, commands: Sequence[Command], now: int) -> list[Answer]:
    return [ledger.apply(item, place(seq, i), now) for i, item in enumerate(commands)]


@settings(max_examples=120)
@given(_histories(), st.lists(_times, min_size=6, max_size=6), st.integers(0, 6))
def test_outcomes_texts_attempts_and_accounts_are_those_of_the_ledger(
    frames: list[list[Command]], times: list[int], kept_after: int
) -> None:
    node, ledger, other = StepNode(), StepLedger(), None
    for seq, (commands, now) in enumerate(zip(frames, times, strict=False), 1):
        answers = node.apply(commands, now)
        assert answers == decided(ledger, seq, commands, now)
        same_books(node, ledger)
        if other:
            assert other.apply(commands, now) == answers
            assert other.machine.digest() == node.machine.digest()
        if seq == kept_after:
            other = reloaded(node)


def reloaded(node: StepNode, limits: Limits = LIMITS) -> StepNode:
    """Another machine with the same list, that was given the state."""
    other = StepNode(OTHER_KEY, limits)
    other.frames = list(node.frames)
    other.machine.load(node.machine.sizes, giving(dumped(node.machine)))
    assert other.machine.digest() == node.machine.digest()
    return other


# --- by hand ------------------------------------------------------------------------------------

TCC, SAGA = Wish("a", "b", 5, protocol="tcc"), Wish("a", "b", 5, protocol="saga")
_P, _E, _C = tcc.Phase, tcc.Event, tcc.Call
_TRIED = Advance(TCC, _P.TRYING, _E.TRIED)
_EXPIRED = Advance(TCC, _P.TRYING, _E.EXPIRED)
_CANCELLED = Advance(TCC, _P.CANCELLING, _E.CANCELLED)
_TOP, _FAR = Wish("a", "b", AMOUNT_MAX, protocol="tcc"), Wish("b", "a", 9, key="back")


def _last(*commands: Command) -> Answer:
    """What becomes of the last of these, all in one machine; compared with the ledger's rules."""
    node, ledger = StepNode(), StepLedger()
    all_commands = [Opening("a", None), Opening("b", None), *commands]
    answers = [answer for each in all_commands for answer in node.apply([each])]
    assert answers == [
        ledger.apply(each, place(seq, 0)) for seq, each in enumerate(all_commands, 1)
    ]
    same_books(node, ledger)
    return answers[-1]


@pytest.mark.parametrize(
    ("code", "commands"),
    [
        (Code.DONE, [Begin(TCC)]),
        (Code.STEPPED, [Begin(TCC), _TRIED]),
        (Code.STANDS, [Begin(TCC), Begin(TCC)]),
        # Ended attempts are remembered.
        (Code.STANDS, [Begin(TCC), _EXPIRED, _CANCELLED, Begin(TCC)]),
        (Code.STANDS, [_TRIED]),
        (Code.STANDS, [Call(TCC, _C.CONFIRM)]),
        (Code.STANDS, [Call(TCC, _C.CANCEL), Call(TCC, _C.TRY)]),
        (Code.IN_USE, [Begin(TCC), Begin(TCC, "g2")]),
        (Code.IN_USE, [Begin(SAGA), SAGA]),
        # What was told no does not begin later.
        (Code.STANDS, [Begin(TCC), Begin(TCC, "g2"), _EXPIRED, Begin(TCC, "g2")]),
        (Code.STANDS, [Begin(TCC._replace(source="c")), Begin(TCC._replace(source="c"))]),
        # What has lapsed is free, for an attempt of its own and within the group.
        (Code.DONE, [Begin(TCC), _EXPIRED, Begin(TCC, "g2")]),
        (Code.DONE, [Begin(TCC), _EXPIRED, TCC]),
        (Code.REPLAYED, [Begin(TCC), _TRIED, Begin(TCC, "g2")]),
        (Code.REPLAYED, [Begin(TCC), _TRIED, TCC]),
        (Code.REUSED, [Begin(TCC), _TRIED, TCC._replace(amount=6)]),
        (Code.UNLIKE, [Begin(TCC), Begin(TCC._replace(amount=6))]),
        (Code.UNLIKE, [Call(TCC, _C.TRY), Call(SAGA, saga.Call.CREDIT)]),
        # A closing waits for what may come back.
        (Code.NOT_EMPTY, [Begin(SAGA), SAGA._replace(source="b", destination="a", protocol="xa"),
                          Change("a", Status.CLOSED)]),
        (Code.HELD_OVERFLOW, [_FAR._replace(amount=AMOUNT_MAX), Begin(_TOP),
                              Begin(_TOP._replace(key="more", amount=1))]),
        (Code.EXPECTED_OVERFLOW, [_FAR._replace(amount=AMOUNT_MAX), Call(_TOP, _C.TRY),
                                  Call(_TOP._replace(key="more", amount=1), _C.TRY)]),
        (Code.REFUND_OVERFLOW, [
            Opening("c", None), Begin(SAGA), Wish("b", "a", AMOUNT_MAX, key="fills"),
            Advance(SAGA, saga.Phase.CREDITING, saga.Event.REFUSED),
            Wish("c", "a", 5, key="fills more"),
            Advance(SAGA, saga.Phase.COMPENSATING, saga.Event.DUE),
        ]),
    ],
)  # fmt: skip
def test_the_last_step_comes_to(code: Code, commands: list[Command]) -> None:
    assert _last(*commands).code == code


def test_a_saga_that_is_refused_gives_the_money_back() -> None:
    """Two groups; each answer leads to the next command."""
    source, destination = StepNode(), StepNode()
    source.apply([Opening("a", 5)])
    destination.apply([Opening("b"), Change("b", Status.CLOSED)])
    assert source.apply([Begin(SAGA)])[0].code == Code.DONE
    call = Call(SAGA, saga.Call.CREDIT)
    (refused,) = destination.apply([call])
    assert refused.code == Code.DESTINATION_CLOSED
    assert refused.refusal == Refusal(Reason.ACCOUNT_CLOSED, "account b is closed")
    destination.apply([Change("b", Status.OPEN)])
    # For good: also when it would be allowed by now.
    assert destination.apply([call])[0] == Answer(Code.STANDS, place(2, 0), None, StateCode.REFUSED)
    steps = [
        Advance(SAGA, saga.Phase.CREDITING, saga.Event.REFUSED),
        Advance(SAGA, saga.Phase.COMPENSATING, saga.Event.DUE),
    ]
    assert [answer.code for answer in source.apply(steps)] == [Code.STEPPED] * 2
    standing = source.machine.account(0)
    assert (standing.account.balance, standing.unfinished) == (0, 0)
    assert source.machine.place_of(id_bytes(SAGA)) == place(3, 0)


def test_at_the_limit_of_attempts_what_has_begun_still_ends() -> None:
    node = StepNode(KEY, Limits(10, 100, attempts=2))
    node.apply([Opening("a", None), Opening("b", None), Begin(TCC), Call(TCC, _C.TRY, "other")])
    before = node.machine.digest()
    with pytest.raises(LimitReached, match="limit of 2 attempts would be passed: it has 2") as told:
        node.apply([Begin(TCC._replace(key="more"))])
    assert told.value.limit == "attempts"
    assert node.machine.digest() == before
    ends = [Call(TCC, _C.CANCEL, "other"), _TRIED, Advance(TCC, _P.CONFIRMING, _E.CONFIRMED)]
    assert [answer.code for answer in node.apply(ends)] == [Code.STEPPED] * 3
    assert not list(node.machine.unfinished())
    with pytest.raises(LimitReached, match="limit of 1 attempts"):
        reloaded(node, Limits(10, 100, attempts=1))


@pytest.mark.parametrize(
    ("command", "field", "value", "told"),
    [
        (Begin(TCC), "amount", 0, "moves 1 or more"),
        (Begin(TCC), "protocol", 1, "protocol of phases"),
        (Begin(TCC), "destination", 1, "has no number here"),
        (Begin(TCC), "source", 2, "there are only 2 accounts"),
        (Begin(TCC), "step", 1, "what is spare is zero"),
        (Call(TCC, _C.TRY), "step", 4, "makes no such call"),
        (Call(TCC, _C.TRY), "step", 0, "makes no such call"),
        (Call(TCC, _C.TRY), "step", 2**31, "makes no such call"),
        (Call(SAGA, saga.Call.CREDIT), "step", 1, "makes no such call"),
        (Call(TCC, _C.TRY), "source", 0, "has no number here"),
        (_TRIED, "step", step_number(PhaseCode.CONFIRMED, EventCode.TRIED), "no such step"),
        (_TRIED, "step", step_number(PhaseCode.CREDITING, EventCode.CREDITED), "no such step"),
        (_TRIED, "step", 2**31, "no such step"),
        (_TRIED, "step", 1 | 8 << 8, "no such step"),
        (_TRIED, "step", 255 | 1 << 8, "no such step"),
        (_TRIED, "step", step_number(PhaseCode.TRYING, EventCode.REFUSED), "has the reason"),
        (_TRIED, "amount", 1, "does not use"),
        (_TRIED, "source", 0, "does not use"),
    ],
)
def test_what_no_step_may_say(command: StepCommand, field: str, value: int, told: str) -> None:
    node = StepNode()
    node.apply([Opening("a"), Opening("b")])
    rows, texts = pack(node.machine, [command])
    rows[field][0] = value
    before = node.machine.digest()
    with pytest.raises(Bug, match=told):
        node.machine.apply(NOW, 2, rows, texts)
    with pytest.raises(Bug, match=told):
        check(rows, texts, 2)
    assert node.machine.digest() == before


def test_an_attempt_has_a_name() -> None:
    node = StepNode()
    for name in ("", "é", "a b", "x" * 65):
        for command in (Begin(TCC, name), Call(TCC, _C.TRY, name), _TRIED._replace(attempt=name)):
            with pytest.raises(Bug, match="which is no attempt"):
                node.apply([command])


def test_what_is_recorded_is_found_while_tables_grow() -> None:
    """An id leads to its attempt, and later to an outcome, also where it was not moved yet."""
    node = StepNode(KEY, Limits(10, 10_000, attempts=10_000))
    node.apply([Opening("a", None), Opening("b", None)])
    wishes = [TCC._replace(key=str(n), by_name=True) for n in range(3000)]
    for start in range(0, len(wishes), 100):
        frame = [Begin(wish) for wish in wishes[start : start + 100]]
        # Those of some frames before, so that tables move in between.
        late = wishes[max(start - 600, 0) : max(start - 500, 0)]
        decided_late = [Advance(wish, _P.TRYING, _E.TRIED) for wish in late]
        codes = {answer.code for answer in node.apply([*frame, *decided_late])}
        assert codes <= {Code.DONE, Code.STEPPED}
        for index, wish in enumerate(late, len(frame)):
            assert node.machine.place_of(id_bytes(wish)) == place(node.machine.seq, index)
    done = sum(node.machine.place_of(id_bytes(wish)) is not None for wish in wishes)
    assert done == len(wishes) - 600
    unfinished = list(node.machine.unfinished())
    assert len(unfinished) == len(wishes)
    assert [each.phase for each in unfinished].count(PhaseCode.TRYING) == 600
    other = reloaded(node, Limits(10, 10_000, attempts=10_000))
    assert list(other.machine.unfinished()) == unfinished
    standing = node.machine.account(0)
    assert (standing.account.held, standing.unfinished) == (600 * 5, 3000)
