"""Queries of the read models: items, pages, budgets, spend, status, and the position they reflect."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from ledger.database import Connection
from ledger.database.singleton import CHECKPOINT_TABLE, HEAD_TABLE, require_row
from ledger.log.read import PAGE_CHARACTERS_MAX
from projections import collection_sql
from projections.checkpoint import GROUP, Failure, decode_failure
from projections.collection_sql import Filter, SortKey
from projections.tables import ReadModel

PROJECTION_STATUS = """
SELECT checkpoint.status, checkpoint.position, head.position AS head, checkpoint.last_error::text AS last_error,
    coalesce(extract(epoch FROM clock_timestamp() - (
        SELECT recorded_at FROM ledger.events WHERE events.position = checkpoint.position + 1
    )), 0)::float8 AS lag_seconds
FROM ledger.projection_checkpoints AS checkpoint, ledger.log_head AS head
WHERE checkpoint.name = $1
"""

BUDGET = """
SELECT checkpoint.position AS checkpoint, campaign.budget, campaign.spend, campaign.held, campaign.currency,
    (
        SELECT coalesce(sum(entry.cost), 0) FROM budget_entries AS entry
        WHERE entry.campaign_id = campaign.id AND entry.status = 'settled'
            AND entry.occurred_at > $3::timestamptz - interval '7 days' AND entry.occurred_at <= $3
    ) AS last_7_days
