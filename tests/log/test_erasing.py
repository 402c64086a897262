"""Erasing free text: deleted and recorded in one transaction; nothing else changes."""

from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import NotFound, NothingToErase
from ledger.domain.event import Receipt, Request
from ledger.log.append import append
from ledger.log.appender import Appender
from ledger.log.erasure import erase
from ledger.log.tables import EVENT_COLUMNS
from tests.conftest import Service
from tests.events import campaign, content, cost, follow, job
from tests.log.erasures import STORED, erased, erasing
from tests.log.helpers import gathered, query, record, request, value
from tests.log.test_round_trips import Relay, require_readable, round_trips

COUNT = "SELECT count(*) FROM ledger.events"
REMAINING_TEXTS = "SELECT position FROM ledger.events WHERE text IS NOT NULL ORDER BY position"
OTHERS = ", ".join(column for column in EVENT_COLUMNS if column not in ("text", "text_salt"))
UNCHANGED = f"SELECT ROW({OTHERS})::text FROM ledger.events WHERE category <> 'ledger' ORDER BY position"


async def test_text_and_salt_are_deleted_and_the_erasure_is_recorded(database: Database) -> None:
    launch = campaign(description="A text")
    await record(database, launch, campaign())
    before = await query(database, UNCHANGED)
    size = await value(database, "SELECT size FROM ledger.events WHERE position = 1")

    (erasure,) = await erased(database, 1, reason="Requested by the customer")

    assert await query(database, UNCHANGED) == before
    assert await query(database, "SELECT text::text, text_salt FROM ledger.events WHERE position = 1") == [(None, None)]
    assert await query(database, REMAINING_TEXTS) == [(2,), (3,)]
    ((position, version, stream_id, _, event_type, actor, data, text),) = await query(database, STORED)
    assert (position, version, str(stream_id), actor) == (3, 1, launch["id"], "local")
    assert event_type == "ledger.payload_erased"
    assert msgspec.json.decode(data) == {
        "position": 1,
        "category": "campaign",
        "stream_id": launch["id"],
        "event_type": "campaign.created",
        "size": size,
        "by": "somebody",
    }
    assert msgspec.json.decode(text) == {"reason": "Requested by the customer"}
    assert (erasure.position, erasure.recorded_position, erasure.event_type) == (1, 3, "campaign.created")


@pytest.mark.parametrize(
    ("position", "error", "message"),
    [(3, NothingToErase, "has no free text"), (1, NothingToErase, "erased already"), (5, NotFound, "position 5")],
)
async def test_an_event_without_text_is_an_error_and_nothing_is_recorded(
    database: Database, position: int, error: type[Exception], message: str
) -> None:
    queued = job()
    await record(database, campaign(), queued, follow(queued, "job.started"))
    await erased(database, 1)
    before = await query(database, "SELECT events::text FROM ledger.events ORDER BY position")

    with pytest.raises(error, match=message):
        await erased(database, position)

    assert await query(database, "SELECT events::text FROM ledger.events ORDER BY position") == before


async def test_of_many_concurrent_erasures_of_one_event_one_succeeds(database: Database) -> None:
    await record(database, campaign())
    async with Appender(database) as one, Appender(database) as other:
        answers = await gathered(
            erase(database, appender, 1, by="somebody", reason="Requested") for appender in (one, other) * 5
        )

    refused = [answer for answer in answers if isinstance(answer, NothingToErase)]
    assert (len(answers), len(refused)) == (10, 9)
    assert await value(database, COUNT) == 2


async def test_of_two_erasures_in_one_group_one_succeeds_and_other_requests_are_not_affected(
    database: Database,
) -> None:
    await record(database, campaign(), cost())
    twice = [await erasing(database, 1), await erasing(database, 1)]
    without_text = await erasing(database, 2)
    async with database.connection() as connection:
        verdicts, position = await append(connection, [request(cost()), *twice, without_text, request(cost())])

    kinds = [type(verdict[0]) for verdict in verdicts]
    assert kinds == [Receipt, Receipt, NothingToErase, NothingToErase, Receipt]
    assert (position, await value(database, COUNT)) == (5, 5)


async def test_a_batch_that_fails_erases_nothing(database: Database) -> None:
    await record(database, campaign(), cost())
    batch = Request([*(await erasing(database, 1)).candidates, *(await erasing(database, 2)).candidates])
    async with database.connection() as connection:
        (verdict,), position = await append(connection, [batch])

    assert ([type(answer) for answer in verdict], position) == ([NothingToErase], 2)
    assert await query(database, REMAINING_TEXTS) == [(1,)]


