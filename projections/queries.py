"""Named statements over the read models, for the API. Each answers together with the position it reflects."""

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import msgspec

from ledger.backoff import Backoff
from ledger.database import Connection, Database
from ledger.domain.errors import ProjectionBehind
from ledger.log.read import PAGE_CHARACTERS_MAX
from projections.checkpoint import GROUP, Failure

if TYPE_CHECKING:
    import asyncpg

MIN_POSITION_SECONDS_MAX = 5.0
POLL_SECONDS_MIN = 0.002
POLL_SECONDS_MAX = 0.05
POLL_GROWTH = 1.25
"""So who waits is answered at most a quarter later than could be."""

CHECKPOINT = "SELECT position FROM ledger.projection_checkpoints WHERE name = $1"

PROJECTIONS = """
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

SPEND_KEYS = {
    "day": "to_char(entry.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    "resource_type": "entry.resource_type",
    "model_used": "entry.model_used",
    "provider": "entry.provider",
    "campaign_id": "entry.campaign_id",
    "agent_job_id": "entry.agent_job_id",
    "agent_type": "job.agent_type",
}


async def wait_for_position(database: Database, position: int, seconds: float = MIN_POSITION_SECONDS_MAX) -> None:
    """Wait until the read models reflect this position.

    Raises:
        ProjectionBehind: they do not within so many seconds.
    """
    backoff = Backoff(POLL_SECONDS_MIN, POLL_SECONDS_MAX, factor=POLL_GROWTH)
    reached = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                async with database.connection() as connection:
                    reached = await connection.fetchval(CHECKPOINT, GROUP)
                if reached >= position:
                    return
                await asyncio.sleep(backoff.next())
    except TimeoutError:
        raise ProjectionBehind(
            f"the read models are at position {reached}, not at {position} yet; try again in a moment"
        ) from None


class ProjectionStatus(msgspec.Struct):
    """Where the read models stand in the log, and what stops them."""

    status: Literal["running", "failing", "paused"]
    position: int
    head: int
    lag_events: int
    lag_seconds: float
    failure: Failure | None

    def trouble(self) -> str | None:
        """In plain words what is wrong; None while they run."""
        if self.status == "running":
            return None
        what = f"{self.status} at position {self.position}"
        if self.failure is None:
            return what
        if not self.failure.position:
            return f"{what}: {self.failure.type}: {self.failure.error}"
        return f"{what}: {self.failure.type} at position {self.failure.position} fails with {self.failure.error}"


async def projection_status(connection: Connection) -> ProjectionStatus:
    """Where the projections stand."""
    row = await connection.fetchrow(PROJECTIONS, GROUP)
    assert row is not None
    failure = msgspec.json.decode(row["last_error"], type=Failure) if row["last_error"] else None
    lag_events = row["head"] - row["position"]
    return ProjectionStatus(
        row["status"], row["position"], row["head"], lag_events, max(0.0, row["lag_seconds"]), failure
    )


async def budget(connection: Connection, campaign_id: UUID, now: datetime) -> "asyncpg.Record":
    """A campaign's balances, and what was spent in the seven days before `now`; all None where it does not exist."""
    record = await connection.fetchrow(BUDGET, GROUP, campaign_id, now)
    assert record is not None
    return record


