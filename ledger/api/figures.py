"""Figures over the read models: a campaign's budget, spend by any keys, how far the projections are."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.collections import Position, WaitQuery, wait_for_min_position
from ledger.api.routes import Route, json_response, path_uuid, read_query
from ledger.api.services import Services
from ledger.api.views import Money
from ledger.domain import money
from ledger.domain.codec import Instant
from ledger.domain.errors import Malformed, NotFound
from projections import queries
from projections.checkpoint import PROJECTIONS, Failure

SpendKey = Literal["day", "resource_type", "model_used", "provider", "campaign_id", "agent_job_id", "agent_type"]

DAYS = Decimal(7)


class Budget(msgspec.Struct):
    """A campaign's balances. `burn_rate_per_day` is the cost of the last 7 days over 7; `days_left` null at 0."""

    budget: Money
    spent: Money
    held: Money
    available: Money
    used_percentage: Money
    burn_rate_per_day: Money
    days_left: Money | None
    currency: str


class SpendQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which costs, by `occurred_at`: `from` is inclusive, `to` exclusive; comma separates keys."""

    group_by: tuple[SpendKey, ...] = ()
    start: Instant | None = msgspec.field(name="from", default=None)
    end: Instant | None = msgspec.field(name="to", default=None)
    campaign_id: UUID | None = None
    min_position: Position | None = None


class Spend(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A sum of settled costs; the keys are those of `group_by`."""

    day: str | None | msgspec.UnsetType = msgspec.UNSET
    resource_type: str | None | msgspec.UnsetType = msgspec.UNSET
    model_used: str | None | msgspec.UnsetType = msgspec.UNSET
    provider: str | None | msgspec.UnsetType = msgspec.UNSET
    campaign_id: UUID | None | msgspec.UnsetType = msgspec.UNSET
    agent_job_id: UUID | None | msgspec.UnsetType = msgspec.UNSET
    agent_type: str | None | msgspec.UnsetType = msgspec.UNSET
    currency: str
    cost: Money
    tokens_used: int
    entries: int


class SpendPage(msgspec.Struct):
    """The sums, in the order of their keys."""

    items: list[Spend]


class Projection(msgspec.Struct):
    """How far one read model is. The four move together, on one checkpoint."""

    name: str
    status: Literal["running", "failing", "paused"]
    position: int
    head: int
    lag_events: int
    lag_seconds: float
    last_error: Failure | None


class Projections(msgspec.Struct):
    """Every read model."""

    items: list[Projection]


async def get_budget(request: web.Request, services: Services) -> web.StreamResponse:
    """A campaign's balances."""
    query = read_query(request, WaitQuery)
    campaign_id = path_uuid(request)
    await wait_for_min_position(request, services, query.min_position)
    async with services.reads.connection() as connection:
        row = await queries.budget(connection, campaign_id, datetime.now(UTC))
    if row["budget"] is None or not request[CALLER].sees(campaign_id):
        raise NotFound(f"there is no campaign {campaign_id}")
    available = money.subtract(money.subtract(row["budget"], row["spend"]), row["held"])
    rate = money.ratio(row["last_7_days"], DAYS)
    days_left = money.plain(money.ratio(max(available, money.ZERO), rate)) if rate else None
    budget = Budget(
        budget=money.plain(row["budget"]),
        spent=money.plain(row["spend"]),
        held=money.plain(row["held"]),
        available=money.plain(available),
        used_percentage=money.plain(money.percentage(row["spend"], row["budget"])),
        burn_rate_per_day=money.plain(rate),
        days_left=days_left,
        currency=row["currency"],
    )
    return json_response(budget, position=row["checkpoint"])


async def get_spend(request: web.Request, services: Services) -> web.StreamResponse:
    """What was spent, summed."""
    query = read_query(request, SpendQuery)
    if len(set(query.group_by)) < len(query.group_by):
        raise Malformed("a key stands twice in group_by")
    await wait_for_min_position(request, services, query.min_position)
    keys: list[Any] = list(query.group_by)
    async with services.reads.connection() as connection:
        position, rows = await queries.spend(
            connection, keys, query.start, query.end, query.campaign_id, request[CALLER].allowed_campaign_ids
        )
    items = [
        Spend(
            currency=row["currency"],
            cost=money.plain(row["cost"]),
            tokens_used=int(row["tokens_used"]),
            entries=row["entries"],
            **{key: row[key] for key in keys},
        )
        for row in rows
    ]
    return json_response(SpendPage(items), position=position)


async def get_projections(request: web.Request, services: Services) -> web.StreamResponse:
    """How far the read models are."""
    async with services.database.connection() as connection:
        standing = await queries.projection_status(connection)
    items = [
        Projection(
            name,
            standing.status,
            standing.position,
            standing.head,
            standing.lag_events,
            standing.lag_seconds,
            standing.failure,
        )
        for name in PROJECTIONS
    ]
    return json_response(Projections(items), position=standing.position)


_WAITS = ("malformed", "projection-behind", "database-unavailable")

ROUTES = [
    Route(
        "GET",
        "/v1/campaigns/{id}/budget",
        get_budget,
        "Read a campaign's balances.",
        {200: Budget},
        WaitQuery,
        problems=("not-found", *_WAITS),
        from_replica=True,
    ),
    Route(
        "GET",
        "/v1/spend",
        get_spend,
        "Sum what was spent.",
        {200: SpendPage},
        SpendQuery,
        problems=_WAITS,
        from_replica=True,
    ),
    Route(
        "GET",
        "/v1/projections",
        get_projections,
        "See how far the read models are.",
        {200: Projections},
        problems=("malformed", "database-unavailable"),
    ),
]
