"""GET of campaigns, content-assets, agent-jobs, budget-entries, prices: pages, filters, items, as_of."""

from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.collection_reads import Collection, Content, plan_page, read_item, read_list
from ledger.api.heavy_reads import turn
from ledger.api.min_position import MinPositionQuery, wait_for_read_models
from ledger.api.paging import LabelledPageQuery, PageQuery
from ledger.api.parameters import path_uuid, read_query
from ledger.api.routes import JSON, Route, json_response
from ledger.api.services import Services
from ledger.api.views import (
    AgentJobView,
    BudgetEntryView,
    CampaignView,
    ContentAssetView,
    PriceView,
    show,
)
from ledger.domain.access import Caller
from ledger.domain.campaign import CampaignStatus
from ledger.domain.content import ContentStatus
from ledger.domain.cost import EntryStatus, ServiceTier
from ledger.domain.errors import NotFound
from ledger.domain.fields import Instant
from ledger.domain.job import JobStatus
from ledger.log.point_in_time import parse_point_in_time, resolve_position
from ledger.log.visibility import may_see_stream
from projections.as_of import EVENTS_MAX, row_as_of
from projections.tables import AGENT_JOBS, BUDGET_ENTRIES, CAMPAIGNS, CONTENT_ASSETS, PRICES


class CampaignsQuery(LabelledPageQuery, kw_only=True):
    """Filters of campaigns."""

    name: tuple[str, ...] | None = None
    status: tuple[CampaignStatus, ...] | None = None


class ContentAssetsQuery(PageQuery, kw_only=True):
    """Filters of content assets."""

    title: tuple[str, ...] | None = None
    content_type: tuple[str, ...] | None = None
    status: tuple[ContentStatus, ...] | None = None
    campaign_id: tuple[UUID, ...] | None = None
    agent_job_id: tuple[UUID, ...] | None = None


class AgentJobsQuery(LabelledPageQuery, kw_only=True):
    """Filters of agent jobs."""

    agent_type: tuple[str, ...] | None = None
    status: tuple[JobStatus, ...] | None = None
    campaign_id: tuple[UUID, ...] | None = None
    parent_job_id: tuple[UUID, ...] | None = None
    root_job_id: tuple[UUID, ...] | None = None
    agent_name: tuple[str, ...] | None = None
    actor: tuple[str, ...] | None = None
    trace_id: tuple[str, ...] | None = None


class BudgetEntriesQuery(LabelledPageQuery, kw_only=True):
    """Filters of budget entries."""

    resource_type: tuple[str, ...] | None = None
    status: tuple[EntryStatus, ...] | None = None
    model_used: tuple[str, ...] | None = None
    agent_job_id: tuple[UUID, ...] | None = None
    campaign_id: tuple[UUID, ...] | None = None
    actor: tuple[str, ...] | None = None
    response_id: tuple[str, ...] | None = None
    trace_id: tuple[str, ...] | None = None
    unpriced: bool | None = None
    occurred_after: Instant | None = None
    occurred_before: Instant | None = None


class PricesQuery(PageQuery, kw_only=True):
    """Filters of prices."""

    provider: tuple[str, ...] | None = None
    model: tuple[str, ...] | None = None
    service_tier: tuple[ServiceTier, ...] | None = None
    currency: tuple[str, ...] | None = None
    stream_id: tuple[UUID, ...] | None = None


class ItemQuery(MinPositionQuery, forbid_unknown_fields=True):
    """The point in time of an item."""

    as_of: str | None = None


COLLECTIONS = (
    Collection(
        "/v1/campaigns",
        "campaign",
        CAMPAIGNS,
        CampaignView,
        CampaignsQuery,
        ("id", "created_at", "name", "status", "spend", "budget_used_percentage"),
    ),
    Collection(
        "/v1/content-assets",
        "content asset",
        CONTENT_ASSETS,
        ContentAssetView,
        ContentAssetsQuery,
        ("id", "created_at", "title", "content_type", "status", "campaign_id", "agent_job_id"),
    ),
    Collection(
        "/v1/agent-jobs",
        "agent job",
        AGENT_JOBS,
        AgentJobView,
        AgentJobsQuery,
        (
            *("id", "created_at", "agent_type", "status", "campaign_id", "cost"),
            *("actor", "agent_name", "parent_job_id", "root_job_id", "trace_id"),
        ),
    ),
    Collection(
        "/v1/budget-entries",
        "budget entry",
        BUDGET_ENTRIES,
        BudgetEntryView,
        BudgetEntriesQuery,
        (
            *("id", "created_at", "occurred_at", "resource_type", "status", "model_used"),
            *("agent_job_id", "campaign_id", "cost", "actor", "response_id", "trace_id"),
        ),
    ),
    Collection(
        "/v1/prices",
        "price",
        PRICES,
        PriceView,
        PricesQuery,
        ("id", "created_at", "provider", "model", "effective_from"),
        has_as_of=False,
    ),
)