async def spend(
    connection: Connection,
    keys: list[str],
    start: datetime | None,
    end: datetime | None,
    campaign_id: UUID | None,
    allowed_campaign_ids: Collection[UUID] | None,
) -> tuple[int, list["asyncpg.Record"]]:
    """What was settled, summed by keys out of `SPEND_KEYS` and always by currency too.

    Args:
        start, end: of `occurred_at`, start inclusive, end exclusive; None: open.
        allowed_campaign_ids: only costs of these campaigns; None: all.

    Returns:
        the position reflected, and rows of the keys, currency, cost, tokens_used, entries.
    """
    names = [*keys, "currency"]
    selected = ", ".join(f"{SPEND_KEYS.get(key, 'entry.currency')} AS {key}" for key in names)
    numbers = ", ".join(str(number) for number in range(1, len(names) + 1))
    query = f"""
        SELECT checkpoint.position AS checkpoint, found.*
        FROM ledger.projection_checkpoints AS checkpoint LEFT JOIN LATERAL (
            SELECT {selected}, sum(entry.cost) AS cost, sum(entry.tokens_used)::numeric AS tokens_used,
                count(*) AS entries
            FROM budget_entries AS entry LEFT JOIN agent_jobs AS job ON job.id = entry.agent_job_id
            WHERE entry.status = 'settled'
                AND ($2::timestamptz IS NULL OR entry.occurred_at >= $2)
                AND ($3::timestamptz IS NULL OR entry.occurred_at < $3)
                AND ($4::uuid IS NULL OR entry.campaign_id = $4)
                AND ($5::uuid[] IS NULL OR entry.campaign_id = ANY ($5))
            GROUP BY {numbers}
        ) AS found ON true
        WHERE checkpoint.name = $1
        ORDER BY {", ".join(f"found.{name}" for name in names)}
    """  # noqa: S608 (the names are keys of SPEND_KEYS)
    rows = await connection.fetch(
        query, GROUP, start, end, campaign_id, None if allowed_campaign_ids is None else list(allowed_campaign_ids)
    )
    return rows[0]["checkpoint"], [row for row in rows if row["entries"] is not None]


_AS_JSON = "(SELECT row_to_json(selected)::text FROM (SELECT {columns}) AS selected)"


async def item(
    connection: Connection, table: str, columns: str, campaign: str, item_id: UUID
) -> tuple[int, UUID | None, str | None]:
    """Read one row.

    Args:
        columns, campaign: fixed SQL over the alias `t`: what is selected, and the campaign that it is of.

    Returns:
        the position reflected, the campaign, and the columns as a JSON object, None where there is no such row.
    """
    query = f"""
        SELECT checkpoint.position, {campaign},
            CASE WHEN t.id IS NOT NULL THEN {_AS_JSON.format(columns=columns)} END
        FROM ledger.projection_checkpoints AS checkpoint LEFT JOIN {table} AS t ON t.id = $2
        WHERE checkpoint.name = $1
    """  # noqa: S608 (fixed SQL of the collections)
    row = await connection.fetchrow(query, GROUP, item_id)
    assert row is not None
    return row[0], row[1], row[2]


async def page(
    connection: Connection,
    table: str,
    *,
    columns: str,
    size: str,
    conditions: list[str],
    order: str,
    limit: int,
    arguments: list[Any],
) -> tuple[int, list[str], bool]:
    """Read a page of one table, bounded in rows and in characters, but never empty while there are rows.

    Args:
        columns, size, conditions, order: fixed SQL over the alias `t`; `size` is a row's characters, conditions take
            their parameters from $2 on.
        arguments: those parameters.

    Returns:
        the position reflected, the columns of each row as a JSON object, and whether there may be more rows.
    """
    # JSON is made of what the page shows alone: a text past the bound is never read from disk.
    query = f"""
        SELECT checkpoint.position AS checkpoint, found.*
        FROM ledger.projection_checkpoints AS checkpoint LEFT JOIN LATERAL (
            SELECT {_AS_JSON.format(columns=columns)} AS selected, running, number FROM (
                SELECT *, {size} AS size,
                    {_window("sum(" + size + ")", order)} AS running, {_window("row_number()", order)} AS number
                FROM {table} AS t WHERE {" AND ".join(conditions) or "true"} ORDER BY {order} LIMIT {limit + 1}
            ) AS t
            WHERE running - size < {PAGE_CHARACTERS_MAX}
        ) AS found ON true
        WHERE checkpoint.name = $1
        ORDER BY found.number
    """  # noqa: S608 (fixed SQL of the collections)
    rows = await connection.fetch(query, GROUP, *arguments)
    checkpoint = rows[0]["checkpoint"]
    if rows[0]["number"] is None:
        return checkpoint, [], False
    more = len(rows) > limit or rows[-1]["running"] >= PAGE_CHARACTERS_MAX
    return checkpoint, [row["selected"] for row in rows[:limit]], more


def _window(function: str, order: str) -> str:
    return f"{function} OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING)"
