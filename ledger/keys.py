"""API keys: made, listed, revoked, and recognised.

A key reads `lgr_<id>_<secret><checksum>`: the id finds it, the secret (32 characters of 62, 190 bits) proves it, the
checksum tells a mistyped key apart without asking anybody. Only the SHA-256 of the secret is kept: a secret of so many
bits needs no slow hash.
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
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import msgspec

from ledger.database import Connection, Database
from ledger.domain.access import Caller, Role
from ledger.domain.errors import LedgerError, NotFound, Unauthenticated

if TYPE_CHECKING:
    Connection = Connection

logger = logging.getLogger(__name__)

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_CHARACTERS = 12
SECRET_CHARACTERS = 32
CHECKSUM_CHARACTERS = 6

REFRESH_SECONDS = 3.0
"""Keys are read anew so often while there are requests: a revocation works everywhere within five seconds."""

UNKNOWN_SECONDS = 0.5
"""A key that is not known may just have been made: then they are read anew, but no more often than this."""

USED_SECONDS = 60.0
"""`last_used_at` is written so often at most."""

COLUMNS = "id, name, role, campaign_ids, created_at, expires_at, revoked_at, last_used_at"

INSERT = f"""
INSERT INTO ledger.api_keys (id, name, role, secret_sha256, campaign_ids, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, clock_timestamp(), $6) RETURNING {COLUMNS}
"""  # noqa: S608 (fixed columns)

LIST = f"SELECT {COLUMNS} FROM ledger.api_keys ORDER BY created_at, id"  # noqa: S608

REVOKE = f"""
UPDATE ledger.api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE id = $1 OR name = $1 RETURNING {COLUMNS}
"""  # noqa: S608

ACTIVE = """
SELECT id, name, role, secret_sha256, campaign_ids, expires_at FROM ledger.api_keys WHERE revoked_at IS NULL
"""

USED = """
UPDATE ledger.api_keys SET last_used_at = clock_timestamp() WHERE id = ANY ($1)
"""

_FORM = re.compile(
    f"lgr_([0-9A-Za-z]{{{ID_CHARACTERS}}})_([0-9A-Za-z]{{{SECRET_CHARACTERS}}})([0-9A-Za-z]{{{CHECKSUM_CHARACTERS}}})"
)


class NameTaken(LedgerError):
    """There is a key of this name."""

    slug = "name-taken"


class Key(msgspec.Struct, frozen=True):
    """A key as it is listed: everything but the secret. `campaign_ids` null: not confined."""

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
    """Make a key.

    Args:
        name: the actor of what is appended with it; unique, 1 to 100 printable characters.
        campaign_ids: what it is confined to; None: nothing.

    Returns:
        the key, and its text: shown once, kept nowhere.

    Raises:
        NameTaken: also by a key that was revoked, since events carry the name.
    """
    key_id, secret = _random(ID_CHARACTERS), _random(SECRET_CHARACTERS)
    text = f"lgr_{key_id}_{secret}"
    hashed = sha256(secret.encode()).digest()
    try:
        row = await connection.fetchrow(INSERT, key_id, name, role.value, hashed, campaign_ids, expires_at)
    except asyncpg.UniqueViolationError:
        raise NameTaken(f"there is a key called {name!r}; names are never used again") from None
    assert row is not None
    return _key(row), text + _checksum(text)


async def list_keys(connection: Connection) -> list[Key]:
    """Every key, the oldest first."""
    return [_key(row) for row in await connection.fetch(LIST)]


async def revoke_key(connection: Connection, key: str) -> Key:
    """Revoke a key by its id or its name; once revoked it stays so.

    Raises:
        NotFound: there is none.
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
    """The keys that are good now, as one process knows them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._active: dict[str, _Active] = {}
        self._read_at = -REFRESH_SECONDS
        self._reading: asyncio.Task[None] | None = None
        self._used: set[str] = set()
        self._used_at = 0.0

    async def find(self, text: str) -> Caller:
        """Who a key belongs to.

        Raises:
            Unauthenticated: it is no key, is not known, has expired or was revoked.
            OSError, asyncpg.PostgresError and others: the keys cannot be read.
        """
        found = _FORM.fullmatch(text)
        if found is None or _checksum(text[:-CHECKSUM_CHARACTERS]) != found[3]:
            raise Unauthenticated("this is not a key: it reads lgr_..., and is mistyped or cut off")
        key_id, secret, _ = found.groups()
        await self._refresh(REFRESH_SECONDS)
        if key_id not in self._active:
            await self._refresh(UNKNOWN_SECONDS)
        active = self._active.get(key_id)
        hashed = sha256(secret.encode()).digest()
        if active is None or not hmac.compare_digest(active.secret_sha256, hashed):
            raise Unauthenticated("this key is not known, or was revoked")
        if active.expires_at is not None and active.expires_at <= datetime.now(UTC):
            raise Unauthenticated("this key has expired")
        self._used.add(key_id)
        return active.caller

    async def _refresh(self, seconds: float) -> None:
        """Read the keys unless that was done so lately. All who wait share one reading, and how it ends."""
        if time.monotonic() - self._read_at < seconds:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        # Who gives up waiting must not end it for the others.
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        async with self._database.connection() as connection:
            rows = await connection.fetch(ACTIVE)
            await self._note_use(connection)
        self._active = {
            row["id"]: _Active(
                Caller(row["name"], Role(row["role"]), _confined(row["campaign_ids"])),
                row["secret_sha256"],
                row["expires_at"],
            )
            for row in rows
        }
        self._read_at = time.monotonic()

    async def _note_use(self, connection: Connection) -> None:
        if self._used and time.monotonic() - self._used_at > USED_SECONDS:
            used, self._used = self._used, set()
            self._used_at = time.monotonic()
            await connection.execute(USED, list(used))


def _confined(campaign_ids: list[UUID] | None) -> frozenset[UUID] | None:
    return frozenset(campaign_ids) if campaign_ids is not None else None