async def _list(request: web.Request, services: Services, collection: Collection) -> web.Response:
    caller = request[CALLER]
    page = plan_page(collection, request.rel_url.raw_query_string, caller.allowed_campaign_ids)
    await wait_for_read_models(request, services, page.query.min_position)
    async with turn(request):
        return _response(await read_list(services.read_database, caller, collection, request.rel_url))


async def _item(request: web.Request, services: Services, collection: Collection) -> web.Response:
    query = read_query(request, ItemQuery if collection.has_as_of else MinPositionQuery)
    item_id = path_uuid(request)
    caller = request[CALLER]
    if isinstance(query, ItemQuery) and query.as_of is not None:
        async with turn(request):
            return await _item_as_of(services, caller, collection, item_id, query.as_of)
    await wait_for_read_models(request, services, query.min_position)
    return _response(await read_item(services.read_database, caller, collection, item_id))


def _response(content: Content) -> web.Response:
    headers = {"Ledger-Position": str(content.position), **content.link}
    return web.Response(body=content.body, content_type=JSON, headers=headers)


async def _item_as_of(
    services: Services, caller: Caller, collection: Collection, item_id: UUID, as_of: str
) -> web.Response:
    async with services.read_database.connection() as connection:
        position = await resolve_position(connection, parse_point_in_time(as_of))
        is_visible = await may_see_stream(connection, caller, collection.model.category, item_id, position)
    row = await row_as_of(services.read_database, collection.model, item_id, position) if is_visible else None
    # Checked again: a row counts for no campaign once its campaign was deleted.
    if row is None or not caller.may_see(getattr(row, collection.model.campaign_column or "", None)):
        raise NotFound(f"there was no {collection.noun} {item_id} at position {position}")
    return json_response(show(collection.view, msgspec.structs.asdict(row)), position=position)


def _is_heavy_page(request: web.Request) -> bool:
    """Whether a page may take a scan of the table: only the default order has an index for every collection."""
    return "sort=" in request.query_string


def _is_heavy_item(request: web.Request) -> bool:
    return "as_of=" in request.query_string


def _routes(collection: Collection) -> list[Route]:
    async def list_items(request: web.Request, services: Services) -> web.StreamResponse:
        return await _list(request, services, collection)

    async def get_item(request: web.Request, services: Services) -> web.StreamResponse:
        return await _item(request, services, collection)

    page = msgspec.defstruct(
        f"{collection.view.__name__.removesuffix('View')}Page",
        [("items", list[collection.view]), ("next", str | None)],  # type: ignore[name-defined]
        namespace={"__doc__": "A page of items."},
    )
    columns = ", ".join(f"`{name}`" for name in collection.sortable)
    article = "an" if collection.noun.startswith("a") else "a"
    waits = ("malformed", "projection-behind", "overloaded", "database-unavailable")
    return [
        Route(
            "GET",
            collection.path,
            list_items,
            f"List {collection.path.removeprefix('/v1/').replace('-', ' ')}.",
            {200: page},
            collection.query,
            problems=waits,
            from_replica=True,
            is_heavy=_is_heavy_page,
            description=f"Sortable columns: {columns}. The header `Link` has the URL of the next page.",
        ),
        Route(
            "GET",
            f"{collection.path}/{{id}}",
            get_item,
            f"Read {article} {collection.noun}.",
            {200: collection.view},
            ItemQuery if collection.has_as_of else MinPositionQuery,
            problems=("not-found", *(("read-too-large",) if collection.has_as_of else ()), *waits),
            from_replica=True,
            is_heavy=_is_heavy_item,
            description=f"With `as_of`, at most {EVENTS_MAX:,} events are folded." if collection.has_as_of else "",
        ),
    ]


ROUTES = [route for collection in COLLECTIONS for route in _routes(collection)]
