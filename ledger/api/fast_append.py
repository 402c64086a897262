"""The fast path of POST /v1/events: plain requests bypass aiohttp's router and middleware.

These take two fifths of the processor time of a single append. A request takes the fast path only if its head and body
arrived together, it is small, and nothing about it is unusual or wrong. aiohttp handles every other request, including
all that are refused before they are judged. Both paths use the same functions to decode, authorize, limit, judge and
report problems; `tests/api/test_fast_append.py` checks that their responses are equal. If every request is logged
(level debug), aiohttp handles them all.
"""

import asyncio
from functools import partial
from typing import NamedTuple, Protocol

import msgspec
from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from ledger.api import problems
from ledger.api.append import append_result, idempotency_key
from ledger.api.event_decoding import LARGE_EVENTS_MIN
from ledger.api.middleware import NO_STORE, SECURITY_HEADERS, error_response, is_access_logged, request_id_of
from ledger.api.plain_request import parse_plain_post
from ledger.api.services import Services
from ledger.domain.access import LOCAL, Caller
from ledger.domain.errors import LedgerError, Refused
from ledger.domain.event import Candidate, Request
from ledger.domain.judge import Verdict
from ledger.log.decode import split_body
from ledger.log.submit import decode_each
from ledger.logging_setup import REQUEST_CONTEXT

PATH = "/v1/events"

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
    key: str
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
        parsed = parse_plain_post(data, PATH)
        if parsed is None or is_access_logged():
            return False
        headers, body = parsed
        caller = self._authenticated(headers.get(b"authorization"))
        if caller is None or not caller.may("append") or self._is_over_rate_limit(caller):
            return False
        try:
            texts, is_batch = split_body(body, ndjson=False)
            key = idempotency_key(_text(headers.get(b"idempotency-key")))
            candidates = _decode(texts, caller, key)
            connection.mark_authenticated(caller.name)
        except Exception:  # noqa: BLE001 (the ordinary path meets the error again, and reports it)
            return False
        if not candidates:
            return False
        request_id = request_id_of(_text(headers.get(b"x-request-id")))
        self._submit(_Taken(connection, caller.name, request_id, {}, len(candidates), is_batch), candidates)
        return True

    def _authenticated(self, authorization: bytes | None) -> Caller | None:
        if self._services.keys is None:
            return LOCAL
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            return None
        return self._services.keys.find_cached(key.strip().decode())

    def _is_over_rate_limit(self, caller: Caller) -> bool:
        return self._services.rate_limits is not None and self._services.rate_limits.is_exceeded(caller.name)

    def _submit(self, taken: _Taken, candidates: list[Candidate]) -> None:
        try:
            if self._services.rate_limits is not None:
                taken = taken._replace(headers=self._services.rate_limits.count(taken.key))
            answer = self._services.appender.submit(Request(candidates))
        except LedgerError as error:
            self._write(taken, problems.response(error))
        else:
            answer.add_done_callback(partial(self._respond, taken))

    def _respond(self, taken: _Taken, answer: "asyncio.Future[Verdict]") -> None:
        try:
            result = append_result(answer.result(), taken.events)
        except Exception as error:  # noqa: BLE001 (every error has a problem document)
            # A callback has its own context.
            REQUEST_CONTEXT.set({"request_id": taken.request_id, "key": taken.key})
            self._write(taken, error_response(error, "POST", PATH))
            return
        if isinstance(result, Refused):
            self._services.telemetry.count_refusal(result.slug)
            response = problems.response(result, result.index if taken.is_batch else None)
            response.headers.update(taken.headers)
            self._write(taken, response)
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
        headers = {**response.headers, "X-Request-ID": taken.request_id}
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


def _decode(texts: list[bytes], caller: Caller, key: str | None) -> list[Candidate]:
    """Return the candidates; none if there are many events or one is invalid: then aiohttp decodes them in slices."""
    candidates: list[Candidate] = []
    if len(texts) < LARGE_EVENTS_MIN:
        for decoded in decode_each(texts, caller, key):
            if not isinstance(decoded, Candidate):
                return []
            candidates.append(decoded)
    return candidates


def _lines(headers: dict[str, str]) -> bytes:
    return b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())


def _text(value: bytes | None) -> str | None:
    return value.decode() if value is not None else None
