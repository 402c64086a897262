"""API keys over HTTP: GET, POST and DELETE /v1/keys, for admins."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from ledger import keys
from ledger.api.auth import CALLER
from ledger.api.routes import Route, json_response
from ledger.api.services import Services
from ledger.api.views import Time
from ledger.domain.access import Role
from ledger.domain.codec import time_text
from ledger.domain.errors import Forbidden, Malformed
from ledger.domain.fields import Instant
from ledger.key_ring import KeyRing
from ledger.log import key_events
from ledger.log.json_faults import faulty_texts, repeats_member

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=keys.NAME_CHARACTERS_MAX)]


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """An API key to create."""

    name: Name
    role: Role
    campaign_ids: Annotated[list[UUID], msgspec.Meta(min_length=1, max_length=1000)] | None = None
    expires_at: Instant | None = None


class KeyView(msgspec.Struct, kw_only=True):
    """An API key, without its secret."""

    id: str
    name: str
    role: Role
    campaign_ids: list[UUID] | None
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None


class CreatedKey(KeyView, kw_only=True):
    """A new API key, with its secret."""

    key: str


class KeyList(msgspec.Struct):
    """Every API key, oldest first."""

    items: list[KeyView]


def _view(key: keys.Key) -> dict[str, object]:
    return {
        name: time_text(value) if isinstance(value, datetime) else value
        for name, value in msgspec.structs.asdict(key).items()
    }


def _key_ring(services: Services) -> KeyRing:
    """Return the key ring; raise `Forbidden` if the service accepts requests without keys."""
    if services.keys is None:
        raise Forbidden("this service accepts requests without keys (--no-auth): use `ledger keys` instead")
    return services.keys


async def list_keys(request: web.Request, services: Services) -> web.StreamResponse:
    """Return every key."""
    _key_ring(services)
    async with services.database.connection() as connection:
        every_key = await keys.list_keys(connection)
    return json_response({"items": [_view(key) for key in every_key]})


async def create_key(request: web.Request, services: Services) -> web.StreamResponse:
    """Create a key, which this process accepts at once."""
    key_ring = _key_ring(services)
    try:
        async with services.request_bodies.read(request, request[CALLER].name) as body:
            new = msgspec.json.decode(body, type=NewKey)
            if repeats_member(body, msgspec.json.decode(body)):
                raise Malformed(
                    f"the request body is not a valid key: {'; '.join(map(': '.join, faulty_texts(body.decode())))}"
                )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the request body is not a valid key: {error}") from None
    async with services.database.connection() as connection:
        key, secret = await key_events.create_key(
            connection,
            new.name,
            new.role,
            actor=request[CALLER].name,
            campaign_ids=new.campaign_ids,
            expires_at=new.expires_at,
        )
    key_ring.add(key, secret)
    return json_response({**_view(key), "key": secret}, status=201)


async def revoke_key(request: web.Request, services: Services) -> web.StreamResponse:
    """Revoke a key: this process refuses it at once, the others within 5 s."""
    key_ring = _key_ring(services)
    async with services.database.connection() as connection:
        key = await key_events.revoke_key(connection, request.match_info["key_id"], actor=request[CALLER].name)
    key_ring.remove(key.id)
    return json_response(_view(key))


ROUTES = [
    Route(
        "GET",
        "/v1/keys",
        list_keys,
        "List the API keys.",
        {200: KeyList},
        problems=("database-unavailable",),
        needs="admin",
    ),
    Route(
        "POST",
        "/v1/keys",
        create_key,
        "Create an API key.",
        {201: CreatedKey},
        body=NewKey,
        problems=("malformed", "name-taken", "too-large", "unsupported-media-type", "database-unavailable"),
        needs="admin",
        description="The key is in this response only. `campaign_ids` restricts it to these campaigns. "
        "Spaces around the name are removed. Names that differ only in case, width or compatibility forms count as the "
        "same; `ledger`, `local` and names that begin with `cli:` are reserved.",
    ),
    Route(
        "DELETE",
        "/v1/keys/{key_id}",
        revoke_key,
        "Revoke an API key.",
        {200: KeyView},
        problems=("not-found", "database-unavailable"),
        needs="admin",
        description="Within 5 s it is refused everywhere, and its event streams end.",
    ),
]
