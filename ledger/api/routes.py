"""What a route is: its handler and, in types, what it takes and answers; OpenAPI is generated from the same."""

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import inspect

from ledger.api.auth import CALLER, authenticate
from ledger.api.services import SERVICES, Services
from ledger.domain.access import Permission
from ledger.domain.codec import utc
from ledger.domain.errors import Malformed
from ledger.logging_setup import ABOUT

S = TypeVar("S", bound=msgspec.Struct)

JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
PLAIN = "text/plain"
OCTETS = "application/octet-stream"

Handler = Callable[[web.Request, Services], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    """One method of one path.

    `query` is the struct of the query parameters; `answers` says what each status returns: a type, or a tuple of
    types any of which it may be. `problems` are the slugs of the errors it may answer, `headers` the optional
    request headers it heeds, `media` the media types in which it answers. `needs` is what the caller must be allowed;
    None: open to everybody. `from_replica`: its handler reads by `services.reads`.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answers: dict[int, Any]
    query: type[msgspec.Struct] | None = None
    body: Any = None
    problems: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    media: tuple[str, ...] = (JSON,)
    needs: Permission | None = "read"
    from_replica: bool = False

    def definition(self) -> web.RouteDef:
        """The route as aiohttp takes it."""

        async def handle(request: web.Request) -> web.StreamResponse:
            services = request.app[SERVICES]
            headers: dict[str, str] = {}
            if self.needs is not None:
                request[CALLER] = caller = await authenticate(request, services, self.needs)
                if (about := ABOUT.get()) is not None:
                    about["key"] = caller.name
                headers = services.rates.count(caller.name) if services.rates is not None else headers
            # "?&" is a query string without parameters.
            if self.query is None and request.query_string and request.query:
                raise Malformed(f"unknown query parameter {next(iter(request.query))!r}")
            if self.from_replica and services.replica is not None:
                answer = await services.replica.answer(self.handler, request, services)
            else:
                answer = await self.handler(request, services)
            if headers and not answer.prepared:
                answer.headers.update(headers)
            return answer

        options: dict[str, Any] = {"allow_head": False} if self.method == "GET" else {}
        # A tile's path goes over several segments.
        path = self.path.replace("{tile}", "{tile:.+}")
        return web.RouteDef(self.method, path, handle, options)


def read_query(request: web.Request, query: type[S]) -> S:
    """Read the query parameters into a struct; lists are comma-separated, with a backslash before a literal comma.

    Raises:
        Malformed: an unknown, repeated or unreadable parameter.
    """
    if not request.query_string and not _requires_some(query):
        return query()
    given: dict[str, Any] = {}
    kinds = _kinds(query)
    for name, value in request.query.items():
        if name in given:
            raise Malformed(f"query parameter {name!r} is given twice; separate several values with commas")
        kind = kinds.get(name, object)
        # Reading leniently, msgspec would also take "null" for nothing, "1.0" for 1 and "2025" for a time.
        is_list = kind is inspect.VarTupleType
        unlike = kind in _FORMS and not _FORMS[kind].fullmatch(value)
        if "\0" in value or unlike or (value.lower() == "null" and not is_list):
            raise Malformed(f"query parameter {name!r} cannot be {value!r}")
        given[name] = _split(value) if is_list else value
    try:
        found = msgspec.convert(given, query, strict=False)
        for name, kind in kinds.items():
            if kind is inspect.DateTimeType and name in given:
                utc(name, msgspec.convert(given[name], datetime))
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise Malformed(f"query parameter: {str(error).replace('Object contains unknown field', 'unknown')}") from None
    return found


@cache
def _requires_some(query: type[msgspec.Struct]) -> bool:
    return any(field.required for field in msgspec.structs.fields(query))


_FORMS: dict[type, re.Pattern[str]] = {
    inspect.IntType: re.compile(r"-?[0-9]{1,19}"),
    inspect.DateTimeType: re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*"),
}


@cache
def _kinds(query: type[msgspec.Struct]) -> dict[str, type]:
    """What msgspec takes each field for, beside null."""
    return {field.encode_name: _kind(inspect.type_info(field.type)) for field in msgspec.structs.fields(query)}


def _kind(info: inspect.Type) -> type:
    choices = info.types if isinstance(info, inspect.UnionType) else (info,)
    return next(type(choice) for choice in choices if not isinstance(choice, inspect.NoneType))


def _split(value: str) -> list[str]:
    parts = value.replace("\\,", "\0").split(",")
    return [part.replace("\0", ",") for part in parts]


def path_uuid(request: web.Request, name: str = "id") -> UUID:
    """Read a UUID from the path; raises `Malformed`."""
    try:
        return msgspec.convert(request.match_info[name], UUID)
    except msgspec.ValidationError:
        raise Malformed(f"{request.match_info[name]!r} in the path is not a UUID") from None


def read_position(text: str, where: str) -> int:
    """Read a position from a path or a header; raises `Malformed`."""
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or int(text) >= 2**63:
        raise Malformed(f"{text[:50]!r} in {where} is not a position")
    return int(text)


def json_response(answer: Any, *, status: int = 200, position: int | None = None) -> web.Response:
    """Answer with JSON; reads of read models carry the position they reflect."""
    headers = {"Ledger-Position": str(position)} if position is not None else None
    return web.Response(
        body=msgspec.json.encode(answer), status=status, content_type="application/json", headers=headers
    )
