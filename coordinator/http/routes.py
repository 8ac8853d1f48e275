"""The table of routes. The addresses that Flask serves, the scope that each needs, the parameters
and bodies that it takes and the OpenAPI document are made from it: a route that is not in the table
cannot be served.
"""

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, NamedTuple

from flask import Flask, Response, request

from coordinator.http import schemas
from coordinator.http.batches.kinds import ARROW, NDJSON
from coordinator.http.event_views import EventData
from coordinator.http.reading import JSON
from coordinator.operations import answers
from coordinator.security.tokens import Scope
from ledger.ids import ACCOUNT_ID_PATTERN
from shard_client.xid import GTRID_PATTERN

View = Callable[..., Response]


class Parameter(NamedTuple):
    """A part of the address, a parameter of the query or a header, with its JSON schema."""

    name: str
    schema: dict[str, Any]
    description: str
    is_required: bool = False

    @property
    def is_many(self) -> bool:
        """Whether it may be repeated."""
        return bool(self.schema["type"] == "array")


class Answer(NamedTuple):
    """An answer that is no problem. `kind` is the type of its body, `headers` are names with what
    they say; `others` are other content types that it may have, with what it is then.
    """

    text: str
    kind: type | UnionType
    media: str = JSON
    headers: Mapping[str, str] = {}
    others: Mapping[str, str] = {}


class Batch(NamedTuple):
    """A body with one member, a list whose items are checked one by one; `others` are other content
    types that it may have, with what it is then.
    """

    member: str
    item: type
    others: Mapping[str, str] = {}


class Route(NamedTuple):
    """One method of one address. `name` is that of the view that serves it, `rule` the address as
    Flask takes it, and `scope` what a token needs for it; None: it is public. A route without a
    `summary` is a page for people, and not in the OpenAPI document. `errors` are the statuses of
    its problems, besides 400 and those that a token can meet.
    """

    name: str
    method: str
    rule: str
    scope: Scope | None
    tag: str = ""
    summary: str = ""
    answers: Mapping[int, Answer] = {}
    errors: tuple[int, ...] = ()
    headers: tuple[Parameter, ...] = ()
    query: tuple[Parameter, ...] = ()
    body: type | Batch | None = None


# --- parameters -----------------------------------------------------------------------------

_ACCOUNT_ID = {"type": "string", "pattern": ACCOUNT_ID_PATTERN, "minLength": 1, "maxLength": 64}

# By the name that the part has in a rule.
PATH = {
    "account": Parameter("id", _ACCOUNT_ID, "the account's id", True),
    "transfer": Parameter("id", {"type": "string", "minLength": 1}, "the transfer's id", True),
    "gtrid": Parameter(
        "gtrid",
        {"type": "string", "pattern": f"^{GTRID_PATTERN}$"},
        "the group's name, as it is among what is in doubt",
        True,
    ),
}
_KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "pattern": schemas.KEY_PATTERN, "minLength": 1, "maxLength": 128},
    "your name for this transfer, unique to its source account; kept for ever",
    True,
)
_PREFER = Parameter(
    "Prefer",
    {"type": "string"},
    "`wait=N`: wait up to N seconds for the outcome instead of answering that it is pending",
)
_LIMIT = Parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    "entries on a page",
)
_AFTER = Parameter(
    "after", {"type": "string", "pattern": r"^[0-9]{1,18}$"}, "`next` of the page before"
)
_ORDER = Parameter(
    "order",
    {"type": "string", "enum": ["asc", "desc"], "default": "asc"},
    "oldest or newest first",
)
_AT = Parameter(
    "at",
    {"type": "string", "format": "date-time"},
    "a time that has passed; now, if it is missing",
)
_POSITION = {"type": "string", "pattern": schemas.FRAME_PATTERN}
_MIN_SEQ = Parameter(
    "min_seq",
    _POSITION,
    "a `seq`, or the `id` of an event, of a ledger group: it is enough that the answer has seen"
    " that frame, and it waits for it; without it the answer is as new as all answers before",
)
_AFTER_EVENT = Parameter(
    "after", _POSITION, "the `id` of an event, or the number of a frame; 0, if it is missing"
)
_LAST_EVENT_ID = Parameter(
    "Last-Event-ID", _POSITION, "the `id` of the last event that came; it goes before `after`"
)
_ACCOUNTS = Parameter(
    "account",
    {"type": "array", "minItems": 1, "maxItems": schemas.BALANCES_MAX, "items": _ACCOUNT_ID},
    "an account; repeat it for more",
    True,
)

# --- batches that are no JSON ---------------------------------------------------------------

