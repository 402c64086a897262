"""The engines of the verbs: a service's, and what the owner's work needs of his."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.cli.common import fail
from ledger.config import Settings
from ledger.database import STATEMENT_SECONDS_MAX, is_pooled, make_engine
from ledger.schema import migrate


class Engines(NamedTuple):
    """What a running service works with; `direct` and `replica` only where they are something else."""

    main: AsyncEngine
    direct: AsyncEngine | None
    replica: AsyncEngine | None


@asynccontextmanager
async def service_engines(settings: Settings, url: URL) -> AsyncIterator[Engines]:
    """The engines of a service, which waits for no answer for ever."""
    replica_url, direct_url = settings.replica_database_url, settings.direct_database_url

    def engine(found: URL | None, pool_size: int = 10) -> AsyncEngine | None:
        # Another user of the same server is the owner, for his work alone: the service does nothing in his name.
        if found is None or (found.host, found.port) == (url.host, url.port):
            return None
        return make_engine(found, pool_size=pool_size, statement_seconds_max=STATEMENT_SECONDS_MAX)

    main = make_engine(url, statement_seconds_max=STATEMENT_SECONDS_MAX)
    engines = Engines(main, engine(direct_url, pool_size=1), engine(replica_url))
    try:
        yield engines
    finally:
        for made in engines:
            if made is not None:
                await made.dispose()


async def bring_up_to_date(url: URL, *, from_base: bool = False) -> None:
    """Migrate to this release's revision; from the base: everything is taken away before."""
    engine = make_engine(url)
    try:
        if from_base:
            await migrate(engine, to="base")
        await migrate(engine)
    finally:
        await engine.dispose()


def require_session(engine: AsyncEngine) -> None:
    """End the program where the connections that were made go through a pooler in transaction mode."""
    if is_pooled(engine):
        fail(
            "this needs a connection that stays with one server process, and the database is behind a pooler in "
            "transaction mode; set DIRECT_DATABASE_URL to the server itself (Supabase: port 5432; Neon: the host "
            "without -pooler; elsewhere PostgreSQL's own host and port)"
        )
