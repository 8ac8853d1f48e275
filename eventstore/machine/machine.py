"""The machine's face: one frame after the other in, outcomes out.

What it decides depends on the frames that it was given and on nothing else (rule E4). It is used by
one thread at a time; while a frame is being decided the interpreter's lock is free.
"""

from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine import entries
from eventstore.machine.attempts import ATTEMPT_BYTES, MARK, Attempt, Attempts
from eventstore.machine.check import Contents, contents
from eventstore.machine.entries import ENTRY_BYTES
from eventstore.machine.errors import LimitReached
from eventstore.machine.index import Index
from eventstore.machine.kernel import AHEAD, decide, decide_with_attempts
from eventstore.machine.memory import Fill
from eventstore.machine.moves import BROKEN
from eventstore.machine.naming import look_up, numbers_of
from eventstore.machine.refusals import Terms, reuse
from eventstore.machine.state import ACCOUNT_BYTES, Accounts, Standing
from eventstore.machine.texts import Body, attempt_of, attempt_words
from eventstore.machine.views import Frame, State
from eventstore.machine.words import Words, as_words, currencies_among, kinds_in
from eventstore.rows import (
    CURRENCY_BYTES,
    DETAIL,
    Code,
    Codes,
    Commands,
    Details,
    Kind,
    Outcomes,
    place,
    place_parts,
)
from ledger.errors import Bug

# The rules by which this machine decides, and what it dumps: see `Header.machine` of a frame.
# Version 2 knows attempts. Whatever version 1 knows it decides as version 1 did, so that one
# machine replays frames of both.
VERSION = 2
KEY_BYTES = 16
# So that places stay below MARK, and stamps fit into 64 bits.
SEQ_MAX = 2**46 - 1
TIME_MAX = 2**63 - 1

# The command that stands at a place of the list; the machine asks for those that came before the
# frame at hand.
Bodies = Callable[[int], Body]


class Limits(NamedTuple):
    """What a machine may grow to. An account takes 64 bytes and its id, a transfer 38 to 77, and
    half as much again while their table is growing; an attempt at a transfer to or from another
    shard 102 to 141, for ever; the cache of names takes 32 MiB at most. Address space is reserved
    for all accounts and attempts.
    """

    accounts: int = 2**26
    transfers: int = 100_000_000
    # An opening looks through those that there are.
    currencies: int = 4096
    attempts: int = 2**24


_DEFAULT_LIMITS = Limits()
# More than any node's: whoever replays a list takes it as it is.
REPLAY_LIMITS = Limits(accounts=2**28, transfers=2**40, currencies=2**24, attempts=2**28)


class Sizes(NamedTuple):
    """How much there is of a machine's state. `id_bytes` is how long the accounts' ids are."""

    seq: int
    accounts: int
    id_bytes: int
    currencies: int
    transfers: int
    attempts: int = 0

    @property
    def dump_bytes(self) -> int:
        """How long all pieces of its dump are."""
        of_accounts = self.accounts * ACCOUNT_BYTES + self.id_bytes
        of_ids = self.currencies * CURRENCY_BYTES + self.transfers * ENTRY_BYTES
        return of_accounts + of_ids + self.attempts * ATTEMPT_BYTES


