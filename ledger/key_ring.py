"""The key ring: the valid API keys, cached by one process, and authentication with them."""

import asyncio
import hmac
import time
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from ledger.database import Connection, Database
from ledger.domain.access import Caller, Role
from ledger.domain.errors import Unauthenticated
from ledger.keys import EXPIRES_AT, Key, KeyText, parse_key

REFRESH_SECONDS = 3.0
"""Age after which a process reloads the keys, if there are requests: a revocation takes effect within five seconds."""

UNKNOWN_KEY_REFRESH_SECONDS = 0.5
"""Age after which an unknown key reloads the keys: another process may just have created it."""

LAST_USED_INTERVAL_SECONDS = 60.0
"""The shortest time between two updates of `last_used_at`."""

SELECT_UNREVOKED = f"""
SELECT id, name, role, secret_sha256, campaign_ids, {EXPIRES_AT} FROM ledger.api_keys WHERE revoked_at IS NULL
"""  # noqa: S608 (constant columns)

UPDATE_LAST_USED = """
UPDATE ledger.api_keys SET last_used_at = clock_timestamp() WHERE id = ANY ($1)
"""


class _Active(msgspec.Struct, frozen=True):
    caller: Caller
    secret_sha256: bytes
    expires_at: datetime | None


class KeyRing:
    """The valid keys, as a cache of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._active: dict[str, _Active] = {}
        self._loaded_at = -REFRESH_SECONDS
        self._loading: asyncio.Task[None] | None = None
        self._changes = 0
        self._used: set[str] = set()
        self._used_written_at = 0.0

    async def authenticate(self, text: str) -> Caller:
        """Return the caller that a key identifies.

        Raises:
            Unauthenticated: the text is not a key, or the key is unknown, expired or revoked.
            OSError, asyncpg.PostgresError and others: the keys cannot be loaded.
        """
        sent = parse_key(text)
        if sent is None or sent.is_mistyped:
            raise Unauthenticated("this is not a key: keys start with lgr_; it may be mistyped or truncated")
        await self._refresh(REFRESH_SECONDS)
        if sent.id not in self._active:
            await self._refresh(UNKNOWN_KEY_REFRESH_SECONDS)
        return self._check(sent)

    def find_cached(self, text: str) -> Caller | None:
        """Return the caller that a key identifies if the cache suffices; None: call `authenticate`."""
        sent = parse_key(text)
        if sent is None or time.monotonic() - self._loaded_at >= REFRESH_SECONDS:
            return None
        try:
            return self._check(sent)
        except Unauthenticated:
            return None

    def add(self, key: Key, text: str) -> None:
        """Accept a key that this process has just created; `text` is the key as clients send it."""
        created = parse_key(text)
        assert created is not None
        self._active[key.id] = _Active(
            Caller(key.name, key.role, _restriction(key.campaign_ids)), created.secret_sha256, key.expires_at
        )
        self._changes += 1

    def remove(self, key_id: str) -> None:
        """Refuse a key that this process has just revoked."""
        self._active.pop(key_id, None)
        self._changes += 1

    def _check(self, sent: KeyText) -> Caller:
        active = self._active.get(sent.id)
        if active is None or not hmac.compare_digest(active.secret_sha256, sent.secret_sha256):
            raise Unauthenticated("this key is unknown or was revoked")
        if active.expires_at is not None and active.expires_at <= datetime.now(UTC):
            raise Unauthenticated("this key has expired")
        self._used.add(sent.id)
        return active.caller

    async def _refresh(self, age_seconds_max: float) -> None:
        """Load the keys if they are older than this. Concurrent requests share one query and its outcome."""
        if time.monotonic() - self._loaded_at < age_seconds_max:
            return
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load())
        # A cancelled request must not cancel the query for the others.
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        loaded_changes = -1
        while loaded_changes != self._changes:
            # If this process has changed a key meanwhile, the keys that were read may lack the change: read them again.
            loaded_changes = self._changes
            async with self._database.connection() as connection:
                rows = await connection.fetch(SELECT_UNREVOKED)
                await self._update_last_used(connection)
        self._active = {
            row["id"]: _Active(
                Caller(row["name"], Role(row["role"]), _restriction(row["campaign_ids"])),
                row["secret_sha256"],
                row["expires_at"],
            )
            for row in rows
        }
        self._loaded_at = time.monotonic()

    async def _update_last_used(self, connection: Connection) -> None:
        if self._used and time.monotonic() - self._used_written_at > LAST_USED_INTERVAL_SECONDS:
            used, self._used = self._used, set()
            self._used_written_at = time.monotonic()
            await connection.execute(UPDATE_LAST_USED, list(used))


def _restriction(campaign_ids: list[UUID] | None) -> frozenset[UUID] | None:
    return frozenset(campaign_ids) if campaign_ids is not None else None
