"""The OpenAPI 3.1 document, made from the table of routes and the types that validate requests."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from types import UnionType
from typing import Any, get_args

import msgspec

from coordinator.http import schemas
from coordinator.http.reading import JSON
from coordinator.http.routes import PATH, ROUTES, Answer, Batch, Parameter, Route

_Schema = dict[str, Any]

_REF = "#/components/schemas/{name}"
# The variable parts of a rule.
_VARIABLE = re.compile(r"<(\w+)>")
_TOKEN_ERRORS = (401, 403, 429)
_REASONS = {
    400: "Malformed; nothing has happened.",
    401: "No valid token; nothing has happened.",
    403: "The token lacks the scope; nothing has happened.",
    404: "Not found.",
    408: "The request did not come in time; nothing has happened.",
    413: "The request is too large; nothing has happened.",
    415: "The body is of another content type than is taken; nothing has happened.",
    422: "Refused for good, and so is every retry with this key.",
    429: "Too many requests; nothing has happened. The same key may be sent again.",
    500: "Internal error; send the same request again, with the same key.",
    503: "Nothing has happened by this request. The same key may be sent again.",
}


def _ref(kind: type) -> _Schema:
    """A plain type's own schema, or a reference to that of one of `schemas`."""
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template=_REF)
    return schema


def _kinds(kind: type | UnionType) -> tuple[type, ...]:
    """The types that a type is one of."""
    return get_args(kind) or (kind,)


def _components() -> _Schema:
    """The schemas of all that comes in and goes out."""
    kinds: list[type] = [schemas.Problem]
    for route in ROUTES:
        if route.body:
            kinds.append(route.body.item if isinstance(route.body, Batch) else route.body)
        for answer in route.answers.values():
            kinds += _kinds(answer.kind)
    return msgspec.json.schema_components(kinds, ref_template=_REF)[1]


def _parameter(where: str, parameter: Parameter) -> _Schema:
    return {
        "name": parameter.name,
        "in": where,
        "required": parameter.is_required,
        "schema": parameter.schema,
        "description": parameter.description,
    }


def _parameters(route: Route) -> list[_Schema]:
    return [
        *(_parameter("path", PATH[name]) for name in _VARIABLE.findall(route.rule)),
        *(_parameter("header", parameter) for parameter in route.headers),
        *(_parameter("query", parameter) for parameter in route.query),
    ]


def _body(body: type | Batch) -> _Schema:
    if not isinstance(body, Batch):
        return _ref(body)
    # As it is meant: each item is checked by itself, so it may hold anything.
    return {
        "type": "object",
        "required": [body.member],
        "additionalProperties": False,
        "properties": {
            body.member: {
                "type": "array",
                "maxItems": schemas.BATCH_MAX,
                "description": f"each a {body.item.__name__}; one that is not is refused by itself",
                "items": {"anyOf": [_ref(body.item), {}]},
            }
        },
    }


def _answer(answer: Answer) -> _Schema:
    references = [_ref(kind) for kind in _kinds(answer.kind)]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    if answer.media == "text/event-stream":
        schema = _event(schema)
    described: _Schema = {
        "description": answer.text,
        "content": {answer.media: {"schema": schema}} | _others(answer.others),
    }
    if answer.headers:
        described["headers"] = {
            name: {"schema": {"type": "string"}, "description": text}
            for name, text in answer.headers.items()
        }
    return described


def _others(kinds: Mapping[str, str]) -> _Schema:
    """What comes or goes by content types that are no JSON."""
    return {
        media: {"schema": {"type": "string", "contentMediaType": media, "description": text}}
        for media, text in kinds.items()
    }


def _event(schema: _Schema) -> _Schema:
    data = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": schema,
    }
    return {
        "type": "object",
        "description": (
            "one event; `id` is where it stands in a list or, where there is none, when it was "
            "made, in milliseconds since the epoch; `event` is its kind, if there are several"
        ),
        "required": ["id", "data"],
        "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": data},
    }


def _problem(status: int) -> _Schema:
    return {
        "description": _REASONS.get(status, "Refused; nothing has happened."),
        "content": {"application/problem+json": {"schema": _ref(schemas.Problem)}},
    }


def _operation(route: Route, *, needs_token: bool) -> _Schema:
    is_guarded = needs_token and route.scope is not None
    responses = {str(status): _answer(answer) for status, answer in route.answers.items()}
    # Whatever a route reads, a request may have two readings.
    for status in (400, *route.errors, *(_TOKEN_ERRORS if is_guarded else ())):
        responses.setdefault(str(status), _problem(status))
    operation: _Schema = {"summary": route.summary, "tags": [route.tag], "responses": responses}
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.body is not None:
        content = {JSON: {"schema": _body(route.body)}}
        if isinstance(route.body, Batch):
            content |= _others(route.body.others)
        operation["requestBody"] = {"required": True, "content": content}
    if is_guarded:
        operation["security"] = [{"token": [route.scope]}]
    return operation


def _paths(*, needs_token: bool) -> _Schema:
    paths: _Schema = {}
    for route in ROUTES:
        if route.summary:
            path = _VARIABLE.sub(lambda found: f"{{{PATH[found[1]].name}}}", route.rule)
            operation = _operation(route, needs_token=needs_token)
            paths.setdefault(path, {})[route.method.lower()] = operation
    return paths


@cache
def document(*, needs_token: bool = False) -> _Schema:
    """The whole document, of a service with or without access control."""
    parts: _Schema = {"schemas": _components()}
    if needs_token:
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
        "paths": _paths(needs_token=needs_token),
        "components": parts,
    }
