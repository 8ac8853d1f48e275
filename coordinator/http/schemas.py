"""What comes in and goes out over HTTP. Requests are validated by these types, and the OpenAPI
document is made from them.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator.operations.answers import ClusterView, InDoubtList, PhaseName
from coordinator.operations.trace_values import Outcome, TransferTrace
from ledger.ids import ACCOUNT_ID_PATTERN
from ledger.model import AMOUNT_MAX, Account, Entry, Transfer
from shard_client import records
from shard_client.records import AccountState, StoredTransfer

BATCH_MAX = 10_000
METADATA_MAX_BYTES = 4096
# As deep as MySQL lets JSON go; deeper, and Python's own stack would decide who can read it.
METADATA_MAX_DEPTH = 100
BALANCES_MAX = 1000
CURSOR_MAX = 10**18 - 1
# A frame of a ledger group's list: its number; the index of a command; the first digits of the
# frame's hash.
FRAME_PATTERN = r"^[0-9]{1,15}(-[0-9]{1,5}(-[0-9a-f]{8})?)?$"
# No blanks at the ends: HTTP takes them off a header, so there they would make no other key.
KEY_PATTERN = r"^[!-~]([ -~]{0,126}[!-~])?$"


def _whole(pattern: str) -> str:
    """A pattern that does not let a line end follow, as Python's `$` alone would."""
    return pattern + r"(?!\n)"


AccountId = Annotated[str, Meta(pattern=_whole(ACCOUNT_ID_PATTERN), description="an account's id")]
Currency = Annotated[str, Meta(pattern=_whole(r"^[A-Z0-9]{3,8}$"), description="a currency's code")]
Amount = Annotated[
    int, Meta(ge=1, le=AMOUNT_MAX, description="in the currency's minor unit, such as cents")
]
OverdraftLimit = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)] | None
Key = Annotated[
    str, Meta(pattern=_whole(KEY_PATTERN), description="the client's name for the transfer")
]
Protocol = Annotated[
    Literal["xa", "tcc", "saga"],
    Meta(
        description="how shards are made to agree: two-phase commit, Try-Confirm/Cancel, or a Saga;"
        " without it, as the service is configured"
    ),
]
Time = Annotated[str, Meta(description="RFC 3339, UTC, microseconds")]


Seq = Annotated[
    int, Meta(ge=1, description="the frame of a ledger group's list in which it was decided")
]


Number = Annotated[
    int, Meta(ge=0, description="by which Arrow streams may name the account, on a ledger group")
]


class Request(Struct, forbid_unknown_fields=True):
    """What a client sends: a field that is not known is an error."""


class AccountTerms(Request):
    currency: Currency
    overdraft_limit: OverdraftLimit = 0


class AccountItem(Request):
    id: AccountId
    currency: Currency
    overdraft_limit: OverdraftLimit = 0


class AccountChange(Request):
    status: Literal["open", "frozen", "closed"]


class TransferRequest(Request):
    source: AccountId
    destination: AccountId
    amount: Amount
    currency: Currency
    metadata: dict[str, Any] | None = None
    protocol: Protocol | UnsetType = UNSET


class TransferItem(TransferRequest, kw_only=True):
    idempotency_key: Key


class Problem(Struct, omit_defaults=True):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    transfer_id: str | None = None
    seq: Seq | None = None


class AsOfView(Struct):
    """The frame of a ledger group's list up to which an answer has seen all."""

    seq: int
    time: Time


AsOf = Annotated[
    AsOfView | UnsetType,
    Meta(description="which moment the answer is of; from a ledger group only"),
]


class AccountView(Struct):
    id: AccountId
    currency: Currency
    balance: int
    available: int
    overdraft_limit: int | None
    status: Literal["open", "frozen", "closed"]
    shard: str
    created_at: Time
    updated_at: Time
    as_of: AsOf = UNSET
    number: Number | UnsetType = UNSET


class AccountResult(Struct, omit_defaults=True):
    id: str | None
    status: Literal["created", "exists", "rejected", "failed"]
    reason: str | None = None
    detail: str | None = None


class AccountResults(Struct):
    results: list[AccountResult]