class Machine:
    """The state of a group, and what changes it."""

    def __init__(self, key: bytes, bodies: Bodies, limits: Limits = _DEFAULT_LIMITS) -> None:
        """`key`, 16 bytes from the group's genesis, is what ids are hashed with."""
        if len(key) != KEY_BYTES:
            raise Bug(f"a machine's key has {KEY_BYTES} bytes, not {len(key)}")
        self._bodies = bodies
        self._limits = limits
        self._accounts = Accounts(key, limits.accounts, limits.currencies)
        self._transfers = Index(key)
        self._attempts = Attempts(key, limits.attempts)
        self._seq = 0
        # The frame that is being applied. If that comes to no end, the state is of no use any more.
        self._underway: int | None = None
        self._last: Words | None = None

    # --- what changes it ------------------------------------------------------------------------

    def apply(self, time_us: int, seq: int, commands: Commands, texts: bytes) -> Outcomes:
        """Decide a frame's commands, strictly in their order, and give what became of them.

        `time_us` is the header's time, in microseconds; `seq` is the number after the last frame's.
        Raises LimitReached, or Bug for a frame that is none: nothing of it was applied then. An
        error in between, such as one of `bodies`, leaves a machine that refuses all further frames.
        """
        self._check_header(time_us, seq)
        words = as_words(commands)
        found = contents(commands, words, texts, len(self._accounts))
        words, named, opened = look_up(commands, words, found.named, texts, self._accounts)
        self._check_limits(found, currencies_among(words, list(opened)))
        if len(self._attempts) + found.attempts > self._limits.attempts:
            self._check_attempts(words, named)
        self._accounts.index.make_room(found.openings)
        self._transfers.make_room(found.transfers)
        self._attempts.index.make_room(found.attempts)
        self._underway = seq
        has_attempts = found.steps > 0 or len(self._attempts) > 0
        frame = Frame(words, named, time_us, place(seq, 0))
        codes, details = self._decide(frame, decide_with_attempts if has_attempts else decide)
        _check_codes(frame, codes)
        for index, account in opened.items():
            if codes[index] == Code.DONE:
                self._accounts.add_id(account)
        self._compare(seq, commands, texts, codes, details)
        self._seq, self._underway, self._last = seq, None, words
        return Outcomes(codes, details)

    # --- what reads it --------------------------------------------------------------------------

    @property
    def seq(self) -> int:
        """The number of the last frame that was applied; 0 before the first."""
        return self._seq

    def __len__(self) -> int:
        """How many accounts there are."""
        return len(self._accounts)

    def number_of(self, account: str) -> int | None:
        """The number of the account with this id; None if there is none."""
        return self._accounts.number_of(account)

    def ids_from(self, first: int, most: int) -> tuple[bytes, NDArray[np.uint32]]:
        """The ids of accounts from a number on, `most` at most: one after the other, and where each
        of them ends.
        """
        return self._accounts.ids_from(first, most)

    def numbers_of(
        self, commands: Commands, named: NDArray[np.int64], texts: bytes
    ) -> NDArray[np.int64]:
        """The accounts that transfers name: see `naming.numbers_of`."""
        return numbers_of(as_words(commands), named, texts, self._accounts)

    def words_of(self, seq: int, commands: Commands) -> Words:
        """The commands of a frame. Of the one that was applied last, transfers have the numbers of
        accounts that they name, where these were there before it.
        """
        if seq == self._seq and self._last is not None:
            return self._last
        return as_words(commands)

    def account(self, number: int) -> Standing:
        """The account with this number, as it is now. Raises Bug if there is none."""
        return self._accounts.standing(number)

    def terms(self, number: int) -> Terms:
        """What the opening of the account with this number has said."""
        account = self._accounts.standing(number).account
        return Terms(account.id, account.currency)

    def currencies(self, count: int) -> tuple[NDArray[np.int64], list[str]]:
        """Of each of the first accounts, so many, the index of its currency, and the currencies by
        their indexes. These never change: any thread may ask, while frames are applied.
        """
        names = self._accounts.currencies
        return self._accounts.currencies_of(count), [*map(names.text_of, range(len(names)))]

    def place_of(self, transfer: bytes) -> int | None:
        """Where the outcome of the transfer with this id of 128 bits (as in `rows.COMMAND`) is
        recorded: its first command, or the ADVANCE by which it was decided. None as long as there
        is none.
        """
        first, second = np.frombuffer(transfer, "<u8", 2).tolist()
        found = self._transfers.find(first, second)
        return None if found is None or found >= MARK else found

    def attempt(self, transfer: bytes, name: str) -> Attempt | None:
        """An attempt at the transfer with this id of 128 bits; None if it was never heard of."""
        return self._attempts.find(*attempt_words(transfer, name))

    def unfinished(self) -> Iterator[Attempt]:
        """The attempts that somebody has to take further, in the order in which they came; see
        `Attempts.unfinished`.
        """
        return self._attempts.unfinished()

    def digest(self) -> bytes:
        """SHA-256 of the state. Two machines that were given the same frames have the same one,
        whatever their keys are and however their tables have grown. Without attempts it is what it
        was before there were any.
        """
        digest = sha256(b"tandem.machine.1")
        accounts = self._accounts
        currencies = accounts.currencies.bytes_of_all()
        for part in (accounts.bytes_of_rows(), *accounts.bytes_of_ids(), currencies):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        for index in (accounts.index, self._transfers):
            digest.update(len(index).to_bytes(8, "little") + index.sums())
        if len(self._attempts):
            digest.update(self._attempts.bytes_of_rows())
            digest.update(self._attempts.index.sums())
        digest.update(self._seq.to_bytes(8, "little"))
        return digest.digest()

    # --- what keeps it --------------------------------------------------------------------------

    @property
    def sizes(self) -> Sizes:
        """What `load` needs to know of a dump that is made now."""
        accounts = self._accounts
        id_bytes, currencies = len(accounts.bytes_of_ids()[0]), len(accounts.currencies)
        of_accounts = self._seq, len(accounts), id_bytes, currencies
        return Sizes(*of_accounts, len(self._transfers), len(self._attempts))

    def dump(self) -> Iterator[memoryview]:
        """The state, piece by piece; each is to be used before the next, and all of them before the
        next frame. Takes little memory besides the state.
        """
        self._check_whole()
        yield from self._accounts.dump()
        yield from entries.dump(self._transfers)
        yield from self._attempts.dump()

    def load(self, sizes: Sizes, fill: Fill) -> None:
        """Take a state that was dumped, into a machine that was given no frame. Its key may be any:
        tables are laid out anew, and whatever is decided is the same. Takes little memory besides
        the state, and some 50 ns for an id.

        `sizes` and the bytes that `fill` gives are to be right: what they are is not looked at.
        Raises LimitReached, and what `fill` raises: the machine is of no use then.
        """
        if self._seq or self._underway is not None:
            raise Bug(f"a state is loaded into a new machine, not into one after frame {self._seq}")
        for limit in ("accounts", "transfers", "currencies", "attempts"):
            if (more := getattr(sizes, limit)) > (value := getattr(self._limits, limit)):
                raise LimitReached(limit, value, 0, more)
        self._underway = sizes.seq
        self._accounts.load(sizes.accounts, sizes.id_bytes, sizes.currencies, fill)
        entries.load(self._transfers, sizes.transfers, fill)
        self._attempts.load(sizes.attempts, fill)
        self._seq, self._underway = sizes.seq, None

    # --- the steps of `apply` -------------------------------------------------------------------

    def _check_whole(self) -> None:
        if self._underway is not None:
            raise Bug(
                f"frame {self._underway} was applied in part, when an error came: this machine's "
                "state is of no use; start again from a snapshot and the list"
            )

    def _check_header(self, time_us: int, seq: int) -> None:
        self._check_whole()
        if seq != self._seq + 1 or seq > SEQ_MAX:
            raise Bug(f"frame {seq} cannot follow frame {self._seq}")
        if not 0 <= time_us <= TIME_MAX:
            raise Bug(f"frame {seq} has the time {time_us}, not one of 0 to {TIME_MAX}")

    def _check_limits(self, found: Contents, opened_in: list[int]) -> None:
        """As if every opening and every transfer of the frame were a new one. `opened_in` has the
        currencies of the openings.
        """
        limits, currencies = self._limits, self._accounts.currencies
        for limit, value, there, more in (
            ("accounts", limits.accounts, len(self._accounts), found.openings),
            ("transfers", limits.transfers, len(self._transfers), found.transfers),
            ("currencies", limits.currencies, len(currencies), currencies.count_new(opened_in)),
        ):
            if there + more > value:
                raise LimitReached(limit, value, there, more)

    def _check_attempts(self, words: Words, named: Words) -> None:
        """As if no attempt of the frame were refused; those that are known are counted exactly, for
        what has begun has to come to its end at the limit too.
        """
        at = {Kind.BEGIN: 2, Kind.CALL: 0}
        asked = ((i, at[kind]) for i, kind in enumerate(kinds_in(words).tolist()) if kind in at)
        keys = {(int(named[i, k]), int(named[i, k + 1])) for i, k in asked}
        more = sum(self._attempts.index.find(*key) is None for key in keys)
        if (there := len(self._attempts)) + more > self._limits.attempts:
            raise LimitReached("attempts", self._limits.attempts, there, more)

    def _decide(self, frame: Frame, by: Callable[..., int]) -> tuple[Codes, Details]:
        count = len(frame.words)
        codes, details = np.empty(count, np.uint8), np.empty(count, DETAIL)
        numbers = details.view(np.int64).reshape(-1, DETAIL.itemsize // 8)
        accounts, attempts = self._accounts, self._attempts
        tables = accounts.currencies.table, accounts.index.tables, self._transfers.tables
        state = State(accounts.rows, *tables, attempts.rows, attempts.index.tables)
        filled = by(frame, state, codes, numbers, np.empty(AHEAD, np.uint64))
        return codes, details[:filled].copy()

    def _compare(
        self, seq: int, commands: Commands, texts: bytes, codes: Codes, details: Details
    ) -> None:
        """Find out which of the transfers whose ids were known have other bodies."""
        known = details[codes[details["command"]] == Code.REPLAYED]
        if not len(known):
            return
        ends = list(accumulate(commands["text"].tolist()))

        def body(index: int) -> Body:
            row = commands[index]
            return Body(row, texts[ends[index] - int(row["text"]) : ends[index]])

        def body_at(at: int) -> Body:
            first_seq, first_index = place_parts(at)
            return body(first_index) if first_seq == seq else self._bodies(at)

        for index, first_place in zip(known["command"].tolist(), known["a"].tolist(), strict=True):
            first, asked = body_at(first_place), body(index)
            if first.row["kind"] == Kind.ADVANCE:
                first = body_at(self._begun(first))
            if first.row.tobytes() == asked.row.tobytes() and first.texts == asked.texts:
                # The same in every byte: who sends a whole batch again waits for nobody.
                continue
            _check_first(first, asked.row, first_place)
            if reuse(first, asked, self):
                codes[index] = Code.REUSED

    def _begun(self, advance: Body) -> int:
        """The place of the BEGIN of what an ADVANCE has taken further."""
        found = self.attempt(advance.row["id"].tobytes(), attempt_of(advance))
        if found is None or found.begun is None:
            raise Bug(f"{advance.row} has recorded an outcome, and its attempt did not begin")
        return found.begun


def _check_codes(frame: Frame, codes: Codes) -> None:
    broken = np.flatnonzero(codes == BROKEN)
    if len(broken):
        at, (seq, _) = int(broken[0]), place_parts(frame.place)
        raise Bug(
            f"command {at} of frame {seq}, {frame.words[at].tolist()}, was to take what is held or "
            "expected, and that is not there: this machine's state is of no use"
        )


def _check_first(first: Body, row: np.void, first_place: int) -> None:
    same = first.row["id"].tobytes() == row["id"].tobytes()
    if not same or first.row["kind"] not in (Kind.TRANSFER, Kind.BEGIN):
        raise Bug(
            f"at place {place_parts(first_place)} the list has {first.row}, where the machine has "
            f"first seen the id of {row}: it was built from another list"
        )
