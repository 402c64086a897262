"""GET /v1/spend: settled costs, summed by any keys (day, model, provider, campaign, job, ...)."""

from typing import Literal
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.heavy_reads import turn
from ledger.api.min_position import MinPositionQuery, wait_for_read_models
from ledger.api.parameters import read_query
from ledger.api.routes import JSON, Route, always
from ledger.api.services import Services
from ledger.api.views import Money
from ledger.domain.errors import Malformed, ReadTooLarge
from ledger.domain.fields import Instant
from projections import queries

SUMS_MAX = 50_000
"""The most sums of a response, which is in memory as a whole: about 16 MiB."""

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
    campaign_id, allowed = query.campaign_id, request[CALLER].allowed_campaign_ids
    if campaign_id is not None and allowed is not None:
        # One condition: with two, PostgreSQL might read the costs of a campaign that the caller may not see.
        campaign_id, allowed = None, allowed & {campaign_id}
    await wait_for_read_models(request, services, query.min_position)
    async with turn(request), services.read_database.connection() as connection:
        position, number, sums = await queries.read_spend(
            connection,
            list(query.group_by),
            query.start,
            query.end,
            campaign_id,
            allowed,
            SUMS_MAX + 1,
        )
    if number > SUMS_MAX:
        raise ReadTooLarge(
            f"there are more than {SUMS_MAX:,} sums; use fewer keys in group_by, or narrow `from`, `to` or campaign_id"
        )
    body = f'{{"items":{sums}}}'.encode()
    return web.Response(body=body, content_type=JSON, headers={"Ledger-Position": str(position)})


ROUTES = [
    Route(
        "GET",
        "/v1/spend",
        get_spend,
        "Sum the settled costs.",
        {200: SpendPage},
        SpendQuery,
        problems=("malformed", "read-too-large", "projection-behind", "overloaded", "database-unavailable"),
        from_replica=True,
        is_heavy=always,
        description="An adjustment counts at the time of its entry. There is a sum for each currency.",
    )
]
