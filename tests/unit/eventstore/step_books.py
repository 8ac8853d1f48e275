"""For tests of TC/C and Saga in a machine: their commands in few words, and what becomes of them by
`ledger.decide.move` and the tables of `coordinator/protocols`.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from coordinator.protocols.phased import IllegalStep, PhasedProtocol
from coordinator.protocols.saga import SAGA
from coordinator.protocols.try_confirm_cancel import TCC
from eventstore.machine.machine import Machine
from eventstore.machine.refusals import refund_refusal, refusal, reuse
from eventstore.machine.texts import attempt_of
from eventstore.rows import (
    COMMAND,
    NOBODY,
    CallCode,
    Code,
    Commands,
    EventCode,
    Kind,
    PhaseCode,
    ProtocolCode,
    StateCode,
    pack_texts,
    place,
    step_number,
)
from ledger.decide import Move, Moved, move, refuse_reuse
from ledger.errors import Bug
from ledger.model import Reason, Refusal, Transfer
from tests.unit.eventstore import machine_books
from tests.unit.eventstore.machine_books import Answer, Ledger, Node, Wish

PROTOCOLS: dict[str, PhasedProtocol] = {"tcc": TCC, "saga": SAGA}
WHY = Refusal(Reason.ACCOUNT_CLOSED, "account {x} is closed")
_NEVER = "not begun"


class Begin(NamedTuple):
    wish: Wish
    attempt: str = "g1"


class Call(NamedTuple):
    wish: Wish
    call: StrEnum
    attempt: str = "g1"


class Advance(NamedTuple):
    wish: Wish
    phase: StrEnum
    event: StrEnum
    attempt: str = "g1"


StepCommand = Begin | Call | Advance
Command = machine_books.Command | StepCommand


def id_bytes(wish: Wish) -> bytes:
    return bytes.fromhex(wish.transfer().id[4:])


# --- the machine's side -------------------------------------------------------------------------


class StepNode(Node):
    """A machine, and the list of what it was given, steps included."""

    def apply(self, commands: Sequence[Command], now: int = machine_books.NOW) -> list[Answer]:  # type: ignore[override]
        rows, texts = pack(self.machine, commands)
        outcomes = self.machine.apply(now, self.machine.seq + 1, rows, texts)
        self.frames.append((rows, texts))
        return self._answers(outcomes)

    def _answer(self, index: int, code: Code, detail: np.void | None) -> Answer:
        body = self.body(place(len(self.frames), index))
        if code in (Code.STEPPED, Code.STANDS):
            assert detail is not None
            return Answer(code, int(detail["a"]), None, int(detail["b"]))
        if code in (Code.IN_USE, Code.UNLIKE):
            assert detail is not None
            return Answer(code, int(detail["a"]))
        if code == Code.REFUND_OVERFLOW:
            found = self.machine.attempt(body.row["id"].tobytes(), attempt_of(body))
            assert found
            assert found.begun
            return Answer(code, None, refund_refusal(self.body(found.begun), detail, self.machine))
        if body.row["kind"] >= Kind.BEGIN and code not in (Code.DONE, Code.REPLAYED, Code.REUSED):
            return Answer(code, None, refusal(code, body, detail, self.machine))
        if code == Code.REUSED:
            # The body of the first one stands where its attempt began, if it was one.
            assert detail is not None
            first = self.body(int(detail["a"]))
            if first.row["kind"] == Kind.ADVANCE:
                found = self.machine.attempt(first.row["id"].tobytes(), attempt_of(first))
                assert found
                assert found.begun
                first = self.body(found.begun)
            return Answer(code, int(detail["a"]), reuse(first, body, self.machine))
        return super()._answer(index, code, detail)


def pack(machine: Machine, commands: Sequence[Command]) -> tuple[Commands, bytes]:
    """A frame's commands and texts."""
    rows = np.zeros(len(commands), COMMAND)
    texts = []
    for i, command in enumerate(commands):
        if isinstance(command, Begin | Call | Advance):
            texts.append(pack_texts(_fill(machine, rows[i], command)))
            rows[i]["text"] = len(texts[-1])
        else:
            rows[i : i + 1], packed = machine_books.pack(machine, [command])
            texts.append(packed)
    return rows, b"".join(texts)


