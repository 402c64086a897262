"""GET /v1/spend: settled costs, summed by any keys (day, model, provider, campaign, job, ...)."""

from typing import Any, Literal
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.min_position import MinPositionQuery, wait_for_read_models
from ledger.api.parameters import read_query
from ledger.api.routes import Route, json_response
from ledger.api.services import Services
from ledger.api.views import Money
from ledger.domain import money
from ledger.domain.codec import Instant
from ledger.domain.errors import Malformed
from projections import queries

SpendKey = Literal["day", "resource_type", "model_used", "provider", "campaign_id", "agent_job_id", "agent_type"]


class SpendQuery(MinPositionQuery, kw_only=True, forbid_unknown_fields=True):
    """Which costs to sum, and by which keys."""

    group_by: tuple[SpendKey, ...] = ()
    start: Instant | None = msgspec.field(name="from", default=None)
    end: Instant | None = msgspec.field(name="to", default=None)
    campaign_id: UUID | None = None


class Spend(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A sum of settled costs, with the keys of `group_by`."""

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
    """The sums, ordered by their keys."""

    items: list[Spend]


async def get_spend(request: web.Request, services: Services) -> web.StreamResponse:
    """Return the sums of settled costs."""
    query = read_query(request, SpendQuery)
    if len(set(query.group_by)) < len(query.group_by):
        raise Malformed("group_by has a key twice")
    await wait_for_read_models(request, services, query.min_position)
    keys: list[Any] = list(query.group_by)
    async with services.read_database.connection() as connection:
        position, rows = await queries.read_spend(
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


ROUTES = [
    Route(
        "GET",
        "/v1/spend",
        get_spend,
        "Sum the settled costs.",
        {200: SpendPage},
        SpendQuery,
        problems=("malformed", "projection-behind", "database-unavailable"),
        from_replica=True,
        description="An adjustment counts at the time of its entry. There is a sum for each currency.",
    )
]
