"""The OpenAPI 3.1 document, made from the types that validate the requests."""

from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from coordinator.http import access, schemas
from ledger.ids import ACCOUNT_ID_PATTERN
from shard_client.xid import GTRID_PATTERN

_Schema = dict[str, Any]

_REF = "#/components/schemas/{name}"
_COMPONENTS = (
    schemas.AccountTerms,
    schemas.AccountItem,
    schemas.AccountChange,
    schemas.TransferRequest,
    schemas.TransferItem,
    schemas.Problem,
    schemas.AccountView,
    schemas.AccountResults,
    schemas.Statement,
    schemas.BalanceAt,
    schemas.Balances,
    schemas.TransferView,
    schemas.PendingTransfer,
    schemas.TransferResults,
    schemas.Health,
    schemas.Readiness,
    schemas.ClusterView,
    schemas.InDoubtList,
    schemas.ResolutionView,
    schemas.HandOverView,
    schemas.TransferWay,
    schemas.StateView,
)

_REASONS = {
    400: "Malformed; nothing has happened.",
    401: "There is no good token; nothing has happened.",
    403: "The token has not the scope that is needed; nothing has happened.",
    404: "There is no such thing.",
    408: "The request did not come in time; nothing has happened.",
    413: "The request is too large; nothing has happened.",
    415: "The body is not JSON; nothing has happened.",
    422: "Refused for good, and so is every retry with this key.",
    429: "Too many requests; nothing has happened. The same key may be sent again.",
    500: "A fault of the service; send the same request again, with the same key.",
    503: "Nothing has happened by this request. The same key may be sent again.",
}


def _ref(kind: type) -> _Schema:
    return {"$ref": _REF.format(name=kind.__name__)}


def _json(schema: _Schema) -> _Schema:
    return {"application/json": {"schema": schema}}


def _parameter(
    where: str, name: str, schema: _Schema, description: str, *, required: bool = False
) -> _Schema:
    return {
        "name": name,
        "in": where,
        "required": required,
        "schema": schema,
        "description": description,
    }