_ITEMS = {
    NDJSON: "each line a TransferItem; one that is not is refused by itself",
    ARROW: (
        "an Arrow IPC stream: each row a TransferItem, its columns named as its members (utf8, "
        "`metadata` as JSON text, and `amount` an integer); null is a member that is missing"
    ),
}
_RESULTS = {
    NDJSON: "each line a TransferResult, in order",
    ARROW: (
        "an Arrow IPC stream: each row a TransferResult, in order; null is a member that is missing"
    ),
}

# --- the table ------------------------------------------------------------------------------

_READ_ERRORS = (404, 503)
_WRITE_ERRORS = (408, 413, 415, 503)

# Opening an account can issue money (without limit), and closing or freezing one is no business of
# those who pay: so that is `admin`.
_ACCOUNT_ROUTES = (
    Route(
        "open_account",
        "PUT",
        "/v1/accounts/<account>",
        Scope.ADMIN,
        "accounts",
        "Open an account",
        {
            201: Answer("It is opened.", schemas.AccountView),
            200: Answer("It exists with these terms.", schemas.AccountView),
        },
        (*_WRITE_ERRORS, 409),
        body=schemas.AccountTerms,
    ),
    Route(
        "change_account",
        "PATCH",
        "/v1/accounts/<account>",
        Scope.ADMIN,
        "accounts",
        "Freeze, close or reopen an account",
        {200: Answer("The account as it is now.", schemas.AccountView)},
        (*_WRITE_ERRORS, 404, 409),
        body=schemas.AccountChange,
    ),
    Route(
        "show_account",
        "GET",
        "/v1/accounts/<account>",
        Scope.READ,
        "accounts",
        "Read an account",
        {200: Answer("The account.", schemas.AccountView)},
        (*_READ_ERRORS, 409),
        query=(_MIN_SEQ,),
    ),
    Route(
        "open_accounts",
        "POST",
        "/v1/accounts/batch",
        Scope.ADMIN,
        "accounts",
        "Open up to 10,000 accounts",
        {200: Answer("A result for each, in order.", schemas.AccountResults)},
        _WRITE_ERRORS,
        body=Batch("accounts", schemas.AccountItem),
    ),
    Route(
        "show_entries",
        "GET",
        "/v1/accounts/<account>/entries",
        Scope.READ,
        "accounts",
        "Read an account's statement, page by page",
        {200: Answer("A page; `next` is where the next one begins.", schemas.Statement)},
        (*_READ_ERRORS, 409),
        query=(_LIMIT, _AFTER, _ORDER, _MIN_SEQ),
    ),
    Route(
        "show_balance",
        "GET",
        "/v1/accounts/<account>/balance",
        Scope.READ,
        "accounts",
        "Read the balance as it was at a time",
        {200: Answer("The balance then; it is final.", schemas.BalanceAt)},
        (*_READ_ERRORS, 409),
        query=(_AT, _MIN_SEQ),
    ),
    Route(
        "show_balances",
        "GET",
        "/v1/balances",
        Scope.READ,
        "accounts",
        "Read many balances from one snapshot",
        {200: Answer("The balances, in the order asked for.", schemas.Balances)},
        (*_READ_ERRORS, 409),
        query=(_ACCOUNTS, _MIN_SEQ),
    ),
    Route(
        "show_trial_balance",
        "GET",
        "/v1/trial-balance",
        Scope.READ,
        "accounts",
        "Sum up a ledger group's accounts as they were at a time",
        {200: Answer("The sums of each currency; they are final.", schemas.TrialBalance)},
        (*_READ_ERRORS, 409),
        query=(_AT, _MIN_SEQ),
    ),
)

_TRANSFER_ROUTES = (
    Route(
        "make_transfer",
        "POST",
        "/v1/transfers",
        Scope.TRANSFER,
        "transfers",
        "Move money",
        {
            201: Answer(
                "Committed. `Idempotent-Replayed: true` says: by an earlier request.",
                schemas.TransferView,
            ),
            202: Answer(
                "Not known or not finished yet.",
                schemas.PendingTransfer,
                headers={"Location": "where to ask"},
            ),
        },
        (*_WRITE_ERRORS, 409, 422, 429, 500),
        headers=(_KEY, _PREFER),
        body=schemas.TransferRequest,
    ),
    Route(
        "show_transfer",
        "GET",
        "/v1/transfers/<transfer>",
        Scope.READ,
        "transfers",
        "Read a transfer",
        {
            200: Answer(
                "The transfer, or that it is pending.",
                schemas.TransferView | schemas.PendingTransfer,
            )
        },
        _READ_ERRORS,
        headers=(_PREFER,),
    ),
    Route(
        "make_transfers",
        "POST",
        "/v1/transfers/batch",
        Scope.TRANSFER,
        "transfers",
        "Move money up to 10,000 times; each item by itself, in order",
        {200: Answer("A result for each, in order.", schemas.TransferResults, others=_RESULTS)},
        (*_WRITE_ERRORS, 429),
        headers=(_PREFER,),
        body=Batch("transfers", schemas.TransferItem, _ITEMS),
    ),
)