def _fill(machine: Machine, row: np.void, command: StepCommand) -> list[str]:
    wish = command.wish
    row["id"] = np.frombuffer(id_bytes(wish), "<u8")
    row["protocol"] = ProtocolCode[wish.protocol.upper()]
    row["source"] = row["destination"] = NOBODY
    if isinstance(command, Advance):
        phase, event = PhaseCode[command.phase.name], EventCode[command.event.name]
        row["kind"], row["step"] = Kind.ADVANCE, step_number(phase, event)
        why = WHY if event == EventCode.REFUSED else None
        return [command.attempt, why.reason.value if why else "", why.detail if why else ""]
    row["amount"], row["currency"] = wish.amount, list(wish.currency.encode().ljust(8, b"\0"))
    side = "source" if isinstance(command, Begin) else "destination"
    account = getattr(wish, side)
    number = machine.number_of(account)
    if number is not None and not wish.by_name:
        row[side] = number
    own = account if row[side] == NOBODY else ""
    if isinstance(command, Begin):
        row["kind"] = Kind.BEGIN
        return [wish.key, wish.metadata or "", own, wish.destination, command.attempt]
    row["kind"], row["step"] = Kind.CALL, CallCode[command.call.name]
    return [wish.source, own, command.attempt]


# --- the ledger's side --------------------------------------------------------------------------


class Part(NamedTuple):
    """What a group knows of an attempt; `phase` and `state` are empty where it has none."""

    wish: Transfer
    phase: str = ""
    begun: int = 0
    state: str = ""
    called: int = 0
    destination: str = ""

    @property
    def protocol(self) -> PhasedProtocol:
        return PROTOCOLS[self.wish.protocol]

    @property
    def is_undecided(self) -> bool:
        return self.phase in self.protocol.undecided

    @property
    def is_open(self) -> bool:
        return self.phase not in {"", _NEVER, *self.protocol.final}

    @property
    def is_unfinished(self) -> bool:
        return self.is_open or self.state == "tried"

    @property
    def phase_code(self) -> PhaseCode:
        if self.phase in ("", _NEVER):
            return PhaseCode.NOT_BEGUN if self.phase else PhaseCode.NONE
        return PhaseCode[self.protocol.phase(self.phase).name]

    @property
    def state_code(self) -> StateCode:
        return StateCode[self.protocol.state(self.state).name] if self.state else StateCode.ABSENT


