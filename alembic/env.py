"""How migrations run: over asyncpg, one at a time across processes, never waiting long for a lock."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from ledger.config import read_settings
from ledger.database import Database
from ledger.database.location import located_database
from ledger.log.tables import PARTITIONS, SCHEMA
from ledger.log.tables import metadata as log_metadata
from projections.models import Base

# "ledger migrations" as a number: only one process migrates at a time.
ADVISORY_LOCK = 0x6C65646765720001
LOCK_TIMEOUT = "10s"
STATEMENT_TIMEOUT = "15min"

# Once the ledger belongs to `ledger_owner` (migration 0004), what later migrations make shall too. Whoever may not act
# for it goes on as himself: he can still look.
WORK_AS_OWNER = """
DO $$ BEGIN
    IF (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger') = to_regrole('ledger_owner')::oid THEN
        SET LOCAL ROLE ledger_owner;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""

RAISED_WARNING = "01000"
"""The state of a warning that a migration raises; PostgreSQL's own have others."""

target_metadata = [log_metadata, Base.metadata]


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Compare our two schemas only, and no partitions: autogenerate would take those for strangers."""
    if kind == "schema":
        return name in (None, SCHEMA)
    if kind == "table" and parents["schema_name"] == SCHEMA:
        return name not in PARTITIONS
    if kind == "table":
        return name in Base.metadata.tables
    return True


def run(connection: Connection) -> None:
    # Where the role is called "ledger" too, "$user" in the search path would make our schema the default one.
    connection.execute(text("SET LOCAL search_path TO public"))
    connection.dialect.default_schema_name = "public"
    context.configure(
        connection=connection,
        target_metadata=target_metadata,
        include_schemas=True,
        include_name=include_name,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        context.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'")
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        context.execute(WORK_AS_OWNER)
        with warnings_told(connection):
            context.run_migrations()


@contextmanager
def warnings_told(connection: Connection) -> Iterator[None]:
    """Pass on what migrations have to say."""
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.add_log_listener(tell)
    try:
        yield
    finally:
        driver.remove_log_listener(tell)


def tell(_: Any, message: Any) -> None:
    if message.sqlstate == RAISED_WARNING:
        logging.getLogger("ledger.migrations").warning(message.message)


async def run_online() -> None:
    with located_database(read_settings()) as settings:
        assert settings.direct_database_url is not None
        async with Database(settings.direct_database_url) as database, database.engine.begin() as connection:
            await connection.run_sync(run)


def run_offline() -> None:
    context.configure(
        dialect_name="postgresql", target_metadata=target_metadata, literal_binds=True, include_schemas=True
    )
    with context.begin_transaction():
        context.execute("SET LOCAL search_path TO public")
        context.execute(WORK_AS_OWNER)
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
elif "connection" in context.config.attributes:
    # `ledger migrate` hands its connection over; the alembic command finds the database by the same settings.
    run(context.config.attributes["connection"])
else:
    asyncio.run(run_online())
