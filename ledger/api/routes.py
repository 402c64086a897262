"""Route: a handler, its parameters, responses, problems and permission; authentication and dispatch.

The OpenAPI document is generated from the same routes.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER, NEEDS, authenticate
from ledger.api.client_connections import ClientConnection
from ledger.api.heavy_reads import TURNS
from ledger.api.replica import WAIT_SECONDS_MAX, Replica
from ledger.api.services import SERVICES, Handler, Services
from ledger.domain.access import Permission
from ledger.domain.errors import LedgerError, Malformed, Overloaded
from ledger.logging_setup import REQUEST_CONTEXT

JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
PLAIN = "text/plain"
OCTETS = "application/octet-stream"


def never(_: web.Request) -> bool:
    """No request of the route is heavy."""
    return False


def always(_: web.Request) -> bool:
    """Every request of the route is heavy."""
    return True


class Route(NamedTuple):
    """One method of one path.

    Attributes:
        responses: the type of the response with each status, or a tuple if it is one of several.
        query: the struct of the query parameters.
        problems: slugs of the problems that it may return, besides those of every route.
        headers: optional request headers that it reads.
        media: the media types of its responses.
        needs: the permission that a caller needs; None: no authentication.
        from_replica: whether the replica may serve it; then the handler reads from `services.read_database`.
        is_heavy: whether a request may cost much time; then the handler works in turns (`heavy_reads.py`).
        description: details for the OpenAPI document, in sentences.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    responses: dict[int, Any]
    query: type[msgspec.Struct] | None = None
    body: Any = None
    problems: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    media: tuple[str, ...] = (JSON,)
    needs: Permission | None = "read"
    from_replica: bool = False
    is_heavy: Callable[[web.Request], bool] = never
    description: str = ""

    def definition(self, paths: Iterable[str]) -> web.RouteDef:
        """Return the aiohttp definition of the route, one of several with these paths."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await _dispatch(self, request)

        # With a GET, aiohttp registers the HEAD of the path too.
        return web.RouteDef(self.method, _pattern(self.path, paths), handle, {})


def _pattern(path: str, paths: Iterable[str]) -> str:
    """Return the aiohttp pattern of a path: the `{id}` of /v1/prices/{id} is not the `quote` of /v1/prices/quote."""
    start, _, parameter = path.rpartition("/")
    if parameter == "{tile}":
        # A tile's path has several segments.
        return f"{start}/{{tile:.+}}"
    siblings = (other.removeprefix(f"{start}/") for other in paths if other.startswith(f"{start}/"))
    words = [name for name in siblings if "/" not in name and "{" not in name]
    if not words or not parameter.startswith("{"):
        return path
    return f"{start}/{{{parameter[1:-1]}:(?!(?:{'|'.join(words)})$)[^/]+}}"


def json_response(content: Any, *, status: int = 200, position: int | None = None) -> web.Response:
    """Make a JSON response.

    Args:
        content: a struct, dict or list that msgspec can encode.
        status: the HTTP status.
        position: the position that the content reflects, for the header `Ledger-Position`.

    Returns:
        The response.
    """
    headers = {"Ledger-Position": str(position)} if position is not None else None
    return web.Response(body=msgspec.json.encode(content), status=status, content_type=JSON, headers=headers)


async def _dispatch(route: Route, request: web.Request) -> web.StreamResponse:
    """Authenticate the caller, count the request against the rate limit, and call the handler."""
    services = request.app[SERVICES]
    headers: dict[str, str] = {}
    if route.needs is not None:
        request[NEEDS] = route.needs
        request[CALLER] = caller = await authenticate(request, services, route.needs)
        cast(ClientConnection, request.protocol).mark_authenticated(caller.name)
        if (context := REQUEST_CONTEXT.get()) is not None:
            context["key"] = caller.name
        headers = services.rate_limits.count(caller.name) if services.rate_limits is not None else headers
    # The query string "&" has no parameters.
    if route.query is None and request.query_string and request.query:
        raise Malformed(f"unknown query parameter {next(iter(request.query))!r}")
    if route.is_heavy(request):
        async with services.heavy_reads.admit(request[CALLER].name) as request[TURNS]:
            response = await _respond(route, request, services)
    else:
        response = await _respond(route, request, services)
    if headers and not response.prepared:
        response.headers.update(headers)
    return response


async def _respond(route: Route, request: web.Request, services: Services) -> web.StreamResponse:
    if route.from_replica and services.replica is not None:
        return await _respond_from_replica(route.handler, request, services, services.replica)
    return await route.handler(request, services)


async def _respond_from_replica(
    handler: Handler, request: web.Request, services: Services, replica: Replica
) -> web.StreamResponse:
    """Call a handler on the replica; if it raises, call it on the primary."""
    started = time.monotonic()
    if await replica.is_available():
        try:
            on_replica = services._replace(
                read_database=replica.database, read_models=replica.read_models, wait_seconds_max=WAIT_SECONDS_MAX
            )
            return await handler(request, on_replica)
        except Overloaded:
            raise
        except LedgerError:
            # Replication lag may be the only reason.
            pass
        except Exception as error:
            if request.transport is None or request.transport.is_closing():
                raise
            replica.record_result(error)
    remaining = max(0.0, services.wait_seconds_max - (time.monotonic() - started))
    return await handler(request, services._replace(wait_seconds_max=remaining))