_ACCOUNT = _parameter(
    "path",
    "id",
    {"type": "string", "pattern": ACCOUNT_ID_PATTERN, "minLength": 1, "maxLength": 64},
    "the account's id",
    required=True,
)
_TRANSFER = _parameter(
    "path", "id", {"type": "string", "minLength": 1}, "the transfer's id", required=True
)
_GTRID = _parameter(
    "path",
    "gtrid",
    {"type": "string", "pattern": f"^{GTRID_PATTERN}$"},
    "the group's name, as it is among what is in doubt",
    required=True,
)
_KEY = _parameter(
    "header",
    "Idempotency-Key",
    {"type": "string", "pattern": schemas.KEY_PATTERN, "minLength": 1, "maxLength": 128},
    "your name for this transfer, unique to its source account; kept for ever",
    required=True,
)
_PREFER = _parameter(
    "header",
    "Prefer",
    {"type": "string"},
    "`wait=N`: wait up to N seconds for the outcome instead of answering that it is pending",
)
_QUERY: dict[str, _Schema] = {
    "limit": _parameter(
        "query",
        "limit",
        {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
        "entries on a page",
    ),
    "after": _parameter(
        "query",
        "after",
        {"type": "string", "pattern": r"^[0-9]{1,18}$"},
        "`next` of the page before",
    ),
    "order": _parameter(
        "query",
        "order",
        {"type": "string", "enum": ["asc", "desc"], "default": "asc"},
        "oldest or newest first",
    ),
    "at": _parameter(
        "query",
        "at",
        {"type": "string", "format": "date-time"},
        "a time that has passed; now, if it is missing",
    ),
    "account": _parameter(
        "query",
        "account",
        {
            "type": "array",
            "minItems": 1,
            "maxItems": schemas.BALANCES_MAX,
            "items": _ACCOUNT["schema"],
        },
        "an account; repeat it for more",
        required=True,
    ),
}


def _problem(status: int) -> _Schema:
    return {
        "description": _REASONS.get(status, "Refused; nothing has happened."),
        "content": {"application/problem+json": {"schema": _ref(schemas.Problem)}},
    }


def _operation(
    summary: str,
    answers: dict[int, tuple[str, type]],
    problems: tuple[int, ...],
    *,
    parameters: tuple[_Schema, ...] = (),
    body: _Schema | None = None,
    tag: str,
) -> _Schema:
    responses: dict[str, Any] = {
        str(status): {"description": text, "content": _json(_ref(kind))}
        for status, (text, kind) in answers.items()
    }
    # Whatever a route reads, a request may have two readings.
    for status in (400, *problems):
        responses.setdefault(str(status), _problem(status))
    operation: _Schema = {"summary": summary, "tags": [tag], "responses": responses}
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


def _batch(name: str, item: type) -> _Schema:
    """A batch as it is meant: each item is checked by itself, so it may hold anything."""
    return {
        "type": "object",
        "required": [name],
        "additionalProperties": False,
        "properties": {
            name: {
                "type": "array",
                "maxItems": schemas.BATCH_MAX,
                "description": f"each a {item.__name__}; one that is not is refused by itself",
                "items": {"anyOf": [_ref(item), {}]},
            }
        },
    }


_WRITE = (408, 413, 415, 503)


def _account_paths() -> _Schema:
    view = schemas.AccountView
    return {
        "/v1/accounts/{id}": {
            "put": _operation(
                "Open an account",
                {201: ("It is opened.", view), 200: ("It exists with these terms.", view)},
                (*_WRITE, 409),
                parameters=(_ACCOUNT,),
                body=_ref(schemas.AccountTerms),
                tag="accounts",
            ),
            "patch": _operation(
                "Freeze, close or reopen an account",
                {200: ("The account as it is now.", view)},
                (*_WRITE, 404, 409),
                parameters=(_ACCOUNT,),
                body=_ref(schemas.AccountChange),
                tag="accounts",
            ),
            "get": _operation(
                "Read an account",
                {200: ("The account.", view)},
                (404, 503),
                parameters=(_ACCOUNT,),
                tag="accounts",
            ),
        },
        "/v1/accounts/batch": {
            "post": _operation(
                "Open up to 10,000 accounts",
                {200: ("A result for each, in order.", schemas.AccountResults)},
                _WRITE,
                body=_batch("accounts", schemas.AccountItem),
                tag="accounts",
            )
        },
        "/v1/accounts/{id}/entries": {
            "get": _operation(
                "Read an account's statement, page by page",
                {200: ("A page; `next` is where the next one begins.", schemas.Statement)},
                (404, 503),
                parameters=(_ACCOUNT, _QUERY["limit"], _QUERY["after"], _QUERY["order"]),
                tag="accounts",
            )
        },
        "/v1/accounts/{id}/balance": {
            "get": _operation(
                "Read the balance as it was at a time",
                {200: ("The balance then; it is final.", schemas.BalanceAt)},
                (404, 503),
                parameters=(_ACCOUNT, _QUERY["at"]),
                tag="accounts",
            )
        },
        "/v1/balances": {
            "get": _operation(
                "Read many balances as of one moment",
                {200: ("The balances, in the order asked for.", schemas.Balances)},
                (404, 503),
                parameters=(_QUERY["account"],),
                tag="accounts",
            )
        },
    }


def _transfer_paths() -> _Schema:
    location = {"Location": {"schema": {"type": "string"}, "description": "where to ask"}}
    post = _operation(
        "Move money",
        {
            201: (
                "Committed. `Idempotent-Replayed: true` says: by an earlier request.",
                schemas.TransferView,
            ),
            202: ("Not known or not finished yet.", schemas.PendingTransfer),
        },
        (*_WRITE, 409, 422, 429, 500),
        parameters=(_KEY, _PREFER),
        body=_ref(schemas.TransferRequest),
        tag="transfers",
    )
    post["responses"]["202"]["headers"] = location
    either = {"anyOf": [_ref(schemas.TransferView), _ref(schemas.PendingTransfer)]}
    get = _operation(
        "Read a transfer",
        {200: ("The transfer, or that it is pending.", schemas.TransferView)},
        (404, 503),
        parameters=(_TRANSFER, _PREFER),
        tag="transfers",
    )
    get["responses"]["200"]["content"] = _json(either)
    return {
        "/v1/transfers": {"post": post},
        "/v1/transfers/{id}": {"get": get},
        "/v1/transfers/batch": {
            "post": _operation(
                "Move money up to 10,000 times; each item by itself, in order",
                {200: ("A result for each, in order.", schemas.TransferResults)},
                (*_WRITE, 429),
                parameters=(_PREFER,),
                body=_batch("transfers", schemas.TransferItem),
                tag="transfers",
            )
        },
    }


def _operation_paths() -> _Schema:
    ready = schemas.Readiness
    return {
        "/healthz": {
            "get": _operation(
                "Is the process alive?",
                {200: ("It is.", schemas.Health)},
                (),
                tag="operation",
            )
        },
        "/readyz": {
            "get": _operation(
                "Can it take transfers?",
                {200: ("It can.", ready), 503: ("It cannot, for these reasons.", ready)},
                (),
                tag="operation",
            )
        },
        "/metrics": {
            "get": {
                "summary": "What Prometheus scrapes, for all workers of this coordinator.",
                "tags": ["operation"],
                "responses": {
                    "200": {
                        "description": "The metrics.",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    },
                    "400": _problem(400),
                },
            }
        },
    }


def _events() -> _Schema:
    operation = _operation(
        "Watch the cluster: a state a second, as server-sent events",
        {200: ("An event with each state that differs from the one before.", schemas.StateView)},
        (503,),
        tag="operation",
    )
    state = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": _ref(schemas.StateView),
    }
    event = {
        "type": "object",
        "description": "one event; `id` is when it was made, in milliseconds since the epoch",
        "required": ["id", "data"],
        "properties": {"id": {"type": "string"}, "data": state},
    }
    operation["responses"]["200"]["content"] = {"text/event-stream": {"schema": event}}
    return operation


