"""Triggers refuse an event in an older schema version than the last event of its type in the log."""

import re
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.event import Request
from ledger.log import write
from ledger.log.append import append
from tests.audit.sealing import fill
from tests.events import cost, job, reserve
from tests.log.helpers import candidate, query, receipts, record
from tests.log.test_bounded_work import rows_of

TRIGGERS = """
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'older_version'
"""

OLD, OTHERS = [reserve, job], 500


async def record_older(database: Database, *events: dict[str, Any]) -> None:
    """Append events as an earlier release does, in schema version 1."""
    async with database.connection() as connection:
        (verdict,), _ = await append(connection, [Request([candidate(sent, schema_version=1) for sent in events])])
    receipts(verdict)


@pytest.mark.parametrize("make", OLD)
@pytest.mark.parametrize("is_copied", [False, True], ids=["function", "copy"])
async def test_an_earlier_release_appends_until_a_newer_version_is_stored(
    database: Database, monkeypatch: pytest.MonkeyPatch, make: Any, is_copied: bool
) -> None:
    if is_copied:
        monkeypatch.setattr(write, "COPY_CHARACTERS_MIN", 0)
    await record_older(database, make(), cost(), make(), make())
    await record(database, make(), cost(), make())

    with pytest.raises(asyncpg.SerializationError, match="in schema version 1 refused: the log has version 2"):
        await record_older(database, cost(), make())
    await record_older(database, cost())
    await record(database, make())

    versions = f"SELECT schema_version FROM ledger.events WHERE type = '{make()['type']}' ORDER BY position"
    assert await query(database, versions) == [(1,), (1,), (1,), (2,), (2,), (2,)]
    assert await query(database, "SELECT position FROM ledger.log_head") == [(9,)]


async def test_the_triggers_bind_every_type_with_older_versions(database: Database) -> None:
    bound = {}
    for (definition,) in await query(database, TRIGGERS):
        found = re.search(r"new\.type = '([a-z_.]+)'.*new\.schema_version < (\d+)", definition)
        assert found is not None
        bound[found[1]] = int(found[2])

    assert bound == {name: type_.schema_version for name, type_ in CATALOGUE.items() if type_.schema_version > 1}


@pytest.mark.direct
async def test_a_look_up_ends_at_the_last_event_of_the_type(database_url: URL) -> None:
    async def once(database: Database) -> None:
        await record_older(database, reserve())

    async def then_others(database: Database) -> None:
        await once(database)
        await fill(database, OTHERS)

    await rows_of(database_url, then_others)
    first, second = [(await rows_of(database_url, once))["cost_events"] for _ in range(2)]

    assert OTHERS <= first[0] < OTHERS + 20
    assert second[0] < 20
