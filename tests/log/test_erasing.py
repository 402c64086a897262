"""Erasing free text: the text goes and the erasure is recorded together, once, and nothing else changes."""

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
from tests.log.erasing import STORED, erased, erasing
from tests.log.helpers import gathered, query, record, request, value
from tests.log.test_round_trips import Relay, require_readable, round_trips

COUNT = "SELECT count(*) FROM ledger.events"
TEXTS_LEFT = "SELECT position FROM ledger.events WHERE text IS NOT NULL ORDER BY position"
OTHERS = ", ".join(column for column in EVENT_COLUMNS if column not in ("text", "text_salt"))
KEPT = f"SELECT ROW({OTHERS})::text FROM ledger.events WHERE category <> 'ledger' ORDER BY position"


async def test_text_and_salt_go_and_the_erasure_is_recorded(database: Database) -> None:
    launch = campaign(description="A text")
    await record(database, launch, campaign())
    before = await query(database, KEPT)
    size = await value(database, "SELECT size FROM ledger.events WHERE position = 1")

    (erasure,) = await erased(database, 1, reason="The customer asked")

    assert await query(database, KEPT) == before
    assert await query(database, "SELECT text::text, text_salt FROM ledger.events WHERE position = 1") == [(None, None)]
    assert await query(database, TEXTS_LEFT) == [(2,), (3,)]
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
    assert msgspec.json.decode(text) == {"reason": "The customer asked"}
    assert (erasure.position, erasure.recorded_position, erasure.event_type) == (1, 3, "campaign.created")


@pytest.mark.parametrize(
    ("position", "error", "message"),
    [(3, NothingToErase, "has no free text"), (1, NothingToErase, "erased already"), (5, NotFound, "position 5")],
)
async def test_what_has_no_text_is_an_error_and_nothing_is_recorded(
    database: Database, position: int, error: type[Exception], message: str
) -> None:
    queued = job()
    await record(database, campaign(), queued, follow(queued, "job.started"))
    await erased(database, 1)
    before = await query(database, "SELECT events::text FROM ledger.events ORDER BY position")

    with pytest.raises(error, match=message):
        await erased(database, position)

    assert await query(database, "SELECT events::text FROM ledger.events ORDER BY position") == before


async def test_of_many_who_erase_the_same_at_once_one_wins(database: Database) -> None:
    await record(database, campaign())
    async with Appender(database) as one, Appender(database) as other:
        answers = await gathered(
            erase(database, appender, 1, by="somebody", reason="Asked for") for appender in (one, other) * 5
        )

    refused = [answer for answer in answers if isinstance(answer, NothingToErase)]
    assert (len(answers), len(refused)) == (10, 9)
    assert await value(database, COUNT) == 2


async def test_of_two_in_one_group_one_wins_and_neighbours_are_not_harmed(database: Database) -> None:
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
    assert await query(database, TEXTS_LEFT) == [(1,)]


async def test_an_erasure_sent_again_is_a_duplicate_after_others_too(database: Database) -> None:
    launch = campaign()
    await record(database, launch, follow(launch, "campaign.details_changed", {"name": "Another"}))
    asked = await erasing(database, 1)
    async with Appender(database) as appender:
        first = await appender.append(asked)
        await appender.append(await erasing(database, 2))
        again = await appender.append(asked)

    assert again == [msgspec.structs.replace(first[0], duplicate=True)]
    assert await value(database, COUNT) == 4


async def test_where_the_text_cannot_go_nothing_is_recorded(database: Database) -> None:
    await record(database, campaign())
    await query(database, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''No''; END'")
    await query(
        database, "CREATE TRIGGER refuse BEFORE UPDATE ON ledger.campaign_events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )

    with pytest.raises(asyncpg.RaiseError):
        await erased(database, 1)

    assert (await value(database, COUNT), await query(database, TEXTS_LEFT)) == (1, [(1,)])


@pytest.mark.parametrize("opened", [campaign(), content(metadata={"a": 1}), job(), cost(description="A text")])
async def test_a_repeat_of_the_request_is_still_a_duplicate(database: Database, opened: dict[str, Any]) -> None:
    (original,) = await record(database, opened)
    await erased(database, 1)

    (again,) = await record(database, opened)

    assert again == msgspec.structs.replace(original, duplicate=True)


async def test_the_erasures_of_a_stream_are_one_stream_and_their_reasons_can_be_erased_too(database: Database) -> None:
    launch = campaign()
    await record(database, launch, follow(launch, "campaign.details_changed", {"name": "Another"}))

    # Both, then the reason of the first, then the reason of that.
    await erased(database, 1, 2, 3, 5)

    stored = await query(database, STORED)
    assert [(position, version) for position, version, *_ in stored] == [(3, 1), (4, 2), (5, 3), (6, 4)]
    assert {stream_id for _, _, stream_id, *_ in stored} == {UUID(launch["id"])}
    assert await query(database, TEXTS_LEFT) == [(4,), (6,)]


async def test_many_of_a_stream_can_be_erased_in_one_group(database: Database) -> None:
    launch = campaign()
    await record(database, launch, follow(launch, "campaign.details_changed", {"name": "Another"}))
    group = [await erasing(database, 2), await erasing(database, 1)]
    async with database.connection() as connection:
        await append(connection, group)

    assert [(position, version) for position, version, *_ in await query(database, STORED)] == [(3, 1), (4, 2)]
    assert await query(database, TEXTS_LEFT) == [(3,), (4,)]


async def test_erasures_of_streams_that_share_an_id_share_a_stream(database: Database) -> None:
    launch = campaign()
    await record(database, launch, {**job(), "id": launch["id"]})

    await erased(database, 2, 1)

    assert [version for _, version, *_ in await query(database, STORED)] == [1, 2]


@pytest.mark.parametrize(("size", "spent"), [(0, 5), (1, 8), (10, 8)])
async def test_only_a_group_with_erasures_takes_more_round_trips(
    relay: Relay, database: Database, size: int, spent: int
) -> None:
    await record(database, *(campaign() for _ in range(11)))
    erasures = [await erasing(database, position) for position in range(1, size + 1)]

    # Its statements are prepared by the first.
    taken, _ = await round_trips(relay, [await erasing(database, 11)], [request(cost()), *erasures])

    assert taken == spent
    assert await value(database, "SELECT count(*) FROM ledger.ledger_events") == size + 1


async def test_no_client_can_send_one(service: Service) -> None:
    receipts = await service.append(campaign())
    (asked,) = (await erasing(service.database, receipts[0]["position"])).candidates
    data = {**msgspec.json.decode(asked.data), "reason": "Mine"}

    status, problem = await service.post({"type": "ledger.payload_erased", "data": data})

    assert (status, problem["type"]) == (422, "/problems/invalid-event")


async def test_it_is_shown_without_its_text_as_erased(service: Service) -> None:
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
