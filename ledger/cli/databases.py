"""The engines of the verbs: a service's, and what the owner's work needs of his."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from sqlalchemy import URL

from ledger.cli.common import fail
from ledger.config import Settings
from ledger.database import STATEMENT_SECONDS_MAX, Database
from ledger.database.migrations import migrate


class Engines(NamedTuple):
    """What a running service works with; `direct` and `replica` only where they are something else."""

    main: Database
    direct: Database | None
    replica: Database | None


@asynccontextmanager
async def service_engines(settings: Settings, url: URL) -> AsyncIterator[Engines]:
    """The engines of a service, which waits for no answer for ever."""
    replica_url, direct_url = settings.replica_database_url, settings.direct_database_url

    def database(found: URL | None, pool_size: int = 10) -> Database | None:
        # Another user of the same server is the owner, for his work alone: the service does nothing in his name.
        if found is None or (found.host, found.port) == (url.host, url.port):
            return None
        return Database(found, pool_size=pool_size, statement_seconds_max=STATEMENT_SECONDS_MAX)

    main = Database(url, statement_seconds_max=STATEMENT_SECONDS_MAX)
    engines = Engines(main, database(direct_url, pool_size=1), database(replica_url))
    try:
        yield engines
    finally:
        for made in engines:
            if made is not None:
                await made.close()


async def bring_up_to_date(url: URL, *, from_base: bool = False) -> None:
    """Migrate to this release's revision; from the base: everything is taken away before."""
    database = Database(url)
    try:
        if from_base:
            await migrate(database, to="base")
        await migrate(database)
    finally:
        await database.close()


def require_session(database: Database) -> None:
    """End the program where the connections that were made go through a pooler in transaction mode."""
    if database.is_pooled:
        fail(
            "this needs a connection that stays with one server process, and the database is behind a pooler in "
            "transaction mode; set DIRECT_DATABASE_URL to the server itself (Supabase: port 5432; Neon: the host "
            "without -pooler; elsewhere PostgreSQL's own host and port)"
        )
