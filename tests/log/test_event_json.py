"""Events as JSON that PostgreSQL writes: the same bytes as an `EventView` encoded here."""

import uuid

import msgspec

from ledger.database import Database
from ledger.domain.event import Request
from ledger.log.append import append
from ledger.log.event_json import read_all_json, read_json_page
from ledger.log.event_view import view
from ledger.log.read import EventFilter, read_page
from tests.events import content, cost, follow
from tests.log.helpers import candidate, record
from tests.projections.helpers import append_requests, sample_history

TEXT = 'quotes " and \\ backslash, é, 𝄞, \u2028, tab \t, newline \n, \x7f'


async def assert_same_json(database: Database) -> int:
    """Compare all events; return how many there are."""
    async with database.connection() as connection:
        expected = await read_page(connection, EventFilter())
        found = await read_json_page(connection, EventFilter(), len(expected) + 1)
    assert [event.json.encode() for event in found] == [msgspec.json.encode(view(event)) for event in expected]
    assert [(event.position, event.version) for event in found] == [
        (event.position, event.version) for event in expected
    ]
    return len(found)


async def test_the_json_of_every_event_type_is_that_of_its_view(database: Database) -> None:
    await append_requests(database, sample_history())

    assert await assert_same_json(database) > 40


async def test_text_actors_and_references_are_written_alike(database: Database) -> None:
    ids = {"correlation_id": uuid.uuid4(), "causation_id": uuid.uuid4()}
    asset = content(title=TEXT, content=TEXT, metadata={"a": TEXT, "b": 12345678901234567890, "c": [1.50, None]})
    sent = [
        candidate(asset, actor='"quoted" é', **ids),
        candidate(follow(asset, "content.revised", {"title": "only text"})),
        candidate(cost(description=TEXT)),
        candidate(cost()),
    ]
    async with database.connection() as connection:
        await append(connection, [Request(sent)])

    assert await assert_same_json(database) == 4


async def test_an_erased_text_is_marked(database: Database) -> None:
    await record(database, cost(description="a secret"), cost())
    async with database.connection() as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("UPDATE ledger.events SET text = NULL, text_salt = NULL WHERE position = 1")
        await connection.execute("RESET session_replication_role")

    assert await assert_same_json(database) == 2


async def test_all_events_are_read_page_by_page(database: Database) -> None:
    await record(database, *(cost() for _ in range(5)))

    pages = [page async for page in read_all_json(database, EventFilter(), 2, 10_000)]

    assert [[event.position for event in page] for page in pages] == [[1, 2], [3, 4], [5]]
