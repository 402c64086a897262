"""Pages that the worker has read ahead: folded once each, and only while they are what the log says."""

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
"""Behind a pooler nothing is read ahead."""


@pytest.fixture
def reader(database: Database, monkeypatch: pytest.MonkeyPatch) -> CountingReader:
    monkeypatch.setattr(prefetch, "PREFETCH_EVENTS_MIN", 2)
    return CountingReader(database)


async def test_each_is_folded_once(database: Database, reader: CountingReader) -> None:
    await append_requests(database, sample_history())

    # Pages grow and shrink, and one worker folds what the other has read ahead.
    for size in itertools.cycle([3, 2, 7]):
        if not await fold_page(database, size, reader=reader):
            break
        await fold_page(database, size)
        await fold_page(database, size, reader=reader)
    await reader.close()

    events = await stored(database)
    assert await tables(database) == folded(events)
    assert await position(database) == len(events)
    assert len(reader.ahead) > 5


async def test_one_that_another_server_does_not_know_is_not_folded(database: Database, reader: CountingReader) -> None:
    """A replica that took over without the log's end, or a backup put back under a running worker."""
    await record(database, *(content() for _ in range(6)))
    await fold_page(database, 3, reader=reader)
    while not reader.ahead:
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
    assert (reader.ahead[0], len(events)) == (3, 6)
    assert await tables(database) == folded(events)
    assert await position(database) == 6
