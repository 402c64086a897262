"""What the tests of verification, rebuild and replay share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.domain.event import Receipt
from ledger.log.appender import Appender
from projections.compare import Difference
from projections.verify import Report, verify
from projections.worker import fold_page
from tests.events import cost, job, reserve
from tests.log.helpers import connected, query, receipts, request
from tests.projections.helpers import position, story, tell

CONTENTS = {
    "public": ("campaigns", "agent_jobs", "content_assets", "budget_entries"),
    "ledger": ("events", "streams", "accounts", "holds", "log_head", "projection_checkpoints"),
}


class Found(NamedTuple):
    """A difference that verification found."""

    table: str
    id: str
    column: str
    live: str | None
    replayed: str | None


async def fold_everything(engine: AsyncEngine) -> None:
    while await fold_page(engine):
        pass


async def told_and_folded(engine: AsyncEngine) -> None:
    """The story, and the tables up to its end."""
    await tell(engine, story())
    await fold_everything(engine)


async def verified(engine: AsyncEngine) -> tuple[Report, set[Found]]:
    """What a verification reports and finds."""
    found: list[Difference] = []
    report = await verify(engine, found.append)
    differences = {Found(each.table, each.id, each.column, each.live, each.replayed) for each in found}
    assert len(differences) == len(found) == report.differences
    return report, differences


async def tamper(url: URL, *statements: str) -> None:
    """Change what no rule of the database would let pass, as one who owns it can."""
    async with connected(url) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)


async def contents(engine: AsyncEngine) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that the ledger keeps, as text."""
    return {
        f"{schema}.{table}": await query(engine, f"SELECT t::text FROM {schema}.{table} AS t ORDER BY 1")
        for schema, names in CONTENTS.items()
        for table in names
    }


async def relations(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    """Every schema and relation there is, but for those of a connection."""
    return await query(
        engine,
        """
        SELECT nspname, relname FROM pg_namespace LEFT JOIN pg_class ON relnamespace = pg_namespace.oid
        WHERE nspname !~ '^pg_(toast_)?temp' AND nspname <> 'pg_toast' ORDER BY 1, 2
        """,
    )


async def at_least(engine: AsyncEngine, wanted: int) -> bool:
    """Whether the tables reflect this position."""
    return await position(engine) >= wanted


@asynccontextmanager
async def writing(engine: AsyncEngine, opened: dict[str, Any]) -> AsyncIterator[list[Receipt]]:
    """A writer at work while inside, on a campaign that was created; yields the receipts it has had so far."""
    written: list[Receipt] = []
    leaving = asyncio.Event()

    async def write(appender: Appender) -> None:
        while not leaving.is_set():
            queued = job(opened["id"])
            sent = [queued, cost("0.01", agent_job_id=queued["id"]), reserve("0.01", campaign_id=opened["id"])]
            written.extend(receipts(await appender.append(request(*sent))))

    async with Appender(engine) as appender, asyncio.TaskGroup() as tasks:
        tasks.create_task(write(appender))
        try:
            yield written
        finally:
            leaving.set()
