"""`ledger replay`: the read models at a past position or time, in a new schema (time travel)."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import msgspec

from ledger.database import CONNECTION_ERRORS, Database
from ledger.domain.codec import time_text
from ledger.domain.errors import LedgerError
from ledger.log.point_in_time import RECORDED_AT, resolve_position
from projections.replay import Progress, Replay
from projections.skips import Skip

RESERVED_SCHEMAS = ("public", "ledger", "information_schema")
BUILDING_SUFFIX = "_replaying"

# A role's search path begins with its own name: tables in that schema would hide the live ones from it.
IS_KEYWORD_OR_ROLE = """
SELECT quote_ident($1) <> $1 OR EXISTS (SELECT FROM pg_roles WHERE rolname = $1)
"""

TRY_LOCK_SCHEMA = "SELECT pg_try_advisory_lock(hashtextextended('ledger replay ' || $1, 0))"
SCHEMA_EXISTS = "SELECT to_regnamespace($1) IS NOT NULL"

UNFINISHED = "ledger replay, unfinished"
"""The comment on a schema while a replay fills it."""

IS_FOREIGN = """
SELECT obj_description(oid, 'pg_namespace') IS DISTINCT FROM $2 FROM pg_namespace WHERE nspname = $1
"""


class SnapshotError(LedgerError):
    """The snapshot cannot be made under this name."""


class Snapshot(msgspec.Struct):
    """A schema with the read models at a position; `recorded_at` is that of its last event, null at position 0."""

    schema: str
    position: int
    recorded_at: str | None
    skipped: list[Skip]


async def replay_into(
    database: Database,
    schema: str,
    until: int | datetime,
    progress: Progress = lambda position: None,
    begin: Callable[[int], None] = lambda events: None,
) -> Snapshot:
    """Create a schema with the tables at a point in time, including constraints and indexes.

    The schema appears complete or not at all: it is filled under another name.

    Args:
        database: with a session, so not behind a transaction-mode pooler.
        schema: the name of the schema, which must not exist.
        until: the last position, or the last time of recording, to include.
        progress: called with the position that the replay has reached.
        begin: called with the number of events once it is known.

    Returns:
        the schema, and the position that it shows.

    Raises:
        SnapshotError: the name is taken or not allowed.
        Malformed: the log does not reach the point in time.
        ReplayError: an event cannot be folded.
    """
    if (
        not re.fullmatch(r"[a-z_][a-z0-9_]{0,49}", schema, re.ASCII)
        or schema in RESERVED_SCHEMAS
        or schema.startswith("pg_")
        or schema.endswith(BUILDING_SUFFIX)
    ):
        raise SnapshotError(
            f"{schema[:60]!r} cannot be the schema: choose a new name of at most 50 lower-case letters, digits and _"
        )
    building = f"{schema}{BUILDING_SUFFIX}"
    async with database.connection() as connection:
        if await connection.fetchval(IS_KEYWORD_OR_ROLE, schema):
            raise SnapshotError(
                f"{schema!r} cannot be the schema: it is an SQL keyword or the name of a role; choose another"
            )
        position = await resolve_position(connection, until)
        if not await connection.fetchval(TRY_LOCK_SCHEMA, schema):
            raise SnapshotError(f"another replay into {schema} is running; wait until it has ended")
        if await connection.fetchval(SCHEMA_EXISTS, schema):
            raise SnapshotError(
                f"the schema {schema} exists; choose another, or drop it first: DROP SCHEMA {schema} CASCADE"
            )
        begin(position)
        if await connection.fetchval(IS_FOREIGN, building, UNFINISHED):
            raise SnapshotError(
                f"the schema {building}, which a replay would drop and fill, was not made by one; rename it"
            )
        try:
            # A killed replay may have left the schema behind.
            await connection.execute(
                f"DROP SCHEMA IF EXISTS {building} CASCADE; CREATE SCHEMA {building};"
                f"COMMENT ON SCHEMA {building} IS '{UNFINISHED}'"
            )
            replay = Replay(database, connection, building, progress)
            await replay.create_tables()
            await replay.advance(position)
            await replay.add_indexes()
            recorded_at = await connection.fetchval(RECORDED_AT, position)
            recorded = time_text(recorded_at) if recorded_at else None
            async with connection.transaction():
                await connection.execute(f"ALTER SCHEMA {building} RENAME TO {schema}")
                as_of = f"position {position}, recorded {recorded}" if recorded else "the beginning, before any event"
                await connection.execute(f"COMMENT ON SCHEMA {schema} IS 'The ledger as of {as_of}'")
        except BaseException:
            with suppress(*CONNECTION_ERRORS):
                # If interrupted, the connection may still be in a transaction that would undo this.
                await connection.execute(f"ROLLBACK; DROP SCHEMA IF EXISTS {building} CASCADE")
            raise
        # Releases its lock.
        await connection.close()
    return Snapshot(schema, position, recorded, replay.skipped)
