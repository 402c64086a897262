"""What a route is: its handler and, in types, what it takes and answers; OpenAPI is generated from the same."""

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar, get_args, get_origin
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.services import SERVICES, Services
from ledger.domain.errors import Malformed

S = TypeVar("S", bound=msgspec.Struct)

Handler = Callable[[web.Request, Services], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    """One method of one path.

    `query` is the struct of the query parameters; `answers` says what each status returns: a type, or a tuple of
    types any of which it may be. `problems` are the slugs of the errors it may answer.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answers: dict[int, Any]
    query: type[msgspec.Struct] | None = None
    body: Any = None
    problems: tuple[str, ...] = ()

    def definition(self) -> web.RouteDef:
        """The route as aiohttp takes it."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if self.query is None and request.query:
                raise Malformed(f"unknown query parameter {next(iter(request.query))!r}")
            return await self.handler(request, request.app[SERVICES])

        options: dict[str, Any] = {"allow_head": False} if self.method == "GET" else {}
        return web.RouteDef(self.method, self.path, handle, options)


def read_query(request: web.Request, query: type[S]) -> S:
    """Read the query parameters into a struct; lists are comma-separated, with a backslash before a literal comma.

    Raises:
        Malformed: an unknown, repeated or unreadable parameter.
    """
    given: dict[str, Any] = {}
    lists = _list_fields(query)
    for name, value in request.query.items():
        if name in given:
            raise Malformed(f"query parameter {name!r} is given twice; separate several values with commas")
        if "\0" in value:
            raise Malformed(f"query parameter {name!r} holds a NUL character")
        given[name] = _split(value) if name in lists else value
    try:
        return msgspec.convert(given, query, strict=False)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise Malformed(f"query parameter: {str(error).replace('Object contains unknown field', 'unknown')}") from None


@cache
def _list_fields(query: type[msgspec.Struct]) -> frozenset[str]:
    fields = msgspec.structs.fields(query)
    return frozenset(
        field.encode_name
        for field in fields
        if any(get_origin(part) is tuple for part in (field.type, *get_args(field.type)))
    )


def _split(value: str) -> list[str]:
    parts = value.replace("\\,", "\0").split(",")
    return [part.replace("\0", ",") for part in parts]


def path_uuid(request: web.Request, name: str = "id") -> UUID:
    """Read a UUID from the path; raises `Malformed`."""
    try:
        return msgspec.convert(request.match_info[name], UUID)
    except msgspec.ValidationError:
        raise Malformed(f"{request.match_info[name]!r} in the path is not a UUID") from None


def json_response(answer: Any, *, status: int = 200, position: int | None = None) -> web.Response:
    """Answer with JSON; reads of read models carry the position they reflect."""
    headers = {"Ledger-Position": str(position)} if position is not None else None
    return web.Response(
        body=msgspec.json.encode(answer), status=status, content_type="application/json", headers=headers
    )
