"""POST /v1/events: append events, all or nothing (atomic) or each separately (independent)."""

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from aiohttp import web

from ledger.api import problems
from ledger.api.auth import CALLER
from ledger.api.parameters import read_header, read_query
from ledger.api.routes import NDJSON, Route, json_response
from ledger.api.services import Services
from ledger.domain.errors import InvalidEvent, LedgerError, Malformed, Refused
from ledger.domain.event import Candidate, Receipt, Request
from ledger.domain.judge import Verdict
from ledger.log.idempotency import IdempotencyKey, claim_of
from ledger.log.new_event import AnyEvent
from ledger.log.request_body import split_body
from ledger.log.submit import append_each

IDEMPOTENCY_KEY_CHARACTERS_MAX = 255


class AppendQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Whether events are appended all or nothing, or each separately."""

    mode: Literal["atomic", "independent"] = "atomic"


class Appended(msgspec.Struct):
    """All events are in the log."""

    position: int
    events: list[Receipt]


_RESULTS = [{"$ref": f"#/components/schemas/{name}"} for name in ("Receipt", "Problem")]


class IndependentResults(msgspec.Struct):
    """A receipt or a problem for each event, with `mode=independent`."""

    position: int
    results: Annotated[list[Any], msgspec.Meta(extra_json_schema={"items": {"anyOf": _RESULTS}})]


async def append_events(request: web.Request, services: Services) -> web.StreamResponse:
    """Append the events of the request body."""
    query = read_query(request, AppendQuery)
    async with services.request_bodies.read(request, request[CALLER].name) as body:
        texts, is_batch = split_body(body, ndjson=request.content_type == NDJSON)
        header = idempotency_key(read_header(request, "Idempotency-Key"))
        key = await services.idempotency_keys.load(request[CALLER].name, header) if header is not None else None
        decoded = await services.event_decoding.decode(texts, request[CALLER], key)
        if query.mode == "independent":
            return await _append_independent(services, decoded, key)
        return await _append_atomic(services, decoded, is_batch, key)


async def _append_atomic(
    services: Services, decoded: list[Candidate | LedgerError], is_batch: bool, key: IdempotencyKey | None
) -> web.StreamResponse:
    candidates: list[Candidate] = []
    errors: list[dict[str, Any]] = []
    for index, item in enumerate(decoded):
        match item:
            case Candidate():
                candidates.append(item)
            case InvalidEvent():
                errors += item.errors
            case _:
                return problems.response(item, index if is_batch else None)
    if errors:
        return problems.response(InvalidEvent(errors), errors[0]["index"] if is_batch else None)
    request = Request(candidates, claim=await claim_of(key, candidates))
    result = append_result(await services.appender.append(request), len(candidates))
    if isinstance(result, Refused):
        services.telemetry.count_refusal(result.slug)
        return problems.response(result, result.index if is_batch else None)
    return json_response(result.answer, status=result.status, position=result.answer.position)


class AppendResult(NamedTuple):
    """The answer to a request whose events are all in the log, and its HTTP status: 200 if all are duplicates."""

    status: int
    answer: Appended


def append_result(verdict: Verdict, events: int) -> AppendResult | Refused:
    """Return the result of an atomic request with this number of events."""
    receipts = [receipt for receipt in verdict if isinstance(receipt, Receipt)]
    if len(receipts) < events:
        refusal = verdict[0]
        assert isinstance(refusal, Refused)
        return refusal
    position = max(receipt.position for receipt in receipts)
    status = 200 if all(receipt.duplicate for receipt in receipts) else 201
    return AppendResult(status, Appended(position, receipts))


async def _append_independent(
    services: Services, decoded: list[Candidate | LedgerError], key: IdempotencyKey | None
) -> web.StreamResponse:
    outcomes = await append_each(services.appender, decoded, key)
    for outcome in outcomes:
        if isinstance(outcome, LedgerError):
            services.telemetry.count_refusal(outcome.slug)
    results = [
        outcome if isinstance(outcome, Receipt) else problems.document(outcome, index)
        for index, outcome in enumerate(outcomes)
    ]
    position = max((outcome.position for outcome in outcomes if isinstance(outcome, Receipt)), default=0)
    return json_response(IndependentResults(position, results), position=position)


def idempotency_key(key: str | None) -> str | None:
    """Return the value of the header `Idempotency-Key`, checked.

    Raises:
        Malformed: it is empty, too long, or has characters that are not printable.
    """
    # aiohttp decodes bytes that are not UTF-8 as lone surrogates, which are not printable.
    if key is not None and not (1 <= len(key) <= IDEMPOTENCY_KEY_CHARACTERS_MAX and key.isprintable()):
        raise Malformed(f"Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable characters")
    return key


ROUTES = [
    Route(
        "POST",
        "/v1/events",
        append_events,
        "Append events.",
        responses={201: Appended, 200: (Appended, IndependentResults)},
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
            "unpriced",
            "overloaded",
            "database-unavailable",
        ),
        description="By default all events are appended or none: 201, or 200 if all of them are duplicates. If one of "
        "several events is refused, the problem has its `index`. With `mode=independent` each event is accepted or "
        "refused separately, and the status is 200. The role agent may "
        "not append campaign events, cost.credited, or a cost.adjusted with a negative amount.",
    )
]
