"""GET /openapi.json: the OpenAPI 3.1 document, generated from the routes and structs of the service.

Client generators must read it without a warning. They do not support NDJSON, so request bodies and responses that are
NDJSON only are listed under `x-media-types` instead of `content`.
"""

import inspect
import re
from collections.abc import Sequence
from typing import Annotated, Any, get_args

import msgspec
from aiohttp import web

import ledger
from ledger.api.append import IDEMPOTENCY_KEY_CHARACTERS_MAX
from ledger.api.descriptions import describe
from ledger.api.openapi_schemas import REFERENCE, Schema, Schemas, response_types
from ledger.api.parameter_descriptions import PARAMETERS
from ledger.api.parameters import POSITION_MAX
from ledger.api.problems import CONTENT_TYPE, STATUS
from ledger.api.routes import EVENT_STREAM, JSON, NDJSON, OCTETS, PLAIN, Route, json_response
from ledger.api.services import Services
from ledger.domain.access import PERMISSIONS, WHOLE_LEDGER
from ledger.domain.event_type import CATEGORIES
from ledger.log.request_body import BODY_BYTES_MAX, REQUEST_EVENTS_MAX

TITLE = "Budget and job ledger"

DESCRIPTION = """\
An event-sourced ledger of budgets and jobs for teams that run AI agents. Append events with `POST /v1/events`; read
them back, or read the campaigns, content assets, agent jobs and budget entries that they make.

Money is exact: decimals are strings in plain notation. Times are UTC with microseconds. Errors are problem documents
(RFC 9457). Every path with `GET` also has `HEAD`."""

TAGS = {
    "events": "Append events; read the log; follow it live.",
    "streams": "The events of one stream.",
    "campaigns": "Campaigns with their spend, budgets and timelines.",
    "content-assets": "Content assets.",
    "agent-jobs": "Jobs of agents.",
    "budget-entries": "Costs and holds.",
    "spend": "Sums of costs.",
    "prices": "The price book, quotes, and repricing.",
    "projections": "Status of the read models.",
    "log": "The audit log: checkpoints, tiles, proofs, export.",
    "keys": "API keys.",
    "service": "Health, metrics and this document.",
}
"""Groups of operations: the first part of a path after `/v1`."""

DOCUMENT = Annotated[dict[str, Any], msgspec.Meta(description="This document.")]

TEXT_SCHEMAS: dict[str, Schema] = {
    NDJSON: {"type": "string", "description": "NDJSON: one event per line."},
    PLAIN: {"type": "string"},
    OCTETS: {"type": "string", "format": "binary"},
    EVENT_STREAM: {
        "type": "string",
        "description": "Server-Sent Events: `id` is the position, `event` the type, `data` the event as JSON.",
    },
}
"""The schemas of media types other than JSON."""

POSITION: Schema = {"type": "integer", "minimum": 0, "maximum": POSITION_MAX}

PATH_SCHEMAS: dict[str, Schema] = {
    "position": POSITION,
    "category": {"type": "string", "enum": list(CATEGORIES)},
    "key_id": {"type": "string"},
    "tile": {"type": "string"},
}
"""The schemas of path parameters that are not UUIDs."""

HEADER_SCHEMAS: dict[str, Schema] = {
    "Ledger-Min-Position": POSITION,
    "Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_CHARACTERS_MAX},
    "Last-Event-ID": POSITION,
}


def route_for(routes: Sequence[Route]) -> Route:
    """Return the route that serves the document of these routes and of itself."""
    document: dict[str, Any] = {}

    async def get_openapi(request: web.Request, services: Services) -> web.StreamResponse:
        return json_response(document)

    route = Route("GET", "/openapi.json", get_openapi, "Read this document.", {200: DOCUMENT}, needs=None)
    document.update(build([*routes, route]))
    return route


def build(routes: Sequence[Route]) -> dict[str, Any]:
    """Build the document."""
    schemas = Schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": ledger.__version__, "description": DESCRIPTION},
        "servers": [{"url": "/", "description": "The service that serves this document."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key: `lgr_...`."}},
        },
        "security": [{"key": []}],
    }


