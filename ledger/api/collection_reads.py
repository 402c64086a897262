"""Reading a page or an item of a read model: its JSON, and the position that it reflects."""

from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from yarl import URL

from ledger.api.paging import PageQuery, read_cursor, read_sort, write_cursor
from ledger.api.parameters import parse_query
from ledger.api.views import bases_of, complete, complete_all, select, stored_columns
from ledger.database import Database
from ledger.domain.access import Caller
from ledger.domain.errors import Malformed, NotFound
from projections import queries
from projections.collection_sql import Filter, SortKey
from projections.tables import ReadModel

PLANS_MAX = 256
"""The most parsed queries kept in memory: a few MiB if all of them have the longest URL."""


class Collection(NamedTuple):
    """A read model as an HTTP resource; `noun` names one of its items."""

    path: str
    noun: str
    model: ReadModel[Any]
    view: type[msgspec.Struct]
    query: type[PageQuery]
    sortable: tuple[str, ...]
    has_as_of: bool = True


def _filters(query: PageQuery) -> list[Filter]:
    """Return the filters of a query: a list matches any of its values; `*_after` and `*_before` bound a time."""
    filters = []
    for name in query.__struct_fields__:
        value = getattr(query, name)
        if name == "fields":
            continue
        if isinstance(value, tuple):
            filters.append(Filter(name, "in", [item.value if isinstance(item, Enum) else item for item in value]))
        elif isinstance(value, dict):
            filters += [Filter("labels", "label", (key, values)) for key, values in value.items()]
        elif isinstance(value, bool):
            filters.append(Filter(name, "is", value))
        elif isinstance(value, datetime):
            column, _, side = name.rpartition("_")
            filters.append(Filter(f"{column}_at", ">=" if side == "after" else "<", value))
    return filters


class Plan(NamedTuple):
    """The parsed query of a page, and the statement that reads it."""

    query: PageQuery
    keys: list[SortKey]
    statement: queries.PageStatement


@lru_cache(maxsize=PLANS_MAX)
def plan_page(collection: Collection, query_string: str, allowed_campaign_ids: frozenset[UUID] | None) -> Plan:
    """Plan a page. The result is cached, since clients repeat their queries.

    Args:
        collection: the collection.
        query_string: of the URL, still encoded.
        allowed_campaign_ids: the campaigns that the caller may see; None: all.

    Raises:
        Malformed: a parameter is unknown, repeated or unreadable.
    """
    model = collection.model
    query = parse_query(URL.build(query_string=query_string, encoded=True), collection.query)
    keys = read_sort(query.sort, collection.sortable)
    filters = _filters(query)
    if allowed_campaign_ids is not None and model.campaign_column is not None:
        # One filter: with two, PostgreSQL might read the rows of a campaign that the caller may not see.
        named = getattr(query, model.campaign_column, None)
        visible = allowed_campaign_ids if named is None else allowed_campaign_ids.intersection(named)
        filters = [each for each in filters if each.column != model.campaign_column]
        filters.append(Filter(model.campaign_column, "in", list(visible)))
    after = None if query.cursor is None else read_cursor(query.cursor, model, query.sort, keys)
    columns = stored_columns(collection.view)
    if query.fields is not None:
        columns = _columns_of(collection, query.fields, keys)
    statement = queries.page_statement(model, columns, filters=filters, sort=keys, after=after, limit=query.limit)
    return Plan(query, keys, statement)


def _columns_of(collection: Collection, fields: tuple[str, ...], keys: list[SortKey]) -> tuple[str, ...]:
    """Return the columns to select for some fields, the cursor, and the derived figures.

    Raises:
        Malformed: a field is unknown or named twice.
    """
    known = collection.view.__struct_fields__
    for name in fields:
        if name not in known:
            raise Malformed(f"there is no field {name[:80]!r}; the fields are {', '.join(known)}")
    if len(set(fields)) < len(fields):
        raise Malformed("fields has a name twice")
    wanted = {*fields, *(key.column for key in keys), *bases_of(fields)}
    return tuple(name for name in stored_columns(collection.view) if name in wanted)


class Content(NamedTuple):
    """The content of a response: JSON, the position that it reflects, and the URL of the next page."""

    body: bytes
    position: int
    next_url: str | None = None

    @property
    def link(self) -> dict[str, str]:
        """The header `Link`, if there is a next page."""
        return {} if self.next_url is None else {"Link": f'<{self.next_url}>; rel="next"'}


async def read_list(database: Database, caller: Caller, collection: Collection, url: URL) -> Content:
    """Read a page of a collection.

    Args:
        database: the primary or a replica.
        caller: sees only rows of the campaigns that it may see.
        collection: the collection.
        url: with the query of the page.
    """
    query, keys, statement = plan_page(collection, url.raw_query_string, caller.allowed_campaign_ids)
    async with database.connection() as connection:
        position, rows, has_more, derived = await queries.read_page(connection, statement)
    cursor = write_cursor(collection.model, query.sort, keys, rows[-1], derived) if has_more else None
    items = complete_all(collection.view, rows) if query.fields is None else select(collection.view, rows, query.fields)
    page = {"items": items, "next": cursor}
    next_url = None if cursor is None else str(url.update_query(cursor=cursor))
    return Content(msgspec.json.encode(page), position, next_url)


async def read_item(database: Database, caller: Caller, collection: Collection, item_id: UUID) -> Content:
    """Read an item of a collection.

    Args:
        database: the primary or a replica.
        caller: sees only rows of the campaigns that it may see.
        collection: the collection.
        item_id: of the item.

    Raises:
        NotFound: there is no such item, or the caller may not see it.
    """
    async with database.connection() as connection:
        position, row = await queries.read_item(
            connection, collection.model, stored_columns(collection.view), item_id, caller.allowed_campaign_ids
        )
    if row is None:
        raise NotFound(f"there is no {collection.noun} {item_id}")
    return Content(complete(collection.view, row), position)
