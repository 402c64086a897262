"""GET /v1/log/export: every event as it is hashed; complete, or aborted."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from ledger.api import export
from ledger.audit.log_entry import encode_entry
from ledger.database import Connection, Database
from ledger.log.point_in_time import require_positions
from ledger.log.read import EventFilter, SaltedEvent, read_all_salted
from tests.audit.exports import read
from tests.conftest import Service
from tests.events import campaign, content, cost
from tests.log.erasures import erased
from tests.log.helpers import query
from tests.projections.helpers import stored

EXPORT = "/v1/log/export"


async def positions(service: Service, **parameters: str) -> list[int]:
    """Return the positions of the exported lines."""
    async with service.client.get(EXPORT, params=parameters) as answer:
        assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
        return [line.event.position for line in read(await answer.read())]


async def test_an_export_has_every_event_as_it_is_hashed_with_its_text(service: Service) -> None:
    await service.append(campaign(description="A text"), content(), cost())
    await query(service.database, "UPDATE ledger.events SET text = NULL, text_salt = NULL WHERE position = 2")

    async with service.client.get(EXPORT) as answer:
        lines = read(await answer.read())

    assert [line.entry for line in lines] == [encode_entry(event) for event in await stored(service.database)]
    assert [line.event.text is None for line in lines] == [False, True, True]


async def test_after_is_exclusive_and_until_inclusive(service: Service) -> None:
    await service.append(*(cost() for _ in range(5)))

    assert await positions(service) == [1, 2, 3, 4, 5]
    assert await positions(service, after="1", until="3") == [2, 3]
    assert await positions(service, after="5") == []
    assert await positions(service, until="0") == []


async def test_an_end_beyond_the_head_is_refused(service: Service) -> None:
    await service.append(cost())

    status, problem = await service.problem(EXPORT, until="2")

    assert (status, problem["type"]) == (400, "/problems/malformed")
    assert problem["detail"] == "the log ends at position 1; position 2 does not exist yet"


@pytest.mark.parametrize(("parameters", "exported"), [({}, [1, 2, 3]), ({"until": "2"}, [1, 2])])
async def test_an_erasure_during_an_export_is_in_it_unless_its_end_was_given(
    service: Service, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, str], exported: list[int]
) -> None:
    await service.append(cost(description="A text"), cost(description="Another"))

    async def then_erase(connection: Connection, *given: int | None) -> int:
        head = await require_positions(connection, *given)
        await erased(service.database, 1)
        return head

    monkeypatch.setattr(export, "require_positions", then_erase)

    assert await positions(service, **parameters) == exported


@pytest.mark.parametrize("parameters", [{"after": "-1"}, {"until": "x"}, {"limit": "1"}])
async def test_invalid_parameters_are_refused(service: Service, parameters: dict[str, str]) -> None:
    status, problem = await service.problem(EXPORT, **parameters)

    assert (status, problem["type"]) == (400, "/problems/malformed")


async def test_an_export_that_fails_midway_is_aborted(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    await service.append(cost(), cost())

    async def failing(database: Database, after: int, until: int, *_: int) -> AsyncIterator[list[SaltedEvent]]:
        async for page in read_all_salted(database, EventFilter(after, until)):
            yield page[:1]
            raise OSError("the database went away")

    monkeypatch.setattr(export, "read_with_erasures", failing)

    with pytest.raises(aiohttp.ClientPayloadError):
        await positions(service)


async def test_an_export_that_fails_before_it_begins_returns_a_problem(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.append(cost())

    async def failing(database: Database, after: int, until: int, *_: int) -> AsyncIterator[list[SaltedEvent]]:
        raise OSError("the database is away")
        yield []

    monkeypatch.setattr(export, "read_with_erasures", failing)

    status, problem = await service.problem(EXPORT)

    assert (status, problem["type"]) == (503, "/problems/database-unavailable")