_EVENT_ROUTES = (
    Route(
        "stream_events",
        "GET",
        "/v1/events",
        Scope.READ,
        "transfers",
        "Follow what becomes durable in a ledger group, as server-sent events",
        {
            200: Answer(
                "All events behind a position, in the order of the group's list. `event` is "
                "account-opened, account-status-set, transfer-committed or transfer-rejected.",
                EventData,
                "text/event-stream",
            )
        },
        (404, 409, 503),
        headers=(_LAST_EVENT_ID,),
        query=(_AFTER_EVENT,),
    ),
)

_OPERATION_ROUTES = (
    Route(
        "show_health",
        "GET",
        "/healthz",
        None,
        "operation",
        "Is the process alive?",
        {200: Answer("It is.", schemas.Health)},
    ),
    Route(
        "show_readiness",
        "GET",
        "/readyz",
        None,
        "operation",
        "Can it take transfers?",
        {
            200: Answer("It can.", schemas.Readiness),
            503: Answer("It cannot, for these reasons.", schemas.Readiness),
        },
    ),
    Route(
        "show_metrics",
        "GET",
        "/metrics",
        Scope.READ,
        "operation",
        "What Prometheus scrapes, for all workers of this coordinator.",
        {200: Answer("The metrics.", str, "text/plain")},
    ),
    Route(
        "show_cluster",
        "GET",
        "/v1/admin/cluster",
        Scope.READ,
        "operation",
        "Who is there, who leads, how are the shards?",
        {200: Answer("The cluster as this process sees it.", answers.ClusterView)},
        (503,),
    ),
    Route(
        "show_in_doubt",
        "GET",
        "/v1/admin/in-doubt",
        Scope.READ,
        "operation",
        "What is in doubt, since when, and what happens next?",
        {200: Answer("Every prepared branch on every shard.", answers.InDoubtList)},
        (503,),
    ),
    Route(
        "resolve",
        "POST",
        "/v1/admin/in-doubt/<gtrid>/resolve",
        Scope.ADMIN,
        "operation",
        "Finish a group now; it obeys the decision and cannot override one",
        {200: Answer("What came of it.", answers.ResolutionView)},
        _READ_ERRORS,
    ),
    Route(
        "trace_transfer",
        "GET",
        "/v1/admin/transfers/<transfer>",
        Scope.READ,
        "operation",
        "Follow a transfer through its steps",
        {200: Answer("How far it is, on each of its shards.", schemas.TransferWay)},
        _READ_ERRORS,
    ),
    Route(
        "watch_cluster",
        "GET",
        "/v1/admin/events",
        Scope.READ,
        "operation",
        "Watch the cluster: a state a second, as server-sent events",
        {
            200: Answer(
                "An event with each state that differs from the one before.",
                schemas.StateView,
                "text/event-stream",
            )
        },
        (503,),
    ),
    Route(
        "step_down",
        "POST",
        "/v1/admin/leader/step-down",
        Scope.ADMIN,
        "operation",
        "Hand leadership over to another coordinator",
        {200: Answer("Who led and who leads now.", answers.HandOverView)},
        (503,),
    ),
)

_PAGES = (
    Route("show_openapi", "GET", "/openapi.json", None),
    Route("show_docs", "GET", "/docs/", None),
    Route("show_docs_file", "GET", "/docs/<name>", None),
    Route("show_console", "GET", "/console", None),
    Route("show_console_file", "GET", "/console/<name>", None),
)

ROUTES = (*_ACCOUNT_ROUTES, *_TRANSFER_ROUTES, *_EVENT_ROUTES, *_OPERATION_ROUTES, *_PAGES)
_BY_NAME = {route.name: route for route in ROUTES}


def serve(app: Flask, views: Mapping[str, View]) -> None:
    """Serve each route of the table with the view of its name. Raises ValueError unless there is
    exactly one for each.
    """
    if astray := views.keys() ^ _BY_NAME.keys():
        raise ValueError(f"not both in the table of routes and among the views: {sorted(astray)}")
    for route in ROUTES:
        app.add_url_rule(route.rule, route.name, views[route.name], methods=[route.method])


def by_name(*views: View) -> dict[str, View]:
    """Views by the names that the table calls them."""
    return {view.__name__: view for view in views}


def requested() -> Route | None:
    """The route of the request at hand; None when no route has its address and method."""
    return _BY_NAME[request.endpoint] if request.endpoint else None
