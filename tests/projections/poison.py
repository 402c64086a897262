"""Events that cannot be folded (poison events), inserted into the log directly."""

from typing import Any

import msgspec
from sqlalchemy import URL

from ledger.database import Database
from tests.log.helpers import connected, query, until, value

INSERT = """
WITH head AS (
    UPDATE ledger.log_head SET position = position + 1, recorded_at = greatest(recorded_at, now())
    RETURNING position, recorded_at
)
INSERT INTO ledger.events
SELECT position, split_part($1::text, '.', 1), gen_random_uuid(), 1, gen_random_uuid(), $1, $2::smallint, recorded_at,
    recorded_at, 'local', NULL, NULL, NULL, NULL, $3::text::json, NULL, NULL, NULL, NULL, length($3::text)
FROM head
"""
CURE = """
SET LOCAL session_replication_role = replica;
DELETE FROM ledger.events WHERE type = 'cost.imagined';
"""


async def poison(database: Database, type_: str = "cost.imagined", schema_version: int = 1, data: str = "{}") -> int:
    """Insert an event without judging it, by default one of a newer release; return its position."""
    await query(database, INSERT, type_, schema_version, data)
    return int(await value(database, "SELECT position FROM ledger.log_head"))


async def cure(url: URL) -> None:
    """Delete the events of the newer release."""
    async with connected(url) as connection, connection.transaction():
        await connection.execute(CURE)


async def state(database: Database) -> tuple[str, dict[str, Any] | None]:
    """The status of the read models, and their failure."""
    ((status, error),) = await query(database, "SELECT status, last_error::text FROM ledger.projection_checkpoints")
    return status, error and msgspec.json.decode(error)


async def stopped(database: Database, status: str) -> dict[str, Any]:
    """Wait until the read models are `failing` or `paused`; return the recorded failure."""

    async def has_stopped() -> dict[str, Any] | None:
        found, error = await state(database)
        return error if found == status else None

    error: dict[str, Any] = await until(has_stopped)
    return error


async def failed(database: Database) -> dict[str, Any]:
    """Wait until the read models are `failing`; return the recorded failure."""
    return await stopped(database, "failing")


async def paused(database: Database) -> dict[str, Any]:
    """Wait until the read models are `paused`; return the recorded failure."""
    return await stopped(database, "paused")


async def runs_again(database: Database) -> None:
    """Wait until the read models are `running`."""

    async def running() -> bool:
        return await state(database) == ("running", None)

    await until(running)
