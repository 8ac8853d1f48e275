"""Questions about accounts and their entries; each answer is of one moment between two frames.

All of them raise CatchingUp, Ended; those that read entries also KeptDamaged, FileFailed.
"""

from collections.abc import Sequence

import numpy as np

from eventstore.reading.errors import NotYet
from eventstore.reading.history import Stretches, between, last_until
from eventstore.reading.ledger_texts import transfer_bytes
from eventstore.reading.shapes import Entries
from eventstore.reading.trial import Trial
from eventstore.reading.view import Seen, View
from eventstore.rows import place_parts
from eventstore.wire.questions import (
    AccountsAre,
    At,
    BalanceWas,
    Dated,
    EntriesAre,
    TrialBalanceIs,
)


class Answers:
    """For any number of threads."""

    def __init__(self, view: View) -> None:
        self._view = view

    @property
    def as_of(self) -> At:
        """The last frame that was seen."""
        return self._view.as_of

    def wait_for(self, min_seq: int, timeout_s: float) -> bool:
        """Wait until a frame was seen, and all that was seen before a start; whether it was in
        time. Whoever has waited for 0 is answered. Raises Ended.
        """
        return self._view.wait_for(min_seq, timeout_s)

    def accounts(self, ids: Sequence[str]) -> AccountsAre:
        """See `questions.Accounts`."""
        with self._view.looking() as as_of:
            seen = [self._seen(account) for account in ids]
        return AccountsAre(as_of, [each and _dated(each) for each in seen])

    def entries(
        self, account: str, after: int | None, limit: int, newest_first: bool = False
    ) -> EntriesAre:
        """See `questions.Entries`."""
        with self._view.looking() as as_of:
            number, count = self._count(account)
        if number is None:
            return EntriesAre(as_of, None)
        if newest_first:
            last = count if after is None else min(count, after - 1)
            first = max(1, last - limit + 1)
        else:
            first = 1 if after is None else max(1, after + 1)
            last = min(count, first + limit - 1)
        found = self._view.read(lambda stretches: between(stretches, number, first, last))
        entries = self._view.texts.entries(found)
        return EntriesAre(as_of, entries[::-1] if newest_first else entries)

    def balance_at(self, account: str, time_us: int) -> BalanceWas:
        """What an account had after all that was stamped up to a time; 0 before it was opened.
        Raises NotYet if the time is after the last frame's.
        """
        with self._view.looking() as as_of:
            seen = self._seen(account)
        if time_us > as_of.time_us:
            raise NotYet(time_us, as_of.seq, as_of.time_us)
        if seen is None:
            return BalanceWas(as_of, None, 0)
        number, now, head = seen
        if time_us >= head.stamp:
            return BalanceWas(as_of, now, now.balance)
        count = head.entries
        last = self._view.read(lambda each: last_until(each, number, count, "stamp", time_us))
        return BalanceWas(as_of, now, 0 if last is None else int(last["balance"]))

    def trial_balance(self, time_us: int | None) -> TrialBalanceIs:
        """See `questions.TrialBalance`. Takes some 0.1 us for each entry that there is. Raises
        NotYet if the time is after the last frame's.
        """
        with self._view.looking() as as_of:
            when = as_of.time_us if time_us is None else time_us
            if when > as_of.time_us:
                raise NotYet(when, as_of.seq, as_of.time_us)
            trial = Trial(self._view.machine, self._view.heads, as_of, when)
        return TrialBalanceIs(as_of, when, self._view.read(trial.of))

    def entries_of(self, account: str, transfer: str) -> EntriesAre:
        """The entries that a transfer has made on an account, by its id as the API has it."""
        id_ = transfer_bytes(transfer)
        with self._view.looking() as as_of:
            number, count = self._count(account)
            place = None if id_ is None else self._view.machine.place_of(id_)
        if number is None:
            return EntriesAre(as_of, None)
        if id_ is None or place is None:
            return EntriesAre(as_of, [])
        seq, _ = place_parts(place)
        found = self._view.read(lambda stretches: _of_frame(stretches, number, count, seq))
        own = found[(found["transfer"] == np.frombuffer(id_, "<u8")).all(axis=1)]
        # The id has the source's slot in front, which may be another one.
        entries = [each for each in self._view.texts.entries(own) if each.transfer == transfer]
        return EntriesAre(as_of, entries)

    def _seen(self, account: str) -> Seen | None:
        number = self._view.machine.number_of(account)
        return None if number is None else self._view.seen(number)

    def _count(self, account: str) -> tuple[int | None, int]:
        """An account's number, and how many entries it has."""
        number = self._view.machine.number_of(account)
        return number, 0 if number is None else self._view.heads.head(number).entries


def _dated(seen: Seen) -> Dated:
    return Dated(seen.account, seen.head.opened, seen.head.changed, seen.number)


def _of_frame(stretches: Stretches, account: int, count: int, seq: int) -> Entries:
    """The entries that a frame has made on an account."""
    last = last_until(stretches, account, count, "seq", seq)
    before = last_until(stretches, account, count, "seq", seq - 1)
    first = 1 if before is None else int(before["number"]) + 1
    return between(stretches, account, first, 0 if last is None else int(last["number"]))
