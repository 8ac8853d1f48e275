"""What the read side has seen, as those who ask may look at it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOENT
from pathlib import Path
from typing import NamedTuple, TypeVar

from eventstore.machine.machine import Machine
from eventstore.reading.errors import CatchingUp, Ended
from eventstore.reading.heads import Head, Heads
from eventstore.reading.history import Stretches
from eventstore.reading.keeper import Keeper
from eventstore.reading.ledger_texts import Texts, chain_text
from eventstore.reading.moments import Moments
from eventstore.rows import StatusCode
from eventstore.segments.errors import FileFailed
from eventstore.wire.questions import At
from ledger.errors import Bug
from ledger.model import Account

T = TypeVar("T")


class Seen(NamedTuple):
    """An account as a look has found it, with its number and what the machine does not know."""

    number: int
    account: Account
    head: Head


class View:
    """One thread changes it, within `moments.change`."""

    def __init__(
        self, folder: Path, machine: Machine, heads: Heads, keeper: Keeper, as_of: At, floor: int
    ) -> None:
        self.machine, self.heads, self.texts = machine, heads, Texts(heads)
        self.moments = Moments()
        self.as_of = as_of
        # What was seen before a start: nothing is answered before it is seen again.
        self.floor = floor
        # Of open books: the status of accounts when they were opened, where it was changed since.
        self.watches: list[dict[int, StatusCode]] = []
        self._folder, self._keeper = folder, keeper
        self._failed = ""

    @contextmanager
    def looking(self) -> Iterator[At]:
        """Nothing changes in here: the last frame that was seen. Raises CatchingUp, Ended."""
        with self.moments.look():
            self.check()
            if self.as_of.seq < self.floor:
                raise CatchingUp(self.as_of.seq, self.floor)
            yield self.as_of

    def seen(self, number: int) -> Seen:
        """An account, within a look."""
        account, head = self.machine.account(number).account, self.heads.head(number)
        if (account.balance, account.entry_count) != (head.balance, head.entries):
            raise Bug(f"the machine has {account}, and its entries have come to {head}")
        return Seen(number, account._replace(chain=chain_text(head.chain)), head)

    def read(self, ask: Callable[[Stretches], T]) -> T:
        """Read entries. A run may be gone meanwhile, as it was merged: then it is asked again."""
        while True:
            stretches = self._keeper.stretches
            try:
                return ask(stretches)
            except FileFailed as error:
                if error.errno != ENOENT or self._keeper.stretches is stretches:
                    raise

    def wait_for(self, min_seq: int, timeout_s: float) -> bool:
        """Wait until a frame was seen, and all that was seen before a start; whether it was in
        time. Raises Ended.
        """
        wanted = max(min_seq, self.floor)
        is_seen = self.moments.wait_until(
            lambda: bool(self._failed) or self.as_of.seq >= wanted, timeout_s
        )
        self.check()
        return is_seen

    def fail(self, why: str) -> None:
        """From here on nothing is answered."""
        self._failed = self._failed or why
        self.moments.wake()

    def check(self) -> None:
        """Raises Ended."""
        if self._failed:
            raise Ended(self._folder, self._failed)
