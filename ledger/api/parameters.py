"""Read query parameters, path parameters and positions strictly: unknown or malformed ones are 400."""

import re
from datetime import datetime
from functools import cache
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import inspect
from yarl import URL

from ledger.domain.codec import utc
from ledger.domain.errors import Malformed

POSITION_MAX = 2**63 - 1

Position = Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)]
"""A position in the log; 0 is before the first event."""

S = TypeVar("S", bound=msgspec.Struct)

LABEL_PREFIX = "label."
LABEL_KEY = "[a-z][a-z0-9_.-]{0,62}"

_LABEL = re.compile(re.escape(LABEL_PREFIX) + f"({LABEL_KEY})", re.ASCII)

_FORMS: dict[type, re.Pattern[str]] = {
    inspect.BoolType: re.compile(r"true|false"),
    inspect.IntType: re.compile(r"-?[0-9]{1,19}"),
    inspect.DateTimeType: re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*"),
}


def read_query(request: web.Request, query: type[S]) -> S:
    """Read the query parameters into a struct; lists are comma-separated, with a backslash before a literal comma.

    Raises:
        Malformed: a parameter is unknown, repeated, missing or unreadable.
    """
    return parse_query(request.rel_url, query)


def parse_query(url: URL, query: type[S]) -> S:
    """Read the query parameters of a URL; see `read_query`."""
    if not url.raw_query_string and not _has_required_fields(query):
        return query()
    _require_utf8(url.raw_query_string)
    given: dict[str, Any] = {}
    names: set[str] = set()
    kinds = _kinds(query)
    for name, value in url.query.items():
        if name in names:
            raise Malformed(f"query parameter {name!r} is given twice; separate several values with commas")
        names.add(name)
        kind = kinds.get(name, object)
        # Lenient conversion by msgspec would also read "null" as None, "1.0" as 1 and "2025" as a time.
        is_label = "labels" in kinds and name.startswith(LABEL_PREFIX)
        is_list = is_label or kind is inspect.VarTupleType
        unlike = kind in _FORMS and not _FORMS[kind].fullmatch(value)
        if "\0" in value or unlike or (value.lower() == "null" and not is_list):
            raise Malformed(f"query parameter {name!r} cannot be {value!r}")
        if is_label:
            given.setdefault("labels", {})[_label_key(name)] = _split(value)
        else:
            given[name] = _split(value) if is_list else value
    try:
        found = msgspec.convert(given, query, strict=False)
        for name, kind in kinds.items():
            if kind is inspect.DateTimeType and name in given:
                utc(name, msgspec.convert(given[name], datetime))
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise Malformed(f"query parameter: {str(error).replace('Object contains unknown field', 'unknown')}") from None
    return found


def path_uuid(request: web.Request, name: str = "id") -> UUID:
    """Read a UUID from the path; raises `Malformed`."""
    try:
        return msgspec.convert(request.match_info[name], UUID)
    except msgspec.ValidationError:
        raise Malformed(f"{request.match_info[name]!r} in the path is not a UUID") from None


def read_header(request: web.Request, name: str) -> str | None:
    """Return the value of a header that has one value; raise `Malformed` if it is given twice."""
    values = request.headers.getall(name, ())
    if len(values) > 1:
        raise Malformed(f"the header {name} is given {len(values)} times")
    return values[0] if values else None


def read_position(text: str, source: str) -> int:
    """Read a position from a path or a header, named `source` in the error; raises `Malformed`."""
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or int(text) > POSITION_MAX:
        raise Malformed(f"{text[:50]!r} in {source} is not a position")
    return int(text)


def _require_utf8(query_string: str) -> None:
    """Raise `Malformed` if a query is not UTF-8; decoding it would replace the invalid bytes."""
    try:
        unquote_to_bytes(query_string).decode()
    except UnicodeError:
        raise Malformed("the query is not valid UTF-8") from None


@cache
def _has_required_fields(query: type[msgspec.Struct]) -> bool:
    return any(field.required for field in msgspec.structs.fields(query))


@cache
def _kinds(query: type[msgspec.Struct]) -> dict[str, type]:
    """Return the msgspec type of each field, without None."""
    return {field.encode_name: _kind(inspect.type_info(field.type)) for field in msgspec.structs.fields(query)}


def _kind(info: inspect.Type) -> type:
    choices = info.types if isinstance(info, inspect.UnionType) else (info,)
    return next(type(choice) for choice in choices if not isinstance(choice, inspect.NoneType))


def _label_key(name: str) -> str:
    label = _LABEL.fullmatch(name)
    if label is None:
        raise Malformed(f"query parameter {name[:80]!r} is not the name of a label: lower-case letters, digits, _ . -")
    return label[1]


def _split(value: str) -> list[str]:
    parts = value.replace("\\,", "\0").split(",")
    return [part.replace("\0", ",") for part in parts]
