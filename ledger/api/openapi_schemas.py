"""JSON schemas of the OpenAPI document, generated from the structs of requests and responses."""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

from ledger.api.descriptions import ENVELOPE, FIELDS, describe
from ledger.api.parameter_descriptions import PARAMETERS
from ledger.api.parameters import LABEL_KEY
from ledger.api.problems import STATUS, Problem
from ledger.api.routes import Route
from ledger.domain.fields import Day
from ledger.domain.money import JSON_NUMBER
from ledger.log.new_event import EVENT_STRUCTS, AnyEvent

Schema = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"

NEW_EVENT = "NewEvent"
"""The schema of any event that may be sent: without a name, generators would repeat the union of all types."""


LABELS = {
    "name": "labels",
    "in": "query",
    "required": False,
    "description": PARAMETERS["labels"],
    # An object of this style is sent as one parameter for each property.
    "style": "form",
    "explode": True,
    "schema": {
        "type": "object",
        "propertyNames": {"pattern": f"^label\\.{LABEL_KEY}$"},
        "additionalProperties": {"type": "string"},
    },
}
"""The parameters `label.KEY` of a collection whose rows have labels."""


class Schemas:
    """The schemas of all parameters, request bodies and responses of the routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        types: list[Any] = [Problem, AnyEvent]
        for route in routes:
            types += [kind for kind in (route.query, route.body) if kind is not None]
            types += [kind for kinds in route.responses.values() for kind in response_types(kinds)]
        schemas, components = msgspec.json.schema_components(types, schema_hook=_schema_hook, ref_template=REFERENCE)
        self._by_type = dict(zip(map(str, types), schemas, strict=True))
        _adapt([components, *schemas])
        queries = {route.query.__name__ for route in routes if route.query is not None}
        self._queries = {name: components.pop(name) for name in queries}
        self.components = components | {NEW_EVENT: self._new_event()}
        _describe(self.components)
        self._by_type[str(AnyEvent)] = {"$ref": REFERENCE.format(name=NEW_EVENT)}

    def of(self, kind: Any) -> Schema:
        """Return the schema of a type: a reference if it is a struct or an enum."""
        return self._by_type[str(kind)]

    def query_parameters(self, query: type[msgspec.Struct]) -> list[Schema]:
        """Return the parameters that a query struct describes."""
        schema = self._queries[query.__name__]
        required = schema.get("required", ())
        return [
            LABELS
            if name == "labels"
            else _query_parameter(name, field, describe(PARAMETERS, query.__name__, name), is_required=name in required)
            for name, field in schema["properties"].items()
        ]

    def _new_event(self) -> Schema:
        description = "An event to append; `type` decides what `data` is."
        return {"title": NEW_EVENT, "description": description, **self._by_type[str(AnyEvent)]}


def response_types(response: Any) -> tuple[Any, ...]:
    """Return the types that a response of a route may have; a single type needs no tuple."""
    return response if isinstance(response, tuple) else (response,)


def _query_parameter(name: str, field: Schema, description: str, *, is_required: bool) -> Schema:
    schema = {key: value for key, value in field.items() if key != "default" or value}
    # A parameter cannot be null, only absent.
    choices = [choice for choice in schema.pop("anyOf", []) if choice != {"type": "null"}]
    schema |= choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {}
    parameter = {"name": name, "in": "query", "required": is_required, "description": description, "schema": schema}
    if schema.get("type") == "array":
        parameter |= {"style": "form", "explode": False}
    return parameter


def _schema_hook(kind: type) -> Schema:
    if kind is Day:
        return {"type": "string", "description": "An RFC 3339 time with a zone, or a date, which means midnight UTC."}
    raise NotImplementedError(kind)


def _adapt(schema: Any) -> None:
    """Add what msgspec leaves out: decimals may be numbers, enums are strings, JSON objects have any members."""
    if isinstance(schema, list):
        for item in schema:
            _adapt(item)
    elif isinstance(schema, dict):
        if schema.get("format") == "decimal":
            del schema["format"]
            schema["type"] = ["string", "number"]
            schema["pattern"] = f"^{JSON_NUMBER}$"
        if "enum" in schema:
            schema.setdefault("type", "string")
        if schema.get("type") == "object" and "properties" not in schema:
            schema.setdefault("additionalProperties", True)
        for item in schema.values():
            _adapt(item)


def _describe(components: dict[str, Schema]) -> None:
    """Add the description of every field, followed by that of its type."""
    envelopes = {struct.__name__ for struct in EVENT_STRUCTS.values()}
    for name, schema in components.items():
        schema["description"] = inspect.cleandoc(schema["description"])
        descriptions = ENVELOPE if name in envelopes else FIELDS
        for field, field_schema in schema.get("properties", {}).items():
            about_type = field_schema.get("description", "")
            text = describe(descriptions, name, field, _declared_description(field_schema))
            field_schema["description"] = text if about_type in text else f"{text} {about_type}"
    components["Problem"]["properties"]["type"]["description"] += f" The names are {', '.join(STATUS)}."


def _declared_description(schema: Schema) -> str:
    """Return the description that a field's type has in its struct; that of an optional field is one level down."""
    choices = [schema, *schema.get("anyOf", ())]
    return next((choice["description"] for choice in choices if "description" in choice), "")
