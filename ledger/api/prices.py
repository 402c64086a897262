"""POST /v1/prices/quote and /reprice: the price of a call, and costs by later prices."""

from datetime import UTC, datetime
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.heavy_reads import turn
from ledger.api.repricing import TRY_LOCK_REPRICING, Repriced, reprice_page
from ledger.api.routes import Route, always, json_response
from ledger.api.services import Services
from ledger.api.views import Money, Time
from ledger.domain import money
from ledger.domain.codec import InvalidFieldError, time_text, utc
from ledger.domain.cost import ServiceTier
from ledger.domain.errors import Malformed, Overloaded
from ledger.domain.fields import Currency, Instant
from ledger.domain.price import DEFAULT_TIER, ModelName
from ledger.domain.priced_cost import Call, compute_cost, look_up, unpriced_error
from ledger.domain.usage import Usage
from ledger.log.json_faults import repeats_member
from ledger.log.read import read_head
from projections.entries_to_reprice import PAGE_ENTRIES_MAX, Selection

B = TypeVar("B", bound=msgspec.Struct)


class Quote(msgspec.Struct, forbid_unknown_fields=True):
    """A call whose cost is asked for."""

    provider: ModelName
    model_used: ModelName
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
    from_: Instant | None = msgspec.field(name="from", default=None)
    to: Instant | None = None
    after: Annotated[UUID, msgspec.Meta(description="`next` of the answer before.")] | None = None


async def quote(request: web.Request, services: Services) -> web.StreamResponse:
    """Return what a call costs by the price book."""
    asked = await _read_body(request, services, Quote)
    if not asked.usage.names_counter:
        raise Malformed("the call cannot be priced: `usage` names no counter")
    at = _time("at", asked.at) or datetime.now(UTC)
    call = Call(asked.provider, asked.model_used, asked.service_tier, asked.currency, at)
    async with services.database.connection() as connection:
        book = await services.prices.current(connection)
    price = look_up(book, call)
    try:
        computed = compute_cost(price, asked.usage)
    except InvalidFieldError as error:
        raise Malformed(f"the call cannot be priced: {error}") from None
    if computed is None:
        raise unpriced_error(price, call, asked.usage)
    price = computed.price
    return json_response(
        QuotedPrice(
            money.plain(computed.cost),
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
    asked = await _read_body(request, services, Reprice)
    selection = Selection(
        asked.adjust, asked.campaign_id, _time("from", asked.from_), _time("to", asked.to), asked.after
    )
    async with turn(request), services.database.connection() as connection, connection.transaction():
        if not await connection.fetchval(TRY_LOCK_REPRICING):
            raise Overloaded("another run is repricing entries; retry later")
        # The entries must be those after the run before.
        await services.read_models.wait(await read_head(connection), services.wait_seconds_max, caller.name)
        repriced = await reprice_page(
            connection, services.appender, services.prices, selection, actor=caller.name, dry_run=asked.dry_run
        )
    return json_response(repriced)


def _time(field: str, value: datetime | None) -> datetime | None:
    try:
        return utc(field, value) if value is not None else None
    except InvalidFieldError as error:
        raise Malformed(f"`{field}` {error}") from None


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
        needs="prices",
        problems=(
            *("malformed", "too-large", "unsupported-media-type"),
            *("projection-behind", "overloaded", "database-unavailable"),
        ),
        is_heavy=always,
        description=f"At most {PAGE_ENTRIES_MAX} entries for each request; call it again with `after` set to `next` "
        "until that is `null`. Unpriced entries get a `cost.priced`. With `adjust`, entries whose cost was computed "
        "get a `cost.adjusted` with the difference if another price is now in the book for the time of the call. "
        "While another run is repricing, the answer is 503 `overloaded`.",
    ),
]
