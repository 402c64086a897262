"""Pages of a table: bounded in characters, and no dearer than what they show."""

import pytest

from ledger.database import Database
from projections import queries
from projections.worker import fold_page
from tests.events import content
from tests.log.helpers import record


async def test_nothing_is_made_of_rows_past_the_bound(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(database, *(content() for _ in range(5)))
    await fold_page(database)
    size = len(content()["data"]["content"])
    monkeypatch.setattr(queries, "PAGE_CHARACTERS_MAX", 2 * size)

    # Of the fourth row it cannot be made.
    async with database.connection() as connection:
        checkpoint, rows, more = await queries.page(
            connection,
            "content_assets",
            columns="t.position, 1 / (t.position - 4) AS one",
            size="octet_length(t.content)",
            conditions=[],
            order="t.position",
            limit=50,
            arguments=[],
        )

    assert (checkpoint, rows, more) == (5, ['{"position":1,"one":0}', '{"position":2,"one":0}'], True)