async def test_a_retried_erasure_is_a_duplicate_even_after_other_erasures(database: Database) -> None:
    launch = campaign()
    await record(database, launch, follow(launch, "campaign.details_changed", {"name": "Another"}))
    erasure = await erasing(database, 1)
    async with Appender(database) as appender:
        first = await appender.append(erasure)
        await appender.append(await erasing(database, 2))
        retried = await appender.append(erasure)

    assert retried == [msgspec.structs.replace(first[0], duplicate=True)]
    assert await value(database, COUNT) == 4


async def test_if_the_text_cannot_be_deleted_nothing_is_recorded(database: Database) -> None:
    await record(database, campaign())
    await query(database, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''No''; END'")
    await query(
        database, "CREATE TRIGGER refuse BEFORE UPDATE ON ledger.campaign_events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )

    with pytest.raises(asyncpg.RaiseError):
        await erased(database, 1)

    assert (await value(database, COUNT), await query(database, REMAINING_TEXTS)) == (1, [(1,)])


@pytest.mark.parametrize("opened", [campaign(), content(metadata={"a": 1}), job(), cost(description="A text")])
async def test_retrying_an_erased_event_is_still_a_duplicate(database: Database, opened: dict[str, Any]) -> None:
    (original,) = await record(database, opened)
    await erased(database, 1)

    (retried,) = await record(database, opened)

    assert retried == msgspec.structs.replace(original, duplicate=True)


async def test_the_erasures_in_a_stream_form_one_stream_and_their_reasons_can_be_erased(database: Database) -> None:
    launch = campaign()
    await record(database, launch, follow(launch, "campaign.details_changed", {"name": "Another"}))

    # Both events, then the reason of the first erasure, then the reason of that erasure.
    await erased(database, 1, 2, 3, 5)

    stored = await query(database, STORED)
    assert [(position, version) for position, version, *_ in stored] == [(3, 1), (4, 2), (5, 3), (6, 4)]
    assert {stream_id for _, _, stream_id, *_ in stored} == {UUID(launch["id"])}
    assert await query(database, REMAINING_TEXTS) == [(4,), (6,)]


async def test_several_events_of_a_stream_can_be_erased_in_one_group(database: Database) -> None:
    launch = campaign()
    await record(database, launch, follow(launch, "campaign.details_changed", {"name": "Another"}))
    group = [await erasing(database, 2), await erasing(database, 1)]
    async with database.connection() as connection:
        await append(connection, group)

    assert [(position, version) for position, version, *_ in await query(database, STORED)] == [(3, 1), (4, 2)]
    assert await query(database, REMAINING_TEXTS) == [(3,), (4,)]


async def test_erasures_of_streams_that_share_an_id_share_a_stream(database: Database) -> None:
    launch = campaign()
    await record(database, launch, {**job(), "id": launch["id"]})

    await erased(database, 2, 1)

    assert [version for _, version, *_ in await query(database, STORED)] == [1, 2]


@pytest.mark.parametrize(("size", "expected"), [(0, 4), (1, 7), (10, 7)])
async def test_only_a_group_with_erasures_takes_more_than_four_round_trips(
    relay: Relay, database: Database, size: int, expected: int
) -> None:
    await record(database, *(campaign() for _ in range(11)))
    erasures = [await erasing(database, position) for position in range(1, size + 1)]

    # The first append prepares the statements.
    count, _ = await round_trips(relay, [await erasing(database, 11)], [request(cost()), *erasures])

    assert count == expected
    assert await value(database, "SELECT count(*) FROM ledger.ledger_events") == size + 1


async def test_a_client_cannot_append_an_erasure(service: Service) -> None:
    receipts = await service.append(campaign())
    (candidate,) = (await erasing(service.database, receipts[0]["position"])).candidates
    data = {**msgspec.json.decode(candidate.data), "reason": "Mine"}

    status, problem = await service.post({"type": "ledger.payload_erased", "data": data})

    assert (status, problem["type"]) == (422, "/problems/invalid-event")


async def test_an_erased_event_is_shown_without_its_text_and_marked_as_erased(service: Service) -> None:
    await service.append(campaign(budget="5"))

    await erased(service.database, 1)

    shown = await service.get("/v1/events/1")
    assert (shown["erased"], shown["data"]) == (
        True,
        {"budget": "5", "currency": "USD", "start_date": "2025-01-01T00:00:00.000000Z"},
    )


@pytest.fixture
async def relay(kind: str, database_url: URL) -> Any:
    require_readable(kind)
    async with Relay(database_url) as relay:
        yield relay
