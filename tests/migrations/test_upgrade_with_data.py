"""Upgrades of a ledger with events from any older revision, and back: nothing is lost, all is clean."""

import io
import json
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.access import Role
from ledger.keys import create_key, list_keys
from projections.tables import NAMES
from tests.log.helpers import connected, query, value
from tests.migrations.helpers import HEAD, REPOSITORY, REVISIONS, revision, run_alembic
from tests.projections.helpers import NEWER_TYPES, folded, stored, tables
from tests.projections.replaying import append_sample_and_fold, fold_everything, verified

SECRET = "SELECT secret FROM ledger.idempotency_secret"

pytestmark = pytest.mark.direct


@pytest.mark.parametrize("older", REVISIONS[:-1])
async def test_a_ledger_keeps_its_events_on_the_way_to_an_older_revision_and_back(
    database: Database, database_url: URL, older: str
) -> None:
    await append_sample_and_fold(database, without=NEWER_TYPES)
    events, rows = await stored(database), await tables(database)
    secret = await value(database, SECRET)

    await run_alembic(database_url, "downgrade", older)
    at_older = await revision(database_url)
    await run_alembic(database_url, "upgrade", "head")
    await fold_everything(database)

    assert (at_older, await revision(database_url)) == (older, HEAD)
    assert await stored(database) == events
    assert await value(database, SECRET) == secret
    assert await tables(database) == rows == folded(events)
    report, differences = await verified(database)
    assert (report.is_clean, differences) == (True, set())


async def test_a_downgrade_deletes_the_keys_whose_role_older_releases_cannot_read(
    database: Database, database_url: URL
) -> None:
    async with database.connection() as connection:
        await create_key(connection, "prometheus", Role.METRICS)
        await create_key(connection, "agent", Role.AGENT)

    await run_alembic(database_url, "downgrade", "0006")
    await run_alembic(database_url, "upgrade", "head")

    async with database.connection() as connection:
        assert [key.name for key in await list_keys(connection)] == ["agent"]


async def test_a_ledger_that_0_1_0_filled_is_clean_after_the_upgrade(empty_database_url: URL) -> None:
    await run_alembic(empty_database_url, "upgrade", REVISION_OF_0_1_0)
    await fill(empty_database_url)
    database = Database(empty_database_url)
    before = await cells(database)

    await run_alembic(empty_database_url, "upgrade", "head")
    after = await cells(database)
    await fold_everything(database)

    assert len(before) > MIGRATED_CELLS_MIN
    assert before.items() <= after.items()
    assert await tables(database) == folded(await stored(database))
    report, differences = await verified(database)
    assert (report.is_clean, differences) == (True, set())
    await database.close()


MIGRATED_CELLS_MIN = 500


async def cells(database: Database) -> dict[tuple[str, str, str], str]:
    """Return the value of each column of each row of the read models there are; amounts without trailing zeros."""
    found = {}
    for (name,) in await query(database, "SELECT tablename FROM pg_tables WHERE tablename = ANY ($1)", list(NAMES)):
        for (row,) in await query(database, f"SELECT to_jsonb(row)::text FROM {name} AS row"):
            decoded = json.loads(row, parse_float=Decimal)
            found |= {(name, decoded["id"], column): cell_text(cell) for column, cell in decoded.items()}
    return found


def cell_text(cell: Any) -> str:
    return f"{cell.normalize():f}" if isinstance(cell, Decimal) else json.dumps(cell, default=str)


REVISION_OF_0_1_0 = "0004"


async def fill(url: URL) -> None:
    """Load the tables as 0.1.0 left them."""
    async with connected(url) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for line in (REPOSITORY / "tests" / "data" / "first_release_tables.ndjson").read_text().splitlines():
            table = json.loads(line)
            schema, _, name = table["table"].rpartition(".")
            await connection.execute(f"DELETE FROM {table['table']}")
            await connection.copy_to_table(
                name, schema_name=schema or None, columns=table["columns"], source=io.BytesIO(table["rows"].encode())
            )
