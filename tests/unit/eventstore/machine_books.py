"""For tests of the machine: commands in few words, and what the ledger itself says to them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eventstore.machine.machine import Limits, Machine
from eventstore.machine.moves import MoveKind
from eventstore.machine.moves import move as compiled_move
from eventstore.machine.refusals import refusal, reuse
from eventstore.machine.rules import META, UNFINISHED_AT
from eventstore.machine.texts import Body, account_words
from eventstore.rows import (
    COMMAND,
    NOBODY,
    UNLIMITED,
    Code,
    Commands,
    Kind,
    Outcomes,
    ProtocolCode,
    StatusCode,
    currency_number,
    each_text,
    pack_texts,
    place,
    place_parts,
)
from ledger.decide import Move, Moved, change_status, decide, move, refuse_reuse
from ledger.ids import transfer_id
from ledger.model import Account, Posting, Refusal, Status, Transfer

KEY = bytes(range(16))
# Room for all that a test does, and no more: address space is taken for each machine.
LIMITS = Limits(accounts=1000, transfers=10_000, attempts=1000)
NOW = 1_000_000
_PROTOCOLS = {"": 0, "xa": 1, "tcc": 2, "saga": 3}


class Opening(NamedTuple):
    account: str
    limit: int | None = 0
    currency: str = "EUR"


class Change(NamedTuple):
    account: str
    status: Status
    by_name: bool = False


class Wish(NamedTuple):
    """A transfer. The machine's numbers name the accounts that it knows, unless `by_name`."""

    source: str
    destination: str
    amount: int
    key: str = "key"
    currency: str = "EUR"
    metadata: str | None = None
    protocol: str = "xa"
    by_name: bool = False

    def transfer(self) -> Transfer:
        id_ = transfer_id(self.source, self.key)
        return Transfer(
            *(id_, self.key, self.source, self.destination, self.amount, self.currency),
            *(self.metadata, self.protocol, 0),
        )


Command = Opening | Change | Wish


class Answer(NamedTuple):
    """What became of a command: for REPLAYED and REUSED, with the place of the first; for a refusal
    of the ledger, with that; of a step, with where the attempt stands.
    """

    code: Code
    first: int | None = None
    refusal: Refusal | None = None
    stands: int | None = None


# --- the machine's side -------------------------------------------------------------------------


class Node:
    """A machine with the list of what it was given."""

    def __init__(self, key: bytes = KEY, limits: Limits = LIMITS) -> None:
        self.frames: list[tuple[Commands, bytes]] = []
        self.machine = Machine(key, self.body, limits)

    def body(self, where: int) -> Body:
        seq, index = place_parts(where)
        commands, texts = self.frames[seq - 1]
        return Body(commands[index], list(each_text(commands, texts))[index])

    def apply(self, commands: Sequence[Command], now: int = NOW) -> list[Answer]:
        rows, texts = pack(self.machine, commands)
        outcomes = self.machine.apply(now, self.machine.seq + 1, rows, texts)
        self.frames.append((rows, texts))
        return self._answers(outcomes)

    def _answers(self, outcomes: Outcomes) -> list[Answer]:
        details = {int(row["command"]): row for row in outcomes.details}
        assert list(details) == sorted(details)
        found = [self._answer(i, Code(c), details.get(i)) for i, c in enumerate(outcomes.codes)]
        with_details = {i for i, a in enumerate(found) if a.code >= 7 and a.code != 15}
        assert set(details) == with_details
        return found

    def _answer(self, index: int, code: Code, detail: np.void | None) -> Answer:
        body = self.body(place(len(self.frames), index))
        if code in (Code.DONE, Code.NO_ACCOUNT):
            return Answer(code)
        if code in (Code.REPLAYED, Code.REUSED, Code.EXISTS):
            assert detail is not None
            first = int(detail["a"])
            if code == Code.REUSED:
                return Answer(code, first, reuse(self.body(first), body, self.machine))
            return Answer(code, first)
        return Answer(code, None, refusal(code, body, detail, self.machine))

    def move(self, what: Move, wish: Wish, account: str, now: int) -> int:
        """A move on one account of this machine, as the commands of TC/C will do it."""
        number = self.machine.number_of(account)
        accounts = self.machine._accounts
        return int(
            compiled_move(
                *(accounts.rows, accounts.currencies.table, -1 if number is None else number),
                *(MoveKind[what.name], wish.amount, currency_number(wish.currency), now),
            )
        )

    def set_unfinished(self, account: str, count: int) -> None:
        """So many transfers from it are not finished; no command does this yet."""
        number = self.machine.number_of(account)
        rows = self.machine._accounts.rows.view(np.uint64)
        rows[number, META] |= np.uint64(count << UNFINISHED_AT)


def pack(machine: Machine, commands: Sequence[Command]) -> tuple[Commands, bytes]:
    """A frame's commands and texts."""
    rows = np.zeros(len(commands), COMMAND)
    texts = []
    for row, command in zip(rows, commands, strict=True):
        parts = _fill(machine, row, command)
        texts.append(pack_texts(parts))
        row["text"] = len(texts[-1])
    return rows, b"".join(texts)