class StepLedger(Ledger):
    """By the ledger's rules and the protocols' tables, one command after the other. What is in
    `without` is left out: for the model, that must notice.
    """

    def __init__(self, without: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.parts: dict[tuple[str, str], Part] = {}
        self.without = without

    def apply(  # type: ignore[override]
        self, command: Command, where: int, now: int = machine_books.NOW
    ) -> Answer:
        if isinstance(command, Wish):
            pending = self._pending(command.transfer().id)
            return (
                Answer(Code.IN_USE, pending.begun)
                if pending
                else super().apply(command, where, now)
            )
        if not isinstance(command, Begin | Call | Advance):
            return super().apply(command, where, now)
        wish = command.wish.transfer()
        key = wish.id, command.attempt
        part = self.parts.get(key)
        if part and self._is_unlike(part, wish, command):
            return Answer(Code.UNLIKE, part.begun)
        match command:
            case Begin():
                return self._begin(key, part, wish, where, now)
            case Call():
                return self._call(key, part, wish, command.call, where, now)
            case Advance():
                return self._advance(key, part, command, where, now)

    def _is_unlike(self, part: Part, wish: Transfer, command: Command) -> bool:
        if part.wish.protocol != wish.protocol:
            return True
        return not isinstance(command, Advance) and part.wish.amount != wish.amount

    def _pending(self, transfer: str) -> Part | None:
        if transfer in self.first or "one attempt at a time" in self.without:
            return None
        parts = [part for (id_, _), part in self.parts.items() if id_ == transfer]
        return next((part for part in parts if part.is_undecided), None)

    def _begin(
        self, key: tuple[str, str], part: Part | None, wish: Transfer, where: int, now: int
    ) -> Answer:
        if part and part.phase:
            return Answer(Code.STANDS, part.begun, None, part.phase_code)
        if wish.id in self.first:
            stored, first = self.first[wish.id]
            refused = refuse_reuse(stored, wish)
            return Answer(Code.REUSED if refused else Code.REPLAYED, first, refused)
        never = (part or Part(wish))._replace(phase=_NEVER, begun=where)
        if pending := self._pending(wish.id):
            self.parts[key] = never
            return Answer(Code.IN_USE, pending.begun)
        protocol = PROTOCOLS[wish.protocol]
        moved = self._move(protocol.first_move, wish, wish.source, now)
        if isinstance(moved, Refusal):
            if moved.is_recorded:
                self.first[wish.id] = wish, where
            else:
                self.parts[key] = never
            return Answer(self._code(moved, wish, protocol.first_move), None, moved)
        self.parts[key] = never._replace(wish=wish, phase=protocol.first.phase.value)
        self.unfinished[wish.source] = self.unfinished.get(wish.source, 0) + 1
        return Answer(Code.DONE)

    def _call(
        self,
        key: tuple[str, str],
        part: Part | None,
        wish: Transfer,
        call: StrEnum,
        where: int,
        now: int,
    ) -> Answer:
        protocol, part = PROTOCOLS[wish.protocol], part or Part(wish)
        before = protocol.state(part.state) if part.state else protocol.absent
        try:
            reaction = protocol.react(before, call)
        except IllegalStep:
            return Answer(Code.STANDS, part.called, None, part.state_code)
        if reaction.state is before and not reaction.move:
            return Answer(Code.STANDS, part.called, None, part.state_code)
        if before is protocol.absent:
            part = part._replace(called=where, destination=wish.destination)
        refused = None
        if reaction.move:
            moved = self._move(reaction.move, wish, part.destination, now)
            refused = moved if isinstance(moved, Refusal) else None
        part = part._replace(state=(protocol.refused if refused else reaction).state.value)
        is_forgotten = reaction.move is None and "the empty cancel is kept" in self.without
        if not is_forgotten:
            self.parts[key] = part
        if refused:
            return Answer(self._code(refused, wish, reaction.move), None, refused)
        return Answer(Code.STEPPED, part.called, None, part.state_code)

    def _advance(
        self, key: tuple[str, str], part: Part | None, command: Advance, where: int, now: int
    ) -> Answer:
        fits = part and (part.phase == command.phase.value or self._fits_anyhow(part))
        if part is None or not fits:
            begun, code = (part.begun, part.phase_code) if part else (0, PhaseCode.NONE)
            return Answer(Code.STANDS, begun, None, code)
        protocol, wish = part.protocol, part.wish
        step = protocol.step(command.phase, command.event)
        if step.source:
            moved = self._move(step.source, wish, wish.source, now)
            if isinstance(moved, Refusal):
                return Answer(Code.REFUND_OVERFLOW, None, moved)
        if step.outcome:
            if wish.id in self.first:
                raise Bug(f"a second outcome is recorded of {wish}: {step.outcome}")
            self.first[wish.id] = wish, where
        part = part._replace(phase=step.phase.value)
        self.parts[key] = part
        if not part.is_open:
            self.unfinished[wish.source] -= 1
            if "ended attempts are kept" in self.without:
                del self.parts[key]
        return Answer(Code.STEPPED, part.begun, None, part.phase_code)

    def _fits_anyhow(self, part: Part) -> bool:
        return "compare and set" in self.without and part.is_open

    def _move(self, what: Move, wish: Transfer, account: str, now: int) -> Moved | Refusal:
        found = move(what, wish, self.accounts.get(account), now)
        if isinstance(found, Moved):
            self.accounts[account] = found.account
        return found

    def _code(self, refused: Refusal, wish: Transfer, what: Move | None) -> Code:
        is_source = what in (Move.RESERVE, Move.DEBIT)
        match refused.reason:
            case Reason.ACCOUNT_NOT_FOUND:
                return Code.NO_SOURCE if is_source else Code.NO_DESTINATION
            case Reason.ACCOUNT_CLOSED:
                return Code.SOURCE_CLOSED if is_source else Code.DESTINATION_CLOSED
            case Reason.CURRENCY_MISMATCH:
                return Code.SOURCE_CURRENCY if is_source else Code.DESTINATION_CURRENCY
            case Reason.ACCOUNT_FROZEN:
                return Code.SOURCE_FROZEN
            case Reason.INSUFFICIENT_FUNDS:
                return Code.FUNDS
        if " held for transfers" in refused.detail:
            return Code.HELD_OVERFLOW
        if " expected for transfers" in refused.detail:
            return Code.EXPECTED_OVERFLOW
        return Code.SOURCE_OVERFLOW if is_source else Code.DESTINATION_OVERFLOW


def same_books(node: StepNode, ledger: StepLedger) -> None:
    """Whether accounts, attempts and what is recorded of transfers are equal."""
    machine_books.same_accounts(node, ledger)
    machine, accounts = node.machine, list(ledger.accounts)
    for number, account in enumerate(accounts):
        assert machine.account(number).unfinished == ledger.unfinished.get(account, 0)
    found = []
    for (transfer, name), part in ledger.parts.items():
        each = machine.attempt(bytes.fromhex(transfer[4:]), name)
        assert each is not None
        assert (each.phase, each.state) == (part.phase_code, part.state_code)
        assert (each.begun or 0, each.called or 0) == (part.begun, part.called)
        assert (each.amount, each.protocol.name.lower()) == (part.wish.amount, part.wish.protocol)
        assert each.is_unfinished == part.is_unfinished
        if part.is_unfinished:
            found.append(each)
    assert sorted(machine.unfinished()) == sorted(found)
    assert machine.sizes.attempts == len(ledger.parts)
    ids = {transfer for transfer, _ in ledger.parts} | set(ledger.first)
    for id_ in ids:
        recorded = ledger.first[id_][1] if id_ in ledger.first else None
        assert machine.place_of(bytes.fromhex(id_[4:])) == recorded
