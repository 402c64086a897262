"""Which database to use: the configured one, or else the embedded server's."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from ledger.config import Settings, parse_url
from ledger.embedded import EmbeddedServer


@contextmanager
def located_database(settings: Settings) -> Iterator[Settings]:
    """Yield settings whose `database_url` is set; the embedded server runs while inside if none is configured.

    Raises:
        EmbeddedError: the embedded server cannot be started.
    """
    if settings.database_url is not None:
        yield settings
        return
    with EmbeddedServer.acquire(settings.home) as server:
        url = parse_url("DATABASE_URL", server.url)
        yield msgspec.structs.replace(settings, database_url=url, direct_database_url=url)
