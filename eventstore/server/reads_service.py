"""What a read side answers.

A question with a `min_seq` waits until that frame was seen; threads of a pool answer, so that who
follows the list, and connections, wait for nobody.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore, Lock, local
from typing import Any

from eventstore.events import answer_events, is_in_list
from eventstore.machine.refusals import Directory
from eventstore.reading.books import Books
from eventstore.reading.errors import NotYet as NotSeenYet
from eventstore.reading.errors import ReadingError
from eventstore.reading.side import ReadSide
from eventstore.segments.errors import ListError
from eventstore.segments.reader import Reader
from eventstore.server.handling import Asker, Handlers, NoRequest
from eventstore.server.waiters import PATIENCE_S, Waiters
from eventstore.wire.errors import Busy, CannotAnswer, NotYet
from eventstore.wire.questions import (
    Accounts,
    AccountsPage,
    At,
    BalanceAt,
    BooksAreOpen,
    CloseBooks,
    Entries,
    EntriesOf,
    EntriesPage,
    EventsPage,
    Lag,
    LagIs,
    OpenBooks,
    Position,
    Reach,
    Reached,
    ReadQuestion,
    TransfersPage,
    TrialBalance,
)

# Threads that answer, and those that may wait for events.
_THREADS = 8
_EVENTS_THREADS = 64
# So many trial balances may be asked for at once; they are made one after the other.
TRIALS_MAX = 8
# What one question may ask for.
LIMIT_MAX = 5000
BOOKS_MAX = 16


class ReadsService:
    """The handlers of a read side's server. `answerable` says what it was told last of the list,
    and `snapshot` the frame of the last snapshot.
    """

    def __init__(
        self,
        side: ReadSide,
        directory: Directory,
        new_reader: Callable[[], Reader],
        answerable: Callable[[], At],
        snapshot: Callable[[], At],
    ) -> None:
        self._side, self._directory, self._new_reader = side, directory, new_reader
        self._answerable, self._snapshot = answerable, snapshot
        self._pool = ThreadPoolExecutor(_THREADS, "reads")
        self._events_pool = ThreadPoolExecutor(_EVENTS_THREADS, "events")
        self._own = local()
        # One trial balance at a time: it reads all entries, and others are answered meanwhile.
        self._trials_pool = ThreadPoolExecutor(1, "trials")
        self._trials = BoundedSemaphore(TRIALS_MAX)
        # Who waits for a frame that may never come is to keep nobody else from waiting.
        self._waiters, self._reaching = Waiters(self._pool.submit), Waiters(self._pool.submit)
        self._lock = Lock()
        self._books: dict[int, Books] = {}
        self._last_books = 0

    @property
    def handlers(self) -> Handlers:
        """What a server needs."""
        return Handlers(ReadQuestion, self.question)

    def close(self) -> None:
        """Finish what was begun."""
        self._pool.shutdown(cancel_futures=True)
        self._trials_pool.shutdown(wait=False, cancel_futures=True)
        self._events_pool.shutdown(wait=False, cancel_futures=True)

    def saw(self, seq: int) -> None:
        """All frames up to this one were seen."""
        self._waiters.saw(seq)
        self._reaching.saw(seq)

    def expire(self) -> None:
        """Refuse what has waited for too long; to be called now and then."""
        self._waiters.expire()
        self._reaching.expire()

    def question(self, question: Any, asker: Asker) -> Any:
        """Answer one of `ReadQuestion`. Raises NoRequest, Busy."""
        if getattr(question, "limit", 0) > LIMIT_MAX:
            raise NoRequest(f"a page of {question.limit} was asked for, more than {LIMIT_MAX}")
        match question:
            case Accounts() | Entries() | BalanceAt() | EntriesOf() | OpenBooks():
                ask = self._asking(question, asker)
                return self._waiters.when_seen(question.min_seq, lambda: _told(ask))
            case TrialBalance(time_us, min_seq):
                return self._trial(time_us, min_seq)
            case Reach(position, wait_s):
                return self._reaching.when_seen(
                    position.seq, lambda: _told(lambda: self._reached(position)), wait_s
                )
            case Lag():
                # At once, whoever reads books meanwhile.
                return _told(lambda: self._answer(question))
            case EventsPage():
                return self._events_pool.submit(lambda: _told(lambda: self._events(question)))
            case _:
                return self._pool.submit(lambda: _told(lambda: self._answer(question)))

    def _asking(self, question: Any, asker: Asker) -> Callable[[], Any]:
        side = self._side
        match question:
            case Accounts(accounts):
                if len(accounts) > LIMIT_MAX:
                    raise NoRequest(
                        f"{len(accounts)} accounts are asked for, more than {LIMIT_MAX}"
                    )
                return lambda: side.accounts(accounts)
            case Entries(account, after, limit, newest_first):
                return lambda: side.entries(account, after, limit, newest_first)
            case BalanceAt(account, time_us):
                return lambda: side.balance_at(account, time_us)
            case EntriesOf(account, transfer):
                return lambda: side.entries_of(account, transfer)
            case _:
                return lambda: self._open_books(asker)

    def _answer(self, question: Any) -> Any:
        match question:
            case Lag():
                stock = self._side.stock
                return LagIs(
                    self._side.as_of,
                    self._answerable(),
                    stock.entries,
                    stock.size_bytes,
                    self._snapshot(),
                )
            case CloseBooks(number):
                return self._close_books(number)
            case AccountsPage(number, after, limit):
                return self._opened(number).accounts(after, limit)
            case EntriesPage(number, position, limit, account, since, until):
                return self._opened(number).entries(position, limit, account, since, until)
            case TransfersPage(number, place, limit):
                return self._opened(number).transfers(place, limit)
        raise NoRequest(f"{question} is no question to a read side")

    def _trial(self, time_us: int | None, min_seq: int) -> "Future[Any]":
        """Raises Busy."""
        if not self._trials.acquire(blocking=False):
            raise Busy(f"{TRIALS_MAX} trial balances are asked for already: ask again later")

        def ask() -> Any:
            # This thread waits for it, and no other one.
            if not self._side.wait_for(min_seq, PATIENCE_S):
                raise NotYet(f"frame {min_seq} was not seen in {PATIENCE_S} s")
            return self._side.trial_balance(time_us)

        try:
            told = self._trials_pool.submit(lambda: _told(ask))
        except BaseException:
            self._trials.release()
            raise
        told.add_done_callback(lambda _: self._trials.release())
        return told

    def _reached(self, position: Position) -> Reached:
        as_of = self._side.as_of
        return Reached(as_of, is_in_list(self._reader, position, as_of.seq))

    @property
    def _reader(self) -> Reader:
        """The list, for this thread."""
        if not hasattr(self._own, "reader"):
            self._own.reader = self._new_reader()
        reader: Reader = self._own.reader
        return reader

    # --- events ---------------------------------------------------------------------------------

    def _events(self, question: EventsPage) -> Any:
        """What was seen is told: accounts that events name are known then."""
        side = self._side
        return answer_events(
            question, self._reader, self._directory, lambda: side.as_of, side.wait_for
        )

    # --- books ----------------------------------------------------------------------------------

    def _open_books(self, asker: Asker) -> BooksAreOpen:
        with self._lock:
            if len(self._books) >= BOOKS_MAX:
                raise Busy(f"{BOOKS_MAX} audits or exports read its books: try again later")
            self._last_books = number = self._last_books + 1
            self._books[number] = books = self._side.open_books()
        asker.at_end(lambda: self._forget(number))
        return BooksAreOpen(books.as_of, number)

    def _opened(self, number: int) -> Books:
        with self._lock:
            books = self._books.get(number)
        if books is None:
            raise CannotAnswer(f"books {number} are not open: open them anew")
        return books

    def _close_books(self, number: int) -> At:
        as_of = self._opened(number).as_of
        self._forget(number)
        return as_of

    def _forget(self, number: int) -> None:
        with self._lock:
            books = self._books.pop(number, None)
        if books:
            books.close()


def _told(ask: Callable[[], Any]) -> Any:
    """What is asked, with errors as they go over the wire."""
    try:
        return ask()
    except NotSeenYet as error:
        raise NotYet(str(error)) from error
    except (ReadingError, ListError) as error:
        raise CannotAnswer(str(error)) from error
