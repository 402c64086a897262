"""API keys: create, list, revoke and authenticate.

A key is `lgr_<id>_<secret><checksum>`. The id finds it, the secret (32 characters of 62, 190 bits) authenticates it,
and the checksum detects a mistyped key without a query. Only the SHA-256 of the secret is stored: a secret of 190
random bits needs no slow hash.
"""

import asyncio
import hmac
import logging
import re
import secrets
import string
import time
import zlib
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import asyncpg
import msgspec

from ledger.database import Connection, Database
from ledger.domain.access import Caller, Role
from ledger.domain.errors import LedgerError, NotFound, Unauthenticated

logger = logging.getLogger(__name__)

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_CHARACTERS = 12
SECRET_CHARACTERS = 32
CHECKSUM_CHARACTERS = 6

REFRESH_SECONDS = 3.0
"""Age after which a process reloads the keys, if there are requests: a revocation takes effect within five seconds."""

UNKNOWN_KEY_REFRESH_SECONDS = 0.5
"""Age after which an unknown key reloads the keys: it may just have been created."""

LAST_USED_INTERVAL_SECONDS = 60.0
"""The shortest time between two updates of `last_used_at`."""

KEY_COLUMNS = "id, name, role, campaign_ids, created_at, expires_at, revoked_at, last_used_at"

INSERT = f"""
INSERT INTO ledger.api_keys (id, name, role, secret_sha256, campaign_ids, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, clock_timestamp(), $6) RETURNING {KEY_COLUMNS}
"""  # noqa: S608 (constant columns)

LIST = f"SELECT {KEY_COLUMNS} FROM ledger.api_keys ORDER BY created_at, id"  # noqa: S608

REVOKE = f"""
UPDATE ledger.api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE id = $1 OR name = $1 RETURNING {KEY_COLUMNS}
"""  # noqa: S608

SELECT_UNREVOKED = """
SELECT id, name, role, secret_sha256, campaign_ids, expires_at FROM ledger.api_keys WHERE revoked_at IS NULL
"""

UPDATE_LAST_USED = """
UPDATE ledger.api_keys SET last_used_at = clock_timestamp() WHERE id = ANY ($1)
"""

_KEY_PATTERN = re.compile(
    f"lgr_([0-9A-Za-z]{{{ID_CHARACTERS}}})_([0-9A-Za-z]{{{SECRET_CHARACTERS}}})([0-9A-Za-z]{{{CHECKSUM_CHARACTERS}}})"
)


class NameTaken(LedgerError):
    """A key with this name exists."""

    slug = "name-taken"


class Key(msgspec.Struct, frozen=True):
    """A key without its secret. `campaign_ids` are the campaigns that it is restricted to; null: no restriction."""

    id: str
    name: str
    role: Role
    campaign_ids: list[UUID] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def _key(row: "asyncpg.Record") -> Key:
    return Key(row["id"], row["name"], Role(row["role"]), *list(row)[3:])


def _checksum(text: str) -> str:
    number, characters = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(ALPHABET))
        characters = ALPHABET[digit] + characters
    return characters


def _random(characters: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(characters))


async def create_key(
    connection: Connection,
    name: str,
    role: Role,
    *,
    campaign_ids: list[UUID] | None = None,
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    """Create a key.

    Args:
        connection: a connection to the database.
        name: the `actor` of events appended with the key; unique, 1 to 100 printable characters.
        role: what the key may do.
        campaign_ids: the campaigns that the key is restricted to; None: no restriction.
        expires_at: when the key expires; None: never.

    Returns:
        the key, and its text, which is not stored.

    Raises:
        NameTaken: a key has this name, even if it was revoked: events refer to it.
    """
    key_id, secret = _random(ID_CHARACTERS), _random(SECRET_CHARACTERS)
    text = f"lgr_{key_id}_{secret}"
    hashed = sha256(secret.encode()).digest()
    try:
        row = await connection.fetchrow(INSERT, key_id, name, role.value, hashed, campaign_ids, expires_at)
    except asyncpg.UniqueViolationError:
        raise NameTaken(
            f"a key named {name!r} exists or existed; choose another name, since events refer to it"
        ) from None
    assert row is not None
    return _key(row), text + _checksum(text)


async def list_keys(connection: Connection) -> list[Key]:
    """Return all keys, the oldest first."""
    return [_key(row) for row in await connection.fetch(LIST)]


async def revoke_key(connection: Connection, key: str) -> Key:
    """Revoke a key by its id or its name, permanently.

    Raises:
        NotFound: there is no such key.
    """
    row = await connection.fetchrow(REVOKE, key)
    if row is None:
        raise NotFound(f"there is no key {key!r}")
    return _key(row)


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
        self._used: set[str] = set()
        self._used_written_at = 0.0

    async def authenticate(self, text: str) -> Caller:
        """Return the caller that a key identifies.

        Raises:
            Unauthenticated: the text is not a key, or the key is unknown, expired or revoked.
            OSError, asyncpg.PostgresError and others: the keys cannot be loaded.
        """
        match = _KEY_PATTERN.fullmatch(text)
        if match is None or _checksum(text[:-CHECKSUM_CHARACTERS]) != match[3]:
            raise Unauthenticated("this is not a key: keys start with lgr_; it may be mistyped or truncated")
        key_id, secret, _ = match.groups()
        await self._refresh(REFRESH_SECONDS)
        if key_id not in self._active:
            await self._refresh(UNKNOWN_KEY_REFRESH_SECONDS)
        return self._check(key_id, secret)

    def find_cached(self, text: str) -> Caller | None:
        """Return the caller that a key identifies if the cache suffices; None: call `authenticate`."""
        match = _KEY_PATTERN.fullmatch(text)
        if match is None or time.monotonic() - self._loaded_at >= REFRESH_SECONDS:
            return None
        try:
            return self._check(match[1], match[2])
        except Unauthenticated:
            return None

    def _check(self, key_id: str, secret: str) -> Caller:
        active = self._active.get(key_id)
        hashed = sha256(secret.encode()).digest()
        if active is None or not hmac.compare_digest(active.secret_sha256, hashed):
            raise Unauthenticated("this key is unknown or was revoked")
        if active.expires_at is not None and active.expires_at <= datetime.now(UTC):
            raise Unauthenticated("this key has expired")
        self._used.add(key_id)
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
