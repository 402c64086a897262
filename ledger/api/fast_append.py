"""The fast path of POST /v1/events: plain requests bypass aiohttp's router and middleware.

These take two fifths of the processor time of a single append. A request takes the fast path only if its head and body
arrived together, it is small, and nothing about it is unusual or wrong. aiohttp handles every other request, including
all that are refused before they are judged. Both paths use the same functions to decode, authorize, limit, judge and
report problems; `tests/api/test_fast_append.py` checks that their responses are equal.
"""

import asyncio
import re
from functools import partial
from typing import NamedTuple, Protocol

import msgspec
from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from ledger.api import problems
from ledger.api.append import append_result, idempotency_key
from ledger.api.middleware import NO_STORE, SECURITY_HEADERS, error_response, request_id_of
from ledger.api.services import Services
from ledger.domain.access import LOCAL, Caller
from ledger.domain.errors import LedgerError, Refused
from ledger.domain.event import Candidate, Request
from ledger.domain.judge import Verdict
from ledger.log.decode import split_body
from ledger.log.submit import decode_each

REQUEST_BYTES_MAX = 64 * 1024
HEADERS_MAX = 50

PATH = "/v1/events"

_REQUEST_LINE = f"POST {PATH} HTTP/1.1\r\n".encode()
# A name, and a value of printable ASCII without spaces around it.
_HEADER = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)\r\n")
_LENGTH = re.compile(rb"[0-9]{1,6}")
_LEFT_TO_AIOHTTP = frozenset(
    (b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"te", b"trailer", b"http2-settings")
)
_STATUS_LINES = {201: b"HTTP/1.1 201 Created\r\n", 200: b"HTTP/1.1 200 OK\r\n"}
_FIXED_HEADERS = b"".join(
    f"{name}: {value}\r\n".encode() for name, value in {**SECURITY_HEADERS, "Cache-Control": NO_STORE}.items()
)


class Connection(Protocol):
    """What the fast path needs of a client connection."""

    def mark_authenticated(self, key: str) -> None:
        """Count the connection for the key of a valid request. Raises `Overloaded`."""

    def write_response(self, response: bytes) -> None:
        """Write a whole response, if the client is still there."""


class _Taken(NamedTuple):
    """What the response to a request needs to know of it."""

    connection: Connection
    request_id: str
    headers: dict[str, str]
    events: int
    is_batch: bool


class FastAppend:
    """Takes requests from all connections of a process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def take(self, data: bytes, connection: Connection) -> bool:
        """Take a request if it is complete and plain.

        Args:
            data: received by the connection while it was idle.
            connection: its `write_response` is called once, during this call or later.

        Returns:
            whether the request was taken. If not, aiohttp has to handle the data.
        """
        parsed = _parse(data)
        if parsed is None:
            return False
        headers, body = parsed
        caller = self._authenticated(headers.get(b"authorization"))
        if caller is None or not caller.may("append"):
            return False
        try:
            texts, is_batch = split_body(body, ndjson=False)
            decoded = list(decode_each(texts, caller, idempotency_key(_text(headers.get(b"idempotency-key")))))
            connection.mark_authenticated(caller.name)
        except LedgerError:
            return False
        candidates = [one for one in decoded if isinstance(one, Candidate)]
        if len(candidates) < len(decoded):
            return False
        request_id = request_id_of(_text(headers.get(b"x-request-id")))
        self._submit(_Taken(connection, request_id, {}, len(candidates), is_batch), caller, candidates)
        return True

    def _authenticated(self, authorization: bytes | None) -> Caller | None:
        if self._services.keys is None:
            return LOCAL
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            return None
        return self._services.keys.find_cached(key.strip().decode())

    def _submit(self, taken: _Taken, caller: Caller, candidates: list[Candidate]) -> None:
        try:
            if self._services.rate_limits is not None:
                taken = taken._replace(headers=self._services.rate_limits.count(caller.name))
            answer = self._services.appender.submit(Request(candidates))
        except LedgerError as error:
            self._write(taken, problems.response(error))
        else:
            answer.add_done_callback(partial(self._respond, taken))

    def _respond(self, taken: _Taken, answer: "asyncio.Future[Verdict]") -> None:
        try:
            result = append_result(answer.result(), taken.events)
        except Exception as error:  # noqa: BLE001 (every error has a problem document)
            self._write(taken, error_response(error, "POST", PATH))
            return
        if isinstance(result, Refused):
            self._services.telemetry.count_refusal(result.slug)
            self._write(taken, problems.response(result, result.index if taken.is_batch else None))
            return
        body = msgspec.json.encode(result.answer)
        taken.connection.write_response(
            b"%bLedger-Position: %d\r\nContent-Type: application/json\r\n%b%bX-Request-ID: %b\r\n"
            b"Content-Length: %d\r\nDate: %b\r\n\r\n%b"
            % (
                _STATUS_LINES[result.status],
                result.answer.position,
                _lines(taken.headers),
                _FIXED_HEADERS,
                taken.request_id.encode(),
                len(body),
                rfc822_formatted_time().encode(),
                body,
            )
        )
        self._count(result.status)

    def _write(self, taken: _Taken, response: web.Response) -> None:
        """Write a response object as aiohttp would."""
        body = response.body
        assert isinstance(body, bytes)
        headers = {**response.headers, **taken.headers, "X-Request-ID": taken.request_id}
        taken.connection.write_response(
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
        self._count(response.status)

    def _count(self, status: int) -> None:
        self._services.telemetry.count_request("POST", PATH, status)


def _parse(data: bytes) -> tuple[dict[bytes, bytes], bytes] | None:
    """Return the headers and the body of a complete, plain request; None: aiohttp has to handle it."""
    if len(data) > REQUEST_BYTES_MAX or not data.startswith(_REQUEST_LINE):
        return None
    headers: dict[bytes, bytes] = {}
    place = len(_REQUEST_LINE)
    while data[place : place + 2] != b"\r\n":
        found = _HEADER.match(data, place)
        if found is None or len(headers) == HEADERS_MAX:
            return None
        name = found[1].lower()
        if name in headers or name in _LEFT_TO_AIOHTTP:
            return None
        headers[name] = found[2]
        place = found.end()
    body = data[place + 2 :]
    length = headers.get(b"content-length", b"")
    if not _LENGTH.fullmatch(length) or int(length) != len(body) or b"host" not in headers:
        return None
    if headers.get(b"content-type", b"application/json") != b"application/json":
        return None
    if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    return headers, body


def _lines(headers: dict[str, str]) -> bytes:
    return b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())


def _text(value: bytes | None) -> str | None:
    return value.decode() if value is not None else None
