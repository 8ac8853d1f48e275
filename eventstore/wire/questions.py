"""What can be asked of a node and of its read side, and what they answer: values, as they go over
the wire.

A question is a struct with a tag; behind each stands the struct of its answer. Times are in
microseconds since 1970, UTC. Accounts are named by their ids.
"""

import msgspec

from ledger.model import Account, Entry, Transfer


class At(msgspec.Struct, frozen=True):
    """A frame of the list: its seq, and the time in its header."""

    seq: int
    time_us: int


# --- the node -----------------------------------------------------------------------------------


class Barrier(msgspec.Struct, frozen=True, tag="barrier"):
    """Make a frame, an empty one if nothing else waits: At, once it is answerable. All that was
    answered before the question came is in frames up to that one.
    """


class NowAnswerable(msgspec.Struct, frozen=True, tag="now_answerable"):
    """Up to where the list is answerable at this moment: At. Nothing is waited for, and no frame is
    made.
    """


# So many transfers are looked for with one question: frames wait meanwhile.
FIND_MAX = 1000


class Find(msgspec.Struct, frozen=True, tag="find"):
    """What became of transfers, FIND_MAX at most, by their ids as the API has them: Finding. Of
    those that are not in the answer the list had no command when it was given.
    """

    transfers: list[str]


class First(msgspec.Struct, frozen=True):
    """What was decided when a transfer's id was first used. `transfer` has the time of its frame as
    `created_at`. Without a `reason` the transfer is committed.
    """

    transfer: Transfer
    reason: str | None
    detail: str | None
    at: At


class Known(msgspec.Struct, frozen=True):
    """The same, with the answer to a command whose id was used before: `other` is what was asked
    then, None if it was the same.
    """

    other: Transfer | None
    reason: str | None
    detail: str | None
    at: At


class Finding(msgspec.Struct, frozen=True):
    """See Find; `as_of` is a frame up to which all was looked at."""

    as_of: At
    found: dict[str, First]


# So many accounts are named at once.
NAMES_MAX = 2**16


class Names(msgspec.Struct, frozen=True, tag="names"):
    """The ids of accounts by their numbers, from one number on, NAMES_MAX at most: NamesAre. They
    never change.
    """

    first: int


class NamesAre(msgspec.Struct, frozen=True):
    """The ids one after the other, in ASCII, and where each of them ends, as numbers of 32 bits
    (little-endian). None are there behind the last account.
    """

    as_of: At
    ids: bytes
    ends: bytes


class Describe(msgspec.Struct, frozen=True, tag="describe"):
    """How the node is: Description."""


class Description(msgspec.Struct, frozen=True):
    """A node as it is now. `time_us` is its clock; `room_bytes` is what is left on its disk, and
    `room_bytes_min` below which it takes no more.
    """

    version: str
    epoch: int
    answerable: At
    time_us: int
    accounts: int
    transfers: int
    frames: int
    commands: int
    flush_seconds: float
    flushes: int
    list_bytes: int
    room_bytes: int
    room_bytes_min: int


class Follow(msgspec.Struct, frozen=True, tag="follow"):
    """Be told, by pushes, up to where the list is answerable, now and whenever that changes: At,
    as it is now, and then one At after the other.
    """


NodeQuestion = Barrier | NowAnswerable | Find | Names | Describe | Follow


# --- the read side ------------------------------------------------------------------------------
#
# Each question has a `min_seq`: it is answered once the read side has seen that frame. Each answer
# says by `as_of` which frame it had seen.


class Accounts(msgspec.Struct, frozen=True, tag="accounts"):
    """Accounts as they are, all at one moment: AccountsAre."""

    accounts: list[str]
    min_seq: int = 0


class Dated(msgspec.Struct, frozen=True):
    """An account, when it was opened, when anything of it was last changed, and its number."""

    account: Account
    created_at: int
    updated_at: int
    number: int


class AccountsAre(msgspec.Struct, frozen=True):
    """In the order of the question; None for those that do not exist."""

    as_of: At
    accounts: list[Dated | None]


class Entries(msgspec.Struct, frozen=True, tag="entries"):
    """At most `limit` entries of an account that come after number `after` (in the order that is
    asked for; None: from the start): EntriesAre.
    """

    account: str
    after: int | None
    limit: int
    newest_first: bool = False
    min_seq: int = 0


class EntriesAre(msgspec.Struct, frozen=True):
    """None: there is no such account."""

    as_of: At
    entries: list[Entry] | None


class BalanceAt(msgspec.Struct, frozen=True, tag="balance_at"):
    """What an account had at a time, which is to be before that of frame `min_seq`: BalanceWas."""

    account: str
    time_us: int
    min_seq: int = 0


class BalanceWas(msgspec.Struct, frozen=True):
    """The account as it is, and its balance at the time; None: there is no such account."""

    as_of: At
    account: Account | None
    balance: int


class TrialBalance(msgspec.Struct, frozen=True, tag="trial_balance"):
    """What all accounts had at a time, which is to be before that of frame `min_seq`; None: as of
    the last frame that was seen: TrialBalanceIs. All entries are read for it.
    """

    time_us: int | None
    min_seq: int = 0


