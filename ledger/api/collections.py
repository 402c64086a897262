"""The four read models as collections and items."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec
from aiohttp import web
from yarl import URL

from ledger.api.auth import CALLER
from ledger.api.min_position import MinPositionQuery, wait_for_read_models
from ledger.api.paging import (
    ID,
    MONEY,
    NULLABLE_ID,
    NULLABLE_TEXT,
    TEXT,
    TIME,
    Arguments,
    Column,
    PageQuery,
    after,
    read_cursor,
    read_sort,
    write_cursor,
)
from ledger.api.parameters import path_uuid, read_query
from ledger.api.routes import Route, json_response
from ledger.api.services import Services
from ledger.api.views import AgentJobView, BudgetEntryView, CampaignView, ContentAssetView, columns, complete, show
from ledger.domain.access import Caller
from ledger.domain.campaign import CampaignStatus
from ledger.domain.codec import Instant
from ledger.domain.content import ContentStatus, ContentType
from ledger.domain.cost import EntryStatus, ResourceType
from ledger.domain.errors import NotFound
from ledger.domain.job import AgentType, JobStatus
from ledger.log.point_in_time import parse_point_in_time, resolve_position
from projections import queries
from projections.as_of import row_as_of
from projections.tables import READ_MODELS_BY_NAME


class CampaignsQuery(PageQuery, kw_only=True):
    """Filters: comma means any of."""

    name: tuple[str, ...] | None = None
    status: tuple[CampaignStatus, ...] | None = None


class ContentAssetsQuery(PageQuery, kw_only=True):
    """Filters: comma means any of."""

    title: tuple[str, ...] | None = None
    content_type: tuple[ContentType, ...] | None = None
    status: tuple[ContentStatus, ...] | None = None
    campaign_id: tuple[UUID, ...] | None = None
    agent_job_id: tuple[UUID, ...] | None = None


class AgentJobsQuery(PageQuery, kw_only=True):
    """Filters: comma means any of."""

    agent_type: tuple[AgentType, ...] | None = None
    status: tuple[JobStatus, ...] | None = None
    campaign_id: tuple[UUID, ...] | None = None


class BudgetEntriesQuery(PageQuery, kw_only=True):
    """Filters: comma means any of; `occurred_after` is inclusive, `occurred_before` exclusive."""

    resource_type: tuple[ResourceType, ...] | None = None
    status: tuple[EntryStatus, ...] | None = None
    model_used: tuple[str, ...] | None = None
    agent_job_id: tuple[UUID, ...] | None = None
    campaign_id: tuple[UUID, ...] | None = None
    occurred_after: Instant | None = None
    occurred_before: Instant | None = None


class ItemQuery(MinPositionQuery, forbid_unknown_fields=True):
    """`as_of`: as it stood at a position, or at a time of recording; both inclusive, neither in the future."""

    as_of: Annotated[str, msgspec.Meta(description="A position, or an RFC 3339 time with its zone.")] | None = None


class Collection(NamedTuple):
    """What makes one collection differ from another. `size` is a row's characters, in SQL over the alias `t`.

    `campaign` is the column that says which campaign a row counts for.
    """

    path: str
    table: str
    view: type[msgspec.Struct]
    query: type[PageQuery]
    sortable: Mapping[str, Column]
    size: str = "0::bigint"
    campaign: str = "campaign_id"


COLLECTIONS = (
    Collection(
        "/v1/campaigns",
        "campaigns",
        CampaignView,
        CampaignsQuery,
        {"id": ID, "created_at": TIME, "name": TEXT, "status": TEXT, "spend": MONEY},
        campaign="id",
    ),
    Collection(
        "/v1/content-assets",
        "content_assets",
        ContentAssetView,
        ContentAssetsQuery,
        {
            "id": ID,
            "created_at": TIME,
            "title": TEXT,
            "content_type": TEXT,
            "status": TEXT,
            "campaign_id": NULLABLE_ID,
            "agent_job_id": NULLABLE_ID,
        },
        "(octet_length(t.content) + octet_length(t.metadata::text))",
    ),
    Collection(
        "/v1/agent-jobs",
        "agent_jobs",
        AgentJobView,
        AgentJobsQuery,
        {
            "id": ID,
            "created_at": TIME,
            "agent_type": TEXT,
            "status": TEXT,
            "campaign_id": NULLABLE_ID,
            "cost": MONEY,
        },
        "(octet_length(t.input_data::text) + coalesce(octet_length(t.output_data::text), 0))",
    ),
    Collection(
        "/v1/budget-entries",
        "budget_entries",
        BudgetEntryView,
        BudgetEntriesQuery,
        {
            "id": ID,
            "created_at": TIME,
            "occurred_at": TIME,
            "resource_type": TEXT,
            "status": TEXT,
            "model_used": NULLABLE_TEXT,
            "agent_job_id": NULLABLE_ID,
            "campaign_id": NULLABLE_ID,
            "cost": MONEY,
        },
    ),
)


def _conditions(query: PageQuery, arguments: Arguments) -> list[str]:
    """The filters asked for, as SQL: a list of values any of which will do, or a bound of a time."""
    conditions = []
    for name in query.__struct_fields__:
        value = getattr(query, name)
        if value is None:
            continue
        if isinstance(value, tuple):
            plain = [item.value if isinstance(item, Enum) else item for item in value]
            kind = "uuid" if value and isinstance(value[0], UUID) else "text"
            conditions.append(f"t.{name} = ANY ({arguments.add(plain)}::{kind}[])")
        elif isinstance(value, datetime):
            column, _, side = name.rpartition("_")
            conditions.append(f"t.{column}_at {'>=' if side == 'after' else '<'} {arguments.add(value)}")
    return conditions


async def _list(request: web.Request, services: Services, collection: Collection) -> web.Response:
    query = read_query(request, collection.query)
    keys = read_sort(query.sort, collection.sortable)
    arguments = Arguments(first=2)
    conditions = _conditions(query, arguments)
    allowed_campaign_ids = request[CALLER].allowed_campaign_ids
    if allowed_campaign_ids is not None:
        conditions.append(f"t.{collection.campaign} = ANY ({arguments.add(list(allowed_campaign_ids))}::uuid[])")
    if query.cursor is not None:
        conditions.append(after(keys, read_cursor(query.cursor, collection.table, query.sort, keys), arguments))
    await wait_for_read_models(request, services, query.min_position)
    async with services.read_database.connection() as connection:
        position, rows, more = await queries.page(
            connection,
            collection.table,
            columns=columns(collection.view),
            size=collection.size,
            conditions=conditions,
            order=", ".join(key.sql for key in keys),
            limit=query.limit,
            arguments=arguments.values,
        )
    following = write_cursor(collection.table, query.sort, keys, rows[-1]) if more else None
    items = [complete(collection.view, row) for row in rows]
    answer = json_response({"items": items, "next": following}, position=position)
    if following is not None:
        answer.headers["Link"] = f'<{_with_cursor(request.rel_url, following)}>; rel="next"'
    return answer


def _with_cursor(url: URL, cursor: str) -> URL:
    return url.update_query(cursor=cursor)


async def _item(request: web.Request, services: Services, collection: Collection) -> web.Response:
    query = read_query(request, ItemQuery)
    item_id = path_uuid(request)
    caller = request[CALLER]
    if query.as_of is not None:
        return await _item_as_of(services, caller, collection, item_id, query.as_of)
    await wait_for_read_models(request, services, query.min_position)
    async with services.read_database.connection() as connection:
        position, campaign_id, row = await queries.item(
            connection, collection.table, columns(collection.view), f"t.{collection.campaign}", item_id
        )
    if row is None or not caller.sees(campaign_id):
        raise NotFound(f"there is nothing with id {item_id} in {collection.path}")
    return json_response(complete(collection.view, row), position=position)


async def _item_as_of(
    services: Services, caller: Caller, collection: Collection, item_id: UUID, as_of: str
) -> web.Response:
    async with services.read_database.connection() as connection:
        position = await resolve_position(connection, parse_point_in_time(as_of))
    row = await row_as_of(services.read_database, READ_MODELS_BY_NAME[collection.table], item_id, position)
    if row is None or not caller.sees(getattr(row, collection.campaign)):
        raise NotFound(f"there was nothing with id {item_id} in {collection.path} at position {position}")
    return json_response(show(collection.view, msgspec.structs.asdict(row)), position=position)


def _routes(collection: Collection) -> list[Route]:
    async def list_items(request: web.Request, services: Services) -> web.StreamResponse:
        return await _list(request, services, collection)

    async def get_item(request: web.Request, services: Services) -> web.StreamResponse:
        return await _item(request, services, collection)

    page = msgspec.defstruct(
        f"{collection.view.__name__}Page",
        [("items", list[collection.view]), ("next", str | None)],  # type: ignore[name-defined]
        namespace={"__doc__": "A page; `next` is the cursor of the next one, null on the last."},
    )
    name = collection.path.removeprefix("/v1/")
    waits = ("malformed", "projection-behind", "database-unavailable")
    return [
        Route(
            "GET",
            collection.path,
            list_items,
            f"List {name}.",
            {200: page},
            collection.query,
            problems=waits,
            from_replica=True,
        ),
        Route(
            "GET",
            f"{collection.path}/{{id}}",
            get_item,
            f"Read one of {name}.",
            {200: collection.view},
            ItemQuery,
            problems=("not-found", *waits),
            from_replica=True,
        ),
    ]


ROUTES = [route for collection in COLLECTIONS for route in _routes(collection)]
