"""Helpers of the tests of `verify`, `rebuild` and `replay`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.event import Receipt, Request
from ledger.domain.ledger_events import ProjectionSkipped
from ledger.log.appender import Appender
from ledger.log.prepare import prepare
from projections.differences import Difference
from projections.verify import VerificationReport, verify
from projections.worker import fold_page
from tests.events import cost, job, reserve
from tests.log.helpers import connected, query, receipts, request, until
from tests.projections.helpers import append_requests, position, sample_history

CONTENTS = {
    "public": (
        "campaigns",
        "agent_jobs",
        "content_assets",
        "budget_entries",
        "prices",
        "cost_postings",
        "denied_holds",
    ),
    "ledger": (
        "events",
        "streams",
        "accounts",
        "holds",
        "entries",
        "pending_releases",
        "log_head",
        "projection_checkpoints",
    ),
}


class Found(NamedTuple):
    """A difference that a verification found."""

    table: str
    id: str
    column: str
    live: str | None
    replayed: str | None


async def fold_everything(database: Database) -> None:
    while await fold_page(database):
        pass


async def append_sample_and_fold(database: Database, without: Sequence[str] = ()) -> None:
    """Append the sample history, without some event types, and fold all of it."""
    await append_requests(database, sample_history(without))
    await fold_everything(database)


async def verified(database: Database) -> tuple[VerificationReport, set[Found]]:
    """Verify; return the report and the differences."""
    found: list[Difference] = []
    report = await verify(database, found.append)
    differences = {Found(each.table, each.id, each.column, each.live, each.replayed) for each in found}
    assert len(differences) == len(found) == report.differences
    return report, differences


async def tamper(url: URL, *statements: str) -> None:
    """Run statements past triggers and foreign keys, as the owner of the database can."""
    async with connected(url) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)


async def contents(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of the ledger, as text."""
    return {
        f"{schema}.{table}": await query(database, f"SELECT t::text FROM {schema}.{table} AS t ORDER BY 1")
        for schema, names in CONTENTS.items()
        for table in names
    }


async def relations(database: Database) -> list[tuple[Any, ...]]:
    """Every schema and relation, except temporary ones."""
    return await query(
        database,
        """
        SELECT nspname, relname FROM pg_namespace LEFT JOIN pg_class ON relnamespace = pg_namespace.oid
        WHERE nspname !~ '^pg_(toast_)?temp' AND nspname <> 'pg_toast' ORDER BY 1, 2
        """,
    )


async def at_least(database: Database, target: int) -> bool:
    """Whether the tables reflect a position."""
    return await position(database) >= target


@asynccontextmanager
async def writing(database: Database, opened: dict[str, Any]) -> AsyncIterator[list[Receipt]]:
    """Append jobs, costs and holds of a campaign while inside; yields the list of receipts, which grows."""
    written: list[Receipt] = []
    stopping = asyncio.Event()

    async def write(appender: Appender) -> None:
        while not stopping.is_set():
            queued = job(opened["id"])
            sent = [queued, cost("0.01", agent_job_id=queued["id"]), reserve("0.01", campaign_id=opened["id"])]
            written.extend(receipts(await appender.append(request(*sent))))

    async with Appender(database) as appender, asyncio.TaskGroup() as tasks:
        tasks.create_task(write(appender))
        try:
            yield written
        finally:
            stopping.set()


async def skipped(database: Database, at: int) -> None:
    """Skip the event at a position, as an operator would, and clear the failure."""
    skip = ProjectionSkipped(
        projection="read_models", position=at, event_type="cost.imagined", by="somebody", error="It fails", reason="Why"
    )
    async with Appender(database) as appender:
        receipts(await appender.append(Request([prepare(CATALOGUE["ledger.projection_skipped"], skip, actor="local")])))
    await query(database, "UPDATE ledger.projection_checkpoints SET status = 'running', last_error = NULL")


WAITS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@asynccontextmanager
async def locked(url: URL, statement: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Hold the lock that a statement takes while inside; yields a function that waits until another session waits."""
    # Two connections: inside a transaction, pg_stat_activity does not change after it was read once.
    async with connected(url) as holder, connected(url) as watcher, holder.transaction():
        await holder.execute(statement)
        yield lambda: until(lambda: watcher.fetchval(WAITS))
