"""POST /v1/events: append events, atomically or each separately."""

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from ledger.api import problems
from ledger.api.auth import CALLER
from ledger.api.parameters import read_query
from ledger.api.routes import Route, json_response
from ledger.api.services import Services
from ledger.domain.access import Caller
from ledger.domain.errors import InvalidEvent, LedgerError, Malformed, Refused
from ledger.domain.event import Candidate, Receipt, Request
from ledger.log.decode import AnyEvent, split_body
from ledger.log.submit import append_each, decode_each

IDEMPOTENCY_KEY_CHARACTERS_MAX = 255


class AppendQuery(msgspec.Struct, forbid_unknown_fields=True):
    """`independent`: each event is judged by itself; otherwise all or nothing."""

    mode: Literal["atomic", "independent"] = "atomic"


class Appended(msgspec.Struct):
    """Every event is in the log; `position` is the highest of them."""

    position: int
    events: list[Receipt]


_RESULTS = [{"$ref": f"#/components/schemas/{name}"} for name in ("Receipt", "Problem")]


class IndependentResults(msgspec.Struct):
    """Each event's receipt or problem, in the order of the request; `position` is the highest recorded, or 0."""

    position: int
    results: Annotated[list[Any], msgspec.Meta(extra_json_schema={"items": {"anyOf": _RESULTS}})]


async def append_events(request: web.Request, services: Services) -> web.StreamResponse:
    """Record events."""
    query = read_query(request, AppendQuery)
    async with services.request_bodies.read(request) as body:
        texts, is_batch = split_body(body, ndjson=request.content_type == "application/x-ndjson")
        key = _idempotency_key(request)
        if query.mode == "independent":
            return await _append_independent(services, texts, request[CALLER], key)
        return await _append_atomic(services, texts, request[CALLER], key, is_batch)


async def _append_atomic(
    services: Services, texts: list[bytes], caller: Caller, key: str | None, is_batch: bool
) -> web.StreamResponse:
    candidates: list[Candidate] = []
    errors: list[dict[str, Any]] = []
    for index, decoded in enumerate(decode_each(texts, caller, key)):
        match decoded:
            case Candidate():
                candidates.append(decoded)
            case InvalidEvent():
                errors += decoded.errors
            case _:
                return problems.response(decoded, index if is_batch else None)
    if errors:
        return problems.response(InvalidEvent(errors), errors[0]["index"] if is_batch else None)
    verdict = await services.appender.append(Request(candidates))
    receipts = [receipt for receipt in verdict if isinstance(receipt, Receipt)]
    if len(receipts) < len(candidates):
        refusal = verdict[0]
        assert isinstance(refusal, Refused)
        services.telemetry.count_refusal(refusal.slug)
        return problems.response(refusal, refusal.index if is_batch else None)
    position = max(receipt.position for receipt in receipts)
    status = 200 if all(receipt.duplicate for receipt in receipts) else 201
    return json_response(Appended(position, receipts), status=status, position=position)


async def _append_independent(
    services: Services, texts: list[bytes], caller: Caller, key: str | None
) -> web.StreamResponse:
    answers = await append_each(services.appender, texts, caller, key)
    for answer in answers:
        if isinstance(answer, LedgerError):
            services.telemetry.count_refusal(answer.slug)
    results = [
        answer if isinstance(answer, Receipt) else problems.document(answer, index)
        for index, answer in enumerate(answers)
    ]
    position = max((answer.position for answer in answers if isinstance(answer, Receipt)), default=0)
    return json_response(IndependentResults(position, results), position=position)


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    # Bytes that are no UTF-8 arrive as lone surrogates.
    if key is not None and not (1 <= len(key) <= IDEMPOTENCY_KEY_CHARACTERS_MAX and key.isprintable()):
        raise Malformed(f"Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable characters")
    return key


ROUTES = [
    Route(
        "POST",
        "/v1/events",
        append_events,
        "Record events: an object, an array, or NDJSON; all or nothing unless mode=independent.",
        answers={201: Appended, 200: (Appended, IndependentResults)},
        query=AppendQuery,
        body=AnyEvent,
        headers=("Idempotency-Key",),
        needs="append",
        problems=(
            "malformed",
            "not-found",
            "budget-exceeded",
            "version-conflict",
            "event-id-conflict",
            "illegal-transition",
            "too-large",
            "unsupported-media-type",
            "invalid-event",
            "unknown-reference",
            "reference-mismatch",
            "currency-mismatch",
            "overloaded",
            "database-unavailable",
        ),
    )
]
