"""Limits of connections: without a key, for each key, and which idle one is closed to make room."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from ledger import keys
from ledger.api import connection_limits
from ledger.api.app import listen, serving
from ledger.database import Database
from ledger.domain.access import Role
from ledger.key_ring import KeyRing
from tests.api.hostile import RawConnection, raw_connections, request

CONNECTIONS_MAX = 40
UNAUTHENTICATED_MAX = 16
CLOSED_SECONDS_MAX = 10.0


@asynccontextmanager
async def served(database: Database, **options: Any) -> AsyncIterator[str]:
    """Serve with at most 40 connections; yield the URL."""
    listener = listen("127.0.0.1", 0)
    async with serving(database, listener, with_worker=False, connections_max=CONNECTIONS_MAX, **options):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def new_key(database: Database, name: str) -> str:
    """Create a key; return its header."""
    async with database.connection() as connection:
        _, text = await keys.create_key(connection, name, Role.ADMIN)
    return f"Authorization: Bearer {text}"


async def status(connection: RawConnection, path: str, *headers: str) -> int:
    """Send a request on a connection; return the status of the response."""
    await connection.send(request("GET", path, *headers))
    return (await connection.answer()).status


async def test_silent_connections_lock_nobody_out_and_the_oldest_is_closed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "GRACE_SECONDS", 0.0)
    key = await new_key(database, "a key")
    async with (
        served(database, key_ring=KeyRing(database)) as url,
        raw_connections(url, 2 * CONNECTIONS_MAX) as silent,
        raw_connections(url) as (client,),
    ):
        assert await status(client, "/v1/campaigns", key) == 200

        closed = [await connection.is_closed(CLOSED_SECONDS_MAX) for connection in silent[:-UNAUTHENTICATED_MAX]]
        assert closed == [True] * (2 * CONNECTIONS_MAX - UNAUTHENTICATED_MAX)
        assert await status(silent[-1], "/healthz") == 200


async def test_slow_and_public_requests_without_a_key_lock_nobody_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "GRACE_SECONDS", 0.0)
    key = await new_key(database, "a key")
    slow_body = request("POST", "/v1/events", "Content-Length: 60000", body=b" ")
    async with served(database, key_ring=KeyRing(database)) as url:
        async with raw_connections(url, CONNECTIONS_MAX) as connections, raw_connections(url) as (client,):
            for connection, sent in zip(
                connections[-UNAUTHENTICATED_MAX:], 8 * [slow_body, request("GET", "/healthz")], strict=True
            ):
                await connection.send(sent)

            assert await status(client, "/v1/campaigns", key) == 200
        async with raw_connections(url) as (client,):
            assert await status(client, "/v1/campaigns", key) == 200


async def test_only_a_connection_without_any_request_is_closed_early(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "FIRST_REQUEST_SECONDS_MAX", 0.5)
    key = await new_key(database, "a key")
    async with served(database, key_ring=KeyRing(database)) as url, AsyncExitStack() as stack:

        async def opened(sent: bytes) -> RawConnection:
            (connection,) = await stack.enter_async_context(raw_connections(url))
            await connection.send(sent)
            return connection

        public = await opened(request("GET", "/healthz"))
        authenticated = await opened(request("GET", "/v1/campaigns", key))
        silent = await opened(b"")
        half = await opened(b"GET /healthz HTTP/1.1\r\nHost")

        assert await silent.is_closed(CLOSED_SECONDS_MAX)
        assert await half.is_closed(CLOSED_SECONDS_MAX)
        for connection, path in ((public, "/healthz"), (authenticated, "/v1/campaigns")):
            assert (await connection.answer()).status == 200
            assert await status(connection, path, key) == 200


async def test_a_key_gets_half_of_the_connections_and_another_key_still_gets_in(database: Database) -> None:
    greedy, modest = await new_key(database, "greedy"), await new_key(database, "modest")
    async with (
        served(database, key_ring=KeyRing(database)) as url,
        raw_connections(url, CONNECTIONS_MAX - 5) as connections,
        raw_connections(url, 5) as others,
    ):
        statuses = [await status(connection, "/v1/campaigns", greedy) for connection in connections]
        of_another_key = [await status(connection, "/v1/campaigns", modest) for connection in others]
        of_a_switched_connection = await status(connections[0], "/v1/campaigns", modest)

    assert statuses == [200] * (CONNECTIONS_MAX // 2) + [503] * (CONNECTIONS_MAX // 2 - 5)
    assert of_another_key == [200] * 5
    assert of_a_switched_connection == 200


async def test_without_keys_the_connection_that_is_idle_the_longest_makes_room(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "IDLE_SECONDS_MIN", 0.0)
    async with served(database) as url, raw_connections(url, CONNECTIONS_MAX) as connections:
        first, second, third, *_ = connections
        await first.send(request("GET", "/v1/events/stream"))
        assert await status(second, "/v1/campaigns") == 200

        async with raw_connections(url) as (another,):
            assert await status(another, "/v1/campaigns") == 200

            assert await third.is_closed(CLOSED_SECONDS_MAX)
            assert await status(second, "/v1/campaigns") == 200
