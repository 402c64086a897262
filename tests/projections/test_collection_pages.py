"""Pages of a collection end at a bound of bytes, and JSON is made of their rows only."""

import pytest

from ledger.database import Database
from projections import collection_sql, queries
from projections.collection_sql import SortKey
from projections.tables import CONTENT_ASSETS
from projections.worker import fold_page
from tests.events import content
from tests.log.helpers import record


async def test_no_json_is_made_of_rows_past_the_bound(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(database, *(content() for _ in range(5)))
    await fold_page(database)
    size = len(content()["data"]["content"])
    monkeypatch.setattr(queries, "PAGE_CHARACTERS_MAX", 2 * size)
    # The JSON of the fourth row cannot be made.
    selected = "(SELECT row_to_json(s)::text FROM (SELECT t.position, 1 / (t.position - 4) AS one) AS s)"
    monkeypatch.setattr(collection_sql, "row_as_json", lambda model, columns: selected)

    statement = queries.page_statement(CONTENT_ASSETS, ("content",), sort=[SortKey("position")], limit=50)

    async with database.connection() as connection:
        page = await queries.read_page(connection, statement)

    assert page == queries.Page(5, ['{"position":1,"one":0}', '{"position":2,"one":0}'], has_more=True)


async def test_a_text_that_is_not_selected_does_not_end_a_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(database, *(content() for _ in range(3)))
    await fold_page(database)
    monkeypatch.setattr(queries, "PAGE_CHARACTERS_MAX", 1)
    rows = {}

    async with database.connection() as connection:
        for column in ("content", "position"):
            statement = queries.page_statement(CONTENT_ASSETS, (column,), sort=[SortKey("position")], limit=50)
            rows[column] = len((await queries.read_page(connection, statement)).rows)

    assert rows == {"content": 1, "position": 3}
