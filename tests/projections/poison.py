"""Events that cannot be folded, put into the log by hand, and how the projections say that they stand still."""

from typing import Any

import msgspec
from sqlalchemy import URL

from ledger.database import Database
from tests.log.helpers import connected, query, until, value

INSERT = """
WITH head AS (UPDATE ledger.log_head SET position = position + 1 RETURNING position)
INSERT INTO ledger.events
SELECT position, split_part($1::text, '.', 1), gen_random_uuid(), 1, gen_random_uuid(), $1, $2::smallint, now(), now(),
    'local', NULL, NULL, NULL, NULL, $3::text::json, NULL, NULL, NULL, NULL, length($3::text)
FROM head
"""
CURE = """
SET LOCAL session_replication_role = replica;
DELETE FROM ledger.events WHERE type = 'cost.imagined';
"""


async def poison(database: Database, type_: str = "cost.imagined", schema_version: int = 1, data: str = "{}") -> int:
    """Record an event past all judgement, unless told otherwise one that a newer release wrote; its position."""
    await query(database, INSERT, type_, schema_version, data)
    return int(await value(database, "SELECT position FROM ledger.log_head"))


async def cure(url: URL) -> None:
    """Take the events of the newer release away."""
    async with connected(url) as connection, connection.transaction():
        await connection.execute(CURE)


async def state(database: Database) -> tuple[str, dict[str, Any] | None]:
    """Status and error of the projections."""
    ((status, error),) = await query(database, "SELECT status, last_error::text FROM ledger.projection_checkpoints")
    return status, error and msgspec.json.decode(error)


async def stopped(database: Database, status: str) -> dict[str, Any]:
    """Wait for the projections to be `failing` or `paused`; the error recorded."""

    async def is_so() -> dict[str, Any] | None:
        found, error = await state(database)
        return error if found == status else None

    error: dict[str, Any] = await until(is_so)
    return error


async def failed(database: Database) -> dict[str, Any]:
    """Wait for the projections to fail; the error recorded."""
    return await stopped(database, "failing")


async def paused(database: Database) -> dict[str, Any]:
    """Wait for the projections to be given up; the error recorded."""
    return await stopped(database, "paused")


async def runs_again(database: Database) -> None:
    """Wait until nothing is said to be wrong."""

    async def running() -> bool:
        return await state(database) == ("running", None)

    await until(running)
