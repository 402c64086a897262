"""POST /v1/prices/quote and /reprice: the price of a call, and costs by later prices."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
from aiohttp import web
from uuid_utils.compat import uuid7

from ledger.api.auth import CALLER
from ledger.api.heavy_reads import turn
from ledger.api.routes import Route, always, json_response
from ledger.api.services import Services
from ledger.api.views import Money, Time
from ledger.domain import money
from ledger.domain.catalogue import type_of
from ledger.domain.codec import InvalidFieldError, time_text, utc
from ledger.domain.cost import CostAdjusted, CostPriced, ServiceTier
from ledger.domain.errors import Forbidden, LedgerError, Malformed
from ledger.domain.event import Candidate, Receipt
from ledger.domain.fields import Currency, Instant
from ledger.domain.price import DEFAULT_TIER
from ledger.domain.price_book import PriceBook
from ledger.domain.price_errors import Unpriced
from ledger.domain.priced_cost import Call, Priced, find_price
from ledger.domain.usage import Usage
from ledger.log.json_faults import repeats_member
from ledger.log.prepare import prepare
from ledger.log.read import read_head
from ledger.log.submit import append_each
from projections import unpriced
from projections.unpriced import PAGE_ENTRIES_MAX, Selection, UnpricedEntry

# An advisory lock: "ledger" in ASCII, and 4 for repricing. Two runs at a time would adjust an entry twice.
LOCK_REPRICING = "SELECT pg_advisory_xact_lock(x'6c65646765720004'::bigint)"

B = TypeVar("B", bound=msgspec.Struct)


class Quote(msgspec.Struct, forbid_unknown_fields=True):
    """A call whose cost is asked for."""

    provider: str
    model_used: str
    usage: Usage
    service_tier: ServiceTier = DEFAULT_TIER
    currency: Currency = money.DEFAULT_CURRENCY
    at: Annotated[Instant, msgspec.Meta(description="The time of the call; default: now.")] | None = None


class QuotedPrice(msgspec.Struct):
    """What the call costs, and the price it was computed by."""

    cost: Money
    currency: str
    price_position: int
    stream_id: UUID
    model: str
    service_tier: str
    effective_from: Time


class Reprice(msgspec.Struct, forbid_unknown_fields=True):
    """Which entries to reprice, and how."""

    dry_run: Annotated[bool, msgspec.Meta(description="Only say what would be done.")] = False
    adjust: Annotated[
        bool,
        msgspec.Meta(description="Also adjust computed costs for whose time another price was published later."),
    ] = False
    campaign_id: UUID | None = None
    from_: Annotated[Instant, msgspec.Meta(description="Only calls at this time or later.")] | None = msgspec.field(
        name="from", default=None
    )
    to: Annotated[Instant, msgspec.Meta(description="Only calls before this time.")] | None = None
    after: Annotated[UUID, msgspec.Meta(description="`next` of the answer before.")] | None = None


class Repriced(msgspec.Struct):
    """What was done to at most 500 entries; `next` is null after the last ones."""

    examined: Annotated[int, msgspec.Meta(description="Number of entries that were looked at.")]
    priced: Annotated[int, msgspec.Meta(description="Number of entries that got their cost.")]
    adjusted: Annotated[int, msgspec.Meta(description="Number of entries whose cost was adjusted.")]
    still_unpriced: Annotated[int, msgspec.Meta(description="Number of entries for which there is still no price.")]
    refused: Annotated[int, msgspec.Meta(description="Number of entries that were changed meanwhile, or could not be.")]
    amounts: Annotated[
        dict[str, Money], msgspec.Meta(description="The sum of the changes of costs, for each currency.")
    ]
    next: Annotated[UUID, msgspec.Meta(description="The value of `after` for the next entries.")] | None


class _Change(msgspec.Struct):
    """An event that gives an entry its cost, or adjusts it."""

    candidate: Candidate
    currency: str
    amount: Decimal


async def quote(request: web.Request, services: Services) -> web.StreamResponse:
    """Return what a call costs by the price book."""
    asked = await _read_body(request, services, Quote)
    at = utc("at", asked.at) if asked.at is not None else datetime.now(UTC)
    call = Call(asked.provider, asked.model_used, asked.service_tier, asked.currency, at)
    async with services.database.connection() as connection:
        book = await services.prices.current(connection)
    priced = find_price(book, call, asked.usage)
    if priced is None:
        raise Unpriced(*call[:2], asked.service_tier, asked.currency)
    price = priced.price
    return json_response(
        QuotedPrice(
            money.plain(priced.cost),
            price.key.currency,
            price.position,
            price.stream_id,
            price.key.model,
            price.key.service_tier,
            time_text(price.effective_from),
        )
    )


async def reprice(request: web.Request, services: Services) -> web.StreamResponse:
    """Give unpriced entries their cost, and adjust costs by prices that were published later."""
    caller = request[CALLER]
    if not caller.may_append("price"):
        raise Forbidden(f"a key with role `{caller.role.value}`, or restricted to campaigns, may not reprice")
    asked = await _read_body(request, services, Reprice)
    selection = Selection(asked.adjust, asked.campaign_id, asked.from_, asked.to, asked.after)
    async with turn(request), services.database.connection() as connection, connection.transaction():
        await connection.execute(LOCK_REPRICING)
        # The entries must be those after the run before.
        await services.read_models.wait(await read_head(connection), services.wait_seconds_max, caller.name)
        entries = await unpriced.read_entries(connection, selection)
        book = await services.prices.current(connection)
        changes = [change for entry in entries if (change := _change(book, entry, caller.name)) is not None]
        outcomes = [] if asked.dry_run else await append_each(services.appender, [each.candidate for each in changes])
    refused = sum(isinstance(outcome, LedgerError) for outcome in outcomes)
    done = (
        changes
        if asked.dry_run
        else [each for each, outcome in zip(changes, outcomes, strict=True) if isinstance(outcome, Receipt)]
    )
    return json_response(_report(entries, changes, done, refused))


def _report(entries: Sequence[UnpricedEntry], changes: list[_Change], done: list[_Change], refused: int) -> Repriced:
    amounts: dict[str, Decimal] = {}
    for change in done:
        amounts[change.currency] = money.add(amounts.get(change.currency, money.ZERO), change.amount)
    priced = sum(isinstance(change.candidate.payload, CostPriced) for change in done)
    unpriced_before = sum(entry.price_position is None for entry in entries)
    return Repriced(
        examined=len(entries),
        priced=priced,
        adjusted=len(done) - priced,
        still_unpriced=unpriced_before - sum(isinstance(change.candidate.payload, CostPriced) for change in changes),
        refused=refused,
        amounts={currency: money.plain(amount) for currency, amount in sorted(amounts.items())},
        next=entries[-1].id if len(entries) == PAGE_ENTRIES_MAX else None,
    )


def _change(book: PriceBook, entry: UnpricedEntry, actor: str) -> _Change | None:
    """Return what changes the cost of an entry to that of the present price book; None if nothing has to."""
    call = Call(entry.provider, entry.model_used, entry.service_tier, entry.currency, entry.occurred_at)
    usage = _usage.decode(entry.usage)
    try:
        priced = find_price(book, call, usage)
    except InvalidFieldError:
        return None
    if priced is None or priced.price.position == entry.price_position:
        return None
    payload: CostPriced | CostAdjusted = CostPriced(cost=priced.cost, price=priced.price.position)
    amount = priced.cost
    if entry.price_position is not None:
        adjusted = _adjustment(book, entry.price_position, priced, usage)
        if adjusted is None:
            return None
        payload, amount = adjusted, adjusted.amount
    candidate = prepare(type_of(type(payload)), payload, actor=actor, event_id=uuid7(), stream_id=entry.id)
    return _Change(candidate, entry.currency, amount)


def _adjustment(book: PriceBook, position: int, priced: Priced, usage: Usage) -> CostAdjusted | None:
    """Return the adjustment from the price of a position to another one; None if the cost is the same."""
    before = book[position].table.cost_of(usage)
    assert before is not None, "the cost was computed by this price"
    if before == priced.cost:
        return None
    reason = f"the price of position {priced.price.position} applies instead of that of position {position}"
    return CostAdjusted(amount=money.subtract(priced.cost, before), reason=reason, price=priced.price.position)


_usage = msgspec.json.Decoder(Usage)


async def _read_body(request: web.Request, services: Services, kind: type[B]) -> B:
    try:
        async with services.request_bodies.read(request, request[CALLER].name) as body:
            asked = msgspec.json.decode(body, type=kind)
            if repeats_member(body, msgspec.json.decode(body)):
                raise Malformed("the request body names a member twice")
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidFieldError) as error:
        raise Malformed(f"the request body is not valid: {error}") from None
    return asked


ROUTES = [
    Route(
        "POST",
        "/v1/prices/quote",
        quote,
        "Compute what a call costs.",
        {200: QuotedPrice},
        body=Quote,
        problems=("malformed", "unpriced", "too-large", "unsupported-media-type", "database-unavailable"),
        description="By the price that an append of the same call would use. Nothing is recorded.",
    ),
    Route(
        "POST",
        "/v1/prices/reprice",
        reprice,
        "Price entries by prices that were published later.",
        {200: Repriced},
        body=Reprice,
        needs="append",
        problems=(
            *("malformed", "too-large", "unsupported-media-type"),
            *("projection-behind", "overloaded", "database-unavailable"),
        ),
        is_heavy=always,
        description=f"At most {PAGE_ENTRIES_MAX} entries for each request; call it again with `after` set to `next` "
        "until that is `null`. Unpriced entries get a `cost.priced`. With `adjust`, entries whose cost was computed "
        "get a `cost.adjusted` with the difference if another price is now in the book for the time of the call. Only "
        "for the roles manager and admin.",
    ),
]