FROM ledger.projection_checkpoints AS checkpoint LEFT JOIN campaigns AS campaign ON campaign.id = $2
WHERE checkpoint.name = $1
"""


class ProjectionStatus(msgspec.Struct):
    """How far the read models are behind the log, and what stops them."""

    status: Literal["running", "failing", "paused"]
    position: int
    head: int
    lag_events: int
    lag_seconds: float
    failure: Failure | None

    def problem(self) -> str | None:
        """Describe in one sentence why the read models do not advance; None while they run."""
        if self.status == "running":
            return None
        state = f"{self.status} at position {self.position}"
        if self.failure is None:
            return state
        if not self.failure.position:
            return f"{state}: {self.failure.type}: {self.failure.error}"
        return f"{state}: {self.failure.type} at position {self.failure.position} fails with {self.failure.error}"


async def projection_status(connection: Connection) -> ProjectionStatus:
    """Read the status of the read models."""
    row = require_row(await connection.fetchrow(PROJECTION_STATUS, GROUP), HEAD_TABLE, CHECKPOINT_TABLE)
    return ProjectionStatus(
        row["status"],
        row["position"],
        row["head"],
        lag_events=row["head"] - row["position"],
        lag_seconds=max(0.0, row["lag_seconds"]),
        failure=decode_failure(row["last_error"]),
    )


async def read_budget(connection: Connection, campaign_id: UUID, now: datetime) -> asyncpg.Record:
    """Read a campaign's balances and its spend in the seven days before a time.

    Args:
        connection: of the primary or a replica.
        campaign_id: of the campaign.
        now: the end of the seven days.

    Returns:
        `checkpoint` (the position reflected), `budget`, `spend`, `held`, `currency` and `last_7_days`; all but the
        first are None if the campaign does not exist.
    """
    return require_row(await connection.fetchrow(BUDGET, GROUP, campaign_id, now), CHECKPOINT_TABLE)


async def read_item(
    connection: Connection,
    model: ReadModel[Any],
    columns: tuple[str, ...],
    item_id: UUID,
    allowed_campaign_ids: Collection[UUID] | None = None,
) -> tuple[int, str | None]:
    """Read one row.

    Args:
        connection: of the primary or a replica.
        model: the read model.
        columns: names of the columns to select.
        item_id: of the row.
        allowed_campaign_ids: only a row that counts for one of these campaigns; None: for any.

    Returns:
        the position reflected, and the columns as a JSON object; None if there is no such row.
    """
    arguments: list[Any] = [GROUP, item_id]
    condition = "t.id = $2"
    if allowed_campaign_ids is not None and model.campaign_column is not None:
        # Here, so that nothing of a row is read that the caller may not see: its size would show in the time.
        condition += f" AND t.{model.campaign_column} = ANY ($3::uuid[])"
        arguments.append(list(allowed_campaign_ids))
    query = f"""
        SELECT checkpoint.position,
            CASE WHEN t.id IS NOT NULL THEN {collection_sql.row_as_json(model, columns)} END
        FROM ledger.projection_checkpoints AS checkpoint LEFT JOIN {model.name} AS t ON {condition}
        WHERE checkpoint.name = $1
    """  # noqa: S608 (fixed names)
    row = require_row(await connection.fetchrow(query, *arguments), CHECKPOINT_TABLE)
    return row[0], row[1]


class Page(NamedTuple):
    """A page of a collection: the position reflected, each row as a JSON object, and whether there may be more rows.

    `derived` is the figure of the last row that is no column, if the page is sorted by one.
    """

    position: int
    rows: list[str]
    has_more: bool
    derived: str | None = None


class PageStatement(NamedTuple):
    """A statement that reads a page of a collection; see `page_statement`."""

    text: str
    arguments: list[Any]
    limit: int


def page_statement(
    model: ReadModel[Any],
    columns: tuple[str, ...],
    *,
    filters: Sequence[Filter] = (),
    sort: Sequence[SortKey],
    after: Sequence[Any] | None = None,
    limit: int,
) -> PageStatement:
    """Return the statement for a page, bounded in rows and in bytes, but never empty while there are rows.

    Args:
        model: the read model.
        columns: names of the columns to select.
        filters: conditions that every row meets.
        sort: the order; its last column is unique.
        after: the values of the sort keys in the last row of the page before; None for the first page.
        limit: rows at most. A page of large rows ends earlier, at `PAGE_CHARACTERS_MAX`.

    Returns:
        the statement, for `read_page`.
    """
    arguments: list[Any] = [GROUP]

    def parameter(value: Any) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    conditions = [collection_sql.condition(model, each, parameter) for each in filters]
    if after is not None:
        conditions.append(collection_sql.after(model, sort, after, parameter))
    size, order = collection_sql.size(model, columns), collection_sql.order(model, sort)
    derived = [collection_sql.value_of(model, key.column) for key in sort if key.column not in model.columns]
    # The limits are literals: with a LIMIT that PostgreSQL does not know, it considers its generic plan too expensive
    # and plans the statement again for every call. JSON is made of the rows shown alone: a text past the bound is
    # never read from disk.
    query = f"""
        SELECT checkpoint.position AS checkpoint, page.*
        FROM ledger.projection_checkpoints AS checkpoint LEFT JOIN LATERAL (
            SELECT {collection_sql.row_as_json(model, columns)} AS selected, running, number,
                ({derived[0] if derived else "NULL"})::text AS derived FROM (
                SELECT *, {size} AS size,
                    sum({size}) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS running,
                    row_number() OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS number
                FROM {model.name} AS t WHERE {" AND ".join(conditions) or "true"} ORDER BY {order} LIMIT {limit + 1}
            ) AS t
            WHERE running - size < {PAGE_CHARACTERS_MAX}
        ) AS page ON true
        WHERE checkpoint.name = $1
        ORDER BY page.number
    """  # noqa: S608 (fixed names; the values are arguments)
    return PageStatement(query, arguments, limit)


async def read_page(connection: Connection, statement: PageStatement) -> Page:
    """Read a page of a collection from the primary or a replica."""
    text, arguments, limit = statement
    rows = await connection.fetch(text, *arguments)
    position = require_row(rows[0] if rows else None, CHECKPOINT_TABLE)["checkpoint"]
    if rows[0]["number"] is None:
        return Page(position, [], has_more=False)
    has_more = len(rows) > limit or rows[-1]["running"] >= PAGE_CHARACTERS_MAX
    shown = rows[:limit]
    return Page(position, [row["selected"] for row in shown], has_more, shown[-1]["derived"])