def _fill(machine: Machine, row: np.void, command: Command) -> list[str]:
    if isinstance(command, Opening):
        row["kind"], row["id"] = Kind.OPEN, account_words(command.account)
        row["amount"] = UNLIMITED if command.limit is None else command.limit
        row["currency"] = _letters(command.currency)
        row["source"] = row["destination"] = NOBODY
        return [command.account]
    if isinstance(command, Change):
        row["kind"], row["amount"] = Kind.STATUS, StatusCode[command.status.name]
        row["source"] = _number(machine, command.account, command.by_name)
        row["destination"] = NOBODY
        return [command.account]
    row["kind"], row["amount"] = Kind.TRANSFER, command.amount
    digest = bytes.fromhex(transfer_id(command.source, command.key)[4:])
    row["id"] = np.frombuffer(digest, "<u8")
    row["currency"] = _letters(command.currency)
    row["protocol"] = ProtocolCode(_PROTOCOLS[command.protocol])
    parts = [command.key, command.metadata or ""]
    for side in ("source", "destination"):
        account = getattr(command, side)
        row[side] = _number(machine, account, command.by_name)
        parts.append(account if row[side] == NOBODY else "")
    return parts


def _letters(currency: str) -> list[int]:
    return list(currency.encode().ljust(8, b"\0"))


def _number(machine: Machine, account: str, by_name: bool) -> int:
    number = machine.number_of(account)
    return NOBODY if by_name or number is None else number


# --- the ledger's side --------------------------------------------------------------------------


class Ledger:
    """The same by `ledger.decide`, one command after the other."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.unfinished: dict[str, int] = {}
        # Of each id the first transfer, and where it stands.
        self.first: dict[str, tuple[Transfer, int]] = {}

    def apply(self, command: Command, where: int, now: int = NOW) -> Answer:
        if isinstance(command, Opening):
            return self._open(command, now)
        if isinstance(command, Change):
            return self._change(command)
        return self._transfer(command.transfer(), where, now)

    def move(self, what: Move, wish: Wish, account: str, now: int) -> Moved | Refusal:
        found = move(what, wish.transfer(), self.accounts.get(account), now)
        if isinstance(found, Moved):
            self.accounts[account] = found.account
        return found

    def _open(self, command: Opening, now: int) -> Answer:
        id_, limit, currency = command
        if id_ in self.accounts:
            return Answer(Code.EXISTS, list(self.accounts).index(id_))
        self.accounts[id_] = Account(id_, currency, 0, limit, "open", 0, now, chain="")
        return Answer(Code.DONE)

    def _change(self, command: Change) -> Answer:
        account = self.accounts.get(command.account)
        if account is None:
            return Answer(Code.NO_ACCOUNT)
        unfinished = self.unfinished.get(command.account, 0)
        refused = change_status(account, command.status, unfinished)
        if refused:
            return Answer(Code.NOT_EMPTY, None, refused)
        self.accounts[account.id] = account._replace(status=command.status.value)
        return Answer(Code.DONE)

    def _transfer(self, wish: Transfer, where: int, now: int) -> Answer:
        if wish.id in self.first:
            stored, first = self.first[wish.id]
            refused = refuse_reuse(stored, wish)
            return Answer(Code.REUSED if refused else Code.REPLAYED, first, refused)
        (outcome,), changed = decide(self.accounts, [wish], now)
        self.accounts |= changed
        if isinstance(outcome, Posting):
            self.first[wish.id] = wish, where
            return Answer(Code.DONE)
        if outcome.is_recorded:
            self.first[wish.id] = wish, where
        return Answer(_code_of(outcome, wish, self.accounts), None, outcome)


def _code_of(refused: Refusal, wish: Transfer, accounts: dict[str, Account]) -> Code:
    """Which step of the ladder it was, told by the text where the reason is not enough."""
    on_source = refused.detail.startswith(f"account {wish.source} ")
    match refused.reason.value:
        case "account-not-found":
            return Code.NO_DESTINATION if refused.is_recorded else Code.NO_SOURCE
        case "same-account":
            return Code.SAME_ACCOUNT
        case "account-closed":
            return Code.SOURCE_CLOSED if on_source else Code.DESTINATION_CLOSED
        case "account-frozen":
            return Code.SOURCE_FROZEN
        case "currency-mismatch":
            is_source = accounts[wish.source].currency != wish.currency
            return Code.SOURCE_CURRENCY if is_source else Code.DESTINATION_CURRENCY
        case "insufficient-funds":
            return Code.FUNDS
        case "balance-overflow":
            return Code.SOURCE_OVERFLOW if on_source else Code.DESTINATION_OVERFLOW
    raise AssertionError(refused)


def same_accounts(node: Node, ledger: Ledger) -> None:
    """Whether all accounts of both are equal, but for the chain, which the machine has not."""
    assert len(node.machine) == len(ledger.accounts)
    for number, (id_, account) in enumerate(ledger.accounts.items()):
        assert node.machine.number_of(id_) == number
        assert node.machine.account(number).account == account._replace(chain="")
