"""Alembic environment: run migrations over asyncpg, one process at a time, with timeouts."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from ledger.cli.output import exit_on_error
from ledger.config import read_settings
from ledger.database import Database
from ledger.database.location import located_database
from ledger.database.migrations import DataLossError, UnknownRevisionError, is_known, only_head, revision_problem
from ledger.log.tables import PARTITIONS, SCHEMA
from ledger.log.tables import metadata as log_metadata
from projections.models import Base

# The number for "ledger migrations". Only the process that holds the lock migrates.
ADVISORY_LOCK = 0x6C65646765720001
LOCK_TIMEOUT = "10s"
STATEMENT_TIMEOUT = "15min"

# Since migration 0004 the ledger belongs to `ledger_owner`, which must also own the objects of later migrations. A user
# that may not act as this role continues without it, which is enough for `alembic check`.
WORK_AS_OWNER = """
DO $$ BEGIN
    IF (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger') = to_regrole('ledger_owner')::oid THEN
        SET LOCAL ROLE ledger_owner;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""

RAISED_WARNING = "01000"
"""SQLSTATE of a warning that a migration raises; warnings of PostgreSQL itself have other states."""

EXPENDABLE = {
    # Computed from the events.
    *("accounts", "entries", "holds", "log_head", "pending_releases", "streams"),
    *("log_checkpoint", "log_tiles", "projection_checkpoints", "reverification"),
    # Of no use to a release without it.
    "idempotency_keys",
}
"""Tables of the schema `ledger` that a downgrade may drop with their rows, as it may the read models, but no other."""

SECRETS = "ledger.idempotency_secret"

TABLES = """
SELECT relname FROM pg_class JOIN pg_namespace AS schema ON schema.oid = relnamespace
WHERE nspname = 'ledger' AND relkind IN ('r', 'p') AND NOT relispartition
"""

target_metadata = [log_metadata, Base.metadata]


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Whether autogenerate compares an object: only the schemas of the ledger, without partitions.

    Args:
        name: the name of the object; None for the default schema.
        kind: `schema`, `table`, `column` or another kind of Alembic.
        parents: the names of the containing objects.

    Returns:
        False for objects of others, and for partitions, which the models do not declare.
    """
    if kind == "schema":
        return name in (None, SCHEMA)
    if kind == "table" and parents["schema_name"] == SCHEMA:
        return name not in PARTITIONS
    if kind == "table":
        return name in Base.metadata.tables
    return True


def run(connection: Connection) -> None:
    """Run the migrations on a connection, in one transaction."""
    # If the role is named "ledger", "$user" in the search path would make that schema the default one.
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
        only_head(context.script)
        require_known_revision()
        with logged_warnings(connection), data_kept(connection):
            context.run_migrations()


def require_known_revision() -> None:
    """Refuse a database that a newer release has migrated."""
    for revision in context.get_context().get_current_heads():
        if not is_known(revision):
            raise UnknownRevisionError(str(revision_problem(revision)))


@contextmanager
def data_kept(connection: Connection) -> Iterator[None]:
    """Refuse a downgrade that drops a table with rows that cannot be computed again, unless it is confirmed."""
    if not is_command("downgrade") or context.get_x_argument(as_dictionary=True).get("delete-events") == "yes":
        yield
        return
    filled = [name for name in stored_tables(connection) if has_data(connection, name)]
    yield
    if lost := sorted(set(filled) - set(stored_tables(connection))):
        raise DataLossError(
            f"this downgrade would delete everything in {', '.join(lost)}; nothing was changed. Next: make a backup "
            "(pg_dump, or `ledger events export`), then run `alembic -x delete-events=yes downgrade …`"
        )


def stored_tables(connection: Connection) -> list[str]:
    """Return the tables of the ledger whose rows cannot be computed again."""
    return [f"ledger.{name}" for name in connection.scalars(text(TABLES)) if name not in EXPENDABLE]


def has_data(connection: Connection, table: str) -> bool:
    """Whether a table has data to keep: the migrations themselves make the secret, which is needed once ids use it."""
    return has_rows(connection, table) and (table != SECRETS or has_rows(connection, "ledger.events"))


def has_rows(connection: Connection, table: str) -> bool:
    """Whether a table has at least one row."""
    return bool(connection.scalar(text(f"SELECT EXISTS (SELECT FROM {table})")))  # noqa: S608 (a name of the migrations)


@contextmanager
def logged_warnings(connection: Connection) -> Iterator[None]:
    """Log the warnings that migrations raise."""
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.add_log_listener(log_warning)
    try:
        yield
    finally:
        driver.remove_log_listener(log_warning)


def log_warning(_: Any, message: Any) -> None:
    """Log a message of PostgreSQL if a migration raised it as a warning."""
    if message.sqlstate == RAISED_WARNING:
        logging.getLogger("ledger.migrations").warning(message.message)


async def run_online() -> None:
    """Run the migrations on the configured or the embedded database."""
    with located_database(read_settings(), create=is_command("upgrade")) as settings:
        assert settings.direct_database_url is not None
        async with Database(settings.direct_database_url) as database, database.engine.begin() as connection:
            await connection.run_sync(run)


def is_command(name: str) -> bool:
    """Whether this command of Alembic runs."""
    command = getattr(context.config.cmd_opts, "cmd", None)
    return command is not None and command[0].__name__ == name


def run_offline() -> None:
    """Print the SQL of the migrations."""
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
    # `ledger migrate` passes its connection; the command `alembic` reads the same settings.
    run(context.config.attributes["connection"])
else:
    with exit_on_error():
        asyncio.run(run_online())
