"""Create and revoke API keys: the row of the key and its event in the log, in one transaction.

The events have names, roles and campaigns, never a secret.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import TypeVar
from uuid import UUID, uuid5

from ledger import keys
from ledger.database import CONFLICT_ERRORS, Connection
from ledger.domain.access import Role
from ledger.domain.catalogue import type_of
from ledger.domain.errors import Refused
from ledger.domain.event import Candidate, Request
from ledger.domain.ledger_events import KeyCreated, KeyRevoked
from ledger.keys import Key
from ledger.log.append import append_in_transaction
from ledger.log.notifications import NOTIFY
from ledger.log.prepare import prepare
from ledger.log.write import APPEND_TIMEOUTS

KEY_NAMESPACE = UUID("0f0f7a86-6d0c-5c0a-9a5f-0a1c5c1f3f5e")
"""Namespace of the stream ids of keys. Never change it: a key whose event is not found is recorded again."""

RECORDED_STREAMS = f"""
SELECT stream_id FROM ledger.ledger_events WHERE type = '{type_of(KeyCreated).name}'
"""  # noqa: S608 (fixed text)

KEYS_MAX = 200
"""The most keys without an event that are recorded in one transaction."""

Written = TypeVar("Written")


async def create_key(
    connection: Connection,
    name: str,
    role: Role,
    *,
    actor: str,
    campaign_ids: list[UUID] | None = None,
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    """Create a key and record `ledger.key_created`.

    Args:
        connection: to the primary.
        name: of the key.
        role: what the key may do.
        actor: the key or the command-line user that creates it.
        campaign_ids: the campaigns that the key is restricted to; None: no restriction.
        expires_at: when the key expires; None: never.

    Returns:
        the key, and its text, which is stored nowhere.

    Raises:
        Malformed: the name or the expiry time is not allowed; nothing was recorded.
        NameTaken: a key has this name, or one that looks like it; nothing was recorded.
    """

    async def write() -> tuple[Key, str]:
        created = await keys.create_key(connection, name, role, campaign_ids=campaign_ids, expires_at=expires_at)
        await _record(connection, [_created(created[0], actor)])
        return created

    return await _in_transaction(connection, write)


async def revoke_key(connection: Connection, key_id: str, *, actor: str) -> Key:
    """Revoke a key and record `ledger.key_revoked`; a key that was revoked before is not recorded again.

    Args:
        connection: to the primary.
        key_id: the id of the key.
        actor: the key or the command-line user that revokes it.

    Returns:
        the revoked key.

    Raises:
        NotFound: there is no such key.
    """

    async def write() -> Key:
        revoked = await keys.revoke_key(connection, key_id)
        await _record(connection, [_revoked(revoked, actor)])
        return revoked

    return await _in_transaction(connection, write)


async def record_missing_keys(connection: Connection, actor: str) -> int:
    """Record the keys that have no event, such as those of an earlier release; return their number.

    Args:
        connection: to the primary.
        actor: the command-line user that migrates the database.
    """
    # The keys first: one that is created meanwhile is not missing.
    listed = await keys.list_keys(connection)
    recorded = {row["stream_id"] for row in await connection.fetch(RECORDED_STREAMS)}
    missing = [key for key in listed if _stream_id(key) not in recorded]
    for start in range(0, len(missing), KEYS_MAX):
        events = []
        for key in missing[start : start + KEYS_MAX]:
            events.append(_created(key, actor, key.created_at))
            if key.revoked_at is not None:
                events.append(_revoked(key, actor, key.revoked_at))
        await _in_transaction(connection, partial(_record, connection, events))
    return len(missing)


async def _in_transaction(connection: Connection, write: Callable[[], Awaitable[Written]]) -> Written:
    """Write in a transaction; once more if another transaction was in the way."""
    try:
        return await _attempt(connection, write)
    except CONFLICT_ERRORS:
        return await _attempt(connection, write)


async def _attempt(connection: Connection, write: Callable[[], Awaitable[Written]]) -> Written:
    async with connection.transaction():
        await connection.execute(APPEND_TIMEOUTS)
        return await write()


def _stream_id(key: Key) -> UUID:
    return uuid5(KEY_NAMESPACE, key.id)


def _created(key: Key, actor: str, occurred_at: datetime | None = None) -> Candidate:
    payload = KeyCreated(
        key_id=key.id,
        name=key.name,
        role=key.role.value,
        campaign_ids=key.campaign_ids,
        expires_at=key.expires_at,
    )
    stream_id = _stream_id(key)
    return prepare(
        type_of(KeyCreated), payload, actor=actor, event_id=stream_id, stream_id=stream_id, occurred_at=occurred_at
    )


def _revoked(key: Key, actor: str, occurred_at: datetime | None = None) -> Candidate:
    stream_id = _stream_id(key)
    return prepare(
        type_of(KeyRevoked),
        KeyRevoked(key_id=key.id, name=key.name),
        actor=actor,
        # An id that follows from the key: revoking twice is a duplicate.
        event_id=uuid5(stream_id, "revoked"),
        stream_id=stream_id,
        occurred_at=occurred_at,
    )


async def _record(connection: Connection, events: list[Candidate]) -> None:
    appended = await append_in_transaction(connection, [Request(events)])
    # Delivered at the commit; the lock that this takes until then does not matter, since keys are rare.
    await connection.execute(NOTIFY, "")
    for verdict in appended.verdicts[0]:
        if isinstance(verdict, Refused):
            raise verdict