class CurrencySums(msgspec.Struct, frozen=True):
    """Of all accounts in a currency: how many there were; as decimal numbers, for they may have
    more than 64 bits, the amounts that were taken from them and given to them, and what they had.
    """

    currency: str
    accounts: int
    debits: str
    credits: str
    balances: str


class TrialBalanceIs(msgspec.Struct, frozen=True):
    """In the order of the currencies. `time_us` is the moment that it is of."""

    as_of: At
    time_us: int
    currencies: list[CurrencySums]


class EntriesOf(msgspec.Struct, frozen=True, tag="entries_of"):
    """The entries that a transfer, by its id as the API has it, has made on an account:
    EntriesAre.
    """

    account: str
    transfer: str
    min_seq: int = 0


class Reach(msgspec.Struct, frozen=True, tag="reach"):
    """Wait until the read side has seen a position: Reached. NotYet after `wait_s`, or 5 s."""

    position: "Position"
    wait_s: float


class Reached(msgspec.Struct, frozen=True):
    """`is_in_list`: whether the list has that frame, and not another one with its number."""

    as_of: At
    is_in_list: bool


class Lag(msgspec.Struct, frozen=True, tag="lag"):
    """How far the read side is: LagIs."""


class LagIs(msgspec.Struct, frozen=True):
    """What it has seen, and what it knows to be answerable; how many entries and bytes it keeps,
    and the frame of its last snapshot (seq 0: none).
    """

    as_of: At
    answerable: At
    entries: int
    kept_bytes: int
    snapshot: At


# --- the books: what audit and export read, all of it at one moment -------------------------------
#
# They are open until they are closed, or the connection ends. Pages come in the order that is said,
# and begin behind a position, the last one of the page before; an empty page is the end.


class OpenBooks(msgspec.Struct, frozen=True, tag="open_books"):
    """Keep the books as they are once frame `min_seq` was seen: BooksAreOpen."""

    min_seq: int = 0


class BooksAreOpen(msgspec.Struct, frozen=True):
    """`books` names them in what follows."""

    as_of: At
    books: int


class CloseBooks(msgspec.Struct, frozen=True, tag="close_books"):
    """Keep them no longer: At, as they were."""

    books: int


class AccountsPage(msgspec.Struct, frozen=True, tag="accounts_page"):
    """Accounts in the order of their ids, behind the id `after`: list[Account]."""

    books: int
    after: str
    limit: int


class EntriesPage(msgspec.Struct, frozen=True, tag="entries_page"):
    """Entries in the order of account ids and numbers, behind (account, number): list[Entry]. Those
    of one account, if it is named; those stamped from `since` on and before `until`, if these are.
    """

    books: int
    after: tuple[str, int]
    limit: int
    account: str | None = None
    since: int | None = None
    until: int | None = None


class TransfersPage(msgspec.Struct, frozen=True, tag="transfers_page"):
    """Transfers that have an outcome, in the order of the list, behind a place (`rows.place`):
    list[Booked].
    """

    books: int
    after: int
    limit: int


class Booked(msgspec.Struct, frozen=True):
    """A transfer with an outcome; without a `reason` it is committed."""

    place: int
    transfer: Transfer
    reason: str | None
    time_us: int


# --- push: what has become durable, one event after the other -------------------------------------

# The index of a Position behind all commands of its frame: there are fewer.
WHOLE_FRAME = 2**16 - 1


class Position(msgspec.Struct, frozen=True):
    """A place in the list: the seq of a frame, and the index of a command in it, or WHOLE_FRAME.
    Seq 0 is before the first frame. `check`, the first digits of the frame's hash, tells a frame of
    another list; if it is empty it is not looked at.
    """

    seq: int
    index: int = WHOLE_FRAME
    check: str = ""


class AccountOpened(msgspec.Struct, frozen=True, tag="account-opened"):
    """An overdraft limit of None is none."""

    position: Position
    time_us: int
    account: str
    currency: str
    overdraft_limit: int | None


class StatusSet(msgspec.Struct, frozen=True, tag="account-status-set"):
    """An account was given a status; it may have had it before."""

    position: Position
    time_us: int
    account: str
    status: str


class TransferDecided(msgspec.Struct, frozen=True, tag="transfer-decided"):
    """A transfer has its outcome, for good; without a `reason` it is committed. `transfer` has the
    time of its frame as `created_at`.
    """

    position: Position
    time_us: int
    transfer: Transfer
    reason: str | None
    detail: str | None


Event = AccountOpened | StatusSet | TransferDecided


class EventsPage(msgspec.Struct, frozen=True, tag="events_page"):
    """At most `limit` events that come behind a position, as soon as there is one, after `wait_s`
    at the latest: EventsAre.
    """

    after: Position
    limit: int
    wait_s: float


class EventsAre(msgspec.Struct, frozen=True):
    """All events behind `after`, up to the position `end`: there the next page begins, also if this
    one is empty. None: `after` is not in the list, as far as it goes up to `as_of`.
    """

    as_of: At
    events: list[Event] | None
    end: Position


BooksQuestion = OpenBooks | CloseBooks | AccountsPage | EntriesPage | TransfersPage
AccountQuestion = Accounts | Entries | BalanceAt | EntriesOf | TrialBalance
ReadQuestion = BooksQuestion | AccountQuestion | Reach | Lag | EventsPage