class EntryView(Struct):
    transfer_id: str
    amount: int
    balance: int
    counterparty: AccountId
    created_at: Time


class Statement(Struct):
    entries: list[EntryView]
    next: str | None
    as_of: AsOf = UNSET


class BalanceAt(Struct):
    account: AccountId
    currency: Currency
    balance: int
    at: Time
    as_of: AsOf = UNSET


class BalanceView(Struct):
    account: AccountId
    currency: Currency
    balance: int
    available: int


class Balances(Struct):
    balances: list[BalanceView]
    as_of: AsOf = UNSET


class CurrencyTotals(Struct):
    """Of all accounts in a currency: how many there were, the sums of what was taken from them and
    given to them, which are equal, and of what they had, which is zero. Whole numbers, which may
    have more than 64 bits.
    """

    currency: Currency
    accounts: int
    debits: int
    credits: int
    balances: int


class TrialBalance(Struct):
    at: Time
    currencies: list[CurrencyTotals]
    as_of: AsOfView


class TransferView(Struct):
    """A transfer that has its outcome."""

    id: str
    status: Literal["committed", "rejected"]
    protocol: str
    source: AccountId
    destination: AccountId
    amount: int
    currency: Currency
    metadata: dict[str, Any] | None
    created_at: Time
    committed_at: Time | msgspec.UnsetType = msgspec.UNSET
    rejected_at: Time | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
    detail: str | msgspec.UnsetType = msgspec.UNSET
    seq: Seq | msgspec.UnsetType = msgspec.UNSET


class PendingTransfer(Struct):
    """A transfer that may have happened; its outcome is being settled."""

    id: str
    status: Literal["pending"] = "pending"


class TransferResult(Struct, omit_defaults=True):
    """`failed`: nothing has happened, the item may be sent again."""

    id: str | None
    status: Literal["committed", "rejected", "pending", "failed"]
    reason: str | None = None
    detail: str | None = None
    replayed: bool = False
    seq: Seq | None = None


class TransferResults(Struct):
    results: list[TransferResult]


class Health(Struct):
    status: Literal["ok"]


class Readiness(Struct):
    """`reasons` is why not ready; `troubles` is what is wrong all the same."""

    ready: bool
    reasons: list[str]
    troubles: list[str]


class PartView(Struct):
    """A shard's part in a transfer. `because` says by what the stage is known. By TC/C and Saga it
    may be "reserved", and "undone" when it was refused here or given back.
    """

    shard: str
    accounts: list[AccountId]
    stage: Literal["nothing", "written", "prepared", "reserved", "committed", "undone", "unknown"]
    because: str
    entries: list[EntryView]


class TransferWay(Struct):
    """How far a transfer is. `status` is "unknown" when its home alone knows, and cannot be asked.
    `gtrid` is null before a group has written it. `decision`: "none" until there is one;
    "collected" when every branch has finished; "not-kept" when it was collected, or never needed.
    By TC/C and Saga the record on `home`, the source's shard, is the decision, and `phase` is null
    when nothing is left to do.
    """

    id: str
    status: Literal["committed", "rejected", "pending", "unknown"]
    protocol: str
    source: AccountId
    destination: AccountId
    amount: int
    currency: Currency
    metadata: dict[str, Any] | None
    reason: str | None
    detail: str | None
    created_at: Time
    grouped_at: Time | None
    decided_at: Time | None
    gtrid: str | None
    coordinator: str | None
    home: str | None
    decision: Literal["none", "committed", "aborted", "collected", "not-kept", "unknown"] | None
    phase: PhaseName | None
    parts: list[PartView]


class LockHold(Struct):
    """How long locks were held since the start of the coordinator: so many up to so many seconds,
    each with all that were shorter; null seconds are without end.
    """

    role: str
    seconds: list[float | None]
    counts: list[float]


class TotalsView(Struct):
    """Of one coordinator with all its workers, since it was started."""

    committed: float
    rejected: float
    withdrawn: float
    lock_hold: list[LockHold]


