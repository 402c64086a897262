"""Reading the log: ordered pages with limits on number and size, filters, and the view of an event."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.log import read
from ledger.log.event_view import view
from ledger.log.read import EventFilter, StoredEvent, read_all, read_head, read_page, read_stream_version
from tests.events import campaign, content, cost, follow, job
from tests.log.helpers import query, record

CAMPAIGN, JOB, ASSET = campaign(), job(), content()
CAMPAIGN_ID, JOB_ID = UUID(CAMPAIGN["id"]), UUID(JOB["id"])
EVENTS = [
    CAMPAIGN,
    follow(CAMPAIGN, "campaign.activated"),
    JOB,
    ASSET,
    cost(campaign_id=CAMPAIGN["id"]),
    cost(agent_job_id=JOB["id"]),
    cost(agent_job_id=JOB["id"], campaign_id=CAMPAIGN["id"]),
    follow(JOB, "job.started"),
    follow(CAMPAIGN, "campaign.paused"),
]


@pytest.fixture(scope="module")
async def log(shared_database_url: URL) -> AsyncIterator[Database]:
    """A log that holds EVENTS; tests must not change it."""
    database = Database(shared_database_url)
    await record(database, *EVENTS)
    yield database
    await database.close()


async def page(database: Database, selection: EventFilter, *limit: int) -> list[StoredEvent]:
    async with database.connection() as connection:
        return await read_page(connection, selection, *limit)


def positions(events: list[StoredEvent]) -> list[int]:
    return [event.position for event in events]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"after": 7}, [8, 9]),
        ({"after": 9}, []),
        ({"until": 2}, [1, 2]),
        ({"after": 3, "until": 5}, [4, 5]),
        ({"after": 5, "until": 5}, []),
        ({"categories": ("campaign",)}, [1, 2, 9]),
        ({"categories": ("content", "job")}, [3, 4, 8]),
        ({"categories": ("ledger",)}, []),
        ({"types": ("cost.recorded",)}, [5, 6, 7]),
        ({"types": ("job.started", "job.queued")}, [3, 8]),
        ({"stream_ids": (CAMPAIGN_ID,)}, [1, 2, 9]),
        ({"campaign_id": CAMPAIGN_ID}, [1, 2, 5, 7, 9]),
        ({"agent_job_id": JOB_ID}, [3, 6, 7, 8]),
        ({"campaign_id": CAMPAIGN_ID, "agent_job_id": JOB_ID}, [7]),
        ({"campaign_id": CAMPAIGN_ID, "types": ("cost.recorded",), "after": 5}, [7]),
        ({"campaign_id": JOB_ID}, []),
    ],
)
async def test_a_page_holds_the_selected_events_in_order(
    log: Database, filters: dict[str, Any], expected: list[int]
) -> None:
    assert positions(await page(log, EventFilter(**filters))) == expected


@pytest.mark.parametrize("limit", [1, 2, 4, 9, 10])
async def test_pages_of_any_size_together_hold_all_events(log: Database, limit: int) -> None:
    pages, after = [], 0
    while events := await page(log, EventFilter(after=after), limit):
        pages.append(positions(events))
        after = pages[-1][-1]

    assert [position for one in pages for position in one] == list(range(1, 10))
    assert all(len(one) == limit for one in pages[:-1])


async def test_a_page_has_a_maximum_size_but_holds_at_least_one_event(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [10, 30, 50, 100, 101, 10]
    empty = len('{"content_type":"blog"}{"title":"A","content":""}')
    await record(database, *(content(title="A", content="x" * (size * 10 - empty)) for size in sizes))
    monkeypatch.setattr(read, "PAGE_CHARACTERS_MAX", 1_000)

    pages = [positions(await page(database, EventFilter(after=after))) for after in range(6)]

    assert pages == [[1, 2, 3], [2, 3], [3], [4], [5], [6]]


async def test_the_size_limit_counts_only_selected_events(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(database, cost(), content(content="x" * 10_000), cost())
    monkeypatch.setattr(read, "PAGE_CHARACTERS_MAX", 1_000)

    assert positions(await page(database, EventFilter(categories=("cost",)))) == [1, 3]


async def collect(pages: AsyncIterator[list[StoredEvent]]) -> list[list[int]]:
    return [positions(events) async for events in pages]


@pytest.mark.parametrize(("limit", "pages"), [(4, [[1, 2, 3, 4], [5, 6, 7, 8], [9]]), (9, [list(range(1, 10))])])
async def test_the_whole_log_is_read_page_by_page(log: Database, limit: int, pages: list[list[int]]) -> None:
    assert await collect(read_all(log, EventFilter(), limit)) == pages


async def test_reading_the_whole_log_is_not_prolonged_by_appends(database: Database) -> None:
    await record(database, *EVENTS)
    pages = []
    async for events in read_all(database, EventFilter(), 4):
        pages.append(positions(events))
        await record(database, cost())

    assert pages == [[1, 2, 3, 4], [5, 6, 7, 8], [9]]


async def test_reading_the_whole_log_applies_the_filter_to_every_page(log: Database) -> None:
    assert await collect(read_all(log, EventFilter(campaign_id=CAMPAIGN_ID, after=1, until=7), 2)) == [[2, 5], [7]]


async def test_a_reader_holds_no_transaction_between_pages(log: Database) -> None:
    other_sessions = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    busy = []

    async for _ in read_all(log, EventFilter(), 4):
        async with log.connection() as one, log.connection() as other:
            assert one is not other
            busy += await one.fetch(f"SELECT state, query {other_sessions} AND state <> 'idle'")

    assert busy == []


async def test_the_head_and_the_versions_of_streams(log: Database) -> None:
    async with log.connection() as connection:
        assert await read_head(connection) == 9
        assert await read_stream_version(connection, "campaign", CAMPAIGN_ID) == 3
        assert await read_stream_version(connection, "job", JOB_ID) == 2
        assert await read_stream_version(connection, "job", CAMPAIGN_ID) == 0


async def test_an_empty_log_has_head_0_and_no_pages(database: Database) -> None:
    async with database.connection() as connection:
        assert await read_head(connection) == 0
    assert await collect(read_all(database, EventFilter())) == []


async def test_the_view_of_an_event_merges_data_and_text(database: Database) -> None:
    correlation = "00000000-0000-4000-8000-000000000001"
    sent = cost("0.1250", description="Für Ünï", tokens_used=7) | {
        "occurred_at": "2025-01-01T01:00:00+01:00",
        "correlation_id": correlation,
    }
    await record(database, sent, now=datetime(2025, 1, 2, tzinfo=UTC))

    (event,) = await page(database, EventFilter())

    assert msgspec.json.decode(msgspec.json.encode(view(event))) == {
        "position": 1,
        "category": "cost",
        "stream_id": sent["id"],
        "version": 1,
        "id": sent["id"],
        "type": "cost.recorded",
        "schema_version": 1,
        "occurred_at": "2025-01-01T00:00:00.000000Z",
        "recorded_at": "2025-01-02T00:00:00.000000Z",
        "actor": "local",
        "campaign_id": None,
        "agent_job_id": None,
        "data": {"resource_type": "llm_api", "cost": "0.125", "tokens_used": 7, "description": "Für Ünï"},
        "correlation_id": correlation,
    }


async def test_the_view_of_an_erased_event_has_no_text_and_is_marked(database: Database) -> None:
    await record(database, cost("1", description="Secret"), cost("1"))
    await query(database, "UPDATE ledger.events SET text = NULL, text_salt = NULL WHERE position = 1")

    erased, other = [view(event) for event in await page(database, EventFilter())]

    assert (erased.erased, other.erased) == (True, False)
    assert bytes(erased.data) == bytes(other.data) == b'{"resource_type":"llm_api","cost":"1"}'
