"""A validator of the part of JSON Schema 2020-12 that the OpenAPI document uses."""

import re
from typing import Any

TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}

ANNOTATIONS = {"title", "description", "format", "default", "discriminator", "examples"}
CHECKED = {"$ref", "type", "enum", "const", "anyOf", "oneOf", "properties", "required", "additionalProperties", "items"}
CHECKED |= {"pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"}
CHECKED |= {"propertyNames", "minProperties", "maxProperties"}


class Schemas:
    """The schemas of an OpenAPI document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def resolve(self, reference: str) -> Any:
        """Return the target of a reference; raises KeyError if there is none."""
        target: Any = self._document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        return target

    def errors(self, schema: Any, value: Any, path: str = "$") -> list[str]:
        """Return each place at which a value violates its schema; fail if the schema uses an unsupported keyword."""
        unknown = set(schema) - CHECKED - ANNOTATIONS
        assert not unknown, f"this validator does not support {unknown}"
        if "$ref" in schema:
            return self.errors(self.resolve(schema["$ref"]), value, path)
        wrong = [f"{path}: {value!r} is not {schema}"]
        for keyword, allowed_counts in (("anyOf", range(1, 99)), ("oneOf", (1,))):
            matching = [one for one in schema.get(keyword, []) if not self.errors(one, value, path)]
            if keyword in schema and len(matching) not in allowed_counts:
                return wrong
        types = schema.get("type", [])
        kinds = [types] if isinstance(types, str) else types
        if kinds and not any(self._is(kind, value) for kind in kinds):
            return wrong
        if value not in schema.get("enum", [value]) or value != schema.get("const", value):
            return wrong
        if isinstance(value, str) and not self._text_fits(schema, value):
            return wrong
        if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            return wrong
        return self._inside(schema, value, path)

    @staticmethod
    def _is(kind: str, value: Any) -> bool:
        return isinstance(value, TYPES[kind]) and not (isinstance(value, bool) and kind in ("integer", "number"))

    @staticmethod
    def _text_fits(schema: Any, value: str) -> bool:
        length_fits = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return length_fits and re.search(schema.get("pattern", ""), value) is not None

    def _inside(self, schema: Any, value: Any, path: str) -> list[str]:
        found: list[str] = []
        if isinstance(value, list):
            if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
                found.append(f"{path}: {len(value)} items")
            for index, item in enumerate(value):
                found += self.errors(schema.get("items", {}), item, f"{path}[{index}]")
        elif isinstance(value, dict):
            properties = schema.get("properties", {})
            found += [f"{path}.{name} is missing" for name in schema.get("required", []) if name not in value]
            if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
                found.append(f"{path}: {len(value)} members")
            for name, member in value.items():
                if name in properties:
                    found += self.errors(properties[name], member, f"{path}.{name}")
                elif schema.get("additionalProperties") is False:
                    found.append(f"{path}.{name} is too much")
                else:
                    found += self.errors(schema.get("propertyNames", {}), name, f"{path}.{name}")
                    if isinstance(schema.get("additionalProperties"), dict):
                        found += self.errors(schema["additionalProperties"], member, f"{path}.{name}")
        return found
