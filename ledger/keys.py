"""API keys: create, list, find, revoke; the parts of a key; allowed names and expiry times.

A key is `lgr_<id>_<secret><checksum>`. The id finds it, the secret (32 characters of 62, 190 bits) authenticates it,
and the checksum detects a mistyped key without a query. Only the SHA-256 of the secret is stored: a secret of 190
random bits needs no slow hash. Authentication: `key_ring.py`.
"""

import re
import secrets
import string
import zlib
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple
from unicodedata import normalize
from uuid import UUID

import asyncpg
import msgspec

from ledger.database import Connection
from ledger.domain.access import Role
from ledger.domain.codec import InvalidFieldError, time_text, utc
from ledger.domain.errors import LedgerError, Malformed, NotFound

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_CHARACTERS = 12
SECRET_CHARACTERS = 32
CHECKSUM_CHARACTERS = 6

NAME_CHARACTERS_MAX = 100

RESERVED_NAMES = ("ledger", "local")
RESERVED_PREFIX = "cli:"
"""The actors of events that are appended without a key."""

# Earlier releases stored the last and the first instant of the calendar, which PostgreSQL holds as infinities.
EXPIRES_AT = """
CASE expires_at WHEN 'infinity' THEN NULL WHEN '-infinity' THEN created_at ELSE expires_at END AS expires_at
"""

KEY_COLUMNS = f"id, name, role, campaign_ids, created_at, {EXPIRES_AT}, revoked_at, last_used_at"

# An advisory lock: "ledger" in ASCII, and 3 for the names of keys.
LOCK_NAMES = "SELECT pg_advisory_xact_lock(x'6c65646765720003'::bigint)"

NAMES = "SELECT name FROM ledger.api_keys"

INSERT = f"""
INSERT INTO ledger.api_keys (id, name, role, secret_sha256, campaign_ids, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, clock_timestamp(), $6) RETURNING {KEY_COLUMNS}
"""  # noqa: S608 (constant columns)

LIST = f"SELECT {KEY_COLUMNS} FROM ledger.api_keys ORDER BY created_at, id"  # noqa: S608

FIND = "SELECT id FROM ledger.api_keys WHERE id = $1 OR name = $1 ORDER BY id = $1 DESC LIMIT 1"

REVOKE = f"""
UPDATE ledger.api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE id = $1 RETURNING {KEY_COLUMNS}
"""  # noqa: S608

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


class KeyText(NamedTuple):
    """The parts of a key as clients send it."""

    id: str
    secret: str
    checksum: str

    @property
    def is_mistyped(self) -> bool:
        """Whether the checksum does not match."""
        return self.checksum != _checksum(f"lgr_{self.id}_{self.secret}")

    @property
    def secret_sha256(self) -> bytes:
        """The hash of the secret, as it is stored."""
        return sha256(self.secret.encode()).digest()


def parse_key(text: str) -> KeyText | None:
    """Return the parts of a key; None if the text does not have the form of one."""
    match = _KEY_PATTERN.fullmatch(text)
    return KeyText(*match.groups()) if match is not None else None


def checked_name(name: str) -> str:
    """Return the name of a new key without the spaces around it.

    Raises:
        Malformed: it is empty, too long, not printable, or reserved.
    """
    name = name.strip()
    if not (1 <= len(name) <= NAME_CHARACTERS_MAX and name.isprintable()):
        raise Malformed(f"the name of a key must have 1 to {NAME_CHARACTERS_MAX} printable characters")
    if _folded(name) in RESERVED_NAMES or _folded(name).startswith(RESERVED_PREFIX):
        raise Malformed(f"the name {name!r} is reserved for events that are appended without a key; choose another")
    return name


def checked_expiry(expires_at: datetime) -> datetime:
    """Return the expiry time of a new key in UTC.

    Raises:
        Malformed: it is in the past, or outside the calendar.
    """
    try:
        expires_at = utc("expires_at", expires_at)
    except InvalidFieldError as error:
        raise Malformed(f"expires_at {error}") from None
    if expires_at <= datetime.now(UTC):
        raise Malformed(f"expires_at {time_text(expires_at)} is in the past")
    return expires_at


def _folded(name: str) -> str:
    """Return a form that is equal for names that differ only in width, case or compatibility forms."""
    return normalize("NFKC", normalize("NFKC", name).casefold())


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
        Malformed: the name or the expiry time is not allowed.
        NameTaken: a key has this name, or one that looks like it, even if it was revoked: events refer to it.
    """
    name = checked_name(name)
    expires_at = checked_expiry(expires_at) if expires_at is not None else None
    key_id, secret = _random(ID_CHARACTERS), _random(SECRET_CHARACTERS)
    text = f"lgr_{key_id}_{secret}"
    hashed = sha256(secret.encode()).digest()
    async with connection.transaction():
        await _require_new_name(connection, name)
        row = await connection.fetchrow(INSERT, key_id, name, role.value, hashed, campaign_ids, expires_at)
    assert row is not None
    return _key(row), text + _checksum(text)


async def _require_new_name(connection: Connection, name: str) -> None:
    """Refuse a name that is taken; until the transaction ends, no other process creates a key."""
    await connection.execute(LOCK_NAMES)
    for (taken,) in await connection.fetch(NAMES):
        if _folded(taken) == _folded(name):
            raise NameTaken(f"a key named {taken!r} exists or existed; choose another name, since events refer to it")


async def list_keys(connection: Connection) -> list[Key]:
    """Return all keys, the oldest first."""
    return [_key(row) for row in await connection.fetch(LIST)]


async def find_key(connection: Connection, id_or_name: str) -> str:
    """Return the id of the key with this id, or else with this name.

    Raises:
        NotFound: there is no such key.
    """
    key_id = await connection.fetchval(FIND, id_or_name)
    if key_id is None:
        raise NotFound(f"there is no key {id_or_name!r}")
    return str(key_id)


async def revoke_key(connection: Connection, key_id: str) -> Key:
    """Revoke a key by its id, permanently.

    Raises:
        NotFound: there is no such key.
    """
    row = await connection.fetchrow(REVOKE, key_id)
    if row is None:
        raise NotFound(f"there is no key with the id {key_id!r}")
    return _key(row)
