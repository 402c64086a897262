"""API keys created and revoked as events of the log, in the transaction of the key's row."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from ledger import keys
from ledger.database import Connection, Database
from ledger.domain.access import Role
from ledger.domain.errors import NotFound
from ledger.keys import NameTaken
from ledger.log import key_events
from ledger.log.append import LOCK_HEAD
from ledger.log.key_events import create_key, record_missing_keys, revoke_key
from projections.verify import verify
from projections.worker import fold_page
from tests.events import cost
from tests.log.helpers import query, record, value

EVENTS = "SELECT type, version, actor, data::text FROM ledger.ledger_events ORDER BY position"
EVERYTHING = "SELECT string_agg(event::text, ' ') FROM ledger.events AS event"


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    async with database.connection() as connection:
        yield connection


async def test_a_key_and_its_revocation_are_events_without_the_secret(
    database: Database, connection: Connection
) -> None:
    campaign_id = UUID("11111111-1111-4111-8111-111111111111")
    key, text = await create_key(connection, "crew", Role.AGENT, actor="admin", campaign_ids=[campaign_id])
    revoked = await revoke_key(connection, key.id, actor="cli:ann")

    named = f'"key_id":"{key.id}","name":"crew"'
    assert await query(database, EVENTS) == [
        ("ledger.key_created", 1, "admin", f'{{{named},"role":"agent","campaign_ids":["{campaign_id}"]}}'),
        ("ledger.key_revoked", 2, "cli:ann", f"{{{named}}}"),
    ]
    assert revoked.revoked_at is not None
    secret = text.split("_")[2]
    assert secret not in await value(database, EVERYTHING)
    assert secret[:32] not in await value(database, EVERYTHING)


async def test_a_key_is_revoked_once(database: Database, connection: Connection) -> None:
    key, _ = await create_key(connection, "crew", Role.AGENT, actor="admin")

    first, second = [await revoke_key(connection, key.id, actor=actor) for actor in ("ann", "bob")]

    assert first.revoked_at == second.revoked_at
    assert [row[:3] for row in await query(database, EVENTS)] == [
        ("ledger.key_created", 1, "admin"),
        ("ledger.key_revoked", 2, "ann"),
    ]


async def test_what_is_refused_leaves_no_event(database: Database, connection: Connection) -> None:
    await create_key(connection, "crew", Role.AGENT, actor="admin")

    with pytest.raises(NameTaken):
        await create_key(connection, "crew", Role.ADMIN, actor="admin")
    with pytest.raises(NotFound):
        await revoke_key(connection, "unknown", actor="admin")

    assert await value(database, "SELECT position FROM ledger.log_head") == 1


async def test_without_its_event_there_is_no_key(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise asyncpg.PostgresError("the disk is full")

    monkeypatch.setattr(key_events, "append_in_transaction", fail)
    with pytest.raises(asyncpg.PostgresError):
        await create_key(connection, "crew", Role.AGENT, actor="admin")

    assert await keys.list_keys(connection) == []


async def test_keys_without_an_event_are_recorded_once(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_events, "KEYS_MAX", 2)
    old = [(await keys.create_key(connection, name, Role.AGENT))[0] for name in ("one", "two", "three")]
    gone = await keys.revoke_key(connection, old[1].id)
    await create_key(connection, "new", Role.AGENT, actor="admin")

    recorded = [await record_missing_keys(connection, "cli:ann") for _ in range(2)]

    assert recorded == [3, 0]
    events = await query(
        database, "SELECT type, data ->> 'name', occurred_at FROM ledger.ledger_events WHERE actor = 'cli:ann'"
    )
    assert sorted(events) == sorted(
        [
            *(("ledger.key_created", key.name, key.created_at) for key in old),
            ("ledger.key_revoked", "two", gone.revoked_at),
        ]
    )


async def test_a_key_that_is_created_during_the_search_for_missing_ones_is_recorded_once(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = keys.list_keys

    async def find_and_create(given: Connection) -> list[keys.Key]:
        async with database.connection() as another:
            await create_key(another, "before", Role.AGENT, actor="admin")
            found = await find(given)
            await create_key(another, "after", Role.AGENT, actor="admin")
        return found

    monkeypatch.setattr(keys, "list_keys", find_and_create)

    assert await record_missing_keys(connection, "cli:ann") == 0
    assert [row[2] for row in await query(database, EVENTS)] == ["admin", "admin"]


async def test_a_key_is_created_although_another_transaction_was_in_the_way(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_events, "APPEND_TIMEOUTS", "SET LOCAL lock_timeout = '50ms'")
    append, attempts = key_events.append_in_transaction, []

    async def append_beside_a_lock(*arguments: Any) -> Any:
        attempts.append(arguments)
        async with database.connection() as another, another.transaction():
            if len(attempts) == 1:
                await another.execute(LOCK_HEAD)
            return await append(*arguments)

    monkeypatch.setattr(key_events, "append_in_transaction", append_beside_a_lock)
    key, _ = await create_key(connection, "crew", Role.AGENT, actor="admin")

    assert len(attempts) == 2
    assert [found.id for found in await keys.list_keys(connection)] == [key.id]
    assert len(await query(database, EVENTS)) == 1


async def test_the_log_with_keys_verifies_and_continues(database: Database, connection: Connection) -> None:
    await record(database, cost())
    key, _ = await create_key(connection, "crew", Role.AGENT, actor="admin")
    await record(database, cost())
    await revoke_key(connection, key.id, actor="admin")
    while await fold_page(database):
        pass

    report = await verify(database, lambda _: None)

    assert (report.is_clean, report.head, report.position) == (True, 4, 4), report.faults
