"""API keys, for admins."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from ledger import keys
from ledger.api.routes import Route, json_response
from ledger.api.services import Services
from ledger.api.views import Time
from ledger.domain.access import Role
from ledger.domain.codec import Instant, time_text
from ledger.domain.errors import Malformed

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """`campaign_ids`: what the key is confined to; absent or null: nothing."""

    name: Name
    role: Role
    campaign_ids: Annotated[list[UUID], msgspec.Meta(min_length=1, max_length=1000)] | None = None
    expires_at: Instant | None = None


class KeyView(msgspec.Struct, kw_only=True):
    """A key, without its secret."""

    id: str
    name: str
    role: Role
    campaign_ids: list[UUID] | None
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None


class CreatedKey(KeyView, kw_only=True):
    """A key that was just made: `key` is shown this once."""

    key: str


class KeyList(msgspec.Struct):
    """Every key, the oldest first."""

    items: list[KeyView]


def _shown(key: keys.Key) -> dict[str, object]:
    return {
        name: time_text(value) if isinstance(value, datetime) else value
        for name, value in msgspec.structs.asdict(key).items()
    }


async def list_keys(request: web.Request, services: Services) -> web.StreamResponse:
    """Every key."""
    async with services.database.connection() as connection:
        found = await keys.list_keys(connection)
    return json_response({"items": [_shown(key) for key in found]})


async def create_key(request: web.Request, services: Services) -> web.StreamResponse:
    """Make a key."""
    try:
        async with services.request_bodies.read(request) as body:
            wanted = msgspec.json.decode(body, type=NewKey)
        if not wanted.name.isprintable():
            raise msgspec.ValidationError("name must be printable")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the key cannot be read: {error}") from None
    async with services.database.connection() as connection:
        key, text = await keys.create_key(
            connection, wanted.name, wanted.role, campaign_ids=wanted.campaign_ids, expires_at=wanted.expires_at
        )
    return json_response({**_shown(key), "key": text}, status=201)


async def revoke_key(request: web.Request, services: Services) -> web.StreamResponse:
    """Revoke a key; within five seconds it is refused everywhere."""
    async with services.database.connection() as connection:
        key = await keys.revoke_key(connection, request.match_info["key"])
    return json_response(_shown(key))


ROUTES = [
    Route(
        "GET",
        "/v1/keys",
        list_keys,
        "List the keys.",
        {200: KeyList},
        problems=("database-unavailable",),
        needs="admin",
    ),
    Route(
        "POST",
        "/v1/keys",
        create_key,
        "Make a key; its text is shown this once.",
        {201: CreatedKey},
        body=NewKey,
        problems=("malformed", "name-taken", "too-large", "unsupported-media-type", "database-unavailable"),
        needs="admin",
    ),
    Route(
        "DELETE",
        "/v1/keys/{key}",
        revoke_key,
        "Revoke a key by its id or name.",
        {200: KeyView},
        problems=("not-found", "database-unavailable"),
        needs="admin",
    ),
]
