"""OpenAPI 3.1, generated from the very routes and structs that the service runs on."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

import ledger
from ledger.api.parameters import POSITION_MAX
from ledger.api.problems import CONTENT_TYPE, STATUS, Problem
from ledger.api.routes import EVENT_STREAM, JSON, NDJSON, OCTETS, PLAIN, Route, json_response
from ledger.api.services import Services
from ledger.domain.codec import Day
from ledger.domain.event_type import CATEGORIES

REFERENCE = "#/components/schemas/{name}"

IN_TEXT = {
    NDJSON: {"type": "string", "description": "an event a line"},
    PLAIN: {"type": "string"},
    OCTETS: {"type": "string", "format": "binary"},
    EVENT_STREAM: {"type": "string", "description": "Server-Sent Events: id is the position, data the event in JSON"},
}
"""The schemas of what is no JSON document."""


def _schema_hook(kind: type) -> dict[str, Any]:
    if kind is Day:
        return {"type": "string", "description": "An RFC 3339 time with its zone, or a date meaning midnight UTC."}
    raise NotImplementedError(kind)


def _schemas(routes: Sequence[Route]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """The schema of every type the routes name, and the components these refer to."""
    types: list[Any] = [Problem]
    for route in routes:
        types += [kind for kind in (route.query, route.body) if kind is not None]
        types += [kind for answer in route.answers.values() for kind in _kinds(answer)]
    schemas, components = msgspec.json.schema_components(types, schema_hook=_schema_hook, ref_template=REFERENCE)
    _allow_numbers(components)
    return dict(zip(map(str, types), schemas, strict=True)), components


def _allow_numbers(schema: Any) -> None:
    """Say that decimals are read from JSON numbers too; msgspec's schema knows strings only."""
    if isinstance(schema, list):
        for item in schema:
            _allow_numbers(item)
    elif isinstance(schema, dict):
        if schema.get("format") == "decimal":
            del schema["format"]
            schema["type"] = ["string", "number"]
        for item in schema.values():
            _allow_numbers(item)


def build(routes: Sequence[Route]) -> dict[str, Any]:
    """Build the document."""
    schemas, components = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, components)
    # Query structs are shown as parameters, not as bodies.
    for route in routes:
        if route.query is not None:
            components.pop(route.query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Budget and job ledger", "version": ledger.__version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key: lgr_..."}},
        },
        "security": [{"key": []}],
    }


def _operation(route: Route, schemas: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_')}",
        "summary": route.summary,
        "parameters": [
            *_path_parameters(route),
            *_query_parameters(route, components),
            *_header_parameters(route),
        ],
        "responses": {
            **{
                str(status): {
                    "description": " Or: ".join(_first_line(kind) for kind in _kinds(answer)),
                    "content": _content(route, [schemas[str(kind)] for kind in _kinds(answer)]),
                }
                for status, answer in route.answers.items()
            },
            **_problem_responses(route),
        },
    }
    if route.needs is None:
        operation["security"] = []
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _body(route, schemas[str(route.body)])}
    return operation


def _body(route: Route, one: dict[str, Any]) -> dict[str, Any]:
    if isinstance(route.body, type):
        return {JSON: {"schema": one}}
    # A union of events: one of them, many, or a line each.
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": 5000}
    return {JSON: {"schema": {"oneOf": [one, many]}}, NDJSON: {"schema": IN_TEXT[NDJSON]}}


def _kinds(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _content(route: Route, schemas: list[Any]) -> dict[str, Any]:
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {media: {"schema": schema if media == JSON else IN_TEXT[media]} for media in route.media}


def _first_line(kind: Any) -> str:
    described = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return (kind.__doc__ or "An answer.").strip().splitlines()[0] if described else "A JSON object."


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    formats = {
        "position": {"type": "integer", "minimum": 0, "maximum": POSITION_MAX},
        "category": {"type": "string", "enum": list(CATEGORIES)},
        "key": {"type": "string"},
        "tile": {"type": "string", "description": "<level>/<index>[.p/<width>] or entries/<index>[.p/<width>]"},
    }
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": formats.get(name, {"type": "string", "format": "uuid"}),
        }
        for name in re.findall(r"{(\w+)}", route.path)
    ]


def _query_parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = components[route.query.__name__]
    parameters = []
    for name, of in schema["properties"].items():
        given = {key: value for key, value in of.items() if key != "default"}
        # An absent parameter is how null is said.
        choices = [choice for choice in given.pop("anyOf", []) if choice != {"type": "null"}]
        given = {**given, **(choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {})}
        parameter: dict[str, Any] = {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": given,
        }
        if given.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        parameters.append(parameter)
    return parameters


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    schemas: dict[str, dict[str, Any]] = {
        "Ledger-Min-Position": {"type": "integer", "minimum": 0, "maximum": POSITION_MAX},
        "Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": 255},
        "Last-Event-ID": {"type": "integer", "minimum": 0, "maximum": POSITION_MAX},
    }
    waits = route.query is not None and "min_position" in route.query.__struct_fields__
    names = (*route.headers, *(("Ledger-Min-Position",) if waits else ()))
    return [{"name": name, "in": "header", "required": False, "schema": schemas[name]} for name in names]


def _problem_responses(route: Route) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    refusals = ("unauthenticated", "forbidden", "rate-limited") if route.needs is not None else ()
    for slug in ("malformed", *refusals, *route.problems, "internal-error"):
        by_status.setdefault(STATUS[slug], []).append(slug)
    problem = {CONTENT_TYPE: {"schema": {"$ref": REFERENCE.format(name="Problem")}}}
    return {
        str(status): {"description": ", ".join(dict.fromkeys(slugs)), "content": problem}
        for status, slugs in sorted(by_status.items())
        if status not in route.answers
    }


def route_for(routes: Sequence[Route]) -> Route:
    """The route that serves the document of these routes and of itself."""
    document: dict[str, Any] = {}

    async def get_openapi(request: web.Request, services: Services) -> web.StreamResponse:
        return json_response(document)

    route = Route("GET", "/openapi.json", get_openapi, "This document.", {200: dict[str, Any]}, needs=None)
    document.update(build([*routes, route]))
    return route
