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
from eventstore.machine.check import Contents, contents
from eventstore.machine.entries import ENTRY_BYTES
from eventstore.machine.errors import LimitReached
from eventstore.machine.index import Index
from eventstore.machine.kernel import AHEAD, Frame, State, decide
from eventstore.machine.memory import Fill
from eventstore.machine.naming import look_up, numbers_of
from eventstore.machine.refusals import Terms, reuse
from eventstore.machine.state import ACCOUNT_BYTES, Accounts, Standing
from eventstore.machine.texts import Body
from eventstore.machine.words import Words, as_words, currencies_among
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
VERSION = 1
KEY_BYTES = 16
# So that places, and stamps, fit into 64 bits.
SEQ_MAX = 2**47 - 1
TIME_MAX = 2**63 - 1

# The command that stands at a place of the list; the machine asks for those that came before the
# frame at hand.
Bodies = Callable[[int], Body]


class Limits(NamedTuple):
    """What a machine may grow to. An account takes 64 bytes and its id, a transfer 38 to 77, and
    half as much again while their table is growing; the cache of names takes 32 MiB at most.
    Address space is reserved for all accounts.
    """

    accounts: int = 2**26
    transfers: int = 100_000_000
    # An opening looks through those that there are.
    currencies: int = 4096


_DEFAULT_LIMITS = Limits()
# More than any node's: whoever replays a list takes it as it is.
REPLAY_LIMITS = Limits(accounts=2**28, transfers=2**40, currencies=2**24)


class Sizes(NamedTuple):
    """How much there is of a machine's state. `id_bytes` is how long the accounts' ids are."""

    seq: int
    accounts: int
    id_bytes: int
    currencies: int
    transfers: int

    @property
    def dump_bytes(self) -> int:
        """How long all pieces of its dump are."""
        of_accounts = self.accounts * ACCOUNT_BYTES + self.id_bytes
        return of_accounts + self.currencies * CURRENCY_BYTES + self.transfers * ENTRY_BYTES


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
        self._accounts.index.make_room(found.openings)
        self._transfers.make_room(found.transfers)
        self._underway = seq
        codes, details = self._decide(time_us, seq, words, named)
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
        """Where the first command with this id of 128 bits (as in `rows.COMMAND`) stands."""
        first, second = np.frombuffer(transfer, "<u8", 2).tolist()
        return self._transfers.find(first, second)

    def digest(self) -> bytes:
        """SHA-256 of the state. Two machines that were given the same frames have the same one,
        whatever their keys are and however their tables have grown.
        """
        digest = sha256(b"tandem.machine.1")
        accounts = self._accounts
        currencies = accounts.currencies.bytes_of_all()
        for part in (accounts.bytes_of_rows(), *accounts.bytes_of_ids(), currencies):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        for index in (accounts.index, self._transfers):
            digest.update(len(index).to_bytes(8, "little") + index.sums())
        digest.update(self._seq.to_bytes(8, "little"))
        return digest.digest()

    # --- what keeps it --------------------------------------------------------------------------

    @property
    def sizes(self) -> Sizes:
        """What `load` needs to know of a dump that is made now."""
        accounts = self._accounts
        id_bytes, currencies = len(accounts.bytes_of_ids()[0]), len(accounts.currencies)
        return Sizes(self._seq, len(accounts), id_bytes, currencies, len(self._transfers))

    def dump(self) -> Iterator[memoryview]:
        """The state, piece by piece; each is to be used before the next, and all of them before the
        next frame. Takes little memory besides the state.
        """
        self._check_whole()
        yield from self._accounts.dump()
        yield from entries.dump(self._transfers)

    def load(self, sizes: Sizes, fill: Fill) -> None:
        """Take a state that was dumped, into a machine that was given no frame. Its key may be any:
        tables are laid out anew, and whatever is decided is the same. Takes little memory besides
        the state, and some 50 ns for an id.

        `sizes` and the bytes that `fill` gives are to be right: what they are is not looked at.
        Raises LimitReached, and what `fill` raises: the machine is of no use then.
        """
        if self._seq or self._underway is not None:
            raise Bug(f"a state is loaded into a new machine, not into one after frame {self._seq}")
        for limit in ("accounts", "transfers", "currencies"):
            if (more := getattr(sizes, limit)) > (value := getattr(self._limits, limit)):
                raise LimitReached(limit, value, 0, more)
        self._underway = sizes.seq
        self._accounts.load(sizes.accounts, sizes.id_bytes, sizes.currencies, fill)
        entries.load(self._transfers, sizes.transfers, fill)
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

    def _decide(self, time_us: int, seq: int, words: Words, named: Words) -> tuple[Codes, Details]:
        codes, details = np.empty(len(words), np.uint8), np.empty(len(words), DETAIL)
        numbers = details.view(np.int64).reshape(-1, DETAIL.itemsize // 8)
        accounts = self._accounts
        tables = accounts.currencies.table, accounts.index.tables, self._transfers.tables
        state = State(accounts.rows, *tables)
        frame = Frame(words, named, time_us, place(seq, 0))
        filled = decide(frame, state, codes, numbers, np.empty(AHEAD, np.uint64))
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

        for index, first_place in zip(known["command"].tolist(), known["a"].tolist(), strict=True):
            first_seq, first_index = place_parts(first_place)
            first = body(first_index) if first_seq == seq else self._bodies(first_place)
            asked = body(index)
            if first.row.tobytes() == asked.row.tobytes() and first.texts == asked.texts:
                # The same in every byte: who sends a whole batch again waits for nobody.
                continue
            _check_first(first, asked.row, first_place)
            if reuse(first, asked, self):
                codes[index] = Code.REUSED


def _check_first(first: Body, row: np.void, first_place: int) -> None:
    same = first.row["id"].tobytes() == row["id"].tobytes()
    if not same or first.row["kind"] != Kind.TRANSFER:
        raise Bug(
            f"at place {place_parts(first_place)} the list has {first.row}, where the machine has "
            f"first seen the id of {row}: it was built from another list"
        )
