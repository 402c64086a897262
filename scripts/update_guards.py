#!/usr/bin/env python3
"""Write alembic/guards.json: the triggers, constraints and privileges that the migrations make.

Migrates an empty database on a temporary embedded PostgreSQL, and reads its catalog.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ledger.config import parse_url
from ledger.database import Database
from ledger.database.guards import Guard, read_guards
from ledger.database.migrations import expected_revision, migrate
from ledger.embedded import EmbeddedServer
from scripts.source_texts import REPOSITORY

GUARDS = REPOSITORY / "alembic" / "guards.json"


async def guards_of_new_database(url: str) -> list[Guard]:
    """Migrate an empty database and return its guards."""
    async with Database(parse_url("DATABASE_URL", url)) as database:
        await migrate(database)
        async with database.connection() as connection:
            return await read_guards(connection)


def as_text(guards: list[Guard]) -> str:
    """Return the content of the file: one guard a line, so that changes are easy to read and to merge."""
    lines = ",\n".join(msgspec.json.encode(guard).decode() for guard in guards)
    return f'{{"revision": "{expected_revision()}", "guards": [\n{lines}\n]}}\n'


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory(prefix="ledger-guards-") as home, EmbeddedServer.acquire(Path(home)) as server:
        GUARDS.write_text(as_text(asyncio.run(guards_of_new_database(server.url))))


if __name__ == "__main__":
    main()
