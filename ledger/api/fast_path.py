"""Functions of the fast paths, which handle plain requests without aiohttp's router and middleware.

A request takes a fast path only if it is plain (`plain_request.py`) and nothing about it is unusual or wrong. aiohttp
handles every other request. Both ways use the same functions to authorize, limit and report problems, and tests check
that their responses are equal.
"""

from asyncio import Task
from typing import Any, NamedTuple, Protocol

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from ledger.api.local_requests import is_plainly_local
from ledger.api.middleware import NO_STORE, SECURITY_HEADERS, request_id_of
from ledger.api.services import Services
from ledger.domain.access import LOCAL, Caller, Permission
from ledger.domain.errors import Overloaded

_STATUS_LINES = {201: b"HTTP/1.1 201 Created\r\n", 200: b"HTTP/1.1 200 OK\r\n"}
_FIXED_HEADERS = b"".join(
    f"{name}: {value}\r\n".encode() for name, value in {**SECURITY_HEADERS, "Cache-Control": NO_STORE}.items()
)


class Connection(Protocol):
    """The methods of a client connection that a fast path uses."""

    def mark_authenticated(self, key: str) -> None:
        """Count the connection for the key of a valid request. Raises `Overloaded`."""

    def write_response(self, response: bytes) -> None:
        """Write a whole response, if the client is still connected."""

    def cancel_when_lost(self, task: Task[Any]) -> None:
        """Cancel the task that handles the request if the client disconnects before the response."""


class FastRequest(NamedTuple):
    """A request, as its response needs it; `headers` are those of the rate limit."""

    connection: Connection
    route: str
    key: str
    request_id: str
    headers: dict[str, str]


def find_caller(services: Services, headers: dict[bytes, bytes], needs: Permission) -> Caller | None:
    """Return the caller of a request, if its key is cached, has the permission, and is not over its rate limit.

    Without keys: if the request is plainly local.
    """
    if services.keys is None:
        return LOCAL if is_plainly_local(headers, has_body=needs == "append") else None
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not key:
        return None
    caller = services.keys.find_cached(key.strip().decode())
    if caller is None or not caller.may(needs):
        return None
    is_over_limit = services.rate_limits is not None and services.rate_limits.is_exceeded(caller.name)
    return None if is_over_limit else caller


def accept(
    services: Services, connection: Connection, route: str, key: str, headers: dict[bytes, bytes]
) -> FastRequest | None:
    """Count a request against the shares and the rate limit of its key, and return what the response needs.

    Args:
        services: the parts of the running service.
        connection: of the request.
        route: the route, for the metrics.
        key: the name of the key.
        headers: of the request.

    Returns:
        None if the key has its share of connections already.
    """
    try:
        connection.mark_authenticated(key)
    except Overloaded:
        return None
    counted = services.rate_limits.count(key) if services.rate_limits is not None else {}
    return FastRequest(connection, route, key, request_id_of(text(headers.get(b"x-request-id"))), counted)


def write_json(
    request: FastRequest, status: int, body: bytes, position: int, more: dict[str, str] | None = None
) -> None:
    """Write a JSON response.

    Args:
        request: the request.
        status: 200 or 201.
        body: the JSON.
        position: the position that the body reflects, for the header `Ledger-Position`.
        more: further headers.
    """
    request.connection.write_response(
        b"%bLedger-Position: %d\r\nContent-Type: application/json\r\n%b%b%bX-Request-ID: %b\r\n"
        b"Content-Length: %d\r\nDate: %b\r\n\r\n%b"
        % (
            _STATUS_LINES[status],
            position,
            _lines(more) if more else b"",
            _lines(request.headers),
            _FIXED_HEADERS,
            request.request_id.encode(),
            len(body),
            rfc822_formatted_time().encode(),
            body,
        )
    )


def write(request: FastRequest, response: web.Response) -> None:
    """Write a response object as aiohttp would."""
    body = response.body
    assert isinstance(body, bytes)
    headers = {**response.headers, "X-Request-ID": request.request_id}
    request.connection.write_response(
        b"HTTP/1.1 %d %b\r\n%b%bContent-Length: %d\r\nDate: %b\r\n\r\n%b"
        % (
            response.status,
            response.reason.encode(),
            _lines(headers),
            _FIXED_HEADERS,
            len(body),
            rfc822_formatted_time().encode(),
            body,
        )
    )


def text(value: bytes | None) -> str | None:
    """Return the value of a header as text."""
    return value.decode() if value is not None else None


def _lines(headers: dict[str, str]) -> bytes:
    return b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
