"""Prefetched pages are folded exactly once, and only if the log still has them."""

import asyncio
import itertools

import pytest

from ledger.database import Database
from projections import prefetch
from projections.worker import fold_page
from tests.audit.sealing import without_triggers
from tests.events import content
from tests.log.helpers import record
from tests.projections.helpers import CountingReader, append_requests, folded, position, sample_history, stored, tables

pytestmark = pytest.mark.direct
"""Behind a transaction-mode pooler nothing is prefetched."""


@pytest.fixture
def reader(database: Database, monkeypatch: pytest.MonkeyPatch) -> CountingReader:
    monkeypatch.setattr(prefetch, "PREFETCH_EVENTS_MIN", 2)
    return CountingReader(database)


async def test_each_page_is_folded_once(database: Database, reader: CountingReader) -> None:
    await append_requests(database, sample_history())

    # Pages grow and shrink, and one worker folds pages that the other has prefetched.
    for size in itertools.cycle([3, 2, 7]):
        if not await fold_page(database, size, reader=reader):
            break
        await fold_page(database, size)
        await fold_page(database, size, reader=reader)
    await reader.close()

    events = await stored(database)
    assert await tables(database) == folded(events)
    assert await position(database) == len(events)
    assert len(reader.finished) > 5


async def test_a_page_that_the_log_no_longer_has_is_not_folded(database: Database, reader: CountingReader) -> None:
    """As after a failover to a replica that lacks the end of the log, or after a restore."""
    await record(database, *(content() for _ in range(6)))
    await fold_page(database, 3, reader=reader)
    while not reader.finished:
        await asyncio.sleep(0.01)
    async with without_triggers(database) as connection:
        await connection.execute(
            "DELETE FROM ledger.events WHERE position > 4; DELETE FROM ledger.streams AS stream WHERE NOT EXISTS "
            "(SELECT FROM ledger.events WHERE stream_id = stream.stream_id); UPDATE ledger.log_head SET position = 4"
        )
    await record(database, content(), content())

    while await fold_page(database, 3, reader=reader):
        pass
    await reader.close()

    events = await stored(database)
    assert (reader.finished[0], len(events)) == (3, 6)
    assert await tables(database) == folded(events)
    assert await position(database) == 6
