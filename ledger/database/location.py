"""Choose the database: the configured one, or otherwise the embedded server."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from ledger.config import Settings, parse_url
from ledger.embedded import EmbeddedServer


@contextmanager
def located_database(settings: Settings) -> Iterator[Settings]:
    """Yield settings with a `database_url`; if none is configured, the embedded server runs within the context.

    Raises:
        EmbeddedError: the embedded server cannot be started.
    """
    if settings.database_url is not None:
        yield settings
        return
    with EmbeddedServer.acquire(settings.home) as server:
        url = parse_url("DATABASE_URL", server.url)
        yield msgspec.structs.replace(settings, database_url=url, direct_database_url=url)