def _admin_paths() -> _Schema:
    return {
        "/v1/admin/cluster": {
            "get": _operation(
                "Who is there, who leads, how are the shards?",
                {200: ("The cluster as this process sees it.", schemas.ClusterView)},
                (503,),
                tag="operation",
            )
        },
        "/v1/admin/in-doubt": {
            "get": _operation(
                "What is in doubt, since when, and what happens next?",
                {200: ("Every prepared branch on every shard.", schemas.InDoubtList)},
                (503,),
                tag="operation",
            )
        },
        "/v1/admin/in-doubt/{gtrid}/resolve": {
            "post": _operation(
                "Finish a group now; it obeys the decision and cannot override one",
                {200: ("What came of it.", schemas.ResolutionView)},
                (404, 503),
                parameters=(_GTRID,),
                tag="operation",
            )
        },
        "/v1/admin/transfers/{id}": {
            "get": _operation(
                "Follow a transfer through its steps",
                {200: ("How far it is, on each of its shards.", schemas.TransferWay)},
                (404, 503),
                parameters=(_TRANSFER,),
                tag="operation",
            )
        },
        "/v1/admin/events": {"get": _events()},
        "/v1/admin/leader/step-down": {
            "post": _operation(
                "Hand leadership over to another coordinator",
                {200: ("Who led and who leads now.", schemas.HandOverView)},
                (503,),
                tag="operation",
            )
        },
    }


def _secured(paths: _Schema) -> _Schema:
    """The operations with the scope that each needs, and how they are refused."""
    for path, operations in paths.items():
        for method, operation in operations.items():
            scope = access.scope_of(method.upper(), path)
            if scope is None:
                continue
            operation["security"] = [{"token": [scope.value]}]
            for status in (401, 403, 429):
                operation["responses"].setdefault(str(status), _problem(status))
    return paths


@cache
def document(*, needs_token: bool = False) -> _Schema:
    """The whole document, of a service with or without access control."""
    _, components = msgspec.json.schema_components(_COMPONENTS, ref_template=_REF)
    paths = {**_account_paths(), **_transfer_paths(), **_operation_paths(), **_admin_paths()}
    parts: _Schema = {"schemas": components}
    if needs_token:
        paths = _secured(paths)
        bearer = {"type": "http", "scheme": "bearer", "description": "see `tandem token new`"}
        parts["securitySchemes"] = {"token": bearer}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tandem",
            "version": version("tandem"),
            "description": (
                "Moves money between accounts on different MySQL shards, on both or on neither. "
                "Amounts are integers in the currency's minor unit."
            ),
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": parts,
    }
