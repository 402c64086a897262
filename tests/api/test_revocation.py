"""Long responses end within seconds when their key is revoked, even if the client does not read."""

import asyncio

import aiohttp
import pytest

from ledger.api import revocation, streamed_events
from ledger.database import Database
from tests.api.hostile import raw_connections, request
from tests.api.test_keys import key_header, key_id, served, status_of
from tests.events import content, cost

PATHS = {
    "NDJSON": ("/v1/events", "application/x-ndjson"),
    "export": ("/v1/log/export", "application/x-ndjson"),
    "stream": ("/v1/streams/content/{id}", "application/json"),
    "event stream": ("/v1/events/stream?after=0", "text/event-stream"),
}


@pytest.mark.parametrize("kind", PATHS)
async def test_a_response_ends_when_its_key_is_revoked_although_the_client_does_not_read(
    database: Database, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(revocation, "RECHECK_SECONDS", 0.05)
    monkeypatch.setattr(streamed_events, "PAGE_EVENTS", 1)
    admin = await key_header(database, "boss", "admin")
    reader = await key_header(database, "reader", "auditor")
    created = content(content="n" * 900_000)
    revised = [
        {**content(), "type": "content.revised", "stream_id": created["id"], "data": {"content": "n" * 900_000}}
        for _ in range(15)
    ]
    path, accept = PATHS[kind]

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        for event in [created, *revised, cost()]:
            assert await status_of(client, "POST", "/v1/events", json=event) == 201
        async with raw_connections(url) as (connection,):
            authorization = f"Authorization: {reader['Authorization']}"
            await connection.send(request("GET", path.format(id=created["id"]), authorization, f"Accept: {accept}"))
            # The sockets hold far less than the response: it waits for its client, which reads nothing.
            await asyncio.sleep(0.5)
            assert await status_of(client, "DELETE", f"/v1/keys/{key_id(reader)}") == 200
            # Without reading: what is in the sockets is read only after the end.
            await asyncio.sleep(0.5)
            received, is_complete = await connection.rest()

    assert received < 14 * 900_000
    # An event stream has no end: it ends properly.
    assert is_complete <= (kind == "event stream")


async def test_a_response_goes_on_while_the_key_is_valid_or_cannot_be_checked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = 0

    async def unavailable(*_: object) -> None:
        nonlocal checks
        checks += 1
        raise OSError("an outage")

    monkeypatch.setattr(revocation, "RECHECK_SECONDS", 0.01)
    reader = await key_header(database, "reader", "auditor")

    async with (
        served(database) as url,
        aiohttp.ClientSession(url, headers=reader) as client,
        client.get("/v1/events/stream") as answer,
    ):
        await answer.content.readline()
        monkeypatch.setattr(revocation, "authenticate", unavailable)
        async with asyncio.timeout(10):
            while checks < 3:
                await asyncio.sleep(0.01)
        assert not answer.content.at_eof()
