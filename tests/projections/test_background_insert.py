"""The worker folds the next part of a page while PostgreSQL inserts the rows of the last one."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from projections import page
from projections.worker import fold_page
from tests.events import cost
from tests.log.helpers import connected, record

LAST_STATEMENT = "SELECT query_start, query FROM pg_stat_activity WHERE pid = $1"

SECONDS_MAX = 10.0

pytestmark = pytest.mark.direct


class Observer:
    """Reads from another thread which statement a session ran last, even while the event loop is blocked."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self.pid = 0

    def last_statement(self) -> tuple[Any, str]:
        async def read() -> tuple[Any, str]:
            async with connected(self._url) as connection:
                row = await connection.fetchrow(LAST_STATEMENT, self.pid)
                assert row is not None
                return row["query_start"], row["query"]

        found: list[tuple[Any, str]] = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(read())))
        thread.start()
        thread.join()
        return found[0]

    def sees_insert_after(self, before: Any) -> bool:
        """Whether the session has received an INSERT later than a statement."""
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            started, statement = self.last_statement()
            if started != before and statement.startswith("INSERT"):
                return True
        return False


async def test_an_insert_has_reached_postgresql_before_the_next_part_is_folded(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(database, *(cost() for _ in range(10)))
    # The first page prepares the statements.
    await fold_page(database, 1)
    observer = Observer(database_url)
    insert_rows, fold_events = page.insert_rows, page.fold_events
    before: list[Any] = []
    sent: list[bool] = []

    def insert(connection: Any, inserts: Sequence[bytes], schema: str) -> Any:
        observer.pid = connection.get_server_pid()
        before.append(observer.last_statement()[0])
        return insert_rows(connection, inserts, schema)

    def fold(*arguments: Any) -> None:
        if before:
            sent.append(observer.sees_insert_after(before[-1]))
        fold_events(*arguments)

    monkeypatch.setattr(page, "PART_EVENTS", 3)
    monkeypatch.setattr(page, "insert_rows", insert)
    monkeypatch.setattr(page, "fold_events", fold)

    await fold_page(database)

    assert sent == [True, True]
