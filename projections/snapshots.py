"""ledger replay: the read models as they stood, left in a schema of their own to be queried."""

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

RESERVED = ("public", "ledger", "information_schema")
BUILDING = "_replaying"

# A role's own name stands first in its search path: there the tables would hide the live ones from it.
IS_WORD_OR_ROLE = """
SELECT quote_ident($1) <> $1 OR EXISTS (SELECT FROM pg_roles WHERE rolname = $1)
"""

TRY_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('ledger replay ' || $1, 0))"
EXISTS = "SELECT to_regnamespace($1) IS NOT NULL"

UNFINISHED = "ledger replay, unfinished"
IS_ANOTHERS = """
SELECT obj_description(oid, 'pg_namespace') IS DISTINCT FROM $2 FROM pg_namespace WHERE nspname = $1
"""


class SnapshotError(LedgerError):
    """This cannot be replayed."""


class Replayed(msgspec.Struct):
    """The schema made, and the position it shows; `recorded_at` is that of the last event, null at 0."""

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
) -> Replayed:
    """Make a schema with the four tables as they stood, constraints and indexes included.

    The schema appears whole or not at all: it is filled under another name.

    Args:
        schema: a name that is free.
        until: a position, or a time of recording; inclusive.
        begin: called with the number of events once it is known.

    Raises:
        SnapshotError: the name is taken or not allowed, or the log does not reach so far.
        ReplayError: an event cannot be folded.
    """
    if (
        not re.fullmatch(r"[a-z_][a-z0-9_]{0,49}", schema, re.ASCII)
        or schema in RESERVED
        or schema.startswith("pg_")
        or schema.endswith(BUILDING)
    ):
        raise SnapshotError(
            f"{schema[:60]!r} cannot be the schema: take a new name of lower-case letters, digits and _, at most 50"
        )
    building = f"{schema}{BUILDING}"
    async with database.connection() as connection:
        if await connection.fetchval(IS_WORD_OR_ROLE, schema):
            raise SnapshotError(f"{schema!r} cannot be the schema: it is a word of SQL or a role's name; take another")
        position = await resolve_position(connection, until)
        if not await connection.fetchval(TRY_LOCK, schema):
            raise SnapshotError(f"another replay into {schema} is at work; wait until it has ended")
        if await connection.fetchval(EXISTS, schema):
            raise SnapshotError(
                f"the schema {schema} exists; choose another, or drop it first: DROP SCHEMA {schema} CASCADE"
            )
        begin(position)
        if await connection.fetchval(IS_ANOTHERS, building, UNFINISHED):
            raise SnapshotError(f"the schema {building}, where this would work, is not a replay's; rename it")
        try:
            # What a killed replay has left goes first.
            await connection.execute(
                f"DROP SCHEMA IF EXISTS {building} CASCADE; CREATE SCHEMA {building};"
                f"COMMENT ON SCHEMA {building} IS '{UNFINISHED}'"
            )
            replay = Replay(database, connection, building, progress)
            await replay.create_tables()
            await replay.advance(position)
            await replay.add_indexes()
            recorded_at = await connection.fetchval(RECORDED_AT, position)
            moment = time_text(recorded_at) if recorded_at else None
            async with connection.transaction():
                await connection.execute(f"ALTER SCHEMA {building} RENAME TO {schema}")
                as_of = f"position {position}, recorded {moment}" if moment else "the beginning, before any event"
                await connection.execute(f"COMMENT ON SCHEMA {schema} IS 'The ledger as of {as_of}'")
        except BaseException:
            with suppress(*CONNECTION_ERRORS):
                # Broken off, the connection may still be in a transaction that would take this back.
                await connection.execute(f"ROLLBACK; DROP SCHEMA IF EXISTS {building} CASCADE")
            raise
        # With the connection goes its lock.
        await connection.close()
    return Replayed(schema, position, moment, replay.skipped)