def _operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_')}",
        "tags": [_tag(route)],
        "summary": route.summary,
        "description": _description(route),
        "parameters": [
            *_path_parameters(route),
            *(schemas.query_parameters(route.query) if route.query is not None else ()),
            *_header_parameters(route),
        ],
        "responses": {
            **{
                str(status): _response(route, response_types(kinds), schemas)
                for status, kinds in route.responses.items()
            },
            **_problem_responses(route),
        },
    }
    if route.needs is None:
        operation["security"] = []
    if route.body is not None:
        operation["requestBody"] = _request_body(route, schemas.of(route.body))
    return operation


def _tag(route: Route) -> str:
    _, version, *rest = route.path.split("/")
    return rest[0] if version == "v1" else "service"


def _description(route: Route) -> str:
    if route.needs is None:
        access = "No API key is needed."
    else:
        access = f"Roles: {', '.join(role.value for role, allowed in PERMISSIONS.items() if route.needs in allowed)}."
    if route.needs in WHOLE_LEDGER:
        access += " Not for keys that are restricted to campaigns."
    return f"{route.description} {access}".strip()


def _request_body(route: Route, schema: Schema) -> dict[str, Any]:
    if isinstance(route.body, type):
        return {"required": True, "content": {JSON: {"schema": schema}}}
    many = {"type": "array", "items": schema, "minItems": 1, "maxItems": REQUEST_EVENTS_MAX}
    return {
        "required": True,
        "description": f"One event, an array of 1 to {REQUEST_EVENTS_MAX:,} events, or `{NDJSON}`: one event per line. "
        f"At most {BODY_BYTES_MAX // 2**20} MiB.",
        "content": {JSON: {"schema": {"oneOf": [schema, many]}}},
        "x-media-types": {NDJSON: {"schema": TEXT_SCHEMAS[NDJSON]}},
    }


def _response(route: Route, type_or_types: Any, schemas: Schemas) -> dict[str, Any]:
    kinds = response_types(type_or_types)
    choices = [schemas.of(kind) for kind in kinds]
    schema = choices[0] if len(choices) == 1 else {"anyOf": choices}
    content = {media: {"schema": schema if media == JSON else TEXT_SCHEMAS[media]} for media in route.media}
    response: dict[str, Any] = {"description": " Or: ".join(_first_line(kind) for kind in kinds)}
    return response | ({"content": {}, "x-media-types": content} if route.media == (NDJSON,) else {"content": content})


def _first_line(kind: Any) -> str:
    """Return the description of a response: of its struct, or in `Annotated[str, msgspec.Meta(description=...)]`."""
    described = [meta.description or "" for meta in get_args(kind) if isinstance(meta, msgspec.Meta)]
    return (described[0] if described else inspect.getdoc(kind) or "").splitlines()[0]


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": describe(PARAMETERS, "path", name),
            "schema": PATH_SCHEMAS.get(name, {"type": "string", "format": "uuid"}),
        }
        for name in re.findall(r"{(\w+)}", route.path)
    ]


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    waits = route.query is not None and "min_position" in route.query.__struct_fields__
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": PARAMETERS[name],
            "schema": HEADER_SCHEMAS[name],
        }
        for name in (*route.headers, *(("Ledger-Min-Position",) if waits else ()))
    ]


def _problem_responses(route: Route) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    refusals = ("unauthenticated", "forbidden", "rate-limited", "overloaded") if route.needs is not None else ()
    for slug in ("malformed", *refusals, *route.problems, "internal-error"):
        by_status.setdefault(STATUS[slug], []).append(slug)
    problem = {CONTENT_TYPE: {"schema": {"$ref": REFERENCE.format(name="Problem")}}}
    return {
        str(status): {"description": ", ".join(dict.fromkeys(slugs)), "content": problem}
        for status, slugs in sorted(by_status.items())
        if status not in route.responses
    }
