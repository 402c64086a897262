"""`?as_of=` on items: the row as of a position or time, 404 before it existed and after its deletion."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from ledger.api.collections import COLLECTIONS as SHOWN
from ledger.api.views import show
from ledger.domain.codec import time_text
from ledger.log import expiry
from projections import as_of as as_of_module
from tests.api.helpers import slug
from tests.api.test_bad_parameters import COLLECTIONS, MALFORMED, SOMETHING, refused
from tests.conftest import Service
from tests.events import campaign, cost
from tests.log.helpers import record
from tests.projections.helpers import NOON, append_requests, folded, sample_history, stored

PATHS = {collection.model.name: collection for collection in SHOWN if collection.has_as_of}
TABLES = {collection.model.category: name for name, collection in PATHS.items()}


async def item(service: Service, address: str, as_of: int | str) -> tuple[int, str | None, Any]:
    """Return the status, the header `Ledger-Position`, and the JSON of an item."""
    async with service.client.get(address, params={"as_of": str(as_of)}) as answer:
        return answer.status, answer.headers.get("Ledger-Position"), await answer.json(content_type=None)


@pytest.fixture(scope="module")
async def story_service(shared: Service) -> AsyncIterator[Service]:
    """A service whose log has the events of the story."""

    async def expire_nothing(*_: Any) -> int:
        return 0

    with pytest.MonkeyPatch.context() as monkeypatch:
        # The story is in the past: the service would expire its holds meanwhile, recorded now.
        monkeypatch.setattr(expiry, "expire_due_holds", expire_nothing)
        await append_requests(shared.database, sample_history())
        yield shared


async def test_as_of_every_position_each_item_equals_the_fold_of_the_log(story_service: Service) -> None:
    events = await stored(story_service.database)
    entities = {(TABLES[event.category], event.stream_id) for event in events if event.category in TABLES}
    missing = 0

    for position in range(len(events) + 1):
        rows = folded(events[:position])
        for table, row_id in entities:
            row = rows[table].get(row_id)

            status, returned_position, answer = await item(story_service, f"{PATHS[table].path}/{row_id}", position)

            if row is None:
                missing += 1
                assert (status, slug(answer)) == (404, "not-found")
                continue
            expected = msgspec.json.decode(msgspec.json.encode(show(PATHS[table].view, row)))
            assert (status, returned_position, answer) == (200, str(position), expected)
    assert missing > 20


async def test_as_of_the_head_an_item_equals_the_read_model(story_service: Service) -> None:
    head = await story_service.head()
    for table, collection in PATHS.items():
        for listed in (await story_service.get(collection.path, limit=500))["items"]:
            address = f"{collection.path}/{listed['id']}"

            assert await item(story_service, address, head) == (200, str(head), listed), table


async def test_a_time_is_inclusive_to_the_microsecond(service: Service) -> None:
    opened, second = campaign(), timedelta(seconds=1)
    address = f"/v1/campaigns/{opened['id']}"
    await record(service.database, opened, now=NOON)
    spent = [cost(amount, campaign_id=opened["id"]) for amount in ("1", "2")]
    await record(service.database, *spent, now=NOON + second)

    seen = [
        await item(service, address, time_text(NOON + offset))
        for offset in (
            -timedelta(microseconds=1),
            timedelta(0),
            second - timedelta(microseconds=1),
            second,
            timedelta(days=1),
        )
    ]

    assert [(status, position, answer.get("spend")) for status, position, answer in seen] == [
        (404, None, None),
        (200, "1", "0"),
        (200, "1", "0"),
        (200, "3", "3"),
        (200, "3", "3"),
    ]


async def test_a_time_may_have_any_zone(story_service: Service) -> None:
    events = await stored(story_service.database)
    address = f"/v1/campaigns/{next(event.stream_id for event in events if event.category == 'campaign')}"

    answers = [
        await item(story_service, address, text) for text in ("2025-01-01T13:00:20+01:00", "2025-01-01T12:00:20Z", "21")
    ]

    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == 200


async def test_page_boundaries_make_no_difference(story_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    events = await stored(story_service.database)
    rows = folded(events)
    addresses = [f"{PATHS[table].path}/{row_id}" for table in PATHS for row_id in rows[table]]
    in_one = [await item(story_service, address, len(events)) for address in addresses]
    monkeypatch.setattr(as_of_module, "PAGE_EVENTS_MAX", 1)

    assert [await item(story_service, address, len(events)) for address in addresses] == in_one
    assert {status for status, *_ in in_one} == {200}


BAD_MOMENTS = [
    "",
    "-1",
    "+1",
    "1.0",
    "1e3",
    "0x1",
    "1 ",
    "٣",
    "1_000",
    "999999",
    "9" * 18,
    "9" * 19,
    "9" * 4_000,
    "now",
    "null",
    "NaN",
    "2025-01-01",
    "2025-01-01T12:00:00",
    "2025-01-01T12:00:00 01:00",
    "2025-13-01T12:00:00Z",
    "2025-01-01T24:00:01Z",
    "9998-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00+14:00",
    "\x00",
    "1;DROP SCHEMA ledger CASCADE",
]


@pytest.mark.parametrize("name", COLLECTIONS)
async def test_an_invalid_or_future_point_in_time_is_malformed(shared: Service, name: str) -> None:
    for text in BAD_MOMENTS:
        assert await refused(shared, f"/v1/{name}/{SOMETHING}?as_of={quote(text)}") == MALFORMED, text


async def test_collections_have_no_as_of(shared: Service) -> None:
    for name in COLLECTIONS:
        assert await refused(shared, f"/v1/{name}?as_of=1") == MALFORMED


async def test_as_of_is_documented_for_exactly_spend_and_the_items_that_have_it(shared: Service) -> None:
    document = await shared.get("/openapi.json")

    taking = {
        path
        for path, methods in document["paths"].items()
        for parameter in methods.get("get", {}).get("parameters", [])
        if parameter["name"] == "as_of"
    }

    assert taking == {"/v1/spend", *(f"{collection.path}/{{id}}" for collection in PATHS.values())}