class StateView(Struct):
    """What `/v1/admin/events` sends. `trouble`: why there is no `cluster` to see. `in_doubt` has
    the oldest branches, of `in_doubt_total` that are older than a second, and the oldest groups of
    the `unfinished_total` transfers that are.
    """

    coordinator: str
    trouble: str | None
    cluster: ClusterView | None
    in_doubt: InDoubtList
    in_doubt_total: int
    unfinished_total: int
    totals: TotalsView | None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def time_text(stamp: int) -> str:
    """A stamp in microseconds as RFC 3339."""
    moment = _EPOCH.replace(tzinfo=None) + timedelta(microseconds=stamp)
    return moment.isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> int:
    """RFC 3339 as a stamp in microseconds; what is finer is cut off.

    Raises ValueError, or OverflowError when it is before the year 1 or after the year 9999.
    """
    if not _RFC_3339.fullmatch(text):
        raise ValueError("date, T, time of day and Z or the offset from UTC are needed")
    moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def account_view(state: AccountState, shard: str) -> AccountView:
    account = state.account
    return AccountView(
        id=account.id,
        currency=account.currency,
        balance=account.balance,
        available=account.available,
        overdraft_limit=account.overdraft_limit,
        status=account.status,  # type: ignore[arg-type]
        shard=shard,
        created_at=time_text(state.created_at),
        updated_at=time_text(state.updated_at),
        as_of=as_of_view(state.as_of),
        number=UNSET if state.number is None else state.number,
    )


def trial_balance_view(found: records.TrialBalance) -> TrialBalance:
    totals = [CurrencyTotals(*each) for each in found.currencies]
    as_of = AsOfView(found.as_of.seq, time_text(found.as_of.stamp))
    return TrialBalance(time_text(found.stamp), totals, as_of)


def as_of_view(as_of: records.AsOf | None) -> AsOfView | UnsetType:
    return UNSET if as_of is None else AsOfView(as_of.seq, time_text(as_of.stamp))


def balance_view(account: Account) -> BalanceView:
    return BalanceView(account.id, account.currency, account.balance, account.available)


def entry_view(entry: Entry) -> EntryView:
    return EntryView(
        entry.transfer, entry.amount, entry.balance, entry.counterparty, time_text(entry.stamp)
    )


def _wish(transfer: Transfer) -> dict[str, Any]:
    """The members that say what a client has asked for, wherever a transfer is shown."""
    return {
        "id": transfer.id,
        "protocol": transfer.protocol,
        "source": transfer.source,
        "destination": transfer.destination,
        "amount": transfer.amount,
        "currency": transfer.currency,
        "metadata": msgspec.json.decode(transfer.metadata) if transfer.metadata else None,
        "created_at": time_text(transfer.created_at),
    }


def trace_view(trace: TransferTrace) -> TransferWay:
    transfer, stored, gtrid = trace.transfer, trace.stored, trace.gtrid
    is_final = trace.outcome in (Outcome.COMMITTED, Outcome.REJECTED)
    return TransferWay(
        **_wish(transfer),
        status=trace.outcome.value,
        reason=stored.reason if stored and is_final else None,
        detail=stored.detail if stored and is_final else None,
        grouped_at=time_text(gtrid.time_ms * 1000) if gtrid else None,
        decided_at=time_text(stored.decided_at) if stored and is_final else None,
        gtrid=str(gtrid) if gtrid else None,
        coordinator=gtrid.coordinator if gtrid else None,
        home=trace.home,
        decision=trace.decision.value if trace.decision else None,
        phase=trace.phase,  # type: ignore[arg-type]
        parts=[
            PartView(
                part.shard,
                part.accounts,
                part.stage.value,
                part.because,
                list(map(entry_view, part.entries)),
            )
            for part in trace.parts
        ],
    )


def transfer_view(stored: StoredTransfer) -> TransferView:
    view = TransferView(**_wish(stored.transfer), status=stored.status)  # type: ignore[arg-type]
    if stored.status == "committed":
        view.committed_at = time_text(stored.decided_at)
    else:
        view.rejected_at = time_text(stored.decided_at)
        view.reason = stored.reason or ""
        view.detail = stored.detail or ""
    if stored.seq is not None:
        view.seq = stored.seq
    return view
