"""Upgrades of a ledger with events from any older revision, and back: nothing is lost, all is clean."""

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.access import Role
from ledger.keys import create_key, list_keys
from tests.log.helpers import value
from tests.migrations.helpers import HEAD, REVISIONS, revision, run_alembic
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
