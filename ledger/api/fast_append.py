"""The fast path of POST /v1/events (see `fast_path.py`).

aiohttp's router and middleware take two fifths of the processor time of a single append. A request takes the fast path
only if its head and body arrived together, and it is small. aiohttp handles all that are refused before they are
judged. If every request is logged (level debug), aiohttp handles them all.
"""

import asyncio
from functools import partial
from typing import NamedTuple

import msgspec
from aiohttp import web

from ledger.api import problems
from ledger.api.append import append_result, idempotency_key
from ledger.api.event_decoding import LARGE_EVENTS_MIN
from ledger.api.fast_path import Connection, FastRequest, accept, find_caller, text, write, write_json
from ledger.api.middleware import error_response, is_access_logged
from ledger.api.plain_request import parse_plain_post
from ledger.api.services import Services
from ledger.domain.access import Caller
from ledger.domain.errors import LedgerError, Refused
from ledger.domain.event import Candidate, Request
from ledger.domain.judge import Verdict
from ledger.log.idempotency import IdempotencyKey
from ledger.log.request_body import split_body
from ledger.log.submit import decode_each
from ledger.logging_setup import REQUEST_CONTEXT

PATH = "/v1/events"


class _Append(NamedTuple):
    """A request, its number of events, and whether they came as an array."""

    request: FastRequest
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
        try:
            caller = find_caller(self._services, headers, "append")
            if caller is None:
                return False
            texts, is_batch = split_body(body, ndjson=False)
            key = None
            if (header := idempotency_key(text(headers.get(b"idempotency-key")))) is not None:
                key = self._services.idempotency_keys.find(caller.name, header)
                if key is None:
                    return False
            candidates = _decode(texts, caller, key)
            claim = key.claim(list(key.contents(candidates))) if key is not None else None
            request = accept(self._services, connection, PATH, caller.name, headers) if candidates else None
        except Exception:  # noqa: BLE001 (the ordinary path meets the error again, and reports it)
            return False
        if request is None:
            return False
        self._submit(_Append(request, len(candidates), is_batch), Request(candidates, claim=claim))
        return True

    def _submit(self, taken: _Append, request: Request) -> None:
        try:
            answer = self._services.appender.submit(request)
        except LedgerError as error:
            self._respond_with_error(taken.request, error)
        else:
            answer.add_done_callback(partial(self._respond, taken))

    def _respond(self, taken: _Append, answer: "asyncio.Future[Verdict]") -> None:
        request = taken.request
        try:
            result = append_result(answer.result(), taken.events)
        except Exception as error:  # noqa: BLE001 (every error has a problem document)
            # A callback has its own context.
            REQUEST_CONTEXT.set({"request_id": request.request_id, "key": request.key})
            self._respond_with_error(request, error)
            return
        if isinstance(result, Refused):
            self._services.telemetry.count_refusal(result.slug)
            response = problems.response(result, result.index if taken.is_batch else None)
            response.headers.update(request.headers)
            self._write(request, response)
        else:
            write_json(request, result.status, msgspec.json.encode(result.answer), result.answer.position)
            self._count(result.status)

    def _respond_with_error(self, request: FastRequest, error: Exception) -> None:
        self._write(request, error_response(error, "POST", PATH))

    def _write(self, request: FastRequest, response: web.Response) -> None:
        write(request, response)
        self._count(response.status)

    def _count(self, status: int) -> None:
        self._services.telemetry.count_request("POST", PATH, status)


def _decode(texts: list[bytes], caller: Caller, key: IdempotencyKey | None) -> list[Candidate]:
    """Return the candidates; none if there are many events or one is invalid: then aiohttp decodes them in slices."""
    candidates: list[Candidate] = []
    if len(texts) < LARGE_EVENTS_MIN:
        for decoded in decode_each(texts, caller, key):
            if not isinstance(decoded, Candidate):
                return []
            candidates.append(decoded)
    return candidates
