"""Choose the database: the configured one, or otherwise the embedded server of the home."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from sqlalchemy import URL

from ledger.config import Settings, parse_url
from ledger.domain.errors import LedgerError
from ledger.embedded import EmbeddedServer, server_exists


class NoDatabaseError(LedgerError):
    """No database is configured, and the home contains none."""


class LocatedServer(NamedTuple):
    """The URL of the database, settings with this `database_url`, and the embedded server if it leads there."""

    url: URL
    settings: Settings
    embedded: EmbeddedServer | None


@contextmanager
def located_server(settings: Settings, *, create: bool = False) -> Iterator[LocatedServer]:
    """Yield the server of the settings; if none is configured, the embedded one runs within the context.

    Args:
        settings: with or without a `database_url`.
        create: whether to create the embedded server if the home has none.

    Raises:
        NoDatabaseError: no database is configured, the home has none, and none is to be created.
        EmbeddedError: the embedded server cannot be started.
    """
    if settings.database_url is not None:
        yield LocatedServer(settings.database_url, settings, None)
        return
    if not create and not server_exists(settings.home):
        raise NoDatabaseError(
            f"there is no ledger in {settings.home.resolve()}, and neither DATABASE_URL nor DB_HOST is set in the "
            f"environment or in {Path.cwd() / '.env'}. Next: run this where the ledger is, name its home with --home "
            "or LEDGER_HOME, or create a ledger with `ledger up`."
        )
    with EmbeddedServer.acquire(settings.home) as server:
        url = parse_url("DATABASE_URL", server.url)
        found = msgspec.structs.replace(settings, database_url=url, direct_database_url=url)
        yield LocatedServer(url, found, server)


@contextmanager
def located_database(settings: Settings, *, create: bool = False) -> Iterator[Settings]:
    """Yield settings with a `database_url`; arguments and errors are those of `located_server`."""
    with located_server(settings, create=create) as located:
        yield located.settings
