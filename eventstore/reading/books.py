"""The books of a group as they were at one moment, while frames go on: for audit and export."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from eventstore.machine.refusals import transfer_refusal
from eventstore.machine.texts import Body, transfer_of
from eventstore.reading.errors import BooksClosed
from eventstore.reading.history import Field, between, last_until
from eventstore.reading.id_order import IdOrder
from eventstore.reading.ledger_texts import chain_text
from eventstore.reading.view import Seen, View
from eventstore.rows import RECORDED, Code, Kind, StatusCode, each_text, place, place_parts
from eventstore.segments.frame import Frame
from eventstore.segments.reader import Reader
from eventstore.wire.questions import At, Booked
from ledger.chain import first_link
from ledger.model import Account, Entry, Status

# So many accounts are looked at, at once.
_LOOKED_AT = 256


class Books:
    """Positions and orders are those of `eventstore.wire.questions`. Any thread may ask, one at a
    time. All questions raise BooksClosed, Ended, KeptDamaged, ListError.
    """

    def __init__(self, view: View, reader: Reader) -> None:
        self._view, self._reader = view, reader
        self._one_at_a_time = threading.Lock()
        self._is_open = True
        # The status of accounts that was changed since, as it was.
        self._statuses: dict[int, StatusCode] = {}
        with view.looking() as self.as_of:
            self._count = len(view.heads)
            view.watches.append(self._statuses)
        self._order: IdOrder | None = None

    def close(self) -> At:
        """They are kept no longer. May be repeated."""
        with self._view.moments.look():
            self._is_open = False
            # Not by what is in it: that of others may be the same.
            self._view.watches[:] = [w for w in self._view.watches if w is not self._statuses]
        return self.as_of

    def accounts(self, after: str, limit: int) -> list[Account]:
        """Accounts in the order of their ids, behind `after`."""
        with self._asked():
            order = self._by_id
            start = order.first_behind(after)
            numbers = order.numbers[start : start + limit].tolist()
            return [self._as_it_was(seen) for seen in self._seen(numbers)]

    def entries(
        self,
        after: tuple[str, int],
        limit: int,
        account: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> list[Entry]:
        """Entries in the order of account ids and numbers, behind (account, number)."""
        found: list[Entry] = []
        with self._asked():
            for seen in self._seen(self._from(after[0], account)):
                behind = after[1] if seen.account.id == after[0] else 0
                first, last = self._range(seen, behind + 1, since, until)
                last = min(last, first + limit - len(found) - 1)
                if first <= last:
                    found += self._between(seen.number, first, last)
                if len(found) >= limit:
                    break
        return found

    def transfers(self, after: int, limit: int) -> list[Booked]:
        """Transfers that have an outcome, in the order of the list, behind the place `after`."""
        found: list[Booked] = []
        start = max(1, place_parts(after)[0])
        with self._asked():
            if start <= self.as_of.seq:
                for frame in self._reader.read(start, until=self.as_of.seq):
                    found += self._booked(frame, after, limit - len(found))
                    if len(found) >= limit:
                        break
        return found

    # --- how it is done -------------------------------------------------------------------------

    @contextmanager
    def _asked(self) -> Iterator[None]:
        with self._one_at_a_time:
            if not self._is_open:
                raise BooksClosed
            yield

    @property
    def _by_id(self) -> IdOrder:
        if self._order is None:
            self._order = IdOrder(self._view.heads, self._count)
        return self._order

    def _from(self, first: str, account: str | None) -> Sequence[int]:
        """The numbers of the accounts from the id `first` on, or of that one alone."""
        if account is None:
            order = self._by_id
            found: list[int] = order.numbers[order.first_from(first) :]  # type: ignore[assignment]
            return found
        with self._view.looking():
            number = self._view.machine.number_of(account)
        is_there = number is not None and number < self._count and account >= first
        return [number] if number is not None and is_there else []

    def _seen(self, numbers: Sequence[int]) -> Iterator[Seen]:
        """These accounts as they are now."""
        for start in range(0, len(numbers), _LOOKED_AT):
            with self._view.looking():
                seen = [self._view.seen(int(n)) for n in numbers[start : start + _LOOKED_AT]]
            yield from seen

    def _as_it_was(self, seen: Seen) -> Account:
        number, account, head = seen
        was = self._statuses.get(number)
        if was is not None:
            account = account._replace(status=Status[was.name].value)
        if head.stamp <= self.as_of.time_us:
            return account
        last = self._last_until(seen, "seq", self.as_of.seq)
        if last is None:
            chain = first_link(account.id, account.currency)
            return account._replace(balance=0, entry_count=0, stamp_floor=head.opened, chain=chain)
        return account._replace(
            balance=int(last["balance"]),
            entry_count=int(last["number"]),
            stamp_floor=int(last["stamp"]),
            chain=chain_text(last["chain"].tobytes()),
        )

    def _range(
        self, seen: Seen, first: int, since: int | None, until: int | None
    ) -> tuple[int, int]:
        """The numbers of an account's entries from `first` on, in a range of time."""
        last = self._as_it_was(seen).entry_count
        if until is not None and seen.head.stamp >= until:
            before = self._last_until(seen, "stamp", until - 1)
            last = min(last, 0 if before is None else int(before["number"]))
        if since is not None and first <= last:
            if seen.head.stamp < since:
                return 1, 0
            before = self._last_until(seen, "stamp", since - 1)
            first = max(first, 1 if before is None else int(before["number"]) + 1)
        return first, last

    def _last_until(self, seen: Seen, field: Field, value: int) -> np.void | None:
        number, count = seen.number, seen.head.entries
        return self._view.read(lambda each: last_until(each, number, count, field, value))

    def _between(self, number: int, first: int, last: int) -> list[Entry]:
        found = self._view.read(lambda stretches: between(stretches, number, first, last))
        return self._view.texts.entries(found)

    def _booked(self, frame: Frame, after: int, limit: int) -> list[Booked]:
        """The first of a frame's transfers with an outcome."""
        header, (commands, outcomes, texts) = frame.header, frame.body
        details = {int(row["command"]): row for row in outcomes.details}
        is_booked = (commands["kind"] == Kind.TRANSFER) & np.isin(outcomes.codes, RECORDED)
        is_booked[: max(0, after + 1 - place(header.seq, 0))] = False
        found: list[Booked] = []
        for index, packed in enumerate(each_text(commands, texts)):
            if is_booked[index]:
                if len(found) == limit:
                    break
                body = Body(commands[index], packed)
                transfer = transfer_of(body, self._view.heads.id_of, header.time_us)
                code, reason = Code(int(outcomes.codes[index])), None
                if code != Code.DONE:
                    reason = transfer_refusal(code, transfer, details.get(index)).reason.value
                at = place(header.seq, index)
                found.append(Booked(at, transfer, reason, header.time_us))
        return found
